#include "scwarp/core/context.hpp"

#include <sched.h>

#include <algorithm>
#include <cstring>

#include "core/backend.hpp"
#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/fill_device.hpp"

namespace scw {

int available_threads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

Context Context::cpu(int n_threads) {
  SCW_EXPECT(n_threads >= 0, "context", "n_threads must be 0 (all) or positive (got {})", n_threads);
  Context ctx;
  ctx.memory = host_memory();
  ctx.workspace = host_memory();
  ctx.n_threads = n_threads == 0 ? available_threads() : n_threads;
  return ctx;
}

Context Context::on(Device device, int n_threads) {
  Context ctx = cpu(n_threads);
  if (device.type == DeviceType::cpu) return ctx;
  const auto& hooks = detail::backend_hooks(device.type);
  SCW_EXPECT_AS(BackendUnavailable, device.id < hooks.device_count(), "cuda", "no device {} (found {})", device.id,
                hooks.device_count());
  ctx.device = device;
  ctx.memory = hooks.memory(device.id);
  ctx.workspace = ctx.memory;
  return ctx;
}

Context Context::host() const {
  if (device.type == DeviceType::cpu) return *this;
  Context ctx = *this;
  ctx.device = {};
  ctx.stream = {};
  ctx.memory = host_memory();
  ctx.workspace = host_memory();
  return ctx;
}

void Context::check_cancelled(const char* op) const {
  if (is_cancelled()) detail::fail<Cancelled>(op, "stopped by the user");
}

void Context::synchronize() const {
  if (device.type != DeviceType::cpu) detail::backend_hooks(device.type).synchronize(*this);
}

void copy_bytes(const Context& ctx, void* dst, Device dst_device, const void* src, Device src_device,
                std::size_t bytes) {
  if (bytes == 0) return;
  const bool to_device = dst_device.type != DeviceType::cpu;
  const bool from_device = src_device.type != DeviceType::cpu;
  if (!to_device && !from_device) {
    std::memcpy(dst, src, bytes);
    return;
  }
  const Device d = to_device ? dst_device : src_device;
  SCW_EXPECT_AS(DeviceMismatch, ctx.device == d, "copy", "the context is on {}, the data on {}", to_string(ctx.device),
                to_string(d));
  detail::backend_hooks(d.type).copy(ctx, dst, to_device, src, from_device, bytes);
}

void fill_device(const Context& ctx, void* dst, std::int64_t bytes, std::int64_t piece_bytes, const FillPiece& fill,
                 std::int64_t lead) {
  SCW_ASSERT(piece_bytes > 0 && (piece_bytes <= kPieceBytes || ctx.device.type == DeviceType::cpu));
  SCW_ASSERT(lead >= 0 && lead < piece_bytes);
  if (bytes == 0) return;
  if (ctx.device.type != DeviceType::cpu)
    return detail::backend_hooks(ctx.device.type).fill(ctx, dst, bytes, piece_bytes, fill, lead);
  parallel_for(ctx, lead + bytes, piece_bytes, [&](std::int64_t from, std::int64_t to) {
    const std::int64_t begin = std::max(from, lead) - lead, end = to - lead;
    fill(begin, end - begin, static_cast<std::byte*>(dst) + begin);
  });
}

std::int64_t available_bytes(const Context& ctx) {
  const auto memory = device_memory(ctx.device);
  std::size_t free = std::size_t{1} << 62;
  if (ctx.device.type != DeviceType::cpu) free = detail::backend_hooks(ctx.device.type).memory_info(ctx.device.id).free;
  const auto keep_to = [&free](const TrackedMemory& m) {
    if (const std::size_t limit = m.limit_bytes(); limit != 0)
      free = std::min(free, limit - std::min(limit, m.used_bytes()));
  };
  keep_to(*memory);
  // A context's workspace may have a limit of its own.
  const auto* const own = dynamic_cast<const TrackedMemory*>(ctx.workspace.get());
  if (own != nullptr && own != memory.get()) keep_to(*own);
  return static_cast<std::int64_t>(free);
}

}  // namespace scw
