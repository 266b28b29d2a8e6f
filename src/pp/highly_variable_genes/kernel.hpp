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

}  // namespace scw::pp
