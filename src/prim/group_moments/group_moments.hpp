// Per group of cells and per gene: exact sum, sum of squares and number of non-zero values (prim/fixed_point.hpp), so
// that the result does not depend on the order of the cells and any group can be subtracted from the total. Tier A.
// Results are on the host: what follows is small. Floor on CUDA: a read of the values and one of the matrix (where the
// values are not exact at the shared scale, of the matrix twice).
#pragma once

#include <cstdint>
#include <optional>

#include "prim/fixed_point.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

/// What is summed: x itself, or expm1(x * scale).
struct ValueMap {
  std::optional<double> expm1_scale;
  SCW_HD double operator()(double x) const { return expm1_scale ? math::expm1(x * *expm1_scale) : x; }
};

struct GroupMoments {
  std::int64_t n_groups = 0, n_genes = 0;
  Array<FixedMoments> moments;  // [n_groups x n_genes]
  Array<std::int32_t> nonzero;  // [n_groups x n_genes], values that are not 0
  Array<std::uint8_t> flags;    // [n_groups x n_genes], fixed_flag of the values; empty if all values are finite
  Array<FixedScale> scale;      // [n_genes]
  bool squares = true;          // sum_sq is wanted

  const FixedMoments& at(std::int64_t group, std::int64_t gene) const { return moments[group * n_genes + gene]; }
  std::int32_t nonzero_at(std::int64_t group, std::int64_t gene) const { return nonzero[group * n_genes + gene]; }
  std::uint8_t flag_at(std::int64_t group, std::int64_t gene) const {
    return flags.empty() ? std::uint8_t{0} : flags[group * n_genes + gene];
  }
};

/// The scale 2^31, which all genes share if every value is exact in it and below 2^16: counts, and logarithms of
/// normalised counts in float. No maxima are needed then, and rounding loses nothing.
inline constexpr int kSharedShift = 31;
SCW_HD inline bool is_exact_at_shared_scale(double x) {
  const double t = x * 0x1p31;
  return (t + 0x1.8p52) - 0x1.8p52 == t && t < 0x1p47 && t > -0x1p47;  // false for NaN
}
/// Whether that holds for all values.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, bool&)> exact_values_kernel;

/// Per gene: the largest finite |x|, and whether any value is NaN or infinite (1).
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<double>, Span<std::uint8_t>)> gene_max_abs_kernel;
/// Fills moments (sum_sq only where wanted), nonzero and, if not empty, flags of the groups [first, first + n_groups)
/// from cells whose code is there; no codes: all cells are in one group. scale is given.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<const std::int32_t>, std::int64_t,
                           const ValueMap&, GroupMoments&)>
    group_moments_kernel;

/// Scale of every gene: the shared one, or from its largest |map(x)|; has_non_finite tells whether any value is NaN or
/// infinite (such values take no part in the sums; their flags do).
struct GeneScales {
  Array<FixedScale> scale;         // [n_genes]
  Array<std::uint8_t> non_finite;  // [n_genes], 1 = the gene has such values
  bool has_non_finite = false;
};
/// may_share: whether the shared scale is tried; without it, the scales are those of any other way to the maxima. One
/// pass over row blocks, two where the shared scale is tried in vain.
SCW_API GeneScales gene_scales(const Context& ctx, const RowBlocks& x, const ValueMap& map, bool may_share = true);

/// Moments of the groups [first, first + n_groups). codes: group of each cell, on the host, any other number = in no
/// group; empty: all cells in one group. squares: sums of squares as well (else undefined).
/// Memory: 36 bytes a group and gene (on CUDA on the host as well), 48 a thread and gene on the CPU, 4 a cell (CUDA: 8,
/// and 4 a cell for each 5 000 genes after the first); in several blocks, the results twice. One pass over row blocks.
SCW_API GroupMoments group_moments(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes,
                                   std::int64_t first, std::int64_t n_groups, const ValueMap& map,
                                   const GeneScales& scales, bool squares = true);

}  // namespace scw::prim
