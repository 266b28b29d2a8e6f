// What a backend plug-in gives the core besides its kernels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/fill_device.hpp"
#include "scwarp/core/context.hpp"

namespace scw::detail {

enum class OwnStream : std::uint8_t {
  compute,  ///< of operations on host data
  copy,     ///< uploads beside them
};

/// Memory of one device, in bytes.
struct DeviceMemory {
  std::size_t total = 0;
  std::size_t free = 0;       ///< for an allocation of ours: see free_with_pool
  std::size_t pool_held = 0;  ///< what our pool has taken from the driver
  std::size_t pool_used = 0;  ///< the part of it that is handed out
  std::size_t pinned = 0;     ///< page-locked host memory of the transfer ring
};

/// What allocations can still get where `free` bytes of the device are free and their pool holds `held`, `used` of them
/// handed out: what the pool has unused comes first, and it never holds more than `most` (0: any number).
constexpr std::size_t free_with_pool(std::size_t free, std::size_t held, std::size_t used, std::size_t most) {
  const std::size_t all = free + (held - std::min(held, used));
  return most == 0 ? all : std::min(all, most - std::min(most, used));
}

/// Where device memory comes from; exactly one of the two may be set.
struct MemoryStrategy {
  std::size_t pool_bytes = 0;  ///< a pool of this size, taken at once, which is also the most; 0: grows as needed
  bool managed = false;        ///< pages move between device and host as needed
};

struct BackendHooks {
  /// Empty if at least one device is usable.
  std::string (*unavailable_reason)();
  int (*device_count)();
  /// Name, total memory and compute capability, for `scwarp doctor`.
  std::string (*describe)(int id);
  /// The tracked default resource of device `id`.
  std::shared_ptr<TrackedMemory> (*memory)(int id);
  /// A resource to put below it.
  std::shared_ptr<MemoryResource> (*make_resource)(int id, const MemoryStrategy&);
  DeviceMemory (*memory_info)(int id);
  /// Gives back what nothing uses: unused pool memory and the transfer ring.
  void (*release)(int id);
  void (*synchronize)(const Context&);
  void (*copy)(const Context&, void* dst, bool dst_on_device, const void* src, bool src_on_device, std::size_t bytes);
  /// Whether kernels can read this address (device or managed memory).
  bool (*is_resident)(const void* p);
  /// One of the library's own queues of a device, which live as long as the process.
  StreamHandle (*stream)(int id, OwnStream which);
  /// What is queued on `then` from now on waits for what has been queued on `first`.
  void (*order)(const Context&, StreamHandle first, StreamHandle then);
  /// See fill_device; pieces are at most kPieceBytes.
  void (*fill)(const Context&, void* dst, std::int64_t bytes, std::int64_t piece_bytes, const FillPiece& fill,
               std::int64_t lead);
};

/// Called by the plug-in while it is being opened.
SCW_API void set_backend_hooks(DeviceType type, const BackendHooks* hooks);
/// The hooks of a loaded backend, loading it first; throws BackendUnavailable.
SCW_API const BackendHooks& backend_hooks(DeviceType type);
/// The name of the plug-in's exported ABI check: returns kPluginAbi.
inline constexpr const char* kPluginAbiSymbol = "scwarp_plugin_abi";
inline constexpr int kPluginAbi = 4;

}  // namespace scw::detail
