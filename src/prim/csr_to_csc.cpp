#include "prim/csr_to_csc.hpp"

#include <limits>

namespace scw::prim {
namespace {

constexpr std::int64_t kRowGrain = 2048;
constexpr std::int64_t kMinBlockEntries = 1 << 16;
constexpr std::int64_t kMaxBlocks = 128;

/// First position in [begin, end) of a sorted list with value >= key, looking near begin first.
const std::int32_t* gallop(const std::int32_t* begin, const std::int32_t* end, std::int32_t key) {
  std::ptrdiff_t step = 1;
  const std::int32_t* low = begin;
  while (step < end - low && low[step] < key) {
    low += step;
    step *= 2;
  }
  return std::lower_bound(low, std::min(end, low + step + 1), key);
}

template <class V>
struct Entry {
  std::int32_t row;
  V value;
};

}  // namespace

ColumnPlan plan_columns(const Context& ctx, std::int64_t n_rows, std::int32_t n_cols, Span<const std::int64_t> indptr,
                        Span<const std::int32_t> indices) {
  ColumnPlan plan;
  plan.column_start = Array<std::int64_t>(ctx.workspace, std::int64_t{n_cols} + 1, "column starts");
  std::fill(plan.column_start.begin(), plan.column_start.end(), std::int64_t{0});
  std::vector<std::vector<std::int64_t>> counts(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  parallel_chunks(ctx, n_rows, kRowGrain, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    auto& mine = counts[static_cast<std::size_t>(worker)];
    if (mine.empty()) mine.assign(static_cast<std::size_t>(n_cols), 0);
    std::int64_t* const c = mine.data();
    for (std::int64_t k = indptr[begin]; k < indptr[end]; ++k) ++c[indices[k]];
  });
  for (const auto& mine : counts)
    for (std::size_t c = 0; c < mine.size(); ++c) plan.column_start[static_cast<std::int64_t>(c) + 1] += mine[c];
  for (std::int32_t c = 0; c < n_cols; ++c) plan.column_start[c + 1] += plan.column_start[c];

  const std::int64_t nnz = plan.column_start[n_cols];
  const std::int64_t target = std::max(kMinBlockEntries, (nnz + kMaxBlocks - 1) / kMaxBlocks);
  plan.first.push_back(0);
  for (std::int32_t c = 0; c < n_cols; ++c) {
    const std::int64_t held = plan.column_start[c + 1] - plan.column_start[plan.first.back()];
    if (held >= target && c + 1 < n_cols) plan.first.push_back(c + 1);
  }
  if (n_cols > 0) plan.first.push_back(n_cols);
  for (std::int64_t b = 0; b < plan.n_blocks(); ++b)
    plan.max_block_entries = std::max(plan.max_block_entries, plan.block_entries(b));

  plan.row_offset = Array<std::int32_t>(ctx.workspace, checked_mul(plan.n_blocks(), n_rows), "column blocks");
  parallel_for(ctx, n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int32_t* const row = indices.data + indptr[i];
      const std::int32_t* const row_end = indices.data + indptr[i + 1];
      const std::int32_t* at = row;
      for (std::int64_t b = 0; b < plan.n_blocks(); ++b) {
        if (b > 0) at = at == row_end ? at : gallop(at, row_end, plan.first[static_cast<std::size_t>(b)]);
        plan.row_offset[b * n_rows + i] = static_cast<std::int32_t>(at - row);
      }
    }
  });
  return plan;
}

template <class V>
Csc<V> csr_to_csc(const Context& ctx, const CsrView<const V>& x) {
  SCW_EXPECT(x.n_rows <= std::numeric_limits<std::int32_t>::max(), "csr_to_csc", "at most 2^31 - 1 rows (got {})",
             x.n_rows);
  ColumnPlan plan = plan_columns(ctx, x.n_rows, x.n_cols, x.indptr, x.indices);
  Csc<V> out;
  out.n_rows = x.n_rows;
  out.n_cols = x.n_cols;
  out.indices = Array<std::int32_t>(ctx.memory, x.nnz(), "csc indices");
  out.values = Array<V>(ctx.memory, x.nnz(), "csc values");
  struct Scratch {
    Array<Entry<V>> entries;
    std::vector<std::int64_t> end;
  };
  std::vector<Scratch> scratch = make_for_workers(ctx, plan.n_blocks(), [&] {
    return Scratch{Array<Entry<V>>(ctx.workspace, plan.max_block_entries, "column block"), {}};
  });
  parallel_chunks(ctx, plan.n_blocks(), 1, [&](std::int64_t b, std::int64_t, std::int64_t, int worker) {
    Scratch& s = scratch[static_cast<std::size_t>(worker)];
    const std::int32_t first = plan.first[static_cast<std::size_t>(b)];
    s.end.resize(static_cast<std::size_t>(plan.first[static_cast<std::size_t>(b) + 1] - first));
    gather_block(x, plan, b, s.entries.data(), s.end.data(), [](Entry<V>& e, V value, std::int64_t row) {
      e = {static_cast<std::int32_t>(row), value};
      return true;
    });
    const std::int64_t base = plan.column_start[first];
    const std::int64_t count = plan.block_entries(b);
    for (std::int64_t k = 0; k < count; ++k) {
      out.indices[base + k] = s.entries[k].row;
      out.values[base + k] = s.entries[k].value;
    }
  });
  out.indptr = Array<std::int64_t>(ctx.memory, std::int64_t{x.n_cols} + 1, "csc indptr");
  std::copy(plan.column_start.begin(), plan.column_start.end(), out.indptr.begin());
  return out;
}

template SCW_API Csc<float> csr_to_csc(const Context&, const CsrView<const float>&);
template SCW_API Csc<double> csr_to_csc(const Context&, const CsrView<const double>&);

}  // namespace scw::prim
