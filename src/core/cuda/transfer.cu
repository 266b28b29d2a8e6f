// A ring of page-locked slots between pageable host memory and the device.
//
// Why: the bus moves 55 GB/s from page-locked memory and 8 GB/s from pageable memory, because the driver then copies
// through one slot of its own on one thread; page-locking the caller's memory costs more than the copy. So several
// threads copy parts of the array into (out of) small slots while the device reads (writes) others. For a fresh host
// array the same threads are the first to touch its pages, which is what limits copies to the host otherwise.
#include "core/cuda/transfer.cuh"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/cuda/cuda_check.cuh"
#include "core/cuda/tolerate.cuh"
#include "core/parallel.hpp"

namespace scw::cuda {
namespace {

constexpr std::int64_t kSlotBytes = kPieceBytes;            // 80 us on the bus: launch costs vanish, caches still help
constexpr int kSlotsPerWorker = 2;                          // one is filled while the other is read
constexpr int kMaxWorkers = 16;                             // 128 MiB of page-locked memory at most
constexpr std::size_t kDirectBytes = std::size_t{1} << 20;  // below this the driver's own path is as fast

struct Slot {
  std::byte* data = nullptr;
  cudaEvent_t done{};  // the last copy that used the slot
};

class PinnedRing {
 public:
  /// False, and nothing copied, if the system gives no page-locked memory.
  bool copy(const Context& ctx, std::byte* device, std::byte* host, std::int64_t bytes, bool to_device) {
    return each_piece(
        ctx, bytes, kSlotBytes, [&](Slot& slot, std::int64_t begin, std::int64_t size, cudaStream_t stream) {
          const auto n = static_cast<std::size_t>(size);
          if (to_device) std::memcpy(slot.data, host + begin, n);
          SCW_CUDA(to_device ? cudaMemcpyAsync(device + begin, slot.data, n, cudaMemcpyHostToDevice, stream)
                             : cudaMemcpyAsync(slot.data, device + begin, n, cudaMemcpyDeviceToHost, stream));
          SCW_CUDA(cudaEventRecord(slot.done, stream));
          if (to_device) return;
          SCW_CUDA(cudaEventSynchronize(slot.done));
          std::memcpy(host + begin, slot.data, n);
        });
  }

  bool fill(const Context& ctx, std::byte* device, std::int64_t bytes, std::int64_t piece, const FillPiece& make,
            std::int64_t lead) {
    return each_piece(
        ctx, lead + bytes, piece, [&](Slot& slot, std::int64_t from, std::int64_t size, cudaStream_t stream) {
          const std::int64_t begin = std::max(from, lead) - lead, n = from + size - lead - begin;
          make(begin, n, slot.data);
          SCW_CUDA(
              cudaMemcpyAsync(device + begin, slot.data, static_cast<std::size_t>(n), cudaMemcpyHostToDevice, stream));
          SCW_CUDA(cudaEventRecord(slot.done, stream));
        });
  }

  std::size_t bytes() {
    const std::lock_guard lock(mutex_);
    return slots_.size() * static_cast<std::size_t>(kSlotBytes);
  }

  void release() {
    const std::lock_guard lock(mutex_);
    for (const Slot& slot : slots_) {
      tolerate(cudaEventSynchronize(slot.done));
      tolerate(cudaEventDestroy(slot.done));
    }
    for (void* const block : blocks_) tolerate(cudaFreeHost(block));
    slots_.clear();
    blocks_.clear();
  }

 private:
  /// body(slot, begin, bytes, stream) for every piece, each with a slot that no copy uses any more.
  template <class Body>
  bool each_piece(const Context& ctx, std::int64_t bytes, std::int64_t piece, const Body& body) {
    const std::lock_guard lock(mutex_);
    const std::int64_t chunks = chunk_count(bytes, piece);
    const int wanted = static_cast<int>(std::min<std::int64_t>(std::clamp(ctx.n_threads, 1, kMaxWorkers), chunks));
    const int workers = reserve(wanted * kSlotsPerWorker) / kSlotsPerWorker;
    if (workers == 0) return false;
    Context on_host = ctx.host();
    on_host.n_threads = std::min(wanted, workers);
    const cudaStream_t stream = stream_of(ctx);
    int turn[kMaxWorkers] = {};
    parallel_chunks(on_host, bytes, piece, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
      const DeviceScope scope(ctx);
      Slot& slot = slots_[static_cast<std::size_t>(worker * kSlotsPerWorker + turn[worker]++ % kSlotsPerWorker)];
      SCW_CUDA(cudaEventSynchronize(slot.done));
      body(slot, begin, end - begin, stream);
    });
    return true;
  }

  /// Slots there are after an attempt to have n. In as few pieces as possible: page-locking takes 0.4 ms per MiB in one
  /// go and 0.6 in 4 MiB, and in several threads no less.
  int reserve(int n) {
    int missing = n - static_cast<int>(slots_.size());
    for (int part = missing; part > 0; part = std::min(part, missing)) {
      blocks_.reserve(blocks_.size() + 1);
      slots_.reserve(slots_.size() + static_cast<std::size_t>(part));
      const std::size_t bytes = static_cast<std::size_t>(part) * static_cast<std::size_t>(kSlotBytes);
      void* p = nullptr;
      if (cudaHostAlloc(&p, bytes, cudaHostAllocDefault) != cudaSuccess) {
        static_cast<void>(cudaGetLastError());
        part /= 2;
        continue;
      }
      blocks_.push_back(p);
      for (int k = 0; k < part; ++k) {
        Slot slot;
        slot.data = static_cast<std::byte*>(p) + k * kSlotBytes;
        SCW_CUDA(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming));
        slots_.push_back(slot);
      }
      missing -= part;
    }
    return static_cast<int>(slots_.size());
  }

  std::mutex mutex_;
  std::vector<Slot> slots_;
  std::vector<void*> blocks_;  // where the slots are
};

PinnedRing& ring(int id) {
  static std::mutex mutex;
  static auto* rings = new std::map<int, std::unique_ptr<PinnedRing>>;
  const std::lock_guard lock(mutex);
  auto& r = (*rings)[id];
  if (!r) r = std::make_unique<PinnedRing>();
  return *r;
}

bool is_pinned(const void* p) {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, p) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return false;
  }
  return attributes.type == cudaMemoryTypeHost;
}

}  // namespace

void copy(const Context& ctx, void* dst, bool dst_on_device, const void* src, bool src_on_device, std::size_t bytes) {
  const DeviceScope scope(ctx);
  const bool between = dst_on_device && src_on_device;
  if (!between && bytes > kDirectBytes && !is_pinned(dst_on_device ? src : dst)) {
    auto* const device = static_cast<std::byte*>(dst_on_device ? dst : const_cast<void*>(src));
    auto* const host = static_cast<std::byte*>(dst_on_device ? const_cast<void*>(src) : dst);
    if (ring(ctx.device.id).copy(ctx, device, host, static_cast<std::int64_t>(bytes), dst_on_device)) return;
  }
  const auto kind =
      dst_on_device ? (src_on_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice) : cudaMemcpyDeviceToHost;
  SCW_CUDA(cudaMemcpyAsync(dst, src, bytes, kind, stream_of(ctx)));
  if (!between) SCW_CUDA(cudaStreamSynchronize(stream_of(ctx)));
}

void fill(const Context& ctx, void* dst, std::int64_t bytes, std::int64_t piece_bytes, const FillPiece& make,
          std::int64_t lead) {
  const DeviceScope scope(ctx);
  auto* const device = static_cast<std::byte*>(dst);
  if (ring(ctx.device.id).fill(ctx, device, bytes, piece_bytes, make, lead)) return;
  std::vector<std::byte> piece(static_cast<std::size_t>(std::min(bytes, piece_bytes)));
  std::int64_t n = 0;
  for (std::int64_t begin = 0; begin < bytes; begin += n) {
    n = std::min(begin == 0 ? piece_bytes - lead : piece_bytes, bytes - begin);
    make(begin, n, piece.data());
    SCW_CUDA(cudaMemcpyAsync(device + begin, piece.data(), static_cast<std::size_t>(n), cudaMemcpyHostToDevice,
                             stream_of(ctx)));
    SCW_CUDA(cudaStreamSynchronize(stream_of(ctx)));
  }
}

std::size_t pinned_bytes(int id) { return ring(id).bytes(); }

void release_pinned(int id) { ring(id).release(); }

}  // namespace scw::cuda
