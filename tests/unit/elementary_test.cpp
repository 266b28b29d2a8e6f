#include "math/elementary.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "math/philox.hpp"

namespace scw::math {
namespace {

// Distance of `got` from the exact value in units of the last place of the exact value, against long double libm.
template <class T>
double ulps(T got, long double exact) {
  const T rounded = static_cast<T>(exact);
  if (rounded == got) return 0;
  const T next = std::nextafter(std::abs(rounded), std::numeric_limits<T>::infinity());
  return static_cast<double>(std::abs(static_cast<long double>(got) - exact) /
                             (static_cast<long double>(next) - std::abs(static_cast<long double>(rounded))));
}

/// Log-uniform magnitudes in [lo, hi].
double draw(int i, double lo, double hi) {
  const double u = random_uniform({11, 0}, static_cast<std::uint64_t>(i));
  return std::exp(std::log(lo) + u * (std::log(hi) - std::log(lo)));
}

TEST(Elementary, UlpTable) {
  double worst_log1p = 0, worst_log1pf = 0, worst_expm1 = 0, worst_exp = 0, worst_log = 0;
  for (int i = 0; i < 200000; ++i) {
    const double x = draw(i, 1e-12, 1e12);
    worst_log1p = std::max(worst_log1p, ulps(log1p(x), std::log1p(static_cast<long double>(x))));
    worst_log = std::max(worst_log, ulps(log_positive(x), std::log(static_cast<long double>(x))));
    const auto f = static_cast<float>(x);
    worst_log1pf = std::max(worst_log1pf, ulps(log1p(f), std::log1p(static_cast<long double>(f))));
    const double y = draw(i, 1e-12, 700) * (i % 2 == 0 ? 1 : -1);
    worst_expm1 = std::max(worst_expm1, ulps(expm1(y), std::expm1(static_cast<long double>(y))));
    worst_exp = std::max(worst_exp, ulps(exp(y), std::exp(static_cast<long double>(y))));
    const double n = -draw(i, 1e-9, 0.999);
    worst_log1p = std::max(worst_log1p, ulps(log1p(n), std::log1p(static_cast<long double>(n))));
  }
  EXPECT_LE(worst_log1p, 3.0);
  EXPECT_LE(worst_log, 2.0);
  EXPECT_LE(worst_log1pf, 0.501);
  EXPECT_LE(worst_expm1, 3.0);
  EXPECT_LE(worst_exp, 3.0);
}

TEST(Elementary, Edges) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(log1p(0.0), 0.0);
  EXPECT_EQ(log1p(0.0f), 0.0f);
  EXPECT_EQ(log1p(-1.0), -inf);
  EXPECT_EQ(log1p(-1.0f), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(log1p(-2.0)));
  EXPECT_TRUE(std::isnan(log1p(-2.0f)));
  EXPECT_TRUE(std::isnan(log1p(std::nan(""))));
  EXPECT_TRUE(std::isnan(log1p(std::nanf(""))));
  EXPECT_EQ(log1p(inf), inf);
  EXPECT_EQ(log1p(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_FLOAT_EQ(log1p(std::numeric_limits<float>::max()), std::log1p(std::numeric_limits<float>::max()));
  EXPECT_EQ(expm1(0.0), 0.0);
  EXPECT_EQ(expm1(-1e9), -1.0);
  EXPECT_EQ(expm1(inf), inf);
  EXPECT_EQ(exp(inf), inf);
  EXPECT_EQ(exp(-inf), 0.0);
  EXPECT_EQ(exp(0.0), 1.0);
  EXPECT_TRUE(std::isnan(exp(std::nan(""))));
  EXPECT_TRUE(std::isfinite(exp(709.7)));
}

}  // namespace
}  // namespace scw::math
