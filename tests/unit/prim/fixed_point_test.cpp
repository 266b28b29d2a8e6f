#include "prim/fixed_point.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace scw::prim {
namespace {

FixedScale scale_of(const std::vector<double>& x) {
  double m = 0;
  for (const double v : x) m = std::max(m, std::abs(v));
  return FixedScale::for_max(m);
}
FixedMoments moments_of(const std::vector<double>& x, FixedScale s) {
  FixedMoments m;
  for (const double v : x) m.add(s.quantise(v));
  return m;
}

TEST(FixedPoint, ScaleKeepsToItsBits) {
  for (const double max : {1.0, 0.999999, 2.0, 3.7e10, 1e-30, 1e300, 1.7e308, 5e-324, 0.0}) {
    const FixedScale s = FixedScale::for_max(max);
    EXPECT_LE(std::abs(s.quantise(max)), std::int64_t{1} << kFixedBits) << max;
    EXPECT_EQ(s.quantise(-max), -s.quantise(max));
    if (max > 1e-280) {
      EXPECT_GE(s.quantise(max), std::int64_t{1} << (kFixedBits - 1)) << max;
    }
  }
}

TEST(FixedPoint, CountsAndFloatsAreExact) {
  std::mt19937 gen(7);
  std::vector<double> x;
  for (int i = 0; i < 1000; ++i)
    x.push_back(static_cast<double>(std::ldexp(static_cast<float>(gen() >> 8), -static_cast<int>(gen() % 8))));
  const FixedScale s = scale_of(x);
  for (const double v : x) EXPECT_EQ(std::ldexp(static_cast<double>(s.quantise(v)), -s.shift), v);
}

TEST(FixedPoint, Int128ToDoubleRoundsToNearestEven) {
  const Int128 one = 1;
  EXPECT_EQ(to_double(0), 0.0);
  EXPECT_EQ(to_double(-5), -5.0);
  EXPECT_EQ(to_double(one << 100), 0x1p100);
  EXPECT_EQ(to_double((one << 100) + (one << 47)), 0x1p100);  // a tie: to even
  EXPECT_EQ(to_double((one << 100) + (one << 47) + 1), 0x1.0000000000001p100);
  EXPECT_EQ(to_double((one << 100) + 3 * (one << 47)), 0x1.0000000000002p100);
  EXPECT_EQ(to_double(-((one << 126) + 1)), -0x1p126);
  std::mt19937_64 gen(3);
  for (int i = 0; i < 2000; ++i) {
    Int128 v = (static_cast<Int128>(static_cast<std::int64_t>(gen())) << 62) + static_cast<std::int64_t>(gen());
    v >>= gen() % 120;
    EXPECT_EQ(to_double(v), static_cast<double>(v));
  }
}

TEST(FixedPoint, MomentsMatchLongDouble) {
  std::mt19937_64 gen(11);
  std::normal_distribution<double> normal;
  for (const double offset : {0.0, 3.0, 1e4, -1e7}) {
    std::vector<double> x;
    for (int i = 0; i < 5000; ++i) x.push_back(static_cast<float>(offset + normal(gen)));
    long double sum = 0, centred = 0;
    for (const double v : x) sum += v;
    const long double mean = sum / 5000.0L;
    for (const double v : x) centred += (v - mean) * (v - mean);
    const FixedScale s = scale_of(x);
    const FixedMoments m = moments_of(x, s);
    EXPECT_NEAR(fixed_mean(m.sum, 5000, s), static_cast<double>(mean), 1e-13 * (std::abs(offset) + 1));
    EXPECT_NEAR(fixed_variance(m, 5000, 1, s) / static_cast<double>(centred / 4999), 1.0, 1e-12) << offset;
  }
}

TEST(FixedPoint, OrderAndSplitDoNotMatter) {
  std::mt19937_64 gen(5);
  std::lognormal_distribution<double> lognormal(0, 3);
  std::vector<double> x;
  for (int i = 0; i < 3000; ++i) x.push_back(lognormal(gen));
  const FixedScale s = scale_of(x);
  const FixedMoments a = moments_of(x, s);
  std::shuffle(x.begin(), x.end(), gen);
  FixedMoments b = moments_of({x.begin(), x.begin() + 17}, s);
  const FixedMoments rest = moments_of({x.begin() + 17, x.end()}, s);
  b += rest;
  EXPECT_TRUE(a.sum == b.sum && a.sum_sq == b.sum_sq);
  const FixedMoments difference = a - moments_of({x.begin(), x.begin() + 17}, s);
  EXPECT_TRUE(difference.sum == rest.sum && difference.sum_sq == rest.sum_sq);
}

TEST(FixedPoint, ConstantHasNoVarianceAndManyTermsFit) {
  const FixedScale s = FixedScale::for_max(0.1);
  FixedMoments m;
  const std::int64_t n = kFixedMaxTerms - 1;
  const std::int64_t q = s.quantise(0.1);
  m.sum = static_cast<Int128>(q) * n;
  m.sum_sq = static_cast<Int128>(q) * q * n;
  EXPECT_GT(m.sum_sq, 0);
  EXPECT_EQ(fixed_variance(m, n, 1, s), 0.0);
  EXPECT_NEAR(fixed_mean(m.sum, n, s), 0.1, 0x1p-51);  // 0.1 itself is rounded to 47 bits
}

TEST(FixedPoint, FewTermsAndFlags) {
  const FixedScale s = FixedScale::for_max(2);
  FixedMoments m;
  m.add(s.quantise(2));
  EXPECT_TRUE(std::isnan(fixed_variance(m, 1, 1, s)));
  EXPECT_EQ(fixed_variance(m, 1, 0, s), 0.0);
  EXPECT_TRUE(std::isnan(fixed_mean(0, 0, s)));
  EXPECT_EQ(fixed_sum_with_flags(1.5, 0), 1.5);
  EXPECT_EQ(fixed_sum_with_flags(1.5, fixed_flag(INFINITY)), INFINITY);
  EXPECT_EQ(fixed_sum_with_flags(1.5, fixed_flag(-INFINITY)), -INFINITY);
  EXPECT_TRUE(std::isnan(fixed_sum_with_flags(1.5, fixed_flag(-INFINITY) | fixed_flag(INFINITY))));
  EXPECT_TRUE(std::isnan(fixed_sum_with_flags(1.5, fixed_flag(std::nan("")))));
  EXPECT_EQ(fixed_flag(1e308), 0);
}

}  // namespace
}  // namespace scw::prim
