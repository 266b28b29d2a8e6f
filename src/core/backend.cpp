#include "core/backend.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <mutex>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "scwarp/core/kernel.hpp"

namespace scw {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, KernelInfo, std::less<>> kernels;
  std::map<std::string, std::vector<std::string>, std::less<>> parts;
};

Registry& registry() {
  static Registry r;
  return r;
}

const detail::BackendHooks* g_cuda_hooks = nullptr;

/// Opens libscwarp_cuda.so beside libscwarp.so. Returns an empty string, or why it cannot be used.
std::string load_cuda() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&load_cuda), &info) == 0 || info.dli_fname == nullptr)
    return "cannot find the folder of libscwarp";
  const auto path = std::filesystem::path(info.dli_fname).parent_path() / "libscwarp_cuda.so";
  std::error_code ec;
  if (!std::filesystem::exists(path, ec))
    return "the CUDA plug-in is not installed (no " + path.string() + "); build with SCWARP_CUDA=ON";
  // RTLD_NODELETE: its kernels stay registered for the life of the process.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* why = dlerror();
    return std::string("the CUDA plug-in cannot be opened: ") + (why != nullptr ? why : "unknown reason");
  }
  const auto abi = reinterpret_cast<int (*)()>(dlsym(handle, detail::kPluginAbiSymbol));
  if (abi == nullptr || abi() != detail::kPluginAbi || g_cuda_hooks == nullptr)
    return "the CUDA plug-in at " + path.string() + " belongs to another version of scwarp";
  return g_cuda_hooks->unavailable_reason();
}

const std::string& cuda_reason() {
  static const std::string reason = load_cuda();
  return reason;
}

}  // namespace

namespace detail {

void register_kernel(const char* name, DeviceType type) {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  auto& info = r.kernels[name];
  info.name = name;
  info.on[static_cast<int>(type)] = true;
}

int register_part(const char* operation, const char* part) {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  r.parts[operation].emplace_back(part);
  return 0;
}

void set_backend_hooks(DeviceType type, const BackendHooks* hooks) {
  SCW_ASSERT(type == DeviceType::cuda);
  g_cuda_hooks = hooks;
}

void ensure_backend(DeviceType type) {
  const std::string reason = unavailable_reason(type);
  if (!reason.empty()) fail<BackendUnavailable>("cuda", "no usable CUDA device: {}", reason);
}

const BackendHooks& backend_hooks(DeviceType type) {
  ensure_backend(type);
  SCW_ASSERT(type == DeviceType::cuda && g_cuda_hooks != nullptr);
  return *g_cuda_hooks;
}

void throw_not_supported(const char* name, DeviceType type) {
  fail<NotSupported>(name, "has no {} implementation (run it with device='cpu', or see the support table)",
                     type == DeviceType::cuda ? "CUDA" : "CPU");
}

}  // namespace detail

std::vector<KernelInfo> registered_kernels() {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<KernelInfo> all;
  for (const auto& [name, info] : r.kernels) all.push_back(info);
  return all;
}

std::vector<std::string> parts_of(std::string_view operation) {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<std::string> all{std::string(operation)};
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto it = r.parts.find(all[i]);
    if (it == r.parts.end()) continue;
    for (const std::string& part : it->second)
      if (std::find(all.begin(), all.end(), part) == all.end()) all.push_back(part);
  }
  return all;
}

bool supports(std::string_view name, DeviceType type) {
  if (!unavailable_reason(type).empty()) return false;
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto it = r.kernels.find(name);
  return it != r.kernels.end() && it->second.on[static_cast<int>(type)];
}

std::string unavailable_reason(DeviceType type) { return type == DeviceType::cpu ? std::string() : cuda_reason(); }

std::string to_string(Device device) {
  return device.type == DeviceType::cpu ? "cpu" : "cuda:" + std::to_string(device.id);
}

Device parse_device(std::string_view text) {
  if (text == "cpu") return {};
  if (text == "cuda") return {DeviceType::cuda, 0};
  if (text.starts_with("cuda:")) {
    int id = -1;
    const auto digits = text.substr(5);
    const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), id);
    if (ec == std::errc{} && end == digits.data() + digits.size() && id >= 0) return {DeviceType::cuda, id};
  }
  detail::fail<InvalidArgument>("device", "unknown device (got '{}', expected 'cpu', 'cuda' or 'cuda:<number>')", text);
}

Device default_device() {
  return unavailable_reason(DeviceType::cuda).empty() ? Device{DeviceType::cuda, 0} : Device{};
}

}  // namespace scw
