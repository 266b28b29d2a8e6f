// What a backend plug-in gives the core besides its kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "scwarp/core/context.hpp"

namespace scw::detail {

struct BackendHooks {
  /// Empty if at least one device is usable.
  std::string (*unavailable_reason)();
  int (*device_count)();
  /// Name, total memory and compute capability, for `scwarp doctor`.
  std::string (*describe)(int id);
  /// The tracked default resource of device `id`.
  std::shared_ptr<MemoryResource> (*memory)(int id);
  void (*synchronize)(const Context&);
  void (*copy)(const Context&, void* dst, bool dst_on_device, const void* src, bool src_on_device, std::size_t bytes);
};

/// Called by the plug-in while it is being opened.
SCW_API void set_backend_hooks(DeviceType type, const BackendHooks* hooks);
/// The hooks of a loaded backend, loading it first; throws BackendUnavailable.
SCW_API const BackendHooks& backend_hooks(DeviceType type);
/// The name of the plug-in's exported ABI check: returns kPluginAbi.
inline constexpr const char* kPluginAbiSymbol = "scwarp_plugin_abi";
inline constexpr int kPluginAbi = 1;

}  // namespace scw::detail
