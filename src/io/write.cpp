#include "scwarp/io/write.hpp"

#include <string_view>

#include "core/check.hpp"

namespace scw::io {

FileFormat format_of(const char* op, const std::string& path) {
  std::string_view name = path;
  if (name.ends_with(".h5ad")) return FileFormat::h5ad;
  while (name.ends_with('/')) name.remove_suffix(1);
  SCW_EXPECT(name.ends_with(".zarr"), op, "'{}' ends with no known format (expected .h5ad or .zarr)", path);
  return FileFormat::zarr;
}

WriteOptions write_options(const char* op, const std::string& path, const std::string& compression,
                           int compression_level, std::int64_t chunk_bytes, int zarr_format, bool shards) {
  WriteOptions out;
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

void write(const Context& ctx, const AnnData& data, const std::string& path, const WriteOptions& options) {
  if (format_of("write", path) == FileFormat::h5ad)
    write_h5ad(ctx, data, path, options.h5ad);
  else
    write_zarr(ctx, data, path, options.zarr);
}

}  // namespace scw::io
