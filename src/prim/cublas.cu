#include "prim/cublas.cuh"

#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace scw::cuda {
namespace {

constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;  // what cuBLAS recommends for Hopper

struct Pool {
  std::mutex mutex;
  std::map<int, std::vector<cublasHandle_t>> idle;  // by device
};
// Never destroyed: the CUDA runtime may be gone before static destructors run.
Pool& pool() {
  static auto* p = new Pool;
  return *p;
}

}  // namespace

void throw_cublas_error(cublasStatus_t status, const char* call, const char* file, int line) {
  const std::string text =
      std::string("cuda: ") + call + " at " + file + ":" + std::to_string(line) + ": " + cublasGetStatusString(status);
  if (status == CUBLAS_STATUS_ALLOC_FAILED) throw OutOfMemory(text);
  throw CudaError(text);
}

BlasHandle::BlasHandle(const Context& ctx)
    : scope_(ctx), device_(ctx.device.id), workspace_(ctx.workspace, kWorkspaceBytes, "cublas workspace", ctx.stream) {
  {
    const std::lock_guard lock(pool().mutex);
    auto& idle = pool().idle[device_];
    if (!idle.empty()) {
      handle_ = idle.back();
      idle.pop_back();
    }
  }
  if (handle_ == nullptr) SCW_CUBLAS(cublasCreate(&handle_));
  // No destructor runs after a constructor that throws. What cannot be set up is not lent again.
  const auto destroy = [](cublasContext* handle) { static_cast<void>(cublasDestroy(handle)); };
  std::unique_ptr<cublasContext, decltype(destroy)> owner(handle_, destroy);
  SCW_CUBLAS(cublasSetStream(handle_, stream_of(ctx)));
  SCW_CUBLAS(cublasSetWorkspace(handle_, workspace_.data(), static_cast<std::size_t>(kWorkspaceBytes)));
  SCW_CUBLAS(cublasSetMathMode(handle_, CUBLAS_DEFAULT_MATH));
  SCW_CUBLAS(cublasSetAtomicsMode(handle_, CUBLAS_ATOMICS_NOT_ALLOWED));
  SCW_CUBLAS(cublasSetPointerMode(handle_, CUBLAS_POINTER_MODE_HOST));
  static_cast<void>(owner.release());
}

BlasHandle::~BlasHandle() {
  const std::lock_guard lock(pool().mutex);
  pool().idle[device_].push_back(handle_);
}

}  // namespace scw::cuda
