#include "math/philox.hpp"

#include <gtest/gtest.h>

namespace scw::math {
namespace {

// Known answers published with the Random123 library (kat_vectors: philox4x32, 10 rounds).
TEST(Philox, KnownAnswers) {
  const Philox4 zero = philox4x32_10({{0, 0, 0, 0}}, 0, 0);
  EXPECT_EQ(zero.v[0], 0x6627e8d5u);
  EXPECT_EQ(zero.v[1], 0xe169c58du);
  EXPECT_EQ(zero.v[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.v[3], 0x9b00dbd8u);
  const Philox4 ones = philox4x32_10({{0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}}, 0xffffffffu, 0xffffffffu);
  EXPECT_EQ(ones.v[0], 0x408f276du);
  EXPECT_EQ(ones.v[1], 0x41c83b0eu);
  EXPECT_EQ(ones.v[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.v[3], 0x6d5451fdu);
  const Philox4 pi = philox4x32_10({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0xa4093822u, 0x299f31d0u);
  EXPECT_EQ(pi.v[0], 0xd16cfe09u);
  EXPECT_EQ(pi.v[1], 0x94fdccebu);
  EXPECT_EQ(pi.v[2], 0x5001e420u);
  EXPECT_EQ(pi.v[3], 0x24126ea1u);
}

TEST(Philox, StreamsDiffer) {
  const RngKey key{7, 0};
  EXPECT_EQ(random_u64(key, 3, 1), random_u64(key, 3, 1));
  EXPECT_NE(random_u64(key, 3, 1), random_u64(key.fold(1), 3, 1));
  EXPECT_NE(random_u64(key.fold(1), 3, 1), random_u64(key.fold(2), 3, 1));
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = random_uniform(key, static_cast<std::uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);  // 5 sd
}

}  // namespace
}  // namespace scw::math
