#include <algorithm>
#include <cstring>

#include "core/parallel.hpp"
#include "prim/csr_subset/csr_subset.hpp"

namespace scw::prim::cpu {
namespace {

constexpr std::int64_t kGrain = 512;

/// Old positions of what is kept.
Array<std::int64_t> kept_positions(Span<const std::uint8_t> keep, std::int64_t n) {
  const bool all = keep.empty();
  const std::int64_t count = all ? n : std::count_if(keep.begin(), keep.end(), [](std::uint8_t k) { return k != 0; });
  Array<std::int64_t> kept(host_memory(), count, "subset positions");
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < n; ++i)
    if (all || keep[i] != 0) kept[at++] = i;
  return kept;
}

template <class V>
AnyMatrix take(const Context& ctx, const CsrView<const V>& x, Span<const std::uint8_t> keep_rows,
               Span<const std::uint8_t> keep_cols) {
  const auto rows = kept_positions(keep_rows, x.n_rows);
  const auto cols = kept_positions(keep_cols, x.n_cols);
  const bool all_cols = cols.size() == x.n_cols;
  Array<std::int32_t> new_col(host_memory(), x.n_cols, "subset columns");
  std::fill(new_col.begin(), new_col.end(), -1);
  for (std::int64_t j = 0; j < cols.size(); ++j) new_col[cols[j]] = static_cast<std::int32_t>(j);

  Csr<V> out;
  out.n_rows = rows.size();
  out.n_cols = static_cast<std::int32_t>(cols.size());
  out.indptr = Array<std::int64_t>(ctx.memory, out.n_rows + 1, "indptr");
  out.indptr[0] = 0;
  parallel_for(ctx, out.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t first = x.indptr[rows[r]], last = x.indptr[rows[r] + 1];
      std::int64_t count = last - first;
      if (!all_cols) {
        count = 0;
        for (std::int64_t k = first; k < last; ++k) count += new_col[x.indices[k]] >= 0 ? 1 : 0;
      }
      out.indptr[r + 1] = count;
    }
  });
  for (std::int64_t r = 0; r < out.n_rows; ++r) out.indptr[r + 1] += out.indptr[r];
  out.indices = Array<std::int32_t>(ctx.memory, out.indptr[out.n_rows], "indices");
  out.values = Array<V>(ctx.memory, out.indptr[out.n_rows], "values");
  parallel_for(ctx, out.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t first = x.indptr[rows[r]], last = x.indptr[rows[r] + 1];
      std::int64_t at = out.indptr[r];
      if (all_cols) {
        const auto count = static_cast<std::size_t>(last - first);
        if (count == 0) continue;
        std::memcpy(out.indices.data() + at, x.indices.data + first, count * sizeof(std::int32_t));
        std::memcpy(out.values.data() + at, x.values.data + first, count * sizeof(V));
        continue;
      }
      const std::int64_t stop = out.indptr[r + 1];
      for (std::int64_t k = first; at < stop; ++k) {
        // Written always, kept if the column is: no branch to mispredict. `at < stop` keeps it inside the row.
        const std::int32_t column = new_col[x.indices[k]];
        out.indices[at] = column;
        out.values[at] = x.values[k];
        at += column >= 0 ? 1 : 0;
      }
    }
  });
  return out;
}

template <class V>
AnyMatrix take(const Context& ctx, const MatrixView<const V>& x, Span<const std::uint8_t> keep_rows,
               Span<const std::uint8_t> keep_cols) {
  const auto rows = kept_positions(keep_rows, x.n_rows);
  const auto cols = kept_positions(keep_cols, x.n_cols);
  Matrix<V> out(ctx.memory, rows.size(), cols.size(), "dense subset");
  const auto view = out.view();
  parallel_for(ctx, view.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const V* row = x.row(rows[r]);
      for (std::int64_t j = 0; j < view.n_cols; ++j) view(r, j) = row[cols[j]];
    }
  });
  return out;
}

}  // namespace

void subset(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> keep_rows,
            Span<const std::uint8_t> keep_cols, AnyMatrix& out) {
  std::visit([&](const auto& v) { out = take(ctx, v, keep_rows, keep_cols); }, x);
}

SCW_REGISTER(subset_kernel, cpu, &subset);

}  // namespace scw::prim::cpu
