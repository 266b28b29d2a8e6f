// Kind: reader and writer. Determinism tier A: the same content gives the same bytes, for any number of threads.
//
// AnnData in Zarr: a folder with a folder per group and array, and a file per chunk. Formats: "Zarr storage
// specification version 2" and "Zarr core specification version 3" (https://zarr-specs.readthedocs.io), as zarr-python
// 2 and 3 write them for anndata 0.7 to 0.12. Elements are the same as in h5ad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/io/h5ad.hpp"

namespace scw::io {

using ReadZarrOptions = ReadH5adOptions;

/// Files of a store by their path in it: "obs/_index/.zarray".
using ZarrFiles = std::map<std::string, std::vector<std::byte>, std::less<>>;

/// Reads a store of version 2 or 3, chunks unpacked by ctx.n_threads threads; see read_h5ad for what becomes of the
/// elements. Codecs: blosc, gzip, lz4, zlib, zstd, crc32c, shuffle, transpose, shards (one level) and vlen-utf8;
/// numbers of either byte order. Metadata is read where it stands; consolidated copies of it are not looked at.
/// Symbolic links in the store are not followed.
///
/// Errors name store, object and position: IoError, FormatError (damaged, implausible sizes), DataError (indices,
/// counts), NotSupported (other codecs, by name). Memory: the matrices, and two chunks per thread.
SCW_API AnnData read_zarr(const Context& ctx, const std::string& path, const ReadZarrOptions& options = {});

/// The same for a store in memory; `name` is for messages.
SCW_API AnnData read_zarr(const Context& ctx, ZarrFiles files, const std::string& name,
                          const ReadZarrOptions& options = {});

/// One matrix of the store, "X", "layers/counts", "raw/X" or "obsp/distances", and nothing else. InvalidArgument if it
/// is not there.
SCW_API MatrixElement read_zarr_matrix(const Context& ctx, const std::string& path, const std::string& element = "X",
                                       const ReadZarrOptions& options = {});

enum class ZarrCodec : std::uint8_t {
  blosc_lz4,   ///< Blosc with LZ4 inside and bytes shuffled: zarr-python 2's own choice, quick
  blosc_zstd,  ///< Blosc with Zstandard inside and bytes shuffled: smaller
  zstd,        ///< zarr-python 3's own choice
  gzip,
  none
};

struct WriteZarrOptions {
  /// Version of the format, 2 or 3. anndata 0.12 writes 2 unless told otherwise; zarr-python 2 reads nothing else.
  int format = 2;
  ZarrCodec codec = ZarrCodec::blosc_lz4;
  /// 1 to 9 (zstd: to 22); -1: 5 for Blosc, 3 for zstd, 1 for gzip.
  int level = -1;
  /// Version 3: chunks are put together in files of about 32 MiB, so that a large store has few files.
  bool shards = false;
  /// Size of a chunk before compression, 4 KiB to 1 GiB, at least one row. 0: 4 MiB, and 1 MiB within shards.
  std::int64_t chunk_bytes = 0;
};

/// Writes a store that anndata reads (0.8 and later; version 3 of the format: 0.12). It is written beside `path` under
/// a temporary name, flushed to disk and exchanged with what was there: whenever the program stops, `path` is the old
/// store or the whole new one (or, where the file system cannot exchange two names, for a moment neither, and the old
/// store stands beside it). A folder that is no Zarr store is not replaced: IoError. Elements that came from a store of
/// the same version and were not changed are copied verbatim; other formats' elements that Zarr has no form for are
/// left out, each with a warning. Chunks hold whole rows. Matrices may be streams (MatrixElement::stream). Memory: two
/// chunks per thread.
SCW_API void write_zarr(const Context& ctx, const AnnData& data, const std::string& path,
                        const WriteZarrOptions& options = {});

/// Whether `path` is a folder with the metadata of a Zarr group or array.
SCW_API bool is_zarr(const std::string& path);

}  // namespace scw::io
