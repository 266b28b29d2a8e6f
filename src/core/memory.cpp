#include "scwarp/core/memory.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <string_view>

#include "core/backend.hpp"
#include "core/check.hpp"

namespace scw {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

class HostResource final : public MemoryResource {
 public:
  Device device() const override { return {}; }
  void* allocate(std::size_t bytes, StreamHandle, const char* tag) override {
    const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kAlignment;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void* p = rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded);
    if (p == nullptr) detail::fail<OutOfMemory>("host memory", "the system refused {} bytes for '{}'", bytes, tag);
    if (alignment == kHugePage) madvise(p, rounded, MADV_HUGEPAGE);  // only advice: fewer page faults
    return p;
  }
  void deallocate(void* p, std::size_t, StreamHandle) noexcept override { std::free(p); }
};

/// Keeps `mutex`, which lives for ever, for the thread that forks. Without that a child that is forked while another
/// thread is inside waits at its first allocation for a thread that it does not have.
void hold_while_forking(std::mutex& mutex) {
  static std::mutex* const held = &mutex;
  pthread_atfork([] { held->lock(); }, [] { held->unlock(); }, [] { held->unlock(); });
}

}  // namespace

struct TrackedMemory::State {
  struct Held {
    MemoryHolder* holder = nullptr;  // in by_tag, whose entries stay
    std::shared_ptr<MemoryResource> from;
  };
  using HeldBuffers = std::map<void*, Held>;
  std::shared_ptr<MemoryResource> upstream;
  std::function<void()> reclaim;
  mutable std::mutex mutex;
  std::size_t limit = 0, used = 0, peak = 0;
  HeldBuffers held;
  std::map<std::string, MemoryHolder, std::less<>> by_tag;

  /// All that the books need for one more buffer, made before there is one: afterwards nothing can fail.
  HeldBuffers::node_type entry_for(const char* tag) {
    auto it = by_tag.find(std::string_view(tag));
    if (it == by_tag.end()) it = by_tag.emplace(tag, MemoryHolder{tag, 0, 0}).first;
    HeldBuffers one;
    one[nullptr] = {&it->second, upstream};
    return one.extract(one.begin());
  }

  /// "neighbours 120000, ...": the three biggest holders.
  std::string biggest() const {
    std::vector<MemoryHolder> all;
    for (const auto& [name, holder] : by_tag)
      if (holder.bytes > 0) all.push_back(holder);
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
    std::string text;
    for (std::size_t i = 0; i < std::min<std::size_t>(3, all.size()); ++i)
      text += fmt::format("{}{} {}", i == 0 ? "" : ", ", all[i].tag, all[i].bytes);
    return text.empty() ? "none" : text;
  }

  bool fits(std::size_t bytes) const { return limit == 0 || (bytes <= limit && used <= limit - bytes); }

  [[noreturn]] void refuse(std::size_t bytes, const char* tag) const {
    const bool host = upstream->device().type == DeviceType::cpu;
    detail::fail<OutOfMemory>("memory limit",
                              "'{}' asked for {} bytes (limit {}, in use {}, free {}; biggest holders: {}); a limit of "
                              "at least {} bytes would fit this request: {}",
                              tag, bytes, limit, used, limit - std::min(limit, used), biggest(), used + bytes,
                              host ? "settings.memory_limit in Python, --memory-limit of the program"
                                   : "memory.configure(limit=...); a matrix that stays on the host is streamed");
  }
};

TrackedMemory::TrackedMemory(std::shared_ptr<MemoryResource> upstream, std::size_t limit_bytes)
    : state_(std::make_unique<State>()) {
  state_->upstream = std::move(upstream);
  state_->limit = limit_bytes;
  // Of the process-wide host memory alone: children cannot use a device.
  if (dynamic_cast<const HostResource*>(state_->upstream.get()) != nullptr) hold_while_forking(state_->mutex);
}
TrackedMemory::~TrackedMemory() = default;

Device TrackedMemory::device() const {
  const std::lock_guard lock(state_->mutex);
  return state_->upstream->device();
}

void* TrackedMemory::allocate(std::size_t bytes, StreamHandle stream, const char* tag) {
  auto& s = *state_;
  State::HeldBuffers::node_type entry;
  for (bool again = false;; again = true) {
    std::function<void()> reclaim;
    {
      const std::lock_guard lock(s.mutex);
      if (s.fits(bytes)) {
        entry = s.entry_for(tag);
        s.used += bytes;
        break;
      }
      if (again || !s.reclaim) s.refuse(bytes, tag);
      reclaim = s.reclaim;
    }
    reclaim();
  }
  MemoryResource* const from = entry.mapped().from.get();
  void* p = nullptr;
  try {
    try {
      p = from->allocate(bytes, stream, tag);
    } catch (const OutOfMemory&) {
      std::function<void()> reclaim;
      {
        const std::lock_guard lock(s.mutex);
        reclaim = s.reclaim;
      }
      if (!reclaim) throw;
      reclaim();
      p = from->allocate(bytes, stream, tag);
    }
  } catch (const OutOfMemory& e) {
    const std::lock_guard lock(s.mutex);
    s.used -= bytes;
    if (from->device().type == DeviceType::cpu) throw;
    detail::fail<OutOfMemory>("device memory",
                              "{}; in use {}, biggest holders: {}. A matrix that stays on the host (device='cuda') is "
                              "streamed; memory.configure(managed=True) spills to the host",
                              e.what(), s.used, s.biggest());
  } catch (...) {
    const std::lock_guard lock(s.mutex);
    s.used -= bytes;
    throw;
  }
  const std::lock_guard lock(s.mutex);
  s.peak = std::max(s.peak, s.used);
  MemoryHolder& holder = *entry.mapped().holder;
  holder.bytes += bytes;
  ++holder.count;
  entry.key() = p;
  s.held.insert(std::move(entry));
  return p;
}

void TrackedMemory::deallocate(void* p, std::size_t bytes, StreamHandle stream) noexcept {
  auto& s = *state_;
  std::shared_ptr<MemoryResource> from;
  {
    const std::lock_guard lock(s.mutex);
    s.used -= bytes;
    from = s.upstream;
    if (const auto it = s.held.find(p); it != s.held.end()) {
      MemoryHolder& holder = *it->second.holder;
      holder.bytes -= bytes;
      --holder.count;
      from = std::move(it->second.from);
      s.held.erase(it);
    }
  }
  from->deallocate(p, bytes, stream);
}

void TrackedMemory::set_upstream(std::shared_ptr<MemoryResource> upstream) {
  const std::lock_guard lock(state_->mutex);
  state_->upstream = std::move(upstream);
}
void TrackedMemory::set_reclaim(std::function<void()> reclaim) {
  const std::lock_guard lock(state_->mutex);
  state_->reclaim = std::move(reclaim);
}

std::size_t TrackedMemory::used_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->used;
}
std::size_t TrackedMemory::peak_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->peak;
}
void TrackedMemory::reset_peak() {
  const std::lock_guard lock(state_->mutex);
  state_->peak = state_->used;
}
std::size_t TrackedMemory::limit_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->limit;
}
void TrackedMemory::set_limit_bytes(std::size_t limit_bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->limit = limit_bytes;
}
std::vector<MemoryHolder> TrackedMemory::holders() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<MemoryHolder> all;
  for (const auto& [name, holder] : state_->by_tag)
    if (holder.count > 0) all.push_back(holder);
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return all;
}

std::shared_ptr<TrackedMemory> device_memory(Device device) {
  return device.type == DeviceType::cpu ? host_memory() : detail::backend_hooks(device.type).memory(device.id);
}

const std::shared_ptr<TrackedMemory>& host_memory() {
  // Never destroyed: arrays held by other static objects may be freed after main.
  static auto* memory =
      new std::shared_ptr<TrackedMemory>(std::make_shared<TrackedMemory>(std::make_shared<HostResource>()));
  return *memory;
}

}  // namespace scw
