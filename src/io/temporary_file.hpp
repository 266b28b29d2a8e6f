// A file without a name, for what does not fit into memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace scw::io {

/// In the folder that TMPDIR names, else /tmp; gone when it is closed or the program ends, however it ends. All methods
/// may be called from several threads. Throws IoError that names the folder and the reason; `op` is for messages.
class TemporaryFile {
 public:
  explicit TemporaryFile(const char* op);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  /// Place for so many bytes, behind all others.
  std::int64_t reserve(std::int64_t bytes) { return end_.fetch_add(bytes, std::memory_order_relaxed); }
  void write(std::int64_t offset, const void* data, std::int64_t bytes);
  void read(std::int64_t offset, void* out, std::int64_t bytes) const;

 private:
  const char* op_;
  std::string folder_;
  int fd_ = -1;
  std::atomic<std::int64_t> end_{0};
};

}  // namespace scw::io
