// Kind: readers and writers. Determinism tier A: the same content gives the same bytes, for any number of threads.
//
// Output of 10x Genomics' Cell Ranger: HDF5 of version 2 (one group per genome) and 3 (one group "matrix" with features
// of several types), and folders with a Matrix Market file, barcodes and features, plain or gzip.
// Format: Cell Ranger's documentation, "HDF5 feature-barcode matrix" and "feature-barcode matrices (MEX)".
#pragma once

#include <string>

#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

struct Read10xH5Options {
  /// Keep the features of this genome only. Needed for a version 2 file of several genomes.
  std::string genome;
  /// Keep features of type "Gene Expression" only (version 3).
  bool gex_only = true;
  /// Leave the counts in the file; see ReadH5adOptions.
  bool stream_matrices = false;
  /// One byte per cell and per feature (of those that genome and gex_only leave), nonzero for those to read; empty:
  /// all. The values of the others are never kept in memory, and parts of the file without selected cells are not read.
  /// Not with stream_matrices.
  Span<const std::uint8_t> obs_mask = {}, var_mask = {};
};

/// Cells x features, float (double if a value is not exact in it: a count over 2^24). obs: barcodes. var: named by
/// symbol, not made unique; columns gene_ids, and in version 3 feature_types, genome and the other columns of text or
/// booleans of the file; in a matrix of probes probe_ids as well, and obs has filtered_barcodes. Errors name file,
/// object and position: IoError, FormatError, DataError (indices), InvalidArgument (genome).
SCW_API AnnData read_10x_h5(const Context& ctx, const std::string& path, const Read10xH5Options& options = {});

/// The same for the bytes of a file; `name` is for messages.
SCW_API AnnData read_10x_h5(const Context& ctx, Span<const std::byte> image, const std::string& name,
                            const Read10xH5Options& options = {});

struct Read10xMtxOptions {
  /// Name genes by symbol, made unique by "-1", "-2"; else by id, with a column gene_symbols.
  bool gene_symbols = true;
  bool gex_only = true;
  /// Text before "matrix.mtx", "barcodes.tsv" and "features.tsv" in the file names.
  std::string prefix;
  /// Put the values into a temporary file instead of memory, 8 bytes each (12 if they are double; for a moment more if
  /// the matrix is not sorted by cell), in the folder that TMPDIR names, else /tmp. X is a MatrixElement::stream then.
  bool stream_matrices = false;
};

/// A folder with matrix.mtx, barcodes.tsv and genes.tsv (version 2) or features.tsv (version 3), each plain or .gz.
SCW_API AnnData read_10x_mtx(const Context& ctx, const std::string& folder, const Read10xMtxOptions& options = {});

/// The same for the texts of the three files, uncompressed.
SCW_API AnnData read_10x_mtx(const Context& ctx, std::string_view matrix, std::string_view barcodes,
                             std::string_view features, const Read10xMtxOptions& options = {});

struct Write10xMtxOptions {
  /// 3: matrix.mtx.gz, features.tsv.gz and barcodes.tsv.gz; 2: matrix.mtx, genes.tsv and barcodes.tsv, not compressed.
  int version = 3;
  /// 1 to 12, of version 3.
  int compression_level = 4;
};

/// Writes X as a folder that read_10x_mtx and other programs read. It takes the place of what was there when all of it
/// is complete and on disk, in one step. An existing folder must be empty or hold nothing but such files. Features are
/// var's gene_ids (else its names), gene_symbols (else its names; where there are symbols the names are the ids), and
/// feature_types (else "Gene Expression"). Everything else is left out with a warning.
///
/// X may be a stream; CSC is written by gene. Values are written shortest; the header says integer if all are. The
/// files are gzip of many members in the BGZF format, 64 KiB each, which read_10x_mtx unpacks on all threads.
/// Memory: the row offsets and 16 MB per thread. Throws IoError, InvalidArgument (a name with a tab or a line end),
/// ShapeMismatch.
SCW_API void write_10x_mtx(const Context& ctx, const AnnData& data, const std::string& folder,
                           const Write10xMtxOptions& options = {});

struct Write10xH5Options {
  /// gzip 1 to 12; 0: not compressed. Numbers and names are shuffled bytewise first, as Cell Ranger has them.
  int compression_level = 4;
  /// Size of a chunk before compression, 4 KiB to 1 GiB.
  std::int64_t chunk_bytes = 512 << 10;
};

/// Writes X as an HDF5 file of version 3, which read_10x_h5 and other programs read: group "matrix" with barcodes,
/// data, indices, indptr and shape, and its group "features". id, name and feature_type are as write_10x_mtx has them
/// (of probes, var's probe_ids are the ids and gene_ids is gene_id); genome is var's (else ""), and var's other columns
/// of text and booleans are tags of their names, as read_10x_h5 takes them. Everything else is left out with a warning;
/// another one tells of names that are not ASCII, which scanpy's reader refuses.
///
/// The type of the data is what readers keep the values in: int32 if all are integers up to 2^24 (scanpy makes float of
/// int32), int64 if all are integers, else float32 or float64 as X has them. That is known after a look through the
/// values, which are therefore read twice from a file, unless they are stored with 8 or 16 bits. X may be a stream. A
/// dense one is read once for the counts of each cell and once more for the positions. CSC has to be turned and is held
/// in memory, twice. Memory besides: 8 bytes per cell, the names, 32 chunks, and per thread a few megabytes. `path` is
/// replaced when the file is complete and on disk. Throws IoError, InvalidArgument (a name with a zero byte or over
/// 64 KiB), NotSupported (2^31 cells, counts over 2^63), ShapeMismatch.
SCW_API void write_10x_h5(const Context& ctx, const AnnData& data, const std::string& path,
                          const Write10xH5Options& options = {});

/// Makes names unique as anndata does: the second "x" becomes "x-1", or the next number that is free.
SCW_API void make_names_unique(std::vector<std::string>& names);

}  // namespace scw::io
