#pragma once

#include <vector>

#include "core/cuda/cuda_check.cuh"
#include "pp/calculate_qc_metrics/kernel.hpp"

namespace scw::pp::cuda {

/// out.pct_top from out.total; whole: all values are whole numbers below 2^22. X: CsrView or MatrixView.
template <class X>
void top_shares(const Context& ctx, const X& x, const std::vector<std::int64_t>& tops, bool whole, QcMetrics& out);

#define SCW_TOP_SHARES(prefix, X) \
  prefix template void top_shares(const Context&, const X&, const std::vector<std::int64_t>&, bool, QcMetrics&)
SCW_TOP_SHARES(extern, CsrView<const float>);
SCW_TOP_SHARES(extern, CsrView<const double>);
SCW_TOP_SHARES(extern, MatrixView<const float>);
SCW_TOP_SHARES(extern, MatrixView<const double>);

}  // namespace scw::pp::cuda
