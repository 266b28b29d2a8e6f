#include "device_cache.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

#include "core/backend.hpp"
#include "core/parallel.hpp"

namespace scw::python {
namespace {

constexpr std::size_t kSmallest = std::size_t{64} << 10;  // below this an upload is as quick
constexpr std::int64_t kChunk = std::int64_t{1} << 20;

/// Four lanes of multiply and xor-shift, each step of which can be undone: no word of the input is lost.
std::uint64_t hash(const unsigned char* p, std::int64_t n) {
  std::uint64_t lane[4] = {0x9E3779B97F4A7C15u, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u, 0x27D4EB2F165667C5u};
  constexpr std::uint64_t kOdd = 0xD6E8FEB86659FD93u;
  std::int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    std::uint64_t w[4];
    std::memcpy(w, p + i, 32);
    for (int l = 0; l < 4; ++l) {
      lane[l] = (lane[l] ^ w[l]) * kOdd;
      lane[l] ^= lane[l] >> 32;
    }
  }
  std::uint64_t h = static_cast<std::uint64_t>(n);
  for (; i < n; ++i) h = (h ^ p[i]) * kOdd;
  for (const std::uint64_t l : lane) {
    h = (h ^ l) * kOdd;
    h ^= h >> 29;
  }
  return h;
}

std::uint64_t digest(const Context& ctx, const void* p, std::size_t bytes) {
  const auto n = static_cast<std::int64_t>(bytes);
  std::vector<std::uint64_t> parts(static_cast<std::size_t>(chunk_count(n, kChunk)));
  parallel_chunks(ctx.host(), n, kChunk, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    parts[static_cast<std::size_t>(chunk)] = hash(static_cast<const unsigned char*>(p) + begin, end - begin);
  });
  return hash(reinterpret_cast<const unsigned char*>(parts.data()), static_cast<std::int64_t>(parts.size() * 8));
}

}  // namespace

DeviceCache& DeviceCache::instance() {
  static auto* cache = new DeviceCache;  // never destroyed: Python frees arrays after main
  return *cache;
}

std::shared_ptr<DeviceCache::Group> DeviceCache::make_group() {
  static std::atomic<std::uint64_t> next{1};
  return std::make_shared<Group>(next++);
}

void DeviceCache::add(const Context& ctx, const Group& group, const void* host, std::size_t bytes, const void* device,
                      std::shared_ptr<void> owner) {
  if (bytes < kSmallest) return;
  std::size_t most = detail::backend_hooks(ctx.device.type).memory_info(ctx.device.id).total / 8;
  if (const std::size_t limit = device_memory(ctx.device)->limit_bytes(); limit != 0) most = std::min(most, limit / 8);
  if (bytes > most) return;
  Entry entry{group.id_, digest(ctx, host, bytes), bytes, ctx.device, device, std::move(owner)};
  device_memory(ctx.device)->set_reclaim([] { instance().clear(); });
  std::list<Entry> dropped;  // freed without the lock
  const std::lock_guard lock(mutex_);
  entries_.push_front(std::move(entry));
  std::size_t held = 0;
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto here = it++;
    if (here->where == ctx.device) held += here->bytes;
    if (held > most && here->where == ctx.device) dropped.splice(dropped.end(), entries_, here);
  }
}

DeviceCache::Hit DeviceCache::find(const Context& ctx, const void* host, std::size_t bytes) {
  const auto matches = [&](const Entry& e) { return e.bytes == bytes && e.where == ctx.device; };
  {
    const std::lock_guard lock(mutex_);
    if (std::none_of(entries_.begin(), entries_.end(), matches)) return {};
  }
  const std::uint64_t wanted = digest(ctx, host, bytes);
  const std::lock_guard lock(mutex_);
  const auto it =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return matches(e) && e.digest == wanted; });
  if (it == entries_.end()) return {};
  entries_.splice(entries_.begin(), entries_, it);
  ++numbers_.hits;
  return {it->device, it->owner};
}

void DeviceCache::clear() {
  std::list<Entry> dropped;
  const std::lock_guard lock(mutex_);
  dropped.swap(entries_);
}

void DeviceCache::drop(std::uint64_t group) noexcept {
  std::list<Entry> dropped;
  const std::lock_guard lock(mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto here = it++;
    if (here->group == group) dropped.splice(dropped.end(), entries_, here);
  }
}

DeviceCache::Numbers DeviceCache::numbers() {
  const std::lock_guard lock(mutex_);
  Numbers n = numbers_;
  for (const Entry& e : entries_) {
    n.bytes += e.bytes;
    ++n.entries;
  }
  return n;
}

void DeviceCache::count_upload(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  ++numbers_.uploads;
  numbers_.uploaded_bytes += bytes;
}

}  // namespace scw::python
