#include "scwarp/io/zarr.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "io/anndata_codec.hpp"
#include "io/hdf5.hpp"
#include "io/zarr_store.hpp"
#include "io/zarr_write.hpp"

namespace scw::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRead = "read_zarr";
constexpr const char* kWrite = "write_zarr";

std::shared_ptr<const Store> open_zarr(const char* op, const std::string& path) {
  return zarr::ZarrStore::open(op, path, zarr::open_folder(op, path));
}

/// A folder that is removed unless it was moved to its place.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path& target) {
    static std::atomic<int> counter{0};
    path_ = target.parent_path() /
            fmt::format(".{}.{}-{}.tmp", target.filename().string(), static_cast<long>(::getpid()), counter++);
    std::error_code ec;
    SCW_EXPECT_AS(IoError, fs::create_directory(path_, ec) && !ec, kWrite, "cannot make the folder '{}' ({})",
                  path_.string(), ec.message());
  }
  ~TemporaryFolder() {
    std::error_code ec;
    if (!path_.empty()) fs::remove_all(path_, ec);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }
  void moved() { path_.clear(); }

 private:
  fs::path path_;
};

void expect_io(bool ok, const char* what, const fs::path& path) {
  const int reason = errno;
  SCW_EXPECT_AS(IoError, ok, kWrite, "cannot {} '{}' ({})", what, path.string(), std::strerror(reason));
}

/// Everything on the file system of `folder` is on disk: one call for the thousands of files of a store.
void flush(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool ok = fd >= 0 && ::syncfs(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  errno = reason;
  expect_io(ok, "flush to disk", folder);
}

/// Puts the new folder where the old one is, and the old one where the new one was.
void exchange(const fs::path& fresh, const fs::path& target) {
  if (::syscall(SYS_renameat2, AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  // A file system that cannot exchange two names: the old store steps aside for a moment.
  fs::path aside = fresh;
  aside += ".old";
  expect_io(::rename(target.c_str(), aside.c_str()) == 0, "move aside", target);
  if (::rename(fresh.c_str(), target.c_str()) != 0) {
    const int reason = errno;
    static_cast<void>(::rename(aside.c_str(), target.c_str()));
    errno = reason;
    expect_io(false, "replace", target);
  }
  expect_io(::rename(aside.c_str(), fresh.c_str()) == 0, "move aside", aside);
}

}  // namespace

AnnData read_zarr(const Context& ctx, const std::string& path, const ReadZarrOptions& options) {
  return read_anndata(ctx, open_zarr(kRead, path), options);
}

AnnData read_zarr(const Context& ctx, ZarrFiles files, const std::string& name, const ReadZarrOptions& options) {
  return read_anndata(ctx, zarr::ZarrStore::open(kRead, name, zarr::open_files(std::move(files))), options);
}

MatrixElement read_zarr_matrix(const Context& ctx, const std::string& path, const std::string& element,
                               const ReadZarrOptions& options) {
  return read_anndata_matrix(ctx, open_zarr(kRead, path), element, options);
}

std::shared_ptr<const Store> open_store(const char* op, const std::string& path) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) return open_zarr(op, path);
  return Source::open(op, path);
}

bool is_zarr(const std::string& path) {
  std::error_code ec;
  for (const char* name : {"zarr.json", ".zgroup", ".zarray"})
    if (std::filesystem::is_regular_file(std::filesystem::path(path) / name, ec)) return true;
  return false;
}

void write_zarr(const Context& ctx, const AnnData& data, const std::string& path, const WriteZarrOptions& options) {
  SCW_EXPECT(options.format == 2 || options.format == 3, kWrite, "format must be 2 or 3 (got {})", options.format);
  const int most = options.codec == ZarrCodec::zstd ? 22 : 9, least = options.codec == ZarrCodec::gzip ? 1 : 0;
  SCW_EXPECT(options.level == -1 || (options.level >= least && options.level <= most), kWrite,
             "level must be {} to {} (got {})", least, most, options.level);
  SCW_EXPECT(!options.shards || options.format == 3, kWrite, "shards need version 3 of the format");
  data.validate();
  std::error_code none;
  fs::path target = path;
  while (!target.has_filename() && target.has_parent_path() && target != target.root_path())
    target = target.parent_path();
  // A link stays a link: what it points to is replaced.
  if (fs::is_symlink(target, none)) target = fs::canonical(target, none);
  SCW_EXPECT_AS(IoError, target.has_filename(), kWrite, "'{}' is not the name of a folder", path);
  const bool exists = fs::exists(target, none);
  SCW_EXPECT_AS(IoError, !exists || (fs::is_directory(target, none) && (is_zarr(target) || fs::is_empty(target, none))),
                kWrite, "'{}' exists and is not a Zarr store", path);
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  SCW_EXPECT_AS(IoError, fs::is_directory(folder, none), kWrite, "'{}' is not a folder", folder.string());

  TemporaryFolder temporary(folder / target.filename());
  zarr::ZarrWriter out(ctx, kWrite, path, temporary.path(), options);
  write_anndata(out, data);
  out.consolidate();
  struct stat old {};
  if (exists && ::stat(target.c_str(), &old) == 0) ::chmod(temporary.path().c_str(), old.st_mode & 07777);
  flush(temporary.path());
  if (exists) {
    exchange(temporary.path(), target);
  } else {
    expect_io(::rename(temporary.path().c_str(), target.c_str()) == 0, "make", target);
    temporary.moved();
  }
  flush(folder);
}

}  // namespace scw::io
