// Arrays of a store, read in pieces that a cache holds, on their way to the host or a device.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "core/fill_device.hpp"
#include "io/store.hpp"

namespace scw::io {

/// Bytes of a piece: what the thread that unpacked it still has in its cache when it looks at it. To a device larger
/// ones: 1 MiB at a time the bus moves 47 GB/s, 2 MiB 50, 4 MiB 53.
inline std::int64_t piece_bytes(const Context& to) {
  return std::int64_t{1} << (to.device.type == DeviceType::cpu ? 20 : 21);
}

/// Rows of `cols` elements that are read at once on their way to `to`: whole chunks.
template <class T>
std::int64_t piece_rows(const Context& to, const StoredArray& d, std::int64_t cols) {
  const std::int64_t chunk = d.chunk_rows(), row_bytes = std::max<std::int64_t>(1, cols) * std::int64_t{sizeof(T)};
  return std::max<std::int64_t>(1, piece_bytes(to) / row_bytes / chunk) * chunk;
}

/// Whether such a piece can go through the ring between host and device.
template <class T>
bool fits_ring(const Context& to, const StoredArray& d, std::int64_t cols) {
  std::int64_t bytes = 0;
  return d.is_concurrent() &&
         !__builtin_mul_overflow(piece_rows<T>(to, d, cols), std::max<std::int64_t>(1, cols) * std::int64_t{sizeof(T)},
                                 &bytes) &&
         bytes <= kPieceBytes;
}

/// Rows [first, first + n) of an array that is_concurrent() -> `out` where `to` is, by to.n_threads threads, in pieces
/// that end at multiples of `rows`. look(row, x, n) sees each as soon as it is there: on the host, in the cache. No
/// session is needed. False as for StoredArray::read.
template <class T, class Look>
bool read_in_pieces(const Context& to, const StoredArray& d, std::int64_t first, std::int64_t n, T* out,
                    std::int64_t rows, const Look& look) {
  constexpr std::int64_t kPiecesAhead = 4;  // asked for while another one is unpacked
  if (n == 0 || d.count == 0) return true;
  Context one = to.host();
  one.n_threads = 1;
  std::atomic<bool> fits{true};
  const std::int64_t row_bytes = d.count / d.rows() * std::int64_t{sizeof(T)}, lead = first % rows;
  fill_device(
      to, out, n * row_bytes, rows * row_bytes,
      [&](std::int64_t at, std::int64_t bytes, std::byte* piece) {
        auto* const x = reinterpret_cast<T*>(piece);
        const std::int64_t row = first + at / row_bytes, count = bytes / row_bytes;
        d.will_read(row + kPiecesAhead * rows, rows);
        if (!d.read(one, row, count, x)) fits = false;
        look(row, x, count);
      },
      lead * row_bytes);
  return fits;
}

}  // namespace scw::io
