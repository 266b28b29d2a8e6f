#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/regress_out.hpp"

namespace scw::pp {

/// x <- x - q (d q^T x), where the rows of q^T are orthogonal and d_r = 1 / |q_r|^2; q on ctx.device, d on the host.
extern SCW_API
    Kernel<void(const Context&, const AnyMutableDenseView&, MatrixView<const double> q, Span<const double> d)>
        remove_projection_kernel;
/// out <- x - q (d q^T x); out is dense, of the value type of x.
extern SCW_API Kernel<void(const Context&, const AnyCsrView&, MatrixView<const double> q, Span<const double> d,
                           const AnyMutableDenseView& out)>
    residual_to_dense_kernel;
/// Row i loses row codes[i] of means (on ctx.device) if 0 <= codes[i] < means.n_rows.
extern SCW_API
    Kernel<void(const Context&, const AnyMutableDenseView&, Span<const std::int32_t>, MatrixView<const double>)>
        subtract_group_means_kernel;
/// out <- x; out is dense, of the value type of x.
extern SCW_API Kernel<void(const Context&, const AnyCsrView&, const AnyMutableDenseView& out)> densify_kernel;

}  // namespace scw::pp
