#include "io/shuffle.hpp"

#include <cstdint>
#include <cstring>

namespace scw::io {
namespace {

using Bytes16 = std::uint8_t __attribute__((vector_size(16)));

Bytes16 load(const std::byte* p) {
  Bytes16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
void store(std::byte* p, Bytes16 v) { std::memcpy(p, &v, sizeof v); }

/// Bytes of a and b in turn: the first eight of each, and the last eight.
Bytes16 zip_low(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
Bytes16 zip_high(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/// 16 elements of N bytes, whose planes are n apart. Zipping plane k with plane k + N/2 over and over sorts them.
template <std::size_t N>
void unshuffle16(const std::byte* in, std::size_t n, std::byte* out) {
  Bytes16 a[N], b[N];
  for (std::size_t k = 0; k < N; ++k) a[k] = load(in + k * n);
  for (std::size_t step = 1; step < N; step *= 2) {
    for (std::size_t k = 0; k < N / 2; ++k) {
      b[2 * k] = zip_low(a[k], a[k + N / 2]);
      b[2 * k + 1] = zip_high(a[k], a[k + N / 2]);
    }
    std::memcpy(a, b, sizeof a);
  }
  for (std::size_t k = 0; k < N; ++k) store(out + 16 * k, a[k]);
}

template <std::size_t N>
void unshuffle_of(const std::byte* in, std::byte* out, std::size_t n) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) unshuffle16<N>(in + i, n, out + i * N);
  for (; i < n; ++i)
    for (std::size_t b = 0; b < N; ++b) out[i * N + b] = in[b * n + i];
}

}  // namespace

void unshuffle(const std::byte* in, std::byte* out, std::size_t bytes, std::size_t element) {
  const std::size_t n = element == 0 ? 0 : bytes / element;
  if (n <= 1) {  // also where a file declares elements of gigabytes
    std::memcpy(out, in, bytes);
    return;
  }
  switch (element) {
    case 2:
      unshuffle_of<2>(in, out, n);
      break;
    case 4:
      unshuffle_of<4>(in, out, n);
      break;
    case 8:
      unshuffle_of<8>(in, out, n);
      break;
    default:
      for (std::size_t b = 0; b < element; ++b)
        for (std::size_t i = 0; i < n; ++i) out[i * element + b] = in[b * n + i];
  }
  if (bytes > n * element) std::memcpy(out + n * element, in + n * element, bytes - n * element);
}

}  // namespace scw::io
