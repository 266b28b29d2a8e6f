#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/core/views.hpp"

namespace scw {

extern SCW_API Kernel<void(const Context&, std::int64_t, std::int32_t, Span<const std::int64_t>,
                           Span<const std::int32_t>, std::int32_t&)>
    csr_defects_kernel;

}  // namespace scw
