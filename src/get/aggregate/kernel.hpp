#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/get/aggregate.hpp"

namespace scw::get {

/// out[g, j] = median of gene j over the cells of group g. codes: in [0, n_groups], n_groups = left out.
extern SCW_API Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t>, Span<const std::int64_t>,
                           MatrixView<double>)>
    group_median_kernel;

}  // namespace scw::get
