// Chunks of numbers, shuffled and compressed as HDF5's filters would.
#pragma once

#include <cstddef>
#include <memory>

#include "io/hdf5.hpp"

struct libdeflate_compressor;
struct ZSTD_CCtx_s;

namespace scw::io::h5 {

/// Bytes that are overwritten again and again: never cleared.
struct PackedChunk {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0, room = 0;
  std::byte* reserve(std::size_t n) {
    if (n > room) {
      bytes = std::make_unique_for_overwrite<std::byte[]>(n);
      room = n;
    }
    return bytes.get();
  }
};

/// One thread's compressor. The output depends on the input and the options alone.
class Packer {
 public:
  Packer() = default;
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;
  ~Packer();

  /// Where the caller puts the next chunk of `size` bytes.
  std::byte* plain(std::size_t size) {
    plain_.size = size;
    return plain_.reserve(size);
  }
  /// plain -> out: shuffled by elements of this size, then compressed.
  void pack(const WriteOptions& options, std::size_t element, PackedChunk& out);

 private:
  PackedChunk plain_, shuffled_;
  libdeflate_compressor* deflate_ = nullptr;
  ZSTD_CCtx_s* zstd_ = nullptr;
};

}  // namespace scw::io::h5
