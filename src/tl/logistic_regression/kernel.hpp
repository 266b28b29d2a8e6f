#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/tl/logistic_regression.hpp"

namespace scw::tl {

extern SCW_API Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t>, std::int32_t,
                           const LogisticRegressionOptions&, LogisticRegression&)>
    logistic_regression_kernel;

}  // namespace scw::tl
