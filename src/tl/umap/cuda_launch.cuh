// Launches that prepare.cu, average.cu and spectral.cu share: a kernel over n threads, CUB's device-wide algorithms
// with their storage from ctx.workspace, and a number read back.
#pragma once

#include <cstdint>
#include <cub/device/device_scan.cuh>

#include "core/cuda/cuda_check.cuh"
#include "core/transfer.hpp"
#include "scwarp/core/array.hpp"

namespace scw::tl::cuda {

inline constexpr int kThreads = 256;  // of every launch below

/// i over [0, n), by the threads of the grid.
#define SCW_FOR(i, n)                                                                 \
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < (n); \
       i += std::int64_t{gridDim.x} * blockDim.x)

#define SCW_FOR_WARPS(i, n)                                                                  \
  for (std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32; i < (n); \
       i += std::int64_t{gridDim.x} * blockDim.x / 32)

/// At least n_threads threads, up to the grid's limit: kernels go through their work by SCW_FOR.
template <class... Args, class... Given>
void launch_threads(const Context& ctx, const char* name, std::int64_t n_threads, void (*kernel)(Args...),
                    Given... given) {
  if (n_threads == 0) return;
  kernel<<<scw::cuda::grid_for(n_threads, kThreads), kThreads, 0, scw::cuda::stream_of(ctx)>>>(given...);
  SCW_CUDA_LAUNCHED(name);
}

template <class T>
T read_one(const Context& ctx, const T* from) {
  return to_host<T>(ctx, Span<const T>(from, 1))[0];
}

/// run(storage, bytes) is called twice: first with null for the size.
template <class Run>
void with_storage(const Context& ctx, const Run& run) {
  std::size_t bytes = 0;
  SCW_CUDA(run(static_cast<void*>(nullptr), bytes));
  Array<unsigned char> storage(ctx.workspace, static_cast<std::int64_t>(bytes > 0 ? bytes : 1), "sort and scan",
                               ctx.stream);
  SCW_CUDA(run(static_cast<void*>(storage.data()), bytes));
}

/// Offsets of rows from their lengths in offsets[1 ... n]; the total.
inline std::int64_t scan_offsets(const Context& ctx, Array<std::int64_t>& offsets) {
  const std::int64_t n = offsets.size() - 1;
  SCW_CUDA(cudaMemsetAsync(offsets.data(), 0, sizeof(std::int64_t), scw::cuda::stream_of(ctx)));
  if (n == 0) return 0;
  with_storage(ctx, [&](void* storage, std::size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(storage, bytes, offsets.data() + 1, offsets.data() + 1, static_cast<int>(n),
                                         scw::cuda::stream_of(ctx));
  });
  return read_one(ctx, offsets.data() + n);
}

}  // namespace scw::tl::cuda
