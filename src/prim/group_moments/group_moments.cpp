#include "prim/group_moments/group_moments.hpp"

#include <algorithm>
#include <limits>

#include "core/check.hpp"

namespace scw::prim {

constinit Kernel<void(const Context&, const AnyMatrixView&, bool&)> exact_values_kernel{
    "prim.group_moments: exact_values"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<double>, Span<std::uint8_t>)> gene_max_abs_kernel{
    "prim.group_moments: gene_max_abs"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const std::int32_t>, std::int64_t, const ValueMap&,
                      GroupMoments&)>
    group_moments_kernel{"prim.group_moments"};

GeneScales gene_scales(const Context& ctx, const AnyMatrixView& x, const ValueMap& map, bool may_share) {
  const std::int64_t n_genes = n_cols(x);
  constexpr double kLargest = std::numeric_limits<double>::max();
  const auto memory = ctx.host().workspace;
  GeneScales out;
  out.scale = Array<FixedScale>(memory, n_genes, "gene scales");
  out.non_finite = Array<std::uint8_t>(memory, n_genes, "non-finite genes");
  bool exact = false;
  if (may_share && !map.expm1_scale) exact_values_kernel(ctx, x, exact);
  if (exact) {
    std::fill(out.scale.begin(), out.scale.end(), FixedScale(kSharedShift));
    std::fill(out.non_finite.begin(), out.non_finite.end(), std::uint8_t{0});
    return out;
  }
  Array<double> largest(memory, n_genes, "gene maxima");
  gene_max_abs_kernel(ctx, x, largest.view(), out.non_finite.view());
  for (std::int64_t j = 0; j < n_genes; ++j) {
    // |expm1(x)| <= expm1(|x|), so the scale of the mapped values needs no pass of its own.
    const double m = map(largest[j]);
    if (m > kLargest) out.non_finite[j] = 1;
    out.has_non_finite = out.has_non_finite || out.non_finite[j] != 0;
    out.scale[j] = FixedScale::for_max(m > kLargest ? kLargest : m);
  }
  return out;
}

GroupMoments group_moments(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                           std::int64_t first, std::int64_t n_groups, const ValueMap& map, const GeneScales& scales,
                           bool squares) {
  SCW_ASSERT((codes.size == n_rows(x) || (codes.empty() && n_groups == 1)) && scales.scale.size() == n_cols(x));
  SCW_EXPECT(n_rows(x) < kFixedMaxTerms, "group_moments", "at most 2^31 - 1 cells (got {})", n_rows(x));
  GroupMoments out;
  out.n_groups = n_groups;
  out.n_genes = n_cols(x);
  const std::int64_t size = checked_mul(n_groups, out.n_genes);
  out.squares = squares;
  const auto memory = ctx.host().workspace;
  out.moments = Array<FixedMoments>(memory, size, "group moments");
  out.nonzero = Array<std::int32_t>(memory, size, "group non-zeros");
  out.scale = Array<FixedScale>(memory, out.n_genes, "gene scales");
  std::copy(scales.scale.begin(), scales.scale.end(), out.scale.begin());
  if (scales.has_non_finite) out.flags = Array<std::uint8_t>(memory, size, "group flags");
  group_moments_kernel(ctx, x, codes, first, map, out);
  return out;
}

}  // namespace scw::prim
