// cuBLAS handles. Include in .cu files only.
#pragma once

#include <cublas_v2.h>

#include "core/cuda/cuda_check.cuh"
#include "scwarp/core/array.hpp"

namespace scw::cuda {

[[noreturn]] void throw_cublas_error(cublasStatus_t status, const char* call, const char* file, int line);

/// Borrows a handle for ctx.device and sets it to ctx.stream with a workspace of fixed size from ctx.workspace, so that
/// on one GPU (model and visible multiprocessors) the algorithm, and the bits, depend on the shapes only. FP32 products
/// are computed in FP32: no TF32.
class BlasHandle {
 public:
  explicit BlasHandle(const Context& ctx);
  ~BlasHandle();
  BlasHandle(const BlasHandle&) = delete;
  BlasHandle& operator=(const BlasHandle&) = delete;
  operator cublasHandle_t() const { return handle_; }

 private:
  DeviceScope scope_;
  int device_;
  Array<unsigned char> workspace_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace scw::cuda

#define SCW_CUBLAS(call)                                                           \
  do {                                                                             \
    const cublasStatus_t scw_blas_status = (call);                                 \
    if (scw_blas_status != CUBLAS_STATUS_SUCCESS)                                  \
      ::scw::cuda::throw_cublas_error(scw_blas_status, #call, __FILE__, __LINE__); \
  } while (false)
