// Matrix product and the small row operations that go with it, on ctx.device. Row-major.
#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

struct GemmOptions {
  bool trans_a = false, trans_b = false;
  double alpha = 1, beta = 0;
};

extern SCW_API Kernel<void(const Context&, const MatrixView<const float>&, const MatrixView<const float>&,
                           const MatrixView<float>&, const GemmOptions&)>
    gemm_f32_kernel;
extern SCW_API Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                           const MatrixView<double>&, const GemmOptions&)>
    gemm_f64_kernel;

/// c <- alpha op(a) op(b) + beta c. c must not overlap a or b. CPU: fixed output tiles over the threads, one
/// single-threaded BLAS call each. CUDA: cuBLAS, no TF32, fixed workspace.
void gemm(const Context& ctx, const MatrixView<const float>& a, const MatrixView<const float>& b,
          const MatrixView<float>& c, const GemmOptions& options = {});
void gemm(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& b,
          const MatrixView<double>& c, const GemmOptions& options = {});

}  // namespace scw::prim
