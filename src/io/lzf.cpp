#include "io/lzf.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace scw::io {

// A stream of items. Control byte c < 32: c + 1 literal bytes follow. Else a copy of earlier output: length (c >> 5) +
// 2, where a length field of 7 adds the next byte; then a byte of distance, below the 5 low bits of c; distance 0 is
// one back.

std::int64_t lzf_decompress(const std::uint8_t* in, std::size_t size, std::uint8_t* out, std::size_t capacity) {
  std::size_t i = 0, o = 0;
  while (i < size) {
    const std::uint8_t c = in[i++];
    if (c < 32) {
      const std::size_t n = std::size_t{c} + 1;
      if (n > size - i || n > capacity - o) return -1;
      std::memcpy(out + o, in + i, n);
      i += n;
      o += n;
      continue;
    }
    std::size_t n = c >> 5;
    if (n == 7) {
      if (i >= size) return -1;
      n += in[i++];
    }
    n += 2;
    if (i >= size) return -1;
    const std::size_t distance = (std::size_t{c & 31U} << 8 | in[i++]) + 1;
    if (distance > o || n > capacity - o) return -1;
    for (std::size_t k = 0; k < n; ++k, ++o) out[o] = out[o - distance];  // may overlap itself: byte by byte
  }
  return static_cast<std::int64_t>(o);
}

std::int64_t lzf_compress(const std::uint8_t* in, std::size_t size, std::uint8_t* out, std::size_t capacity) {
  constexpr std::size_t kMaxDistance = 8192, kMaxLength = 264, kMaxLiterals = 32;
  std::vector<std::size_t> last(1 << 14, SIZE_MAX);
  std::size_t o = 0, literals = 0;  // the run of pending literals ends at i
  const auto flush = [&](std::size_t end) {
    while (literals > 0) {
      const std::size_t n = std::min(literals, kMaxLiterals);
      if (capacity - o < n + 1) return false;
      out[o++] = static_cast<std::uint8_t>(n - 1);
      std::memcpy(out + o, in + end - literals, n);
      o += n;
      literals -= n;
    }
    return true;
  };
  std::size_t i = 0;
  while (i < size) {
    if (i + 2 < size) {
      const std::uint32_t key = static_cast<std::uint32_t>(in[i] << 16 | in[i + 1] << 8 | in[i + 2]);
      std::size_t& slot = last[key * 2654435761U >> 18];
      const std::size_t candidate = slot;
      slot = i;
      if (candidate != SIZE_MAX && i - candidate <= kMaxDistance && std::memcmp(in + candidate, in + i, 3) == 0) {
        std::size_t n = 3;
        const std::size_t limit = std::min(kMaxLength, size - i);
        while (n < limit && in[candidate + n] == in[i + n]) ++n;
        if (!flush(i) || capacity - o < 3) return -1;
        const std::size_t distance = i - candidate - 1, length = n - 2;
        out[o++] = static_cast<std::uint8_t>(std::min<std::size_t>(length, 7) << 5 | distance >> 8);
        if (length >= 7) out[o++] = static_cast<std::uint8_t>(length - 7);
        out[o++] = static_cast<std::uint8_t>(distance & 255);
        i += n;
        continue;
      }
    }
    ++literals;
    ++i;
  }
  return flush(size) ? static_cast<std::int64_t>(o) : -1;
}

}  // namespace scw::io
