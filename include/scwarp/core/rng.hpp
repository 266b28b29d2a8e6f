// Random numbers are a pure function of (key, counter): Philox4x32-10. There is no generator state.
#pragma once

#include <cstdint>

#include "scwarp/core/config.hpp"

namespace scw {

/// A value that names a stream of random numbers. fold() derives an independent stream for a purpose.
struct RngKey {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;

  /// splitmix64 finaliser over stream and tag: same tag, same stream.
  SCW_HD RngKey fold(std::uint64_t tag) const {
    std::uint64_t z = stream + 0x9E3779B97F4A7C15ull * (tag + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return {seed, z ^ (z >> 31)};
  }
};

}  // namespace scw
