#include "scwarp/io/write.hpp"

#include <string_view>

#include "core/check.hpp"
#include "io/replace_file.hpp"

namespace scw::io {

FileFormat format_of(const char* op, const std::string& path) {
  std::string_view name = path;
  if (name.ends_with(".h5ad")) return FileFormat::h5ad;
  if (name.ends_with(".h5")) return FileFormat::tenx_h5;
  while (name.ends_with('/')) name.remove_suffix(1);
  if (name.ends_with(".zarr")) return FileFormat::zarr;
  SCW_EXPECT(path.ends_with('/') && !name.ends_with(".h5ad") && !name.ends_with(".h5"), op,
             "'{}' ends with no known format (expected .h5ad, .zarr, .h5 for 10x HDF5, or '/' for a 10x folder)", path);
  return FileFormat::tenx_mtx;
}

WriteOptions write_options(const char* op, const std::string& path, const std::string& compression,
                           int compression_level, std::int64_t chunk_bytes, int zarr_format, bool shards) {
  WriteOptions out;
  if (format_of(op, path) == FileFormat::tenx_mtx) {
    SCW_EXPECT(compression == "auto" || compression == "gzip" || compression == "none", op,
               "compression must be gzip or none for a 10x folder (got {})", compression);
    SCW_EXPECT(zarr_format == 0 && !shards, op, "'{}' is a 10x folder: versions and shards are Zarr's", path);
    SCW_EXPECT(chunk_bytes == 0, op, "'{}' is a 10x folder: it has no chunks", path);
    if (compression == "none" || compression_level == 0)
      out.tenx_mtx.version = 2;
    else if (compression_level != -1)
      out.tenx_mtx.compression_level = compression_level;
    return out;
  }
  if (format_of(op, path) == FileFormat::tenx_h5) {
    SCW_EXPECT(compression == "auto" || compression == "gzip" || compression == "none", op,
               "compression must be gzip or none for 10x HDF5 (got {})", compression);
    SCW_EXPECT(zarr_format == 0 && !shards, op, "'{}' is a 10x HDF5 file: versions and shards are Zarr's", path);
    if (compression == "none")
      out.tenx_h5.compression_level = 0;
    else if (compression_level != -1)
      out.tenx_h5.compression_level = compression_level;
    if (chunk_bytes > 0) out.tenx_h5.chunk_bytes = chunk_bytes;
    return out;
  }
  if (format_of(op, path) == FileFormat::zarr) {
    WriteZarrOptions& o = out.zarr;
    const bool known = compression == "auto" || compression == "lz4" || compression == "blosc-zstd" ||
                       compression == "zstd" || compression == "gzip" || compression == "none";
    SCW_EXPECT(known, op, "compression must be lz4, blosc-zstd, zstd, gzip or none for Zarr (got {})", compression);
    o.codec = compression == "blosc-zstd" ? ZarrCodec::blosc_zstd
              : compression == "zstd"     ? ZarrCodec::zstd
              : compression == "gzip"     ? ZarrCodec::gzip
              : compression == "none"     ? ZarrCodec::none
                                          : ZarrCodec::blosc_lz4;
    o.level = compression_level;
    o.chunk_bytes = chunk_bytes;
    if (zarr_format != 0) o.format = zarr_format;
    // Only version 3 has shards.
    if (zarr_format == 0 && shards) o.format = 3;
    o.shards = shards;
    return out;
  }
  WriteH5adOptions& o = out.h5ad;
  const bool known = compression == "auto" || compression == "zstd" || compression == "gzip" || compression == "none";
  SCW_EXPECT(known, op, "compression must be gzip, zstd or none for h5ad (got {})", compression);
  SCW_EXPECT(zarr_format == 0 && !shards, op, "'{}' is an h5ad file: versions and shards are Zarr's", path);
  o.compression = compression == "zstd"   ? Compression::zstd
                  : compression == "none" ? Compression::none
                                          : Compression::gzip;
  o.compression_level = compression_level;
  if (chunk_bytes > 0) o.chunk_bytes = chunk_bytes;
  return out;
}

void expect_place(const char* op, const std::string& path, bool folder) {
  if (folder)
    const ReplaceFolder place(op, path);
  else
    const ReplaceFile place(op, path);
}

void write(const Context& ctx, const AnnData& data, const std::string& path, const WriteOptions& options) {
  switch (format_of("write", path)) {
    case FileFormat::h5ad:
      return write_h5ad(ctx, data, path, options.h5ad);
    case FileFormat::zarr:
      return write_zarr(ctx, data, path, options.zarr);
    case FileFormat::tenx_mtx:
      return write_10x_mtx(ctx, data, path, options.tenx_mtx);
    case FileFormat::tenx_h5:
      return write_10x_h5(ctx, data, path, options.tenx_h5);
  }
}

}  // namespace scw::io
