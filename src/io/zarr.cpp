#include "scwarp/io/zarr.hpp"

#include <filesystem>

#include "io/anndata_codec.hpp"
#include "io/hdf5.hpp"
#include "io/replace_file.hpp"
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
  constexpr std::int64_t kSmallest = 4 << 10, kLargest = 1 << 30;
  SCW_EXPECT(options.chunk_bytes == 0 || (options.chunk_bytes >= kSmallest && options.chunk_bytes <= kLargest), kWrite,
             "chunk_bytes must be {} to {} (got {})", kSmallest, kLargest, options.chunk_bytes);
  data.validate();
  std::error_code none;
  SCW_EXPECT_AS(
      IoError, !fs::exists(path, none) || (fs::is_directory(path, none) && (is_zarr(path) || fs::is_empty(path, none))),
      kWrite, "'{}' exists and is not a Zarr store", path);
  ReplaceFolder folder(kWrite, path);
  zarr::ZarrWriter out(ctx, kWrite, path, folder.path(), options);
  write_anndata(out, data);
  out.consolidate();
  folder.commit();
}

}  // namespace scw::io
