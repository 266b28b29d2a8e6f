// The kernel registry: an operation owns a slot, backends fill it.
//
//   kernel.hpp   extern SCW_API Kernel<void(const Context&, ...)> log1p_kernel;
//   log1p.cpp    constinit Kernel<void(const Context&, ...)> log1p_kernel{"pp.log1p"};
//   cpu.cpp      SCW_REGISTER(log1p_kernel, cpu, &cpu::log1p);
//   cuda.cu      SCW_REGISTER(log1p_kernel, cuda, &cuda::log1p);     // in libscwarp_cuda.so, opened at run time
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/device.hpp"

namespace scw {

namespace detail {
SCW_API void register_kernel(const char* name, DeviceType type);
/// Loads the plug-in of `type`; throws BackendUnavailable with the reason.
SCW_API void ensure_backend(DeviceType type);
[[noreturn]] SCW_API void throw_not_supported(const char* name, DeviceType type);
}  // namespace detail

template <class Signature>
class Kernel;

template <class... Args>
class Kernel<void(const Context&, Args...)> {
 public:
  using Function = void (*)(const Context&, Args...);
  explicit constexpr Kernel(const char* name) : name_(name) {}

  /// Runs the implementation for ctx.device, or throws NotSupported naming operation and device.
  void operator()(const Context& ctx, Args... args) const {
    const auto index = static_cast<int>(ctx.device.type);
    if (functions_[index] == nullptr) {
      detail::ensure_backend(ctx.device.type);
      if (functions_[index] == nullptr) detail::throw_not_supported(name_, ctx.device.type);
    }
    functions_[index](ctx, args...);
  }

  bool supports(DeviceType type) const { return functions_[static_cast<int>(type)] != nullptr; }

  int set(DeviceType type, Function function) {
    functions_[static_cast<int>(type)] = function;
    detail::register_kernel(name_, type);
    return 0;
  }

 private:
  const char* name_;
  Function functions_[kDeviceTypeCount] = {};
};

struct KernelInfo {
  std::string name;
  bool on[kDeviceTypeCount] = {};
};

/// Every registered kernel, sorted by name: the support table.
SCW_API std::vector<KernelInfo> registered_kernels();

/// Whether operation `name` ("pp.log1p") has an implementation for `type`.
SCW_API bool supports(std::string_view name, DeviceType type);

}  // namespace scw

#define SCW_REGISTER(kernel, backend, function)                           \
  [[maybe_unused]] static const int scw_registered_##kernel##_##backend = \
      (kernel).set(::scw::DeviceType::backend, function)
