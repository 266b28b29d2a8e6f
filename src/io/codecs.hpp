// Compressed blocks of files, unpacked into a buffer whose size is known beforehand. Every function returns false
// unless the result has exactly `bytes` bytes, and neither reads nor writes outside its buffers, whatever is in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "scwarp/core/config.hpp"

namespace scw::io {

/// Decompressors with a state of their own, made when first used. Not for use by two threads at once.
class SCW_API Codecs {
 public:
  Codecs();
  ~Codecs();
  Codecs(const Codecs&) = delete;
  Codecs& operator=(const Codecs&) = delete;

  bool zlib(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes);
  bool gzip(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes);
  bool zstd(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A block of LZ4 without any header.
bool lz4_block(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes);
/// A Blosc 1 buffer of any inner codec that the library has.
bool blosc(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes);

}  // namespace scw::io
