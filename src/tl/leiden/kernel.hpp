#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/tl/leiden.hpp"

namespace scw::tl {

/// Fills results[r] for resolutions[r]; the graph is square, its entries are not yet checked.
extern SCW_API Kernel<void(const Context&, const AnyCsrView&, Span<const double>, const LeidenOptions&, Span<Leiden>)>
    leiden_kernel;

}  // namespace scw::tl
