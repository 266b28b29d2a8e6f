#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/log1p.hpp"

namespace scw::pp {

/// x <- ln(1 + x) * scale.
extern SCW_API Kernel<void(const Context&, const AnyMutableMatrixView&, double)> log1p_kernel;

}  // namespace scw::pp
