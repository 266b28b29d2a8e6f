// The layout on CUDA: a thread per cell, the same blocks of cells and passes as on the CPU, and the same bits.
#include <algorithm>

#include "core/cuda/cuda_check.cuh"
#include "tl/umap/kernel.hpp"

#include "tl/umap/body.inl"

namespace scw::tl::cuda {
namespace {

constexpr int kThreads = 64;

/// Cell of the layout that thread t of a block of cells moves.
__device__ std::int64_t cell_of(std::int64_t t, std::int64_t block) {
  return ((t / kUmapLanes) * kUmapBlocks + block) * kUmapLanes + t % kUmapLanes;
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    step_kernel(UmapPass p, std::int64_t block, std::int64_t n_slots, const float* y, float* moved, float* pushed) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; t < n_slots; t += stride) {
    const std::int64_t i = cell_of(t, block);
    if (i >= p.graph.n_active) continue;
    if constexpr (D > 0) {
      float here[D];
      float push[D];
      umap_step<D>(p, i, y, here, push);
      for (int k = 0; k < D; ++k) moved[t * D + k] = here[k];
    } else {
      umap_step<0>(p, i, y, moved + t * p.dims, pushed + t * p.dims);
    }
  }
}

__global__ void __launch_bounds__(kThreads) commit_kernel(std::int64_t n_active, int dims, std::int64_t block,
                                                          std::int64_t n_slots, const float* moved, float* y) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; t < n_slots; t += stride) {
    const std::int64_t i = cell_of(t, block);
    if (i >= n_active) continue;
    for (int k = 0; k < dims; ++k) y[i * dims + k] = moved[t * dims + k];
  }
}

}  // namespace

void umap_run(const Context& ctx, const UmapGraph& graph, const UmapSchedule& schedule, int from, int to, Span<float> y,
              int& finished) {
  const scw::cuda::DeviceScope scope(ctx);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const int dims = schedule.dims;
  const std::int64_t groups = (graph.n_active + kUmapLanes - 1) / kUmapLanes;
  const std::int64_t slots = (groups + kUmapBlocks - 1) / kUmapBlocks * kUmapLanes;
  Array<float> moved(ctx.workspace, checked_mul(slots, dims), "umap moved positions", ctx.stream);
  Array<float> pushed(ctx.workspace, dims == 2 || dims == 3 ? 0 : checked_mul(slots, dims), "umap pushes", ctx.stream);
  for (int epoch = from; epoch < to; ++epoch) {
    // Nothing of this epoch has been queued yet: what is there is whole epochs.
    ctx.check_cancelled("tl.umap");
    for (int half = 0; half < kUmapPasses; ++half) {
      const UmapPass pass = umap_pass(graph, schedule, epoch, half);
      for (std::int64_t block = 0; block < std::min(kUmapBlocks, groups); ++block) {
        const unsigned grid = scw::cuda::grid_for(slots, kThreads);
        if (dims == 2)
          step_kernel<2><<<grid, kThreads, 0, stream>>>(pass, block, slots, y.data, moved.data(), pushed.data());
        else if (dims == 3)
          step_kernel<3><<<grid, kThreads, 0, stream>>>(pass, block, slots, y.data, moved.data(), pushed.data());
        else
          step_kernel<0><<<grid, kThreads, 0, stream>>>(pass, block, slots, y.data, moved.data(), pushed.data());
        SCW_CUDA_LAUNCHED("umap_step");
        commit_kernel<<<grid, kThreads, 0, stream>>>(graph.n_active, dims, block, slots, moved.data(), y.data);
        SCW_CUDA_LAUNCHED("umap_commit");
      }
    }
    finished = epoch + 1;
    // The queue may not run far ahead of what a user can stop.
    if (finished % 16 == 0 || finished == to) {
      ctx.synchronize();
      ctx.report("umap", finished, schedule.n_epochs);
    }
  }
}

SCW_REGISTER(umap_run_kernel, cuda, &umap_run);

}  // namespace scw::tl::cuda
