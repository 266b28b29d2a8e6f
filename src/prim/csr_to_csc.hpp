// Column access to a CSR matrix: blocks of columns that fit a cache are gathered one at a time (column_blocks), or the
// whole matrix is transposed (csr_to_csc). Rows of a column come in increasing order, for any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

/// How the columns of one CSR matrix are cut into blocks of about equal numbers of entries.
struct ColumnPlan {
  std::vector<std::int32_t> first;   // block b holds columns [first[b], first[b + 1])
  Array<std::int64_t> column_start;  // [n_cols + 1], entries before each column: the indptr of the CSC form
  Array<std::int32_t> row_offset;    // [n_blocks x n_rows]: where in its row each block begins
  std::int64_t max_block_entries = 0;

  std::int64_t n_blocks() const { return static_cast<std::int64_t>(first.size()) - 1; }
  std::int64_t block_entries(std::int64_t b) const {
    return column_start[first[static_cast<std::size_t>(b) + 1]] - column_start[first[static_cast<std::size_t>(b)]];
  }
};

/// Two passes over the indices. Memory: 8 bytes a column and 4 a row and block (at most 128 blocks; a block has at
/// least 2^16 entries unless it is the last).
SCW_API ColumnPlan plan_columns(const Context& ctx, std::int64_t n_rows, std::int32_t n_cols,
                                Span<const std::int64_t> indptr, Span<const std::int32_t> indices);

/// Gathers block b on the calling thread: bool make(E& out, V value, int64 row) fills what is stored for an entry, or
/// returns false to leave it out. end[c] is set to one past the last slot used of column first + c; its slots begin at
/// column_start[first + c] - column_start[first].
template <class V, class E, class Make>
void gather_block(const CsrView<const V>& x, const ColumnPlan& plan, std::int64_t b, E* out, std::int64_t* end,
                  const Make& make) {
  const std::int32_t first = plan.first[static_cast<std::size_t>(b)];
  const std::int32_t last = plan.first[static_cast<std::size_t>(b) + 1];
  const std::int64_t base = plan.column_start[first];
  for (std::int32_t c = first; c < last; ++c) end[c - first] = plan.column_start[c] - base;
  const std::int32_t* const begins = plan.row_offset.data() + b * x.n_rows;
  const bool to_row_end = b + 1 == plan.n_blocks();
  const std::int32_t* const ends = to_row_end ? nullptr : begins + x.n_rows;
  constexpr std::int64_t kAhead = 8;  // a row's share of a block is a few cache lines at an unpredictable place
  for (std::int64_t i = 0; i < x.n_rows; ++i) {
    if (i + kAhead < x.n_rows) {
      const std::int64_t next = x.indptr[i + kAhead] + begins[i + kAhead];
      __builtin_prefetch(x.indices.data + next);
      __builtin_prefetch(x.values.data + next);
    }
    const std::int64_t row = x.indptr[i];
    const std::int64_t stop = to_row_end ? x.indptr[i + 1] : row + ends[i];
    for (std::int64_t k = row + begins[i]; k < stop; ++k) {
      std::int64_t& slot = end[x.indices[k] - first];
      E e;
      if (make(e, x.values[k], i)) out[slot++] = e;
    }
  }
}

/// The CSC form, in ctx.memory. n_rows < 2^31. Memory: the result and the plan.
template <class V>
Csc<V> csr_to_csc(const Context& ctx, const CsrView<const V>& x);

extern template SCW_API Csc<float> csr_to_csc(const Context&, const CsrView<const float>&);
extern template SCW_API Csc<double> csr_to_csc(const Context&, const CsrView<const double>&);

}  // namespace scw::prim
