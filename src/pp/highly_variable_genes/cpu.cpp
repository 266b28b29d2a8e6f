#include <algorithm>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/highly_variable_genes/kernel.hpp"

#include "pp/highly_variable_genes/body.inl"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kRowGrain = 256;
constexpr std::int64_t kTile = 64;
constexpr std::int64_t kBytes = std::int64_t{512} << 20;

// Entries above the clip value are rare: a tile is searched by a vectorised loop, and looked at closely only on a hit.
SCW_CLONES bool any_above(const float* x, const std::int32_t* columns, const double* clip, std::int64_t n) {
  std::uint64_t hit = 0;
  for (std::int64_t i = 0; i < n; ++i) hit |= std::uint64_t{static_cast<double>(x[i]) > clip[columns[i]]};
  return hit != 0;
}
SCW_CLONES bool any_above(const double* x, const std::int32_t* columns, const double* clip, std::int64_t n) {
  std::uint64_t hit = 0;
  for (std::int64_t i = 0; i < n; ++i) hit |= std::uint64_t{x[i] > clip[columns[i]]};
  return hit != 0;
}
SCW_CLONES bool any_above(const float* x, const double* clip, std::int64_t n) {
  std::uint64_t hit = 0;
  for (std::int64_t i = 0; i < n; ++i) hit |= std::uint64_t{static_cast<double>(x[i]) > clip[i]};
  return hit != 0;
}
SCW_CLONES bool any_above(const double* x, const double* clip, std::int64_t n) {
  std::uint64_t hit = 0;
  for (std::int64_t i = 0; i < n; ++i) hit |= std::uint64_t{x[i] > clip[i]};
  return hit != 0;
}

template <class V>
void search_row(const CsrView<const V>& x, std::int64_t row, const double* clip, const prim::FixedScale* scale,
                ClippedSum* to) {
  for (std::int64_t k = x.indptr[row], end = x.indptr[row + 1]; k < end; k += kTile) {
    const std::int64_t n = std::min(kTile, end - k);
    if (!any_above(x.values.data + k, x.indices.data + k, clip, n)) continue;
    for (std::int64_t e = k; e < k + n; ++e) {
      const std::int32_t j = x.indices[e];
      const auto value = static_cast<double>(x.values[e]);
      if (!(value > clip[j])) continue;
      to[j].sums.add(scale[j].quantise(value));
      ++to[j].count;
    }
  }
}
template <class V>
void search_row(const MatrixView<const V>& x, std::int64_t row, const double* clip, const prim::FixedScale* scale,
                ClippedSum* to) {
  const V* const values = x.row(row);
  for (std::int64_t k = 0; k < x.n_cols; k += kTile) {
    const std::int64_t n = std::min(kTile, x.n_cols - k);
    if (!any_above(values + k, clip + k, n)) continue;
    for (std::int64_t j = k; j < k + n; ++j) {
      const auto value = static_cast<double>(values[j]);
      if (!(value > clip[j])) continue;
      to[j].sums.add(scale[j].quantise(value));
      ++to[j].count;
    }
  }
}

constexpr std::int64_t kGeneGrain = 16;

SCW_CLONES std::int64_t zeros_of_gene(double share, const double* totals, const std::int64_t* weights, std::int64_t n,
                                      prim::FixedScale scale) {
  std::int64_t sum = 0;
  for (std::int64_t k = 0; k < n; ++k) sum += zeros_term(share, totals[k], weights[k], scale);
  return sum;
}

}  // namespace

void clipped_sums(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> groups,
                  MatrixView<const double> clip, Span<const prim::FixedScale> scale, Span<ClippedSum> sums) {
  Context limited = ctx;
  const std::int64_t bytes = std::max<std::int64_t>(1, checked_mul(sums.size, sizeof(ClippedSum)));
  limited.n_threads = static_cast<int>(std::clamp<std::int64_t>(kBytes / bytes, 1, std::max(1, ctx.n_threads)));
  // Worker 0 adds to `sums` itself.
  Array<ClippedSum> others(ctx.workspace, checked_mul(limited.n_threads - 1, sums.size), "clipped sums");
  std::fill(others.begin(), others.end(), ClippedSum{});
  x.for_each(limited, [&](std::int64_t first_row, const AnyMatrixView& block) {
    std::visit(
        [&](const auto& v) {
          parallel_chunks(limited, v.n_rows, kRowGrain,
                          [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
                            ClippedSum* const own = worker == 0 ? sums.data : others.data() + (worker - 1) * sums.size;
                            for (std::int64_t i = begin; i < end; ++i) {
                              const std::int32_t g = groups.empty() ? 0 : groups[first_row + i];
                              if (g < 0 || g >= clip.n_rows) continue;
                              search_row(v, i, clip.row(g), scale.data, own + g * clip.n_cols);
                            }
                          });
        },
        block);
  });
  for (std::int64_t k = 0; k < others.size(); ++k) {
    sums[k % sums.size].sums += others[k].sums;
    sums[k % sums.size].count += others[k].count;
  }
}

void expected_zeros(const Context& ctx, Span<const double> totals, Span<const std::int64_t> weights,
                    Span<const double> shares, int shift, Span<std::int64_t> sums) {
  const prim::FixedScale scale(shift);
  parallel_for(ctx, shares.size, kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j)
      sums[j] = zeros_of_gene(shares[j], totals.data, weights.data, totals.size, scale);
  });
}

SCW_REGISTER(clipped_sums_kernel, cpu, &clipped_sums);
SCW_REGISTER(expected_zeros_kernel, cpu, &expected_zeros);

}  // namespace scw::pp::cpu
