// Kind: writer. Determinism tier A: the same content gives the same bytes, for any number of threads.
#pragma once

#include <cstdint>
#include <string>

#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/tenx.hpp"
#include "scwarp/io/zarr.hpp"

namespace scw::io {

enum class FileFormat : std::uint8_t { h5ad, zarr, tenx_mtx, tenx_h5 };

/// What the ending of `path` says: .h5ad; .zarr (a folder), with or without "/"; .h5: 10x HDF5; "/": a 10x folder.
/// InvalidArgument for another one; `op` starts the message.
SCW_API FileFormat format_of(const char* op, const std::string& path);

struct WriteOptions {
  WriteH5adOptions h5ad;  ///< for a file
  WriteZarrOptions zarr;  ///< for a folder
  Write10xMtxOptions tenx_mtx;
  Write10xH5Options tenx_h5;
};

/// The options of the format that `path` ends with, by the names that the program and Python have for them.
/// `compression`: "auto" (gzip for h5ad and 10x, lz4 for Zarr); "gzip", "none" (a 10x folder: version 2), "zstd" (h5ad,
/// Zarr), "lz4" and "blosc-zstd" (Zarr).
/// `chunk_bytes` 0 and `zarr_format` 0: the format's default. InvalidArgument for what the format does not have.
SCW_API WriteOptions write_options(const char* op, const std::string& path, const std::string& compression,
                                   int compression_level = -1, std::int64_t chunk_bytes = 0, int zarr_format = 0,
                                   bool shards = false);

/// Throws IoError, as writing would do at its end, if no file (or folder) can be made at `path` or take the place of
/// what is there: no such directory, nothing may be written in it, read-only, no regular file, a name that is too long.
/// Leaves everything as it is.
SCW_API void expect_place(const char* op, const std::string& path, bool folder);

/// write_h5ad, write_zarr, write_10x_mtx or write_10x_h5, as the ending of `path` says. `path` holds the whole content
/// or is as it was before. Throws InvalidArgument (ending, options), IoError (path, and what the system said).
SCW_API void write(const Context& ctx, const AnnData& data, const std::string& path, const WriteOptions& options = {});

}  // namespace scw::io
