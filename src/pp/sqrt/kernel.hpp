#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/sqrt.hpp"

namespace scw::pp {

extern SCW_API Kernel<void(const Context&, const AnyMutableMatrixView&)> sqrt_kernel;

}  // namespace scw::pp
