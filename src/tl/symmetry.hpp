// Whether a stored graph is symmetric, by one pass over its entries in any order.
#pragma once

#include <cstdint>

#include "math/elementary.hpp"
#include "scwarp/core/config.hpp"

namespace scw::tl {

/// The finaliser of splitmix64: a bijection.
SCW_HD inline std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// The number of stored entry (i, j, w) in the sum that is 0 for symmetric graphs: entries above and below the
/// diagonal, mirrored, are the same multiset if their hashes have the same sum. Two different multisets pass with a
/// probability of 2^-64.
SCW_HD inline std::uint64_t symmetry_term(std::int64_t i, std::int32_t j, double w) {
  const auto low = static_cast<std::uint64_t>(i < j ? i : j);
  const auto high = static_cast<std::uint64_t>(i < j ? j : i);
  const std::uint64_t h = mix(mix(low << 32 | high) ^ math::bits_of(w));
  return i < j ? h : i > j ? std::uint64_t{0} - h : 0;
}

}  // namespace scw::tl
