// Context: everything an operation needs besides its inputs. Nothing in scwarp reads a global instead.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "scwarp/core/config.hpp"
#include "scwarp/core/device.hpp"
#include "scwarp/core/memory.hpp"
#include "scwarp/core/rng.hpp"

namespace scw {

/// Receives progress; called from the thread that called the operation, at most a few times a second.
class SCW_API Progress {
 public:
  virtual ~Progress() = default;
  /// done of total units of `step`; total 0 if unknown.
  virtual void update(std::string_view step, std::int64_t done, std::int64_t total) = 0;
};

enum class LogLevel : std::uint8_t { debug, info, warning };

/// Receives messages; the library itself never prints. Must be callable from any thread.
class SCW_API LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void log(LogLevel level, std::string_view message) = 0;
};

struct SCW_API Context {
  Device device;
  StreamHandle stream;
  std::shared_ptr<MemoryResource> memory;     ///< results, on `device`
  std::shared_ptr<MemoryResource> workspace;  ///< scratch, on `device`
  RngKey rng;
  int n_threads = 1;                             ///< CPU threads; results do not depend on it
  std::int64_t block_bytes = 0;                  ///< of a host matrix on the device at once; 0: by the free memory
  const std::atomic<bool>* cancelled = nullptr;  ///< set by another thread to stop with Cancelled
  Progress* progress = nullptr;
  LogSink* log = nullptr;

  /// CPU context; n_threads 0 = all cores this process may use.
  static Context cpu(int n_threads = 0);
  /// Context on any device: loads the plug-in, creates nothing else on the CPU. Throws BackendUnavailable.
  static Context on(Device device, int n_threads = 0);

  /// The CPU context with the same threads, limits, cancellation, progress and log: for host parts of a driver.
  Context host() const;

  bool is_cancelled() const { return cancelled != nullptr && cancelled->load(std::memory_order_relaxed); }
  /// Throws Cancelled if the user asked to stop.
  void check_cancelled(const char* op) const;
  void report(std::string_view step, std::int64_t done, std::int64_t total) const {
    if (progress != nullptr) progress->update(step, done, total);
  }
  void info(std::string_view message) const {
    if (log != nullptr) log->log(LogLevel::info, message);
  }
  void warn(std::string_view message) const {
    if (log != nullptr) log->log(LogLevel::warning, message);
  }
  /// Blocks until the work queued on `stream` is done (no-op on the CPU).
  void synchronize() const;
};

/// Cores this process may run on (affinity mask), at least 1.
SCW_API int available_threads();

/// Copies bytes between host and/or device memory, ordered on ctx.stream; returns when the host side may be reused.
SCW_API void copy_bytes(const Context& ctx, void* dst, Device dst_device, const void* src, Device src_device,
                        std::size_t bytes);

/// Bytes that memory and workspace can still give: what is free on the device, within the limits. CPU: limits alone.
SCW_API std::int64_t available_bytes(const Context& ctx);

}  // namespace scw
