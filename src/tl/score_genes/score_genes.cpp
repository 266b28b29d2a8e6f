#include "scwarp/tl/score_genes.hpp"

#include <algorithm>
#include <vector>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "prim/group_moments/group_moments.hpp"
#include "tl/score_genes/kernel.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, SetTerm, Span<double>)>
    set_sums_kernel{"tl.score_genes: set_sums"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<std::int64_t>)> count_nan_kernel{
    "tl.score_genes: count_nan"};

namespace {

constexpr const char* kOp = "tl.score_genes";

/// Sum and number of the values that are not NaN, per cell.
struct SetMean {
  Array<double> sum, n_nan;  // n_nan empty: none
  double n = 0;
  double operator()(std::int64_t i) const { return sum[i] / (n_nan.empty() ? n : n - n_nan[i]); }
};

SetMean set_mean(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> genes, const char* name) {
  const std::int64_t m = n_cols(x);
  SCW_EXPECT(genes.size > 0, kOp, "{} must not be empty", name);
  Array<std::uint8_t> in_set(host_memory(), m, "gene set");
  std::fill(in_set.begin(), in_set.end(), std::uint8_t{0});
  for (const std::int32_t j : genes) {
    SCW_EXPECT(j >= 0 && j < m, kOp, "{} must be column indices in [0, {}) (got {})", name, m, j);
    in_set[j] = 1;
  }
  SetMean out;
  for (std::int64_t j = 0; j < m; ++j) out.n += in_set[j];
  const auto flags = to_device<std::uint8_t>(ctx, std::as_const(in_set).view());
  Array<double> on_device(ctx.workspace, n_rows(x), "set sums", ctx.stream);
  const auto sums = [&](SetTerm term) {
    set_sums_kernel(ctx, x, flags.view(), term, on_device.view());
    return to_host<double>(ctx, std::as_const(on_device).view());
  };
  out.sum = sums(SetTerm::value);
  if (std::any_of(out.sum.begin(), out.sum.end(), [](double s) { return s != s; })) {  // rare: two more passes
    out.sum = sums(SetTerm::not_nan);
    out.n_nan = sums(SetTerm::nan_count);
  }
  return out;
}

}  // namespace

Array<double> nan_mean_of_genes(const Context& ctx, const AnyMatrixView& x) {
  const std::int64_t n = n_rows(x);
  const std::int64_t m = n_cols(x);
  const prim::GeneScales scales = prim::gene_scales(ctx, x, {});
  std::vector<std::int32_t> codes(static_cast<std::size_t>(n), 0);
  const prim::GroupMoments moments = prim::group_moments(ctx, x, codes, 0, 1, {}, scales);
  Array<std::int64_t> n_nan(host_memory(), m, "NaN counts");
  std::fill(n_nan.begin(), n_nan.end(), std::int64_t{0});
  if (scales.has_non_finite) count_nan_kernel(ctx, x, n_nan.view());
  Array<double> out(host_memory(), m, "gene means");
  for (std::int64_t j = 0; j < m; ++j) {
    const auto infinite = static_cast<std::uint8_t>(moments.flag_at(0, j) & ~prim::kFixedNan);
    const double sum = prim::fixed_sum(moments.at(0, j).sum, moments.scale[j]);
    out[j] = prim::fixed_sum_with_flags(sum, infinite) / static_cast<double>(n - n_nan[j]);
  }
  return out;
}

Array<double> score_genes(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> genes,
                          Span<const std::int32_t> control) {
  const SetMean set = set_mean(ctx, x, genes, "genes");
  const SetMean reference = set_mean(ctx, x, control, "control");
  Array<double> out(host_memory(), n_rows(x), "gene scores");
  for (std::int64_t i = 0; i < out.size(); ++i) out[i] = set(i) - reference(i);
  return out;
}

}  // namespace scw::tl
