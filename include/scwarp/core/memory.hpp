// Memory resources: every large buffer comes from one, so that limits, tags and peaks are known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "scwarp/core/config.hpp"
#include "scwarp/core/device.hpp"

namespace scw {

class SCW_API MemoryResource {
 public:
  virtual ~MemoryResource() = default;
  virtual Device device() const = 0;
  /// At least `bytes` bytes, aligned to 64 (CPU) or 256 (CUDA); `tag` names the purpose in reports. Never null for
  /// bytes > 0. Throws OutOfMemory.
  virtual void* allocate(std::size_t bytes, StreamHandle stream, const char* tag) = 0;
  virtual void deallocate(void* p, std::size_t bytes, StreamHandle stream) noexcept = 0;
};

struct MemoryHolder {
  std::string tag;
  std::size_t bytes = 0;
  std::int64_t count = 0;
};

/// Counts what passes through to `upstream` and keeps to a limit. Where a request does not fit, `reclaim` may give
/// something back before it is refused.
class SCW_API TrackedMemory final : public MemoryResource {
 public:
  explicit TrackedMemory(std::shared_ptr<MemoryResource> upstream, std::size_t limit_bytes = 0);  // 0: no limit
  ~TrackedMemory() override;
  Device device() const override;
  void* allocate(std::size_t bytes, StreamHandle stream, const char* tag) override;
  void deallocate(void* p, std::size_t bytes, StreamHandle stream) noexcept override;

  std::size_t used_bytes() const;
  /// Largest used_bytes() since construction or the last reset_peak().
  std::size_t peak_bytes() const;
  void reset_peak();
  std::size_t limit_bytes() const;
  void set_limit_bytes(std::size_t limit_bytes);
  /// New allocations come from `upstream`; what is held goes back to where it came from.
  void set_upstream(std::shared_ptr<MemoryResource> upstream);
  /// Called, without locks, before a request is refused: frees what can be made again.
  void set_reclaim(std::function<void()> reclaim);
  /// What is held now, largest first. Empty at the end of a program without leaks.
  std::vector<MemoryHolder> holders() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The process-wide resource that Context::on gives for a device. Throws BackendUnavailable.
SCW_API std::shared_ptr<TrackedMemory> device_memory(Device device);

/// The process-wide host resource (64-byte aligned, huge pages advised for large buffers), tracked, unlimited.
SCW_API const std::shared_ptr<TrackedMemory>& host_memory();

}  // namespace scw
