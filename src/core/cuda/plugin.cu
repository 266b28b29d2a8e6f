// The CUDA plug-in: device memory, copies, and the hooks that libscwarp calls. Kernels register themselves.
#include <map>
#include <mutex>

#include "core/backend.hpp"
#include "core/cuda/cuda_check.cuh"

namespace scw::cuda {

void throw_cuda_error(cudaError_t status, const char* call, const char* file, int line) {
  const std::string where = std::string("cuda: ") + call + " at " + file + ":" + std::to_string(line) + ": ";
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(where + "out of device memory");
  throw CudaError(where + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")");
}

DeviceScope::DeviceScope(const Context& ctx) {
  SCW_CUDA(cudaGetDevice(&previous_));
  if (previous_ != ctx.device.id) SCW_CUDA(cudaSetDevice(ctx.device.id));
}
DeviceScope::~DeviceScope() { static_cast<void>(cudaSetDevice(previous_)); }

namespace {

/// The driver's stream-ordered pool, told to keep what it has: allocate and free cost about a microsecond.
class PoolResource final : public MemoryResource {
 public:
  explicit PoolResource(int id) : id_(id) {
    cudaMemPool_t pool{};
    SCW_CUDA(cudaDeviceGetDefaultMemPool(&pool, id));
    std::uint64_t keep = UINT64_MAX;
    SCW_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
  }
  Device device() const override { return {DeviceType::cuda, id_}; }
  void* allocate(std::size_t bytes, StreamHandle stream, const char* tag) override {
    Context ctx;
    ctx.device = device();
    const DeviceScope scope(ctx);
    void* p = nullptr;
    const cudaError_t status = cudaMallocAsync(&p, bytes, static_cast<cudaStream_t>(stream.handle));
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      std::size_t free_bytes = 0, total_bytes = 0;
      SCW_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
      throw OutOfMemory("device memory: cuda:" + std::to_string(id_) + " refused " + std::to_string(bytes) +
                        " bytes for '" + tag + "' (free " + std::to_string(free_bytes) + ", total " +
                        std::to_string(total_bytes) + ")");
    }
    SCW_CUDA(status);
    return p;
  }
  void deallocate(void* p, std::size_t, StreamHandle stream) noexcept override {
    static_cast<void>(cudaFreeAsync(p, static_cast<cudaStream_t>(stream.handle)));
  }

 private:
  int id_;
};

std::string unavailable_reason() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return std::string(cudaGetErrorString(status));
  }
  return count > 0 ? std::string() : std::string("the driver reports no device");
}

int device_count() {
  int count = 0;
  SCW_CUDA(cudaGetDeviceCount(&count));
  return count;
}

std::string describe(int id) {
  cudaDeviceProp prop{};
  SCW_CUDA(cudaGetDeviceProperties(&prop, id));
  return std::string(prop.name) + ", compute capability " + std::to_string(prop.major) + "." +
         std::to_string(prop.minor) + ", " + std::to_string(prop.totalGlobalMem >> 20) + " MiB";
}

std::shared_ptr<MemoryResource> memory(int id) {
  static std::mutex mutex;
  static auto* resources = new std::map<int, std::shared_ptr<TrackedMemory>>;
  const std::lock_guard lock(mutex);
  auto& r = (*resources)[id];
  if (!r) r = std::make_shared<TrackedMemory>(std::make_shared<PoolResource>(id));
  return r;
}

void synchronize(const Context& ctx) {
  const DeviceScope scope(ctx);
  SCW_CUDA(cudaStreamSynchronize(stream_of(ctx)));
}

void copy(const Context& ctx, void* dst, bool dst_on_device, const void* src, bool src_on_device, std::size_t bytes) {
  const DeviceScope scope(ctx);
  const auto kind =
      dst_on_device ? (src_on_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice) : cudaMemcpyDeviceToHost;
  SCW_CUDA(cudaMemcpyAsync(dst, src, bytes, kind, stream_of(ctx)));
  if (!(dst_on_device && src_on_device)) SCW_CUDA(cudaStreamSynchronize(stream_of(ctx)));
}

constexpr detail::BackendHooks kHooks{&unavailable_reason, &device_count, &describe, &memory, &synchronize, &copy};
[[maybe_unused]] const bool g_registered = (detail::set_backend_hooks(DeviceType::cuda, &kHooks), true);

}  // namespace
}  // namespace scw::cuda

extern "C" SCW_API int scwarp_plugin_abi() { return scw::detail::kPluginAbi; }
