// A block of threads fills a row: the residuals of zeros, then the stored entries over them. Bound by the write of the
// dense result and, for double, by square roots and divisions.
#include "core/cuda/cuda_check.cuh"
#include "pp/normalize_pearson_residuals/kernel.hpp"
#include "prim/row_ops.cuh"

#include "pp/normalize_pearson_residuals/body.inl"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 256;

template <class X, class Out>
__global__ void __launch_bounds__(kThreads) residuals_kernel(X x, PearsonModel m, MatrixView<Out> out) {
  for (std::int64_t i = blockIdx.x; i < x.n_rows; i += gridDim.x) {
    Out* const to = out.row(i);
    const std::int32_t g = m.groups.empty() ? 0 : m.groups[i];
    if (g < 0 || g >= m.gene_sums.n_rows) {  // in no group: nobody reads this row, but it must not be garbage
      for (std::int64_t j = threadIdx.x; j < out.n_cols; j += kThreads) to[j] = Out{0};
      continue;
    }
    const PearsonCell cell{m.row_share[i], m.clip[g], m.inverse_theta, !m.zero_for_nan};
    const double* const sums = m.gene_sums.row(g);
    if constexpr (requires { x.indptr; }) {
      for (std::int64_t j = threadIdx.x; j < out.n_cols; j += kThreads) to[j] = static_cast<Out>(cell(0.0, sums[j]));
      __syncthreads();
      const std::int64_t end = x.indptr[i + 1];
      for (std::int64_t k = x.indptr[i] + threadIdx.x; k < end; k += kThreads) {
        const std::int32_t j = x.indices[k];
        to[j] = static_cast<Out>(cell(static_cast<double>(x.values[k]), sums[j]));
      }
    } else {
      for (std::int64_t j = threadIdx.x; j < out.n_cols; j += kThreads)
        to[j] = static_cast<Out>(cell(static_cast<double>(x(i, j)), sums[j]));
    }
  }
}

}  // namespace

void pearson_residuals(const Context& ctx, const AnyMatrixView& x, const PearsonModel& m,
                       const AnyMutableDenseView& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v, const auto& to) {
        if (v.n_rows == 0) return;
        residuals_kernel<<<scw::cuda::grid_for(v.n_rows, 1), kThreads, 0, scw::cuda::stream_of(ctx)>>>(v, m, to);
        SCW_CUDA_LAUNCHED("pearson_residuals");
      },
      x, out);
}

SCW_REGISTER(pearson_residuals_kernel, cuda, &pearson_residuals);

}  // namespace scw::pp::cuda
