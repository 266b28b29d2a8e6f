#include "scwarp/core/memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

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

}  // namespace

struct TrackedMemory::State {
  std::shared_ptr<MemoryResource> upstream;
  mutable std::mutex mutex;
  std::size_t limit = 0, used = 0, peak = 0;
  std::unordered_map<void*, const char*> tags;
  std::map<std::string, MemoryHolder> by_tag;
};

TrackedMemory::TrackedMemory(std::shared_ptr<MemoryResource> upstream, std::size_t limit_bytes)
    : state_(std::make_unique<State>()) {
  state_->upstream = std::move(upstream);
  state_->limit = limit_bytes;
}
TrackedMemory::~TrackedMemory() = default;

Device TrackedMemory::device() const { return state_->upstream->device(); }

void* TrackedMemory::allocate(std::size_t bytes, StreamHandle stream, const char* tag) {
  auto& s = *state_;
  {
    const std::lock_guard lock(s.mutex);
    if (s.limit != 0 && (bytes > s.limit || s.used > s.limit - bytes)) {
      std::string held;
      std::vector<MemoryHolder> all;
      for (const auto& [name, holder] : s.by_tag)
        if (holder.bytes > 0) all.push_back(holder);
      std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
      for (std::size_t i = 0; i < std::min<std::size_t>(3, all.size()); ++i)
        held += fmt::format("{}{} {}", i == 0 ? "" : ", ", all[i].tag, all[i].bytes);
      detail::fail<OutOfMemory>("memory limit",
                                "'{}' asked for {} bytes (limit {}, in use {}; biggest holders: {}); a limit of at "
                                "least {} bytes would fit this request",
                                tag, bytes, s.limit, s.used, held.empty() ? "none" : held, s.used + bytes);
    }
    s.used += bytes;
    s.peak = std::max(s.peak, s.used);
  }
  void* p = nullptr;
  try {
    p = s.upstream->allocate(bytes, stream, tag);
  } catch (...) {
    const std::lock_guard lock(s.mutex);
    s.used -= bytes;
    throw;
  }
  const std::lock_guard lock(s.mutex);
  s.tags[p] = tag;
  auto& holder = s.by_tag[tag];
  holder.tag = tag;
  holder.bytes += bytes;
  ++holder.count;
  return p;
}

void TrackedMemory::deallocate(void* p, std::size_t bytes, StreamHandle stream) noexcept {
  auto& s = *state_;
  {
    const std::lock_guard lock(s.mutex);
    s.used -= bytes;
    if (const auto it = s.tags.find(p); it != s.tags.end()) {
      auto& holder = s.by_tag[it->second];
      holder.bytes -= bytes;
      --holder.count;
      s.tags.erase(it);
    }
  }
  s.upstream->deallocate(p, bytes, stream);
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

const std::shared_ptr<TrackedMemory>& host_memory() {
  // Never destroyed: arrays held by other static objects may be freed after main.
  static auto* memory =
      new std::shared_ptr<TrackedMemory>(std::make_shared<TrackedMemory>(std::make_shared<HostResource>()));
  return *memory;
}

}  // namespace scw
