#include "prim/group_moments/group_moments.hpp"

#include <algorithm>
#include <limits>

#include "core/check.hpp"
#include "core/parallel.hpp"

namespace scw::prim {

constinit Kernel<void(const Context&, const AnyMatrixView&, bool&)> exact_values_kernel{
    "prim.group_moments: exact_values"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<double>, Span<std::uint8_t>)> gene_max_abs_kernel{
    "prim.group_moments: gene_max_abs"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const std::int32_t>, std::int64_t, const ValueMap&,
                      GroupMoments&)>
    group_moments_kernel{"prim.group_moments"};

GeneScales gene_scales(const Context& ctx, const RowBlocks& x, const ValueMap& map, bool may_share) {
  const std::int64_t n_genes = x.n_cols();
  constexpr double kLargest = std::numeric_limits<double>::max();
  const auto memory = ctx.host().workspace;
  GeneScales out;
  out.scale = Array<FixedScale>(memory, n_genes, "gene scales");
  out.non_finite = Array<std::uint8_t>(memory, n_genes, "non-finite genes");
  bool exact = may_share && !map.expm1_scale;
  if (exact)
    x.for_each(ctx, [&](std::int64_t, const AnyMatrixView& rows) {
      bool here = false;
      if (exact) exact_values_kernel(ctx, rows, here);
      exact = here;
    });
  if (exact) {
    std::fill(out.scale.begin(), out.scale.end(), FixedScale(kSharedShift));
    std::fill(out.non_finite.begin(), out.non_finite.end(), std::uint8_t{0});
    return out;
  }
  Array<double> largest(memory, n_genes, "gene maxima");
  if (const AnyMatrixView* const all = x.whole(ctx)) {
    gene_max_abs_kernel(ctx, *all, largest.view(), out.non_finite.view());
  } else {
    std::fill(largest.begin(), largest.end(), 0.0);
    std::fill(out.non_finite.begin(), out.non_finite.end(), std::uint8_t{0});
    Array<double> part(memory, n_genes, "gene maxima");
    Array<std::uint8_t> bad(memory, n_genes, "non-finite genes");
    x.for_each(ctx, [&](std::int64_t, const AnyMatrixView& rows) {
      gene_max_abs_kernel(ctx, rows, part.view(), bad.view());
      for (std::int64_t j = 0; j < n_genes; ++j) {
        largest[j] = std::max(largest[j], part[j]);
        out.non_finite[j] = out.non_finite[j] | bad[j];
      }
    });
  }
  for (std::int64_t j = 0; j < n_genes; ++j) {
    // |expm1(x)| <= expm1(|x|), so the scale of the mapped values needs no pass of its own.
    const double m = map(largest[j]);
    if (m > kLargest) out.non_finite[j] = 1;
    out.has_non_finite = out.has_non_finite || out.non_finite[j] != 0;
    out.scale[j] = FixedScale::for_max(m > kLargest ? kLargest : m);
  }
  return out;
}

GroupMoments group_moments(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, std::int64_t first,
                           std::int64_t n_groups, const ValueMap& map, const GeneScales& scales, bool squares) {
  SCW_ASSERT((codes.size == x.n_rows() || (codes.empty() && n_groups == 1)) && scales.scale.size() == x.n_cols());
  SCW_EXPECT(x.n_rows() < kFixedMaxTerms, "group_moments", "at most 2^31 - 1 cells (got {})", x.n_rows());
  const std::int64_t n_genes = x.n_cols(), size = checked_mul(n_groups, n_genes);
  const auto memory = ctx.host().workspace;
  const auto make = [&] {
    GroupMoments m;
    m.n_groups = n_groups;
    m.n_genes = n_genes;
    m.squares = squares;
    m.moments = Array<FixedMoments>(memory, size, "group moments");
    m.nonzero = Array<std::int32_t>(memory, size, "group non-zeros");
    m.scale = Array<FixedScale>(memory, n_genes, "gene scales");
    std::copy(scales.scale.begin(), scales.scale.end(), m.scale.begin());
    if (scales.has_non_finite) m.flags = Array<std::uint8_t>(memory, size, "group flags");
    return m;
  };
  GroupMoments out = make();
  if (const AnyMatrixView* const all = x.whole(ctx)) {
    group_moments_kernel(ctx, *all, codes, first, map, out);
    return out;
  }
  std::fill(out.moments.begin(), out.moments.end(), FixedMoments{});
  std::fill(out.nonzero.begin(), out.nonzero.end(), 0);
  std::fill(out.flags.begin(), out.flags.end(), std::uint8_t{0});
  GroupMoments part = make();
  x.for_each(ctx, [&](std::int64_t first_row, const AnyMatrixView& rows) {
    group_moments_kernel(ctx, rows, codes.empty() ? codes : codes.subspan(first_row, n_rows(rows)), first, map, part);
    parallel_for(ctx.host(), size, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) {
        out.moments[k].sum += part.moments[k].sum;
        if (squares) out.moments[k].sum_sq += part.moments[k].sum_sq;
        out.nonzero[k] += part.nonzero[k];
        if (!out.flags.empty()) out.flags[k] = out.flags[k] | part.flags[k];
      }
    });
  });
  return out;
}

}  // namespace scw::prim
