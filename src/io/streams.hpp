// Matrices that are not in memory: out of a store, put under each other, and columns picked and reordered, block by
// block while they are written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/store.hpp"
#include "scwarp/anndata.hpp"
#include "scwarp/io/matrix_stream.hpp"

namespace scw::io {

using Stream = std::shared_ptr<const MatrixStream>;

/// Numbers of a store as they are stored; an empty function if only the thread that holds the store can read them, or
/// for types that are rare (float16, integers over 2^63). The function keeps the store open.
FillRange stored_range(const Context& ctx, std::shared_ptr<const Store> source, std::unique_ptr<StoredArray> array);

/// A sparse matrix of a store. Its offsets are read and checked now (FormatError), its indices when they are used
/// (DataError). Null as above.
Stream stored_sparse(const Context& ctx, const std::shared_ptr<const Store>& source, StoredLayout layout,
                     std::int64_t n_rows, std::int64_t n_cols, std::unique_ptr<StoredArray> indptr,
                     std::unique_ptr<StoredArray> indices, std::unique_ptr<StoredArray> values);
/// A dense matrix of a store. Null as above.
Stream stored_dense(const Context& ctx, const std::shared_ptr<const Store>& source,
                    std::unique_ptr<StoredArray> values);

/// A matrix in memory, which the stream takes over.
Stream memory_stream(MatrixElement m);

/// The same values as numbers of another type.
Stream cast(Stream m, const std::string& dtype);

/// What numpy makes of two types.
std::string common_dtype(const std::string& a, const std::string& b);

/// A type that has the values of `dtype` and `fill`: `dtype` if it holds it, a wider integer type for whole numbers,
/// else floating. As pandas' reindexing, but for bool, where that makes objects.
std::string with_fill(const std::string& dtype, double fill);

/// A matrix and where its columns go.
struct StackedPart {
  Stream matrix;
  std::vector<std::int32_t> columns;  ///< new column of each; -1: dropped; empty: as they are
};
/// The rows of all parts, one part after another; all CSR or all dense. Columns that a part does not have are zero
/// (CSR) or `missing` (dense; in a type that has it: see with_fill). Memory: 8 bytes per row, and per
/// thread a block. `op` is for messages.
Stream stack_rows(const Context& ctx, const char* op, std::vector<StackedPart> parts, std::int64_t n_cols,
                  double missing);

/// The rows and columns of a CSR stream that are marked (all of an empty mask), in memory: float if every value is
/// exact in it, else double; rows sorted. Memory besides the result: 8 bytes per row, and per thread a million entries.
/// DataError for a column that is twice in a row.
SCW_API MatrixElement load_rows(const Context& ctx, const char* op, const MatrixStream& m,
                                Span<const std::uint8_t> rows, Span<const std::uint8_t> cols);

}  // namespace scw::io
