#include "scwarp/io/h5ad.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/check.hpp"
#include "io/anndata_codec.hpp"
#include "io/hdf5_store.hpp"

namespace scw::io {
namespace {

constexpr const char* kRead = "read_h5ad";
constexpr const char* kWrite = "write_h5ad";

/// A file that is removed unless it was moved to its place.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target) {
    static std::atomic<int> counter{0};
    path_ = target.parent_path() /
            fmt::format(".{}.{}-{}.tmp", target.filename().string(), static_cast<long>(::getpid()), counter++);
  }
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::filesystem::path& path() const { return path_; }
  void moved() { path_.clear(); }

 private:
  std::filesystem::path path_;
};

std::int64_t widest_frame(const AnnData& a) {
  std::int64_t n = std::max(a.obs.n_cols(), a.var.n_cols());
  const auto look = [&](const AxisElements& all) {
    for (const auto& [name, e] : all)
      if (const auto* f = std::get_if<DataFrame>(&e)) n = std::max(n, f->n_cols());
  };
  look(a.obsm);
  look(a.varm);
  if (a.raw) {
    n = std::max(n, a.raw->var.n_cols());
    look(a.raw->varm);
  }
  return n;
}

void sync(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  const bool ok = fd >= 0 && ::fsync(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  SCW_EXPECT_AS(IoError, ok, kWrite, "cannot flush '{}' to disk ({})", path.string(), std::strerror(reason));
}

}  // namespace

AnnData read_h5ad(const Context& ctx, const std::string& path, const ReadH5adOptions& options) {
  return read_anndata(ctx, Source::open(kRead, path), options);
}

AnnData read_h5ad(const Context& ctx, Span<const std::byte> image, const std::string& name,
                  const ReadH5adOptions& options) {
  return read_anndata(ctx, Source::open_image(kRead, image, name), options);
}

MatrixElement read_h5ad_matrix(const Context& ctx, const std::string& path, const std::string& element,
                               const ReadH5adOptions& options) {
  return read_anndata_matrix(ctx, Source::open(kRead, path), element, options);
}

void write_h5ad(const Context& ctx, const AnnData& data, const std::string& path, const WriteH5adOptions& options) {
  SCW_EXPECT(options.compression_level >= 0 && options.compression_level <= 9, kWrite,
             "compression_level must be 0 to 9 (got {})", options.compression_level);
  data.validate();
  // A link stays a link: what it points to is replaced.
  std::error_code none;
  std::filesystem::path target = path;
  if (std::filesystem::is_symlink(target, none)) target = std::filesystem::canonical(target, none);
  if (target.empty()) target = path;
  struct stat old {};
  const bool exists = ::stat(target.c_str(), &old) == 0;
  SCW_EXPECT_AS(IoError, !exists || S_ISREG(old.st_mode), kWrite, "'{}' exists and is not a regular file", path);
  const auto folder = target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
  SCW_EXPECT_AS(IoError, std::filesystem::is_directory(folder, none), kWrite, "'{}' is not a folder", folder.string());

  const h5::Session session;
  TemporaryFile temporary(target);
  {
    const h5::Id access(H5Pcreate(H5P_FILE_ACCESS));
    H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
    H5Pset_file_locking(access.get(), false, true);
    // The oldest format that can hold the file, for the oldest readers: it keeps attributes below 64 KiB, and the list
    // of columns is one.
    constexpr std::int64_t kMaxOldColumns = 3900;
    H5Pset_libver_bounds(access.get(), widest_frame(data) > kMaxOldColumns ? H5F_LIBVER_V18 : H5F_LIBVER_EARLIEST,
                         H5F_LIBVER_LATEST);
    const hid_t file = H5Fcreate(temporary.path().c_str(), H5F_ACC_EXCL, H5P_DEFAULT, access.get());
    SCW_EXPECT_AS(IoError, file >= 0, kWrite, "cannot create a file in '{}' ({})", folder.string(), h5::last_error());
    try {
      h5::WriteOptions how;
      how.level = options.compression_level;
      HdfWriter out(ctx, kWrite, path, file, how);
      write_anndata(out, data);
    } catch (...) {
      H5Fclose(file);
      throw;
    }
    SCW_EXPECT_AS(IoError, H5Fclose(file) >= 0, kWrite, "'{}' cannot be completed ({})", path, h5::last_error());
  }
  if (exists) ::chmod(temporary.path().c_str(), old.st_mode & 07777);
  sync(temporary.path(), O_RDONLY);
  SCW_EXPECT_AS(IoError, ::rename(temporary.path().c_str(), target.c_str()) == 0, kWrite, "cannot replace '{}' ({})",
                path, std::strerror(errno));
  temporary.moved();
  sync(folder, O_RDONLY | O_DIRECTORY);
}

}  // namespace scw::io
