#include "prim/loess.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "math/philox.hpp"

namespace scw::prim {
namespace {

std::vector<double> draw(int n, std::uint64_t seed) {
  std::vector<double> x;
  for (int i = 0; i < n; ++i) x.push_back(math::random_uniform({seed, 0}, static_cast<std::uint64_t>(i)) * 4 - 2);
  return x;
}

// Not a comparison with scikit-misc (that is in the Python tests): what must hold for any local quadratic.
TEST(Loess, ReproducesAQuadratic) {
  for (const int n : {20, 200, 3000}) {
    const std::vector<double> x = draw(n, 1);
    std::vector<double> y;
    for (const double v : x) y.push_back(3 - 2 * v + 0.5 * v * v);
    for (const double span : {0.3, 0.75, 1.0}) {
      const auto fit = loess_fit(Context::cpu(2), x, y, {.span = span, .cell = 0.2}, "test");
      for (int i = 0; i < n; ++i) EXPECT_NEAR(fit[i], y[static_cast<std::size_t>(i)], 1e-11);
    }
  }
}

TEST(Loess, SmoothsAndDoesNotDependOnOrder) {
  const int n = 2000;
  std::vector<double> x = draw(n, 2), noise = draw(n, 3), y;
  for (auto& v : x) v = std::round(v * 50) / 50;  // ties
  for (int i = 0; i < n; ++i)
    y.push_back(std::sin(x[static_cast<std::size_t>(i)]) + 0.2 * noise[static_cast<std::size_t>(i)]);
  const auto fit = loess_fit(Context::cpu(1), x, y, {.span = 0.3, .cell = 0.2}, "test");
  double error = 0;
  for (int i = 0; i < n; ++i) error = std::max(error, std::abs(fit[i] - std::sin(x[static_cast<std::size_t>(i)])));
  EXPECT_LT(error, 0.08);
  EXPECT_GT(error, 1e-4);
  const auto again = loess_fit(Context::cpu(3), x, y, {.span = 0.3, .cell = 0.2}, "test");
  const std::vector<double> rx(x.rbegin(), x.rend()), ry(y.rbegin(), y.rend());
  const auto reversed = loess_fit(Context::cpu(1), rx, ry, {.span = 0.3, .cell = 0.2}, "test");
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(fit[i], again[i]);
    EXPECT_NEAR(fit[i], reversed[n - 1 - i], 1e-12);  // tied points are added in another order
  }
}

TEST(Loess, Errors) {
  const std::vector<double> x = draw(30, 4);
  std::vector<double> bad = x;
  const auto fit = [](const std::vector<double>& a, const std::vector<double>& b, double span) {
    return loess_fit(Context::cpu(1), a, b, {.span = span, .cell = 0.2}, "test");
  };
  EXPECT_THROW(fit(x, x, 0), InvalidArgument);
  EXPECT_THROW(fit(x, x, 1.5), InvalidArgument);
  EXPECT_THROW(fit(x, draw(29, 4), 0.5), ShapeMismatch);
  EXPECT_THROW(fit({}, {}, 0.5), DataError);
  EXPECT_THROW(fit(draw(7, 1), draw(7, 2), 0.3), DataError);
  EXPECT_THROW(fit(std::vector<double>(30, 2.0), x, 0.5), DataError);
  bad[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(fit(bad, x, 0.5), DataError);
  EXPECT_THROW(fit(x, bad, 0.5), DataError);
}

}  // namespace
}  // namespace scw::prim
