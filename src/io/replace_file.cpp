#include "io/replace_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "core/check.hpp"
#include "scwarp/core/error.hpp"

namespace scw::io {
namespace fs = std::filesystem;
namespace {

bool is_digits(std::string_view s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// ".target.PID-N.tmp"
bool is_temporary_of(std::string_view target, std::string_view name) {
  if (name.size() < target.size() + 8 || name[0] != '.' || name.substr(1, target.size()) != target) return false;
  name.remove_prefix(target.size() + 1);
  if (name[0] != '.' || !name.ends_with(".tmp")) return false;
  name = name.substr(1, name.size() - 5);
  const auto dash = name.find('-');
  return dash != std::string_view::npos && is_digits(name.substr(0, dash)) && is_digits(name.substr(dash + 1));
}

/// A name was put into `folder`: that is on disk too.
void flush_entries(const char* op, const fs::path& folder, const std::string& shown) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool flushed = fd >= 0 && ::fsync(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  // Some file systems cannot flush folders.
  SCW_EXPECT_AS(IoError, flushed || reason == EINVAL || reason == EACCES, op,
                "the folder of '{}' cannot be flushed to disk ({})", shown, std::strerror(reason));
}

/// Where a new file or folder of this name comes to be: links are followed, also one to what is not there yet.
fs::path follow_links(const char* op, const std::string& shown, fs::path path) {
  std::error_code none;
  if (auto real = fs::canonical(path, none); !real.empty()) return real;
  constexpr int kMostLinks = 40;  // as Linux
  for (int n = 0; fs::is_symlink(path, none); ++n) {
    SCW_EXPECT_AS(IoError, n < kMostLinks, op, "'{}' cannot be written (its links lead in a circle)", shown);
    auto to = fs::read_symlink(path, none);
    path = to.is_absolute() ? std::move(to) : path.parent_path() / to;
    while (!path.has_filename() && path.has_parent_path() && path != path.root_path()) path = path.parent_path();
  }
  return path;
}

bool is_same_file(int fd, const fs::path& path) {
  struct stat a {
  }, b{};
  return ::fstat(fd, &a) == 0 && ::stat(path.c_str(), &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

}  // namespace

fs::path temporary_name(const fs::path& target) {
  static std::atomic<int> counter{0};
  return target.parent_path() /
         fmt::format(".{}.{}-{}.tmp", target.filename().string(), static_cast<long>(::getpid()), counter++);
}

void remove_abandoned(const fs::path& target) noexcept try {
  const auto folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const auto name = entry.path().filename().string();
    if (!is_temporary_of(target.filename().string(), name)) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    // Whoever still writes it holds the lock.
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) fs::remove_all(entry.path(), none);
    ::close(fd);
  }
} catch (...) {
}

ReplaceFile::ReplaceFile(const char* op, const std::string& path) : op_(op), shown_(path), target_(path) {
  std::error_code none;
  if (fs::is_symlink(target_, none)) target_ = follow_links(op, path, target_);
  const auto fits = [&](const fs::path& name) {
    struct stat s {};
    SCW_EXPECT_AS(IoError, ::lstat(name.c_str(), &s) == 0 || errno != ENAMETOOLONG, op_, "'{}' cannot be written ({})",
                  shown_, std::strerror(ENAMETOOLONG));
  };
  struct stat old {};
  if (::stat(target_.c_str(), &old) == 0) {
    SCW_EXPECT_AS(IoError, !S_ISDIR(old.st_mode), op_, "'{}' cannot be written (it is a folder)", shown_);
    SCW_EXPECT_AS(IoError, S_ISREG(old.st_mode), op_, "'{}' exists and is not a regular file", shown_);
    // Renaming needs no permission on the file itself, but who made it read-only meant it.
    SCW_EXPECT_AS(IoError, ::access(target_.c_str(), W_OK) == 0, op_, "'{}' cannot be replaced ({})", shown_,
                  std::strerror(errno));
    fits(temporary_name(target_));  // it goes by this name for a moment
  } else {
    fits(target_);
  }
  SCW_EXPECT_AS(IoError, target_.has_filename(), op_, "'{}' names no file", shown_);
  folder_ = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
  SCW_EXPECT_AS(IoError, fs::is_directory(folder_, none), op_, "'{}' cannot be written ('{}' is not a folder)", shown_,
                folder_.string());
  remove_abandoned(target_);
  if (!open_nameless()) open_named();
}

bool ReplaceFile::open_nameless() {
#ifdef O_TMPFILE
  fd_ = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
  if (fd_ < 0) return false;  // old kernels and some file systems; if it was something else, open_named will say
  path_ = fmt::format("/proc/self/fd/{}", fd_);
  if (is_same_file(fd_, path_)) {
    ::flock(fd_, LOCK_EX | LOCK_NB);  // for the moment in which it has a temporary name
    return true;
  }
  ::close(fd_);  // no /proc
  fd_ = -1;
#endif
  return false;
}

void ReplaceFile::open_named() {
  for (int attempt = 0;; ++attempt) {
    temporary_ = temporary_name(target_);
    fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    const int reason = errno;
    if (fd_ < 0 && reason == EEXIST && attempt < 100) continue;  // left by a process with our number
    if (fd_ < 0) temporary_.clear();
    SCW_EXPECT_AS(IoError, fd_ >= 0, op_, "'{}' cannot be written: no file can be made in '{}' ({})", shown_,
                  folder_.string(), std::strerror(reason));
    ::flock(fd_, LOCK_EX | LOCK_NB);
    // Another writer may have cleared it away before it was locked.
    if (is_same_file(fd_, temporary_)) break;
    ::close(fd_);
  }
  path_ = temporary_.string();
}

ReplaceFile::~ReplaceFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  if (fd_ >= 0) ::close(fd_);
}

bool ReplaceFile::link_to(const fs::path& name) const {
  return ::linkat(AT_FDCWD, path_.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
}

void ReplaceFile::commit() {
  struct stat old {};
  const bool exists = ::stat(target_.c_str(), &old) == 0;
  if (exists) ::fchmod(fd_, old.st_mode & 07777);
  SCW_EXPECT_AS(IoError, ::fsync(fd_) == 0, op_, "'{}' cannot be flushed to disk ({})", shown_, std::strerror(errno));
  bool done = false;
  if (temporary_.empty()) {
    // A name of its own straight away if there is nothing to replace, else by way of a temporary one.
    done = !exists && link_to(target_);
    if (!done) {
      const auto name = temporary_name(target_);
      SCW_EXPECT_AS(IoError, link_to(name), op_, "'{}' cannot be written: no file can be made in '{}' ({})", shown_,
                    folder_.string(), std::strerror(errno));
      temporary_ = name;
    }
  }
  if (!done)
    SCW_EXPECT_AS(IoError, ::rename(temporary_.c_str(), target_.c_str()) == 0, op_, "'{}' cannot be replaced ({})",
                  shown_, std::strerror(errno));
  temporary_.clear();
  flush_entries(op_, folder_, shown_);
}

// ------------------------------------------------------------------------------------------------------------ folders

ReplaceFolder::ReplaceFolder(const char* op, const std::string& path) : op_(op), shown_(path), target_(path) {
  std::error_code none;
  while (!target_.has_filename() && target_.has_parent_path() && target_ != target_.root_path())
    target_ = target_.parent_path();
  if (fs::is_symlink(target_, none)) target_ = follow_links(op, path, target_);
  SCW_EXPECT_AS(IoError, target_.has_filename(), op_, "'{}' is not the name of a folder", shown_);
  if (fs::exists(target_, none)) {
    SCW_EXPECT_AS(IoError, fs::is_directory(target_, none), op_, "'{}' exists and is not a folder", shown_);
    // Renaming needs no permission on the folder itself, but who made it read-only meant it.
    SCW_EXPECT_AS(IoError, ::access(target_.c_str(), W_OK) == 0, op_, "'{}' cannot be replaced ({})", shown_,
                  std::strerror(errno));
  }
  folder_ = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
  SCW_EXPECT_AS(IoError, fs::is_directory(folder_, none), op_, "'{}' cannot be written ('{}' is not a folder)", shown_,
                folder_.string());
  remove_abandoned(target_);
  for (int attempt = 0;; ++attempt) {
    temporary_ = temporary_name(target_);
    const bool made = ::mkdir(temporary_.c_str(), 0777) == 0;
    const int reason = errno;
    if (!made && reason == EEXIST && attempt < 100) continue;  // left by a process with our number
    if (!made) temporary_.clear();
    SCW_EXPECT_AS(IoError, made, op_, "'{}' cannot be written: no folder can be made in '{}' ({})", shown_,
                  folder_.string(), std::strerror(reason));
    fd_ = ::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd_ >= 0) ::flock(fd_, LOCK_EX | LOCK_NB);
    // Another writer may have cleared it away before it was locked.
    if (fd_ >= 0 && is_same_file(fd_, temporary_)) break;
    expect(attempt < 100, "open the new folder of");
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
}

ReplaceFolder::~ReplaceFolder() {
  std::error_code none;
  if (!temporary_.empty()) fs::remove_all(temporary_, none);
  if (fd_ >= 0) ::close(fd_);
}

void ReplaceFolder::expect(bool ok, const char* what) const {
  const int reason = errno;
  SCW_EXPECT_AS(IoError, ok, op_, "cannot {} '{}' ({})", what, shown_, std::strerror(reason));
}

void ReplaceFolder::exchange() {
  if (::syscall(SYS_renameat2, AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) return;
  fs::path aside = temporary_;
  aside += ".old";
  expect(::rename(target_.c_str(), aside.c_str()) == 0, "move aside");
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int reason = errno;
    static_cast<void>(::rename(aside.c_str(), target_.c_str()));
    errno = reason;
    expect(false, "replace");
  }
  static_cast<void>(::rename(aside.c_str(), temporary_.c_str()));
}

void ReplaceFolder::commit() {
  struct stat old {};
  const bool exists = ::stat(target_.c_str(), &old) == 0;
  if (exists) ::fchmod(fd_, old.st_mode & 07777);
  // All of the file system, in one call for the thousands of files of a store.
  expect(::syncfs(fd_) == 0, "flush to disk");
  // Whoever found it by its name may have taken it away.
  errno = ENOENT;
  expect(is_same_file(fd_, temporary_), "find the new folder of");
  if (exists) {
    exchange();
  } else {
    expect(::rename(temporary_.c_str(), target_.c_str()) == 0, "make");
    temporary_.clear();
  }
  flush_entries(op_, folder_, shown_);
}

}  // namespace scw::io
