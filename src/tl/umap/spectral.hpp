#pragma once

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

/// Start positions (n x dims, on ctx.device as the graph) from a symmetric graph with positive weights and no loops:
/// eigenvectors 2 ... dims
/// + 1 of the normalised Laplacian I - D^-1/2 W D^-1/2 of each connected component, placed side by side.
SCW_API Matrix<float> spectral_layout(const Context& ctx, const CsrView<const float>& graph, int dims);

}  // namespace scw::tl
