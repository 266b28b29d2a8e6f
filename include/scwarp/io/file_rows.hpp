// Kind: reader. Determinism tier A: blocks have the values that the readers of whole matrices give.
//
// A matrix that stays in its file and is read one block of rows at a time, for all operations that take RowBlocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::io {

/// A matrix of cells x genes in a file, open for reading: its shape and, if sparse, its row offsets are in memory.
/// May be used from several threads at once.
class SCW_API FileMatrix {
 public:
  /// `element` is "X", "layers/counts", "raw/X" of an h5ad file, or "matrix" of a 10x Genomics HDF5 file. CSR and dense
  /// matrices of numbers can be read by rows; a CSC matrix cannot: NotSupported says to convert it. Throws IoError,
  /// FormatError (also for offsets that fall or do not fit the file), InvalidArgument (no such element).
  /// Memory: 8 bytes a row.
  static std::shared_ptr<const FileMatrix> open(const Context& ctx, const std::string& path,
                                                const std::string& element = "X");
  ~FileMatrix();
  FileMatrix(const FileMatrix&) = delete;
  FileMatrix& operator=(const FileMatrix&) = delete;

  const std::string& path() const;
  const std::string& element() const;
  std::int64_t n_rows() const;
  std::int64_t n_cols() const;
  bool is_sparse() const;
  /// Stored entries; of a dense matrix all.
  std::int64_t n_entries() const;
  /// numpy's name of the stored type.
  const std::string& dtype() const;
  /// Row offsets, n_rows + 1; empty for a dense matrix.
  Span<const std::int64_t> indptr() const;
  /// Whether float holds every value: not for double, and for integers above 2^24. For integers of 32 and 64 bits this
  /// reads all values, once.
  bool fits_float(const Context& ctx) const;

  /// How often FileRows were read: with column indices, and without.
  std::int64_t n_passes(RowParts parts) const;

  struct Impl;  ///< private to the implementation

 private:
  explicit FileMatrix(std::unique_ptr<Impl> impl);
  friend class FileRows;
  std::unique_ptr<Impl> impl_;
};

struct FileRowsOptions {
  /// Read integers and floats of less than 64 bits as double. Off: as float if fits_float(), else as double.
  bool as_double = false;
  /// Which rows of the file, rising; empty with all_rows = false: none.
  std::vector<std::int64_t> rows = {};
  /// Ignore `rows`.
  bool all_rows = true;
  /// Rows of a block; 0: as many as ctx.block_bytes holds.
  std::int64_t block_rows = 0;
};

/// The rows of a FileMatrix. With a CUDA context all threads unpack a block into page-locked memory, from where it goes
/// to the device piece by piece, while kernels work on the one before; on the CPU reading and body take turns, each
/// with all threads. Column indices are checked in every block: those out of order are sorted with their values (said
/// once a pass in the log); out of range or twice in a row is DataError. Blocks of chosen rows, of less than
/// 1 MiB and with rows to be sorted are made on the host first. Errors of the reading thread are thrown by for_each.
/// Memory: two blocks on the device, and one on the host where it is needed. Floor: the storage, unpacking on
/// ctx.n_threads threads or the bus, whichever is slowest.
class SCW_API FileRows final : public OwnedRowBlocks {
 public:
  /// Throws InvalidArgument for rows that do not rise or are not in the file.
  explicit FileRows(std::shared_ptr<const FileMatrix> matrix, FileRowsOptions options = {});
  std::int64_t n_rows() const override;
  std::int64_t n_cols() const override;
  bool is_sparse() const override;
  bool is_double(const Context& ctx) const override;
  void for_each_owned(const Context& ctx, RowParts parts, const OwnedBody& body) const override;

 private:
  std::shared_ptr<const FileMatrix> matrix_;
  FileRowsOptions options_;
  std::vector<std::int64_t> indptr_;  // of the rows in use, if they are not all
};

/// All rows of a source, on the host; ctx is a CPU context. Memory: the matrix, of a sparse one twice for a moment.
SCW_API AnyMatrix load_rows(const Context& ctx, const RowBlocks& rows);

}  // namespace scw::io
