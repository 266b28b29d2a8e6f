#pragma once

#include "pp/gene_moments/kernel.hpp"
#include "scwarp/core/kernel.hpp"

namespace scw::pp {

/// What lies above a clip value, by group and column.
struct ClippedSum {
  prim::FixedMoments sums;  // of the integers of gene_moments (GeneSums::scale)
  std::int64_t count = 0;
};

/// sums[g, j] over entries x_ij > clip[g, j] of rows of group g; sums come zeroed, on the host. Empty groups: one
/// group.
extern SCW_API Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t> groups,
                           MatrixView<const double> clip, Span<const prim::FixedScale> scale, Span<ClippedSum> sums)>
    clipped_sums_kernel;

/// sums[j] <- sum over k of weights[k] * round(2^shift * exp(-shares[j] * totals[k])): zeros expected of gene j among
/// cells of these totals. All on the host; shares and totals are not negative, and 2^shift times the sum of the weights
/// is at most 2^62. Integers: the order of the terms does not matter.
extern SCW_API Kernel<void(const Context&, Span<const double> totals, Span<const std::int64_t> weights,
                           Span<const double> shares, int shift, Span<std::int64_t> sums)>
    expected_zeros_kernel;

}  // namespace scw::pp
