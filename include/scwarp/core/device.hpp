// Where data lives and where an operation runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "scwarp/core/config.hpp"

namespace scw {

enum class DeviceType : std::uint8_t { cpu, cuda };
inline constexpr int kDeviceTypeCount = 2;

struct Device {
  DeviceType type = DeviceType::cpu;
  int id = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

/// "cpu" or "cuda:0".
SCW_API std::string to_string(Device device);

/// Parses "cpu", "cuda", "cuda:1". Throws InvalidArgument for anything else. ("auto" is resolved by default_device.)
SCW_API Device parse_device(std::string_view text);

/// cuda:0 if the CUDA plug-in loads and a device is usable, else cpu.
SCW_API Device default_device();

/// Empty if `type` can be used on this machine, else the reason (what is missing).
SCW_API std::string unavailable_reason(DeviceType type);

/// An execution queue of a device; opaque here (a cudaStream_t on CUDA, null on the CPU).
struct StreamHandle {
  void* handle = nullptr;
};

}  // namespace scw
