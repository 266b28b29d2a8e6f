#include "io/zarr_tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "core/check.hpp"
#include "io/positioned.hpp"

namespace scw::io::zarr {

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

bool is_before(const timespec& a, const timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec <= b.tv_nsec;
}

class Folder final : public Tree {
 public:
  Folder(const char* op, std::string path)
      : op_(op), path_(std::move(path)), root_(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    SCW_EXPECT_AS(IoError, root_.get() >= 0 && ::fstat(root_.get(), &stat_) == 0, op_,
                  "cannot open the folder '{}' ({})", path_, std::strerror(errno));
    ::clock_gettime(CLOCK_REALTIME, &opened_);
  }

  std::vector<Entry> list(const std::string& folder) const override {
    std::vector<Entry> out;
    const int fd = open(folder, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return out;
    DIR* const dir = ::fdopendir(fd);
    if (dir == nullptr) {
      ::close(fd);
      return out;
    }
    while (const dirent* e = ::readdir(dir)) {
      if (!is_plain_name(e->d_name)) continue;
      auto type = e->d_type;
      if (type == DT_UNKNOWN) {
        struct stat s {};
        if (::fstatat(fd, e->d_name, &s, AT_SYMLINK_NOFOLLOW) != 0) continue;
        type = S_ISDIR(s.st_mode) ? DT_DIR : S_ISLNK(s.st_mode) ? DT_LNK : S_ISREG(s.st_mode) ? DT_REG : DT_FIFO;
      }
      if (type == DT_DIR || type == DT_REG || type == DT_LNK)
        out.push_back({e->d_name, type == DT_DIR, type == DT_LNK});
    }
    ::closedir(dir);
    std::sort(out.begin(), out.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    return out;
  }
  std::optional<std::int64_t> size(const std::string& key) const override {
    struct stat s {};
    if (!status(key, s)) return std::nullopt;
    return s.st_size;
  }
  bool read(const std::string& key, std::int64_t offset, std::int64_t n, std::byte* out) const override {
    const Descriptor fd(open(key, O_RDONLY | O_NONBLOCK));
    struct stat s {};
    if (fd.get() < 0 || ::fstat(fd.get(), &s) != 0 || !S_ISREG(s.st_mode)) return false;
    return offset >= 0 && n >= 0 && offset <= s.st_size - n && read_fully(fd.get(), out, n, offset) == n;
  }
  bool read(const std::string& key, std::vector<std::byte>& out) const override {
    return read_whole(key, out, INT64_MAX);
  }
  bool read(const std::string& key, Buffer& out, std::int64_t most) const override {
    return read_whole(key, out, most);
  }
  void will_read(const std::string& key, std::int64_t offset, std::int64_t n) const override {
    const Descriptor fd(open(key, O_RDONLY | O_NONBLOCK));
    struct stat s {};
    if (fd.get() >= 0 && ::fstat(fd.get(), &s) == 0 && S_ISREG(s.st_mode))
      static_cast<void>(::posix_fadvise(fd.get(), offset, n < 0 ? s.st_size : n, POSIX_FADV_WILLNEED));
  }
  bool is_old(const std::string& key) const override {
    struct stat s {};
    return status(key, s) && is_before(s.st_mtim, opened_);
  }
  std::uint64_t stamp(const std::string& folder) const override {
    const Descriptor fd(open(folder, O_PATH | O_DIRECTORY));
    struct stat s {};
    if (fd.get() < 0 || ::fstat(fd.get(), &s) != 0) return 0;
    constexpr std::uint64_t kMix = 0x9E3779B97F4A7C15;
    return (static_cast<std::uint64_t>(s.st_mtim.tv_sec) * 1'000'000'000 +
            static_cast<std::uint64_t>(s.st_mtim.tv_nsec)) *
               kMix +
           s.st_ino;
  }
  bool is_unchanged() const override {
    struct stat now {};
    return ::stat(path_.c_str(), &now) == 0 && now.st_ino == stat_.st_ino && now.st_dev == stat_.st_dev &&
           now.st_mtim.tv_sec == stat_.st_mtim.tv_sec && now.st_mtim.tv_nsec == stat_.st_mtim.tv_nsec;
  }

 private:
  template <class Bytes>
  bool read_whole(const std::string& key, Bytes& out, std::int64_t most) const {
    const Descriptor fd(open(key, O_RDONLY | O_NONBLOCK));
    if (fd.get() < 0) {
      SCW_EXPECT_AS(IoError, errno == ENOENT || errno == ENOTDIR, op_, "'{}': cannot open '{}' ({})", path_, key,
                    std::strerror(errno));
      return false;
    }
    struct stat s {};
    SCW_EXPECT_AS(IoError, ::fstat(fd.get(), &s) == 0 && S_ISREG(s.st_mode), op_, "'{}': '{}' is not a regular file",
                  path_, key);
    SCW_EXPECT_AS(FormatError, s.st_size <= most, op_, "'{}': '{}' has {} bytes (expected at most {})", path_, key,
                  static_cast<std::int64_t>(s.st_size), most);
    out.resize(static_cast<std::size_t>(s.st_size));
    const std::int64_t got = read_fully(fd.get(), out.data(), s.st_size, 0);
    SCW_EXPECT_AS(IoError, got == s.st_size, op_, "'{}': cannot read '{}' ({})", path_, key,
                  got < 0 ? std::strerror(errno) : "it has shrunk while it was read");
    return true;
  }
  /// Opens what is inside the folder, without following any link.
  int open(const std::string& key, int flags) const {
    const char* const name = key.empty() ? "." : key.c_str();
    open_how how{};
    how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    const auto fd = ::syscall(SYS_openat2, root_.get(), name, &how, sizeof how);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(fd);
    // An older kernel: one part of the path after another.
    int at = ::dup(root_.get());
    for (std::size_t begin = 0; at >= 0 && begin <= key.size() && !key.empty();) {
      const auto slash = std::min(key.find('/', begin), key.size());
      const bool last = slash == key.size();
      const int next = ::openat(at, key.substr(begin, slash - begin).c_str(),
                                (last ? flags : O_RDONLY | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC);
      const int reason = errno;
      ::close(at);
      errno = reason;
      at = next;
      begin = slash + 1;
    }
    return at;
  }
  bool status(const std::string& key, struct stat& s) const {
    const Descriptor fd(open(key, O_PATH));
    return fd.get() >= 0 && ::fstat(fd.get(), &s) == 0 && S_ISREG(s.st_mode);
  }

  const char* op_;
  std::string path_;
  Descriptor root_;
  struct stat stat_ {};
  timespec opened_{};
};

class Files final : public Tree {
 public:
  explicit Files(ZarrFiles files) : files_(std::move(files)) {}
  std::vector<Entry> list(const std::string& folder) const override {
    std::vector<Entry> out;
    const std::string prefix = folder.empty() ? "" : folder + "/";
    for (auto it = files_.lower_bound(prefix); it != files_.end() && it->first.starts_with(prefix); ++it) {
      const std::string_view rest = std::string_view(it->first).substr(prefix.size());
      const auto slash = rest.find('/');
      const std::string_view name = rest.substr(0, slash);
      if (!is_plain_name(name) || (!out.empty() && out.back().name == name)) continue;
      out.push_back({std::string(name), slash != std::string_view::npos, false});
    }
    std::sort(out.begin(), out.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    return out;
  }
  std::optional<std::int64_t> size(const std::string& key) const override {
    const auto it = files_.find(key);
    if (it == files_.end()) return std::nullopt;
    return static_cast<std::int64_t>(it->second.size());
  }
  bool read(const std::string& key, std::int64_t offset, std::int64_t n, std::byte* out) const override {
    const auto it = files_.find(key);
    if (it == files_.end() || offset < 0 || n < 0 || offset > static_cast<std::int64_t>(it->second.size()) - n)
      return false;
    std::copy_n(it->second.begin() + offset, n, out);
    return true;
  }
  bool read(const std::string& key, std::vector<std::byte>& out) const override {
    const auto it = files_.find(key);
    if (it == files_.end()) return false;
    out = it->second;
    return true;
  }
  bool read(const std::string& key, Buffer& out, std::int64_t most) const override {
    const auto it = files_.find(key);
    if (it == files_.end()) return false;
    SCW_EXPECT_AS(FormatError, static_cast<std::int64_t>(it->second.size()) <= most, "read_zarr",
                  "'{}' has {} bytes (expected at most {})", key, it->second.size(), most);
    out.assign(it->second.begin(), it->second.end());
    return true;
  }
  void will_read(const std::string&, std::int64_t, std::int64_t) const override {}
  bool is_old(const std::string&) const override { return true; }
  bool is_unchanged() const override { return true; }
  std::uint64_t stamp(const std::string&) const override { return 0; }

 private:
  ZarrFiles files_;
};

}  // namespace

std::unique_ptr<Tree> open_folder(const char* op, const std::string& path) {
  return std::make_unique<Folder>(op, path);
}
std::unique_ptr<Tree> open_files(ZarrFiles files) { return std::make_unique<Files>(std::move(files)); }

}  // namespace scw::io::zarr
