#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/neighbors.hpp"

namespace scw::pp {

/// Allocates and fills out.
extern SCW_API Kernel<void(const Context&, const KnnView&, const ConnectivityOptions&, Csr<float>&)>
    connectivities_kernel;
extern SCW_API Kernel<void(const Context&, const MatrixView<const float>&, int, const MatrixView<float>&)>
    gauss_kernel_kernel;
/// out is allocated.
extern SCW_API Kernel<void(const Context&, const KnnView&, Csr<float>&)> distance_graph_kernel;

}  // namespace scw::pp
