#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/regress_out.hpp"

namespace scw::pp {

/// Sums over cells are made in slabs of rows, each in row order, so that blocks of rows do not show in them.
struct Slabs {
  std::int64_t rows = 0;   ///< of a slab
  std::int64_t first = 0;  ///< the slab that the block starts in
  bool begun = false;      ///< it has rows before the block: the block lies in it. Else sums start at zero.
};

/// partial[s, k, j] = or += sum over the rows i of slab s of q_ik x_ij; q: the rows of the block, partial: [slabs x p x
/// m] on ctx.device.
extern SCW_API
    Kernel<void(const Context&, const AnyMatrixView&, MatrixView<const double> q, const Slabs&, Span<double> partial)>
        projection_kernel;
/// coefficients[k, j] = d_k * sum of partial[s, k, j] over the slabs, in order; everything on ctx.device.
extern SCW_API Kernel<void(const Context&, Span<const double> partial, Span<const double> d, MatrixView<double>)>
    coefficients_kernel;
/// x <- x - q c, in place.
extern SCW_API
    Kernel<void(const Context&, const AnyMutableDenseView&, MatrixView<const double> q, MatrixView<const double> c)>
        residual_kernel;
/// out <- x - q c; out is dense, of the value type of x.
extern SCW_API Kernel<void(const Context&, const AnyCsrView&, MatrixView<const double> q, MatrixView<const double> c,
                           const AnyMutableDenseView& out)>
    residual_to_dense_kernel;
/// Row i loses row codes[i] of means (on ctx.device) if 0 <= codes[i] < means.n_rows.
extern SCW_API
    Kernel<void(const Context&, const AnyMutableDenseView&, Span<const std::int32_t>, MatrixView<const double>)>
        subtract_group_means_kernel;
/// out <- x; out is dense, of the value type of x.
extern SCW_API Kernel<void(const Context&, const AnyCsrView&, const AnyMutableDenseView& out)> densify_kernel;

}  // namespace scw::pp
