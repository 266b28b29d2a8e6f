// What the runtime knows of a kernel. Include in .cu files only.
#pragma once

#include "core/cuda/cuda_check.cuh"

namespace scw::cuda {

/// Lets launches of `kernel` on ctx.device, which is current, take all the dynamic shared memory that its static
/// variables leave; how many bytes that is. Never only what one launch needs: the setting belongs to the kernel, and
/// another thread may be about to launch it with more.
template <class... Args>
int allow_shared_memory(const Context& ctx, void (*kernel)(Args...)) {
  int most = 0;
  cudaFuncAttributes attributes{};
  SCW_CUDA(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, ctx.device.id));
  SCW_CUDA(cudaFuncGetAttributes(&attributes, kernel));
  most -= static_cast<int>(attributes.sharedSizeBytes);
  SCW_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  return most;
}

/// The compute capability, 10 * major + minor, for which the code of `kernel` was compiled that the current device
/// runs: what `__CUDA_ARCH__` / 10 was in it. Lower than the device's own where only PTX of an older one is there for
/// it.
template <class... Args>
int compiled_for(void (*kernel)(Args...)) {
  cudaFuncAttributes attributes{};
  SCW_CUDA(cudaFuncGetAttributes(&attributes, kernel));
  return attributes.ptxVersion;
}

}  // namespace scw::cuda
