// The block product of pp.pca for matrices of many genes, which keep clear of the covariance: dense tiles in double. A
// tile costs one write of its size, the two products with it a hundred times that.
#include "pp/pca/tile.cuh"

namespace scw::pp::cuda {
namespace {

/// y[i, b] += offset[b]; y_sum[b] += sum of the column. One block a column, a fixed tree.
__global__ void __launch_bounds__(kThreads)
    offset_and_sum(double* y, std::int64_t rows, std::int64_t width, const double* offset, double* y_sum) {
  __shared__ double sums[kThreads];
  const std::int64_t b = blockIdx.x;
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < rows; i += kThreads) sum += y[i * width + b] += offset[b];
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) y_sum[b] += sums[0];
}

template <class View>
void apply(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
           const MatrixView<const double>& v, Span<const double> offset, const MatrixView<double>& w,
           Span<double> y_sum) {
  const std::int64_t b = v.n_rows;
  Array<double> y(ctx.workspace, kPcaBlockRows * b, "pca products", ctx.stream);
  for_each_tile<double>(ctx, x, t, r, [&](const Array<double>& tile, std::int64_t, std::int64_t rows) {
    const MatrixView<const double> d(tile.data(), rows, t.m);
    const MatrixView<double> out(y.data(), rows, b);
    prim::gemm_f64_kernel(ctx, d, v, out, {false, true, 1, 0});
    offset_and_sum<<<static_cast<unsigned>(b), kThreads, 0, scw::cuda::stream_of(ctx)>>>(y.data(), rows, b, offset.data,
                                                                                         y_sum.data);
    SCW_CUDA_LAUNCHED("pca: offset_and_sum");
    prim::gemm_f64_kernel(ctx, out, d, w, {true, false, 1, 1});
  });
}

}  // namespace

void pca_apply(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
               const MatrixView<const double>& v, Span<const double> offset, const MatrixView<double>& w,
               Span<double> y_sum) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& rows) { apply(ctx, rows, t, r, v, offset, w, y_sum); }, x);
}

SCW_REGISTER(pca_apply_kernel, cuda, &pca_apply);

}  // namespace scw::pp::cuda
