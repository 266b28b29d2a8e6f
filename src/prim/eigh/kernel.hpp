#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

/// out[i] = || w_i - values[i] * y_i ||_2 over the rows of w and y, in a fixed order.
extern SCW_API Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                           Span<const double>, Span<double>)>
    residual_norms_kernel;

/// Makes the kEighDeviceBlock rows of next orthonormal and orthogonal to those of basis ([s x m], s may be 0), by
/// two rounds of projection and Cholesky factorisation of their Gram matrix. coefficients ([block x s]) receives next
/// basis' as it was. trouble[0] = 1 if the rows are too dependent for that; they are undefined then.
extern SCW_API Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<double>&,
                           const MatrixView<double>&, Span<std::int32_t>)>
    orthogonalise_kernel;
inline constexpr std::int64_t kEighDeviceBlock = 8;

/// w <- v a for a symmetric matrix a and the rows of v ([b x m]).
extern SCW_API Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                           const MatrixView<double>&)>
    symmetric_product_kernel;

}  // namespace scw::prim
