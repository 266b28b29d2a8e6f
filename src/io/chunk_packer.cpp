#include "io/chunk_packer.hpp"

#include <libdeflate.h>
#include <zstd.h>

#include <cstdint>
#include <cstring>

#include "core/simd.hpp"

namespace scw::io::h5 {
namespace {

/// Byte k of every element, for all k in turn.
template <class Word>
[[gnu::always_inline]] inline void shuffle_words(const std::byte* in, std::byte* out, std::size_t n) {
  for (std::size_t k = 0; k < sizeof(Word); ++k) {
    auto* to = reinterpret_cast<std::uint8_t*>(out + k * n);
    const auto* from = reinterpret_cast<const std::uint8_t*>(in + k);
    for (std::size_t i = 0; i < n; ++i) to[i] = from[i * sizeof(Word)];
  }
}
SCW_CLONES void shuffle4(const std::byte* in, std::byte* out, std::size_t n) {
  shuffle_words<std::uint32_t>(in, out, n);
}
SCW_CLONES void shuffle8(const std::byte* in, std::byte* out, std::size_t n) {
  shuffle_words<std::uint64_t>(in, out, n);
}

void shuffle(const std::byte* in, std::byte* out, std::size_t bytes, std::size_t element) {
  const std::size_t n = bytes / element;
  if (element == 4) {
    shuffle4(in, out, n);
  } else if (element == 8) {
    shuffle8(in, out, n);
  } else {
    for (std::size_t k = 0; k < element; ++k)
      for (std::size_t i = 0; i < n; ++i) out[k * n + i] = in[i * element + k];
  }
  std::memcpy(out + n * element, in + n * element, bytes - n * element);
}

}  // namespace

Packer::~Packer() {
  if (deflate_ != nullptr) libdeflate_free_compressor(deflate_);
  ZSTD_freeCCtx(zstd_);
}

void Packer::pack(const WriteOptions& options, std::size_t element, PackedChunk& out) {
  const std::byte* from = plain_.bytes.get();
  const std::size_t size = plain_.size;
  if (element > 1) {
    shuffle(from, shuffled_.reserve(size), size, element);
    from = shuffled_.bytes.get();
  }
  if (options.compression == Compression::zstd) {
    if (zstd_ == nullptr) zstd_ = ZSTD_createCCtx();
    SCW_ASSERT(zstd_ != nullptr);
    const std::size_t room = ZSTD_compressBound(size);
    out.size = ZSTD_compressCCtx(zstd_, out.reserve(room), room, from, size, options.level);
    SCW_ASSERT(ZSTD_isError(out.size) == 0);
    return;
  }
  if (deflate_ == nullptr) deflate_ = libdeflate_alloc_compressor(options.level);
  SCW_ASSERT(deflate_ != nullptr);
  const std::size_t room = libdeflate_zlib_compress_bound(deflate_, size);
  out.size = libdeflate_zlib_compress(deflate_, from, size, out.reserve(room), room);
  SCW_ASSERT(out.size > 0);
}

}  // namespace scw::io::h5
