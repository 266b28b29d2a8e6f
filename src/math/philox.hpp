// Philox4x32-10, Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11, section 3.3.
// Counter-based: random(key, counter) is a pure function, equal on CPU and GPU.
#pragma once

#include <cstdint>

#include "scwarp/core/config.hpp"
#include "scwarp/core/rng.hpp"

namespace scw::math {

struct Philox4 {
  std::uint32_t v[4];
};

SCW_HD inline Philox4 philox4x32_10(Philox4 counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter.v[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter.v[2];
    counter = {{static_cast<std::uint32_t>(p1 >> 32) ^ counter.v[1] ^ key0, static_cast<std::uint32_t>(p1),
                static_cast<std::uint32_t>(p0 >> 32) ^ counter.v[3] ^ key1, static_cast<std::uint32_t>(p0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// Four words for (item, draw) of the stream `key`. The 128-bit counter is (item, draw ^ stream).
SCW_HD inline Philox4 random_words(RngKey key, std::uint64_t item, std::uint64_t draw) {
  const std::uint64_t d = draw ^ key.stream;
  return philox4x32_10({{static_cast<std::uint32_t>(item), static_cast<std::uint32_t>(item >> 32),
                         static_cast<std::uint32_t>(d), static_cast<std::uint32_t>(d >> 32)}},
                       static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32));
}

SCW_HD inline std::uint64_t random_u64(RngKey key, std::uint64_t item, std::uint64_t draw = 0) {
  const Philox4 r = random_words(key, item, draw);
  return (std::uint64_t{r.v[1]} << 32) | r.v[0];
}

/// Uniform in [0, 1), 53 bits.
SCW_HD inline double random_uniform(RngKey key, std::uint64_t item, std::uint64_t draw = 0) {
  return static_cast<double>(random_u64(key, item, draw) >> 11) * 0x1.0p-53;
}

/// Uniform integer in [0, n), n > 0: multiply-shift on 32 bits (bias below n / 2^32).
SCW_HD inline std::uint32_t bounded(std::uint32_t word, std::uint32_t n) {
  return static_cast<std::uint32_t>((std::uint64_t{word} * n) >> 32);
}

}  // namespace scw::math
