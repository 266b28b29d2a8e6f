// Stable least-significant-digit radix sort of small records in cache, on one thread: one list per call.
// The number and width of the digits follow from the length of the list and from the bits in which its keys differ.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "scwarp/core/config.hpp"

namespace scw::prim {

/// Order-preserving map of floating-point numbers (-0 below +0, NaN at the ends) to unsigned integers, and back.
SCW_HD inline std::uint32_t sortable_bits(float x) {
  const auto b = std::bit_cast<std::uint32_t>(x);
  return (b >> 31) != 0 ? ~b : b | 0x80000000u;
}
SCW_HD inline std::uint64_t sortable_bits(double x) {
  const auto b = std::bit_cast<std::uint64_t>(x);
  return (b >> 63) != 0 ? ~b : b | 0x8000000000000000ull;
}
SCW_HD inline float from_sortable_bits(std::uint32_t k) {
  return std::bit_cast<float>((k >> 31) != 0 ? k & 0x7FFFFFFFu : ~k);
}
SCW_HD inline double from_sortable_bits(std::uint64_t k) {
  return std::bit_cast<double>((k >> 63) != 0 ? k & 0x7FFFFFFFFFFFFFFFull : ~k);
}

/// Sorts a[0, n), n < 2^32, by key_of(element) (unsigned), whose smallest and largest values are given; tmp has n
/// elements. Returns where the sorted list is: a or tmp.
template <class E, class KeyOf, class Key>
E* radix_sort(E* a, E* tmp, std::int64_t n, const KeyOf& key_of, Key min_key, Key max_key,
              std::vector<std::uint32_t>& scratch) {
  if (n < 2 || min_key == max_key) return a;
  if (n <= 40) {
    for (std::int64_t i = 1; i < n; ++i) {
      const E e = a[i];
      std::int64_t j = i;
      for (; j > 0 && key_of(e) < key_of(a[j - 1]); --j) a[j] = a[j - 1];
      a[j] = e;
    }
    return a;
  }
  const int width = static_cast<int>(std::bit_width(static_cast<Key>(max_key - min_key)));
  int passes = 0, digit = 0;
  std::int64_t best = 0;
  for (int p = (width + 10) / 11; p <= 8; ++p) {
    const int d = (width + p - 1) / p;
    const std::int64_t cost = p * (2 * n + (std::int64_t{1} << d));
    if (passes == 0 || cost < best) passes = p, digit = d, best = cost;
  }
  const std::uint32_t buckets = 1u << digit;
  const Key mask = static_cast<Key>(buckets - 1);
  scratch.assign(static_cast<std::size_t>(passes) * buckets, 0);
  for (std::int64_t i = 0; i < n; ++i) {
    Key k = static_cast<Key>(key_of(a[i]) - min_key);
    std::uint32_t* h = scratch.data();
    for (int p = 0; p < passes; ++p, h += buckets, k = static_cast<Key>(k >> digit)) ++h[k & mask];
  }
  for (int p = 0; p < passes; ++p) {
    std::uint32_t* const h = scratch.data() + static_cast<std::size_t>(p) * buckets;
    std::uint32_t sum = 0;
    for (std::uint32_t b = 0; b < buckets; ++b) {
      const std::uint32_t c = h[b];
      h[b] = sum;
      sum += c;
    }
    const int shift = p * digit;
    for (std::int64_t i = 0; i < n; ++i) {
      const E e = a[i];
      tmp[h[static_cast<Key>((key_of(e) - min_key) >> shift) & mask]++] = e;
    }
    std::swap(a, tmp);
  }
  return a;
}

}  // namespace scw::prim
