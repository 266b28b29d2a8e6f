// Chunks of Zarr arrays, packed and unpacked.
#pragma once

#include <cstddef>
#include <cstdint>

#include "io/buffer.hpp"
#include "io/codecs.hpp"
#include "io/zarr_meta.hpp"

namespace scw::io::zarr {

/// Castagnoli's CRC, as the crc32c codec appends it.
SCW_API std::uint32_t crc32c(const std::byte* data, std::size_t n);

/// Undoes the byte codecs of pipelines. Not for use by two threads at once.
class SCW_API Unpacker {
 public:
  /// in -> out, which gets exactly `bytes` bytes; false if the chunk is damaged.
  bool unpack(const Pipeline& p, const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes);
  /// The same for a chunk of unknown size, up to what the stored bytes can explain.
  bool unpack(const Pipeline& p, const std::byte* in, std::size_t n, Buffer& out);

  Buffer packed, plain;  ///< for the caller

 private:
  bool step(const Codec& c, const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes);
  bool step(const Codec& c, const std::byte* in, std::size_t n, Buffer& out);
  Buffer spare_[2];
  Codecs codecs_;
};

/// Bytes beyond which a chunk or array must be explained by what is stored.
constexpr std::int64_t kFreeBytes = std::int64_t{256} << 20;
/// Bytes that one stored byte may stand for (zstd of zeros comes near).
constexpr std::int64_t kMaxExpansion = 1 << 16;

}  // namespace scw::io::zarr
