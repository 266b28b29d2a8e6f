// Kind: interface between readers and writers. A matrix that is written without being in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace scw {

enum class StoredLayout : std::uint8_t { csr, csc, dense };

namespace io {

/// Writes elements [first, first + n) (rows, for a dense matrix) of an array to `out`. Called from several threads at
/// once, mostly but not strictly in rising order, each element at least once.
using FillRange = std::function<void(std::int64_t first, std::int64_t n, std::byte* out)>;

/// What the writers take in place of values: functions that give ranges of its arrays when they are asked for, in the
/// type in which they are stored.
struct MatrixStream {
  StoredLayout layout = StoredLayout::csr;
  std::int64_t n_rows = 0, n_cols = 0;
  std::int64_t nnz = 0;  ///< sparse only
  std::string dtype;     ///< of the values, numpy name: "float32", "uint16", "bool"
  FillRange values;      ///< of dtype; dense: rows of n_cols values
  FillRange indices;     ///< int32; sparse only
  FillRange indptr;      ///< int64, one more than rows (columns, for csc); sparse only
};

}  // namespace io
}  // namespace scw
