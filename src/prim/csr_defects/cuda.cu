#include "core/cuda/cuda_check.cuh"
#include "scwarp/core/csr_defects.hpp"
#include "prim/csr_defects/kernel.hpp"
#include "scwarp/core/array.hpp"

#include "prim/csr_defects/body.inl"

namespace scw::cuda {
namespace {

constexpr int kThreads = 256;

/// One warp a row.
__global__ void __launch_bounds__(kThreads)
    defects_kernel(std::int64_t n_rows, std::int32_t n_cols, const std::int64_t* indptr, const std::int32_t* indices,
                   std::int32_t* defects) {
  const std::int64_t warps = std::int64_t{gridDim.x} * (kThreads / 32);
  std::int32_t d = 0;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; i < n_rows; i += warps) {
    const std::int64_t begin = indptr[i], end = indptr[i + 1];
#pragma unroll 4
    for (std::int64_t k = begin + (threadIdx.x & 31); k < end; k += 32) d |= column_defects(indices, k, begin, n_cols);
  }
  if (d != 0) atomicOr(defects, d);
}

}  // namespace

void csr_defects(const Context& ctx, std::int64_t n_rows, std::int32_t n_cols, Span<const std::int64_t> indptr,
                 Span<const std::int32_t> indices, std::int32_t& defects) {
  const scw::cuda::DeviceScope scope(ctx);
  Array<std::int32_t> found(ctx.workspace, 1, "csr defects", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(found.data(), 0, sizeof(std::int32_t), scw::cuda::stream_of(ctx)));
  defects_kernel<<<scw::cuda::grid_for(n_rows, kThreads / 32, 1 << 14), kThreads, 0, scw::cuda::stream_of(ctx)>>>(
      n_rows, n_cols, indptr.data, indices.data, found.data());
  SCW_CUDA_LAUNCHED("csr_defects");
  copy_bytes(ctx, &defects, Device{}, found.data(), ctx.device, sizeof(defects));
}

SCW_REGISTER(csr_defects_kernel, cuda, &csr_defects);

}  // namespace scw::cuda
