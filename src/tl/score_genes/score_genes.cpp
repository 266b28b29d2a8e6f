#include "scwarp/tl/score_genes.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "prim/group_moments/group_moments.hpp"
#include "tl/score_genes/kernel.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, SetTerm, Span<double>)>
    set_sums_kernel{"tl.score_genes: set_sums"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, double, double, Span<double>)>
    set_scores_kernel{"tl.score_genes: set_scores"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<std::int64_t>)> count_nan_kernel{
    "tl.score_genes: count_nan"};

SCW_BUILT_ON("tl.score_genes", "prim.group_moments");

namespace {

constexpr const char* kOp = "tl.score_genes";

/// 1 for the genes in the set.
Array<std::uint8_t> flags_of(std::int64_t m, Span<const std::int32_t> genes, const char* name) {
  SCW_EXPECT(genes.size > 0, kOp, "{} must not be empty", name);
  Array<std::uint8_t> in_set(host_memory(), m, "gene set");
  std::fill(in_set.begin(), in_set.end(), std::uint8_t{0});
  for (const std::int32_t j : genes) {
    SCW_EXPECT(j >= 0 && j < m, kOp, "{} must be column indices in [0, {}) (got {})", name, m, j);
    in_set[j] = 1;
  }
  return in_set;
}
double size_of(const Array<std::uint8_t>& in_set) {
  return static_cast<double>(std::count(in_set.begin(), in_set.end(), std::uint8_t{1}));
}

/// Mean of each cell over the values of the set that are not NaN.
Array<double> mean_without_nan(const Context& ctx, const RowBlocks& x, const Array<std::uint8_t>& in_set) {
  const auto flags = to_device<std::uint8_t>(ctx, in_set.view());
  Array<double> on_device(ctx.workspace, x.n_rows(), "set sums", ctx.stream);
  const auto sums = [&](SetTerm term) {
    x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& rows) {
      set_sums_kernel(ctx, rows, flags.view(), term, on_device.view().subspan(first, n_rows(rows)));
    });
    return to_host<double>(ctx, std::as_const(on_device).view());
  };
  Array<double> mean = sums(SetTerm::not_nan);
  const Array<double> n_nan = sums(SetTerm::nan_count);
  const double n = size_of(in_set);
  for (std::int64_t i = 0; i < mean.size(); ++i) mean[i] = mean[i] / (n - n_nan[i]);
  return mean;
}

}  // namespace

Array<double> nan_mean_of_genes(const Context& ctx, const RowBlocks& x) {
  const std::int64_t n = x.n_rows();
  const std::int64_t m = x.n_cols();
  const prim::GeneScales scales = prim::gene_scales(ctx, x, {});
  const prim::GroupMoments moments = prim::group_moments(ctx, x, {}, 0, 1, {}, scales, false);
  Array<std::int64_t> n_nan(host_memory(), m, "NaN counts");
  std::fill(n_nan.begin(), n_nan.end(), std::int64_t{0});
  if (scales.has_non_finite) {
    Array<std::int64_t> part(host_memory(), m, "NaN counts");
    x.for_each(ctx, [&](std::int64_t, const AnyMatrixView& rows) {
      count_nan_kernel(ctx, rows, part.view());
      for (std::int64_t j = 0; j < m; ++j) n_nan[j] += part[j];
    });
  }
  Array<double> out(host_memory(), m, "gene means");
  for (std::int64_t j = 0; j < m; ++j) {
    const auto infinite = static_cast<std::uint8_t>(moments.flag_at(0, j) & ~prim::kFixedNan);
    const double sum = prim::fixed_sum(moments.at(0, j).sum, moments.scale[j]);
    out[j] = prim::fixed_sum_with_flags(sum, infinite) / static_cast<double>(n - n_nan[j]);
  }
  return out;
}

Array<double> nan_mean_of_genes(const Context& ctx, const AnyMatrixView& x) {
  return nan_mean_of_genes(ctx, ResidentBlocks(x));
}

Array<double> score_genes(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> genes,
                          Span<const std::int32_t> control) {
  const std::int64_t m = x.n_cols();
  const Array<std::uint8_t> set = flags_of(m, genes, "genes"), reference = flags_of(m, control, "control");
  Array<std::uint8_t> both(host_memory(), m, "gene sets");
  for (std::int64_t j = 0; j < m; ++j) both[j] = static_cast<std::uint8_t>(set[j] | (reference[j] << 1));
  const auto sets = to_device<std::uint8_t>(ctx, std::as_const(both).view());
  Array<double> on_device(ctx.workspace, x.n_rows(), "gene scores", ctx.stream);
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& rows) {
    set_scores_kernel(ctx, rows, sets.view(), size_of(set), size_of(reference),
                      on_device.view().subspan(first, n_rows(rows)));
  });
  Array<double> out = to_host<double>(ctx, std::as_const(on_device).view(), "gene scores");
  std::atomic<bool> has_nan{false};
  parallel_for(ctx.host(), out.size(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
    bool here = false;
    for (std::int64_t i = begin; i < end; ++i) here |= out[i] != out[i];
    if (here) has_nan = true;
  });
  if (has_nan) {  // rare: four more passes
    const Array<double> a = mean_without_nan(ctx, x, set), b = mean_without_nan(ctx, x, reference);
    for (std::int64_t i = 0; i < out.size(); ++i) out[i] = a[i] - b[i];
  }
  return out;
}

Array<double> score_genes(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> genes,
                          Span<const std::int32_t> control) {
  return score_genes(ctx, ResidentBlocks(x), genes, control);
}

}  // namespace scw::tl
