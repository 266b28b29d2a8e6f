// Checked CUDA calls and launches. Include in .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "core/check.hpp"
#include "scwarp/core/context.hpp"

namespace scw::cuda {

[[noreturn]] void throw_cuda_error(cudaError_t status, const char* call, const char* file, int line);

inline cudaStream_t stream_of(const Context& ctx) { return static_cast<cudaStream_t>(ctx.stream.handle); }

/// Makes ctx.device current for the scope of a backend function.
class DeviceScope {
 public:
  explicit DeviceScope(const Context& ctx);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
};

/// Blocks for n work items at `per_block`, capped: kernels stride over the rest.
inline unsigned grid_for(std::int64_t n, std::int64_t per_block, std::int64_t cap = 1 << 20) {
  return static_cast<unsigned>(std::clamp<std::int64_t>((n + per_block - 1) / per_block, 1, cap));
}

}  // namespace scw::cuda

#define SCW_CUDA(call)                                                                                   \
  do {                                                                                                   \
    const cudaError_t scw_status = (call);                                                               \
    if (scw_status != cudaSuccess) ::scw::cuda::throw_cuda_error(scw_status, #call, __FILE__, __LINE__); \
  } while (false)

/// After every launch: SCW_CUDA_LAUNCHED("name_of_kernel").
#define SCW_CUDA_LAUNCHED(name)                                                                         \
  do {                                                                                                  \
    const cudaError_t scw_status = cudaGetLastError();                                                  \
    if (scw_status != cudaSuccess) ::scw::cuda::throw_cuda_error(scw_status, name, __FILE__, __LINE__); \
  } while (false)
