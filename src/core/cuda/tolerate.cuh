// Calls whose failure changes nothing. Include in .cu files only.
#pragma once

#include <cuda_runtime.h>

namespace scw::cuda {

/// Whether a call succeeded. A failure is taken out of the runtime's memory of this thread: it would come up as that of
/// the next launch.
inline bool tolerate(cudaError_t status) noexcept {
  if (status == cudaSuccess) return true;
  static_cast<void>(cudaGetLastError());
  return false;
}

}  // namespace scw::cuda
