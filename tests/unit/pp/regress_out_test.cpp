#include "scwarp/pp/regress_out.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "math/philox.hpp"
#include "scwarp/core/error.hpp"

namespace scw::pp {
namespace {

constexpr std::int64_t kRows = 1500, kCols = 530;

double uniform(std::uint64_t seed, std::int64_t i) {
  return math::random_uniform({seed, 0}, static_cast<std::uint64_t>(i));
}

/// Columns that are 3 + 2 a - b + noise.
struct Sample {
  std::vector<double> keys, x;
  Sample() {
    for (std::int64_t i = 0; i < kRows; ++i) {
      keys.push_back(1e5 + 1e3 * uniform(1, i));
      keys.push_back(1e-3 * uniform(2, i));
    }
    for (std::int64_t i = 0; i < kRows; ++i)
      for (std::int64_t j = 0; j < kCols; ++j)
        x.push_back(3 + 2e-3 * keys[static_cast<std::size_t>(2 * i)] - 1e3 * keys[static_cast<std::size_t>(2 * i + 1)] +
                    (j == 0 ? 0.0 : uniform(3, i * kCols + j)));
  }
  MatrixView<double> view() { return {x.data(), kRows, kCols}; }
  MatrixView<const double> keys_view() const { return {keys.data(), kRows, 2}; }
};

TEST(RegressOut, ResidualsAreOrthogonalToKeysAndConstant) {
  Sample s;
  EXPECT_EQ(regress_out(Context::cpu(2), s.view(), s.keys_view()).n_independent, 2);
  double size = 0;
  for (std::int64_t j = 0; j < kCols; ++j) {
    double sum = 0, a = 0, b = 0;
    for (std::int64_t i = 0; i < kRows; ++i) {
      const double v = s.view()(i, j);
      sum += v;
      a += v * (s.keys_view()(i, 0) - 100500) / 1e3;
      b += v * s.keys_view()(i, 1) * 1e3;
      size += std::abs(v);
      if (j == 0) {
        EXPECT_NEAR(v, 0, 1e-9);
      }
    }
    EXPECT_NEAR(sum, 0, 1e-8);
    EXPECT_NEAR(a, 0, 1e-8);
    EXPECT_NEAR(b, 0, 1e-8);
  }
  EXPECT_NEAR(size / (kRows * (kCols - 1)), 0.25, 0.01);  // mean |u - 1/2|
}

TEST(RegressOut, SameBitsForThreads) {
  Sample one, two, three;
  regress_out(Context::cpu(1), one.view(), one.keys_view());
  regress_out(Context::cpu(2), two.view(), one.keys_view());
  regress_out(Context::cpu(3), three.view(), one.keys_view());
  EXPECT_EQ(one.x, two.x);
  EXPECT_EQ(one.x, three.x);
}

TEST(RegressOut, DependentKeysAreDropped) {
  Sample s, t;
  std::vector<double> keys;
  for (std::int64_t i = 0; i < kRows; ++i) {
    const double a = s.keys_view()(i, 0), b = s.keys_view()(i, 1);
    keys.insert(keys.end(), {4.0, a, b, a + 1e6 * b, 0.0});
  }
  EXPECT_EQ(regress_out(Context::cpu(1), s.view(), {keys.data(), kRows, 5}).n_independent, 2);
  regress_out(Context::cpu(1), t.view(), t.keys_view());
  for (std::size_t k = 0; k < s.x.size(); ++k) ASSERT_NEAR(s.x[k], t.x[k], 1e-9);
}

TEST(RegressOut, Categories) {
  std::vector<float> x{1, 10, 3, 20, 5, 30, 7, 40};
  const std::vector<std::int32_t> codes{0, 1, 0, -1};
  regress_out_categories(Context::cpu(1), MatrixView<float>(x.data(), 4, 2), codes, 2);
  EXPECT_EQ(x, (std::vector<float>{-2, -10, 0, 0, 2, 10, 7, 40}));
  const std::vector<std::int64_t> indptr{0, 1, 2};
  const std::vector<std::int32_t> indices{1, 0};
  const std::vector<float> values{4, 6};
  const std::vector<std::int32_t> one_category{0, 0};
  AnyDenseMatrix out;
  regress_out_categories_to_dense(
      Context::cpu(1), CsrView<const float>(2, 2, indptr, indices, Span<const float>(values)), out, one_category, 1);
  const auto& d = std::get<Matrix<float>>(out).data;
  EXPECT_EQ(std::vector<float>(d.begin(), d.end()), (std::vector<float>{-3, 2, 3, -2}));
}

TEST(RegressOut, Errors) {
  Sample s;
  const Sample before;
  EXPECT_THROW(regress_out(Context::cpu(1), s.view(), {s.keys.data(), kRows - 1, 2}), ShapeMismatch);
  const std::vector<std::int32_t> short_codes(3);
  std::vector<double> keys = s.keys;
  keys[7] = std::numeric_limits<double>::infinity();
  EXPECT_THROW(regress_out(Context::cpu(1), s.view(), {keys.data(), kRows, 2}), DataError);
  EXPECT_THROW(regress_out_categories(Context::cpu(1), s.view(), short_codes, 1), ShapeMismatch);
  EXPECT_EQ(s.x, before.x);
}

}  // namespace
}  // namespace scw::pp
