#include "core/cuda/cuda_check.cuh"
#include "prim/eigh/kernel.hpp"
#include "prim/gemm/kernel.hpp"

namespace scw::prim::cuda {
namespace {

constexpr int kThreads = 256;

/// One block a row, a fixed tree.
__global__ void __launch_bounds__(kThreads)
    residual_norms_rows(MatrixView<const double> w, MatrixView<const double> y, const double* values, double* out) {
  __shared__ double sums[kThreads];
  const std::int64_t i = blockIdx.x;
  double sum = 0;
  for (std::int64_t j = threadIdx.x; j < w.n_cols; j += kThreads) {
    const double r = w(i, j) - values[i] * y(i, j);
    sum += r * r;
  }
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[i] = sqrt(sums[0]);
}

}  // namespace

void residual_norms(const Context& ctx, const MatrixView<const double>& w, const MatrixView<const double>& y,
                    Span<const double> values, Span<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  if (w.n_rows == 0) return;
  residual_norms_rows<<<static_cast<unsigned>(w.n_rows), kThreads, 0, scw::cuda::stream_of(ctx)>>>(w, y, values.data,
                                                                                                   out.data);
  SCW_CUDA_LAUNCHED("residual_norms");
}

void symmetric_product(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& v,
                       const MatrixView<double>& w) {
  gemm_f64_kernel(ctx, v, a, w, {});
}

SCW_REGISTER(symmetric_product_kernel, cuda, &symmetric_product);
SCW_REGISTER(residual_norms_kernel, cuda, &residual_norms);

}  // namespace scw::prim::cuda
