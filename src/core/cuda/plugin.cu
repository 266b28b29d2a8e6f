// The CUDA plug-in: device memory, copies, and the hooks that libscwarp calls. Kernels register themselves.
#include <map>
#include <mutex>

#include "core/backend.hpp"
#include "core/cuda/cuda_check.cuh"
#include "core/cuda/tolerate.cuh"
#include "core/cuda/transfer.cuh"

namespace scw::cuda {

void throw_cuda_error(cudaError_t status, const char* call, const char* file, int line) {
  tolerate(status);  // reported here: not once more after the next launch
  const std::string where = std::string("cuda: ") + call + " at " + file + ":" + std::to_string(line) + ": ";
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(where + "out of device memory");
  throw CudaError(where + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")");
}

DeviceScope::DeviceScope(const Context& ctx) {
  SCW_CUDA(cudaGetDevice(&previous_));
  if (previous_ != ctx.device.id) SCW_CUDA(cudaSetDevice(ctx.device.id));
}
DeviceScope::~DeviceScope() { tolerate(cudaSetDevice(previous_)); }

namespace {

Context context_of(int id) {
  Context ctx;
  ctx.device = {DeviceType::cuda, id};
  return ctx;
}

/// DeviceScope where nothing may be thrown.
class QuietDeviceScope {
 public:
  explicit QuietDeviceScope(int id) noexcept {
    const bool known = tolerate(cudaGetDevice(&previous_));
    changed_ = known && previous_ != id && tolerate(cudaSetDevice(id));
  }
  ~QuietDeviceScope() {
    if (changed_) tolerate(cudaSetDevice(previous_));
  }
  QuietDeviceScope(const QuietDeviceScope&) = delete;
  QuietDeviceScope& operator=(const QuietDeviceScope&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

/// A stream-ordered pool that keeps what it has: allocate and free cost about a microsecond. The driver's default pool,
/// or one of our own with a largest size.
class PoolResource final : public MemoryResource {
 public:
  PoolResource(int id, std::size_t max_bytes) : id_(id), max_bytes_(max_bytes) {
    const DeviceScope scope(context_of(id));
    if (max_bytes == 0) {
      SCW_CUDA(cudaDeviceGetDefaultMemPool(&pool_, id));
    } else {
      cudaMemPoolProps props{};
      props.allocType = cudaMemAllocationTypePinned;
      props.location.type = cudaMemLocationTypeDevice;
      props.location.id = id;
      props.maxSize = max_bytes;
      SCW_CUDA(cudaMemPoolCreate(&pool_, &props));
    }
    try {
      std::uint64_t keep = UINT64_MAX;
      SCW_CUDA(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep));
      if (max_bytes == 0) return;
      void* const all = allocate(max_bytes, {}, "pool");
      SCW_CUDA(cudaFreeAsync(all, nullptr));
      SCW_CUDA(cudaStreamSynchronize(nullptr));
    } catch (...) {
      if (max_bytes != 0) tolerate(cudaMemPoolDestroy(pool_));
      throw;
    }
  }
  ~PoolResource() override {
    if (max_bytes_ != 0) tolerate(cudaMemPoolDestroy(pool_));
  }
  cudaMemPool_t pool() const { return pool_; }
  std::size_t max_bytes() const { return max_bytes_; }
  Device device() const override { return {DeviceType::cuda, id_}; }
  void* allocate(std::size_t bytes, StreamHandle stream, const char* tag) override {
    const DeviceScope scope(context_of(id_));
    void* p = nullptr;
    cudaError_t status = cudaMallocFromPoolAsync(&p, bytes, pool_, static_cast<cudaStream_t>(stream.handle));
    if (status == cudaErrorMemoryAllocation) {
      // What other streams have freed becomes usable here once they are done, and may then need other pages.
      static_cast<void>(cudaGetLastError());
      tolerate(cudaDeviceSynchronize());
      if (max_bytes_ == 0) tolerate(cudaMemPoolTrimTo(pool_, 0));
      status = cudaMallocFromPoolAsync(&p, bytes, pool_, static_cast<cudaStream_t>(stream.handle));
    }
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      std::size_t free_bytes = 0, total_bytes = 0;
      SCW_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
      throw OutOfMemory("cuda:" + std::to_string(id_) + " refused " + std::to_string(bytes) + " bytes for '" + tag +
                        "' (free " + std::to_string(free_bytes) + " of " + std::to_string(total_bytes) +
                        (max_bytes_ != 0 ? ", pool of " + std::to_string(max_bytes_) : std::string()) + ")");
    }
    SCW_CUDA(status);
    return p;
  }
  void deallocate(void* p, std::size_t, StreamHandle stream) noexcept override {
    const QuietDeviceScope scope(id_);  // the default streams are those of the current device
    tolerate(cudaFreeAsync(p, static_cast<cudaStream_t>(stream.handle)));
  }

 private:
  int id_;
  std::size_t max_bytes_;
  cudaMemPool_t pool_{};
};

/// Where allocations of each device come from: the pool made last, as long as something refers to it. Not kept alive
/// here: one that another strategy has replaced goes with the last array in it.
class CurrentPools {
 public:
  void set(int id, const std::shared_ptr<PoolResource>& pool) {
    const std::lock_guard lock(mutex_);
    pools_[id] = pool;
  }
  /// Null with managed memory or an outside allocator.
  std::shared_ptr<PoolResource> get(int id) {
    const std::lock_guard lock(mutex_);
    const auto it = pools_.find(id);
    return it == pools_.end() ? nullptr : it->second.lock();
  }

 private:
  std::mutex mutex_;
  std::map<int, std::weak_ptr<PoolResource>> pools_;
};
CurrentPools& current_pools() {
  static auto* pools = new CurrentPools;
  return *pools;
}

/// Managed memory: more than the device has may be asked for; pages move as they are used.
class ManagedResource final : public MemoryResource {
 public:
  explicit ManagedResource(int id) : id_(id) {}
  Device device() const override { return {DeviceType::cuda, id_}; }
  void* allocate(std::size_t bytes, StreamHandle, const char* tag) override {
    const DeviceScope scope(context_of(id_));
    void* p = nullptr;
    const cudaError_t status = cudaMallocManaged(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      throw OutOfMemory("cuda:" + std::to_string(id_) + " refused " + std::to_string(bytes) +
                        " bytes of managed memory for '" + tag + "'");
    }
    SCW_CUDA(status);
    return p;
  }
  void deallocate(void* p, std::size_t, StreamHandle stream) noexcept override {
    const QuietDeviceScope scope(id_);
    // cudaFree is not ordered on the stream.
    tolerate(cudaStreamSynchronize(static_cast<cudaStream_t>(stream.handle)));
    tolerate(cudaFree(p));
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

std::shared_ptr<MemoryResource> make_resource(int id, const detail::MemoryStrategy& strategy) {
  if (strategy.managed) {
    current_pools().set(id, nullptr);
    return std::make_shared<ManagedResource>(id);
  }
  auto pool = std::make_shared<PoolResource>(id, strategy.pool_bytes);
  current_pools().set(id, pool);
  return pool;
}

std::shared_ptr<TrackedMemory> memory(int id) {
  static std::mutex mutex;
  static auto* resources = new std::map<int, std::shared_ptr<TrackedMemory>>;
  const std::lock_guard lock(mutex);
  auto& r = (*resources)[id];
  if (!r) r = std::make_shared<TrackedMemory>(make_resource(id, {}));
  return r;
}

detail::DeviceMemory memory_info(int id) {
  const DeviceScope scope(context_of(id));
  detail::DeviceMemory info;
  SCW_CUDA(cudaMemGetInfo(&info.free, &info.total));
  if (const auto pool = current_pools().get(id)) {
    std::uint64_t held = 0, used = 0;
    SCW_CUDA(cudaMemPoolGetAttribute(pool->pool(), cudaMemPoolAttrReservedMemCurrent, &held));
    SCW_CUDA(cudaMemPoolGetAttribute(pool->pool(), cudaMemPoolAttrUsedMemCurrent, &used));
    info.pool_held = held;
    info.pool_used = used;
    info.free = detail::free_with_pool(info.free, held, used, pool->max_bytes());
  }
  info.pinned = pinned_bytes(id);
  return info;
}

void release(int id) {
  const DeviceScope scope(context_of(id));
  SCW_CUDA(cudaDeviceSynchronize());
  release_pinned(id);
  if (const auto pool = current_pools().get(id)) SCW_CUDA(cudaMemPoolTrimTo(pool->pool(), 0));
}

void synchronize(const Context& ctx) {
  const DeviceScope scope(ctx);
  SCW_CUDA(cudaStreamSynchronize(stream_of(ctx)));
}

bool is_resident(const void* p) {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, p) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return false;
  }
  return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
}

StreamHandle own_stream(int id, detail::OwnStream which) {
  static std::mutex mutex;
  static auto* streams = new std::map<std::pair<int, detail::OwnStream>, cudaStream_t>;
  const std::lock_guard lock(mutex);
  cudaStream_t& stream = (*streams)[{id, which}];
  if (stream == nullptr) {
    const DeviceScope scope(context_of(id));
    SCW_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  return {stream};
}

void order(const Context& ctx, StreamHandle first, StreamHandle then) {
  const DeviceScope scope(ctx);
  cudaEvent_t event{};
  SCW_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  const cudaError_t recorded = cudaEventRecord(event, static_cast<cudaStream_t>(first.handle));
  const cudaError_t waits = cudaStreamWaitEvent(static_cast<cudaStream_t>(then.handle), event, 0);
  tolerate(cudaEventDestroy(event));  // it is released once it has happened
  SCW_CUDA(recorded);
  SCW_CUDA(waits);
}

constexpr detail::BackendHooks kHooks{&unavailable_reason, &device_count, &describe,    &memory, &make_resource,
                                      &memory_info,        &release,      &synchronize, &copy,   &is_resident,
                                      &own_stream,         &order,        &fill};
[[maybe_unused]] const bool g_registered = (detail::set_backend_hooks(DeviceType::cuda, &kHooks), true);

}  // namespace
}  // namespace scw::cuda

extern "C" SCW_API int scwarp_plugin_abi() { return scw::detail::kPluginAbi; }
