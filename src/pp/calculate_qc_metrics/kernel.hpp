#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/calculate_qc_metrics.hpp"

namespace scw::pp {

extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, const QcOptions&, QcMetrics&)> qc_metrics_kernel;
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> cell_counts_kernel;
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> gene_counts_kernel;

}  // namespace scw::pp
