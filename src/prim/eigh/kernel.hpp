#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

/// out[i] = || w_i - values[i] * y_i ||_2 over the rows of w and y, in a fixed order.
extern SCW_API Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                           Span<const double>, Span<double>)>
    residual_norms_kernel;

/// w <- v a for a symmetric matrix a and the rows of v ([b x m]).
extern SCW_API Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                           const MatrixView<double>&)>
    symmetric_product_kernel;

}  // namespace scw::prim
