// Kind: reader and writer. Determinism tier A: the same content gives the same bytes, for any number of threads.
//
// h5ad is AnnData's file format: an HDF5 file with one group or dataset per element. Format: the encodings of anndata
// 0.7 to 0.12 (https://anndata.readthedocs.io/en/latest/fileformat-prose.html), and the older layout of 0.6.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

struct ReadH5adOptions {
  /// Refuse NaN, infinite and negative values in X (DataError with the first cell and gene). Off: X is not looked at.
  bool check_counts = false;
  /// Sort rows of sparse matrices whose column indices are out of order, with a log line. Off: DataError.
  /// Rows of obsp and varp keep their order: scanpy's distances come nearest first.
  bool sort_indices = true;
  /// Leave the values of matrices in the file: MatrixElement::stream, for writing and concatenating data that are
  /// larger than memory. Neither counts nor the order of indices are looked at. Matrices that only one thread at a time
  /// can read (HDF5's filters that scwarp does not have itself, other byte orders) are read nevertheless.
  bool stream_matrices = false;
  /// One byte per cell (gene), nonzero for those to read; empty: all. read_h5ad_matrix: per row (column) of the
  /// element. The result is that of AnnData::subset_obs and subset_var, but of X, layers and raw.X the selected values
  /// are all that is kept in memory: rows lying together are read in pieces of some megabytes per thread. (Files of
  /// anndata before 0.7 are read whole.) Not with stream_matrices.
  Span<const std::uint8_t> obs_mask = {}, var_mask = {};
};

/// Reads X, layers, obs, var, obsm, varm, obsp, varp, raw and uns. Sparse matrices become CSR (CSC is transposed),
/// integers and booleans float if every value is exact in float, else double; what the file held is kept in
/// MatrixElement and given back when writing. What scwarp does not know is left in the file (Foreign) and copied from
/// there when writing: the file stays open as AnnData::source.
///
/// Errors name file, object and position: IoError (cannot be opened), FormatError (not HDF5, damaged, wrong types or
/// shapes, implausible sizes, external links and virtual datasets), DataError (indices out of range or duplicate,
/// counts), NotSupported (a compression that is not built in: gzip, zstd, blosc,
/// lz4, lzf and none are, with or without shuffle and fletcher32). Memory: the matrices, and one chunk per thread,
/// unpacked by ctx.n_threads threads.
SCW_API AnnData read_h5ad(const Context& ctx, const std::string& path, const ReadH5adOptions& options = {});

/// The same for the bytes of a file; `name` is for messages.
SCW_API AnnData read_h5ad(const Context& ctx, Span<const std::byte> image, const std::string& name,
                          const ReadH5adOptions& options = {});

/// One matrix of the file, "X", "layers/counts", "raw/X" or "obsp/distances", and nothing else, to ctx.device.
/// InvalidArgument if it is not there. On CUDA chunks are unpacked into page-locked memory and copied from there while
/// others are unpacked, so that the matrix never lies on the host, unless it is CSC or not sorted. Floor: the values
/// unpacked on ctx.n_threads threads, or bytes / 55 GB/s.
SCW_API MatrixElement read_h5ad_matrix(const Context& ctx, const std::string& path, const std::string& element = "X",
                                       const ReadH5adOptions& options = {});

/// One array of texts of the file, "obs/_index", row-major, and nothing else. InvalidArgument if it is not there. HDF5
/// serves one thread at a time, but this and read_h5ad_matrix give each other way where the time goes.
SCW_API std::vector<std::string> read_h5ad_texts(const Context& ctx, const std::string& path,
                                                 const std::string& element);

enum class Compression : std::uint8_t { none, gzip, zstd };

struct WriteH5adOptions {
  /// gzip is read by everything; zstd (HDF5 filter 32015) packs and unpacks several times faster and needs the Python
  /// package hdf5plugin, or another provider of that filter, in other programs. Numbers are shuffled bytewise first.
  Compression compression = Compression::gzip;
  /// gzip 1 to 12, zstd 1 to 19; -1: 1 for gzip, 3 for zstd. 0 is no compression.
  int compression_level = -1;
  /// Size of a chunk before compression, 4 KiB to 1 GiB. The default holds 131 072 values of a sparse matrix, some 50
  /// to 100 cells: reading a block of rows unpacks little else, and the list of chunks stays short. A dense matrix is
  /// chunked by whole rows, at least one.
  std::int64_t chunk_bytes = 512 << 10;
};

/// Writes a file that anndata 0.8 and later read. It is put in its place when it is complete and on disk: whenever the
/// program stops, `path` is the old file or the whole new one, and where the file system has files without names
/// (O_TMPFILE) nothing else is left either. Elements that came from a file and were not changed are copied from it
/// verbatim; `path` may be that file. Matrices may be streams (MatrixElement::stream). Memory: 32 chunks. Throws
/// IoError that names file and reason, ShapeMismatch.
SCW_API void write_h5ad(const Context& ctx, const AnnData& data, const std::string& path,
                        const WriteH5adOptions& options = {});

}  // namespace scw::io
