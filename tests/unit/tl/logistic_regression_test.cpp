#include "scwarp/tl/logistic_regression.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "scwarp/core/error.hpp"

namespace scw::tl {
namespace {

struct Data {
  std::int64_t n = 160, m = 12;
  std::vector<float> x;
  std::vector<std::int32_t> codes;
  MatrixView<const float> view() const { return {x.data(), n, m}; }
  float at(std::int64_t i, std::int64_t j) const { return x[static_cast<std::size_t>(i * m + j)]; }
};

Data make_data(std::int32_t classes) {
  Data d;
  std::mt19937 gen(4);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < d.n; ++i) {
    d.codes.push_back(i % 17 == 3 ? -1 : static_cast<std::int32_t>(gen() % static_cast<unsigned>(classes)));
    for (std::int64_t j = 0; j < d.m; ++j) {
      const bool marker = j % classes == d.codes.back();
      d.x.push_back(gen() % 2 == 0 ? 0.0f : std::exp(normal(gen)) * (marker ? 2.0f : 1.0f));
    }
  }
  return d;
}

/// Largest entry of the gradient of the objective at r, from its definition.
double gradient_at(const Data& d, const LogisticRegression& r, std::int32_t classes, double c) {
  const bool two = classes == 2;
  const std::int64_t rows = r.coefficients.n_rows;
  double used = 0;
  for (const std::int32_t code : d.codes) used += code >= 0;
  std::vector<double> g(static_cast<std::size_t>(rows * (d.m + 1)), 0.0);
  for (std::int64_t i = 0; i < d.n; ++i) {
    const std::int32_t code = d.codes[static_cast<std::size_t>(i)];
    if (code < 0) continue;
    std::vector<double> z(static_cast<std::size_t>(classes), 0.0);
    for (std::int64_t k = 0; k < rows; ++k) {
      double& logit = z[static_cast<std::size_t>(two ? 1 : k)];
      logit = r.intercepts[static_cast<std::size_t>(k)];
      for (std::int64_t j = 0; j < d.m; ++j) logit += d.at(i, j) * r.coefficients.data[k * d.m + j];
    }
    double total = 0;
    for (const double v : z) total += std::exp(v);
    for (std::int64_t k = 0; k < rows; ++k) {
      const std::int64_t cls = two ? 1 : k;
      const double residual = std::exp(z[static_cast<std::size_t>(cls)]) / total - (cls == code ? 1 : 0);
      for (std::int64_t j = 0; j < d.m; ++j)
        g[static_cast<std::size_t>(k * (d.m + 1) + j)] += residual * d.at(i, j) / used;
      g[static_cast<std::size_t>(k * (d.m + 1) + d.m)] += residual / used;
    }
  }
  double largest = 0;
  for (std::int64_t k = 0; k < rows; ++k)
    for (std::int64_t j = 0; j <= d.m; ++j) {
      const double penalty = j < d.m ? r.coefficients.data[k * d.m + j] / (c * used) : 0.0;
      largest = std::max(largest, std::abs(g[static_cast<std::size_t>(k * (d.m + 1) + j)] + penalty));
    }
  return largest;
}

TEST(LogisticRegression, ReachesTheOptimum) {
  for (const std::int32_t classes : {2, 3, 9}) {
    const Data d = make_data(classes);
    LogisticRegressionOptions o;
    o.tol = 1e-9;
    o.c = 0.7;
    const auto r = logistic_regression(Context::cpu(2), d.view(), d.codes, classes, o);
    EXPECT_TRUE(r.converged);
    EXPECT_EQ(r.coefficients.n_rows, classes == 2 ? 1 : classes);
    EXPECT_LT(gradient_at(d, r, classes, o.c), 2e-9);
    double largest = 0;
    for (const double w : r.coefficients.data) largest = std::max(largest, std::abs(w));
    EXPECT_GT(largest, 0.1);
    o.max_iter = 2;
    EXPECT_FALSE(logistic_regression(Context::cpu(2), d.view(), d.codes, classes, o).converged);
  }
}

TEST(LogisticRegression, SameBitsForThreads) {
  const Data d = make_data(4);
  const auto want = logistic_regression(Context::cpu(1), d.view(), d.codes, 4);
  for (const int threads : {2, 3, 2}) {
    const auto got = logistic_regression(Context::cpu(threads), d.view(), d.codes, 4);
    EXPECT_EQ(std::memcmp(got.coefficients.data.data(), want.coefficients.data.data(),
                          static_cast<std::size_t>(want.coefficients.data.size()) * 8),
              0);
  }
}

/// A context with block_bytes smaller than the matrix: it is not collected, every evaluation is a pass over the blocks.
TEST(LogisticRegression, SameBitsForBlocksOfRows) {
  for (const std::int32_t classes : {2, 4}) {
    Data d = make_data(classes);
    d.n = 300;
    for (std::int64_t i = 160; i < d.n; ++i) {
      d.codes.push_back(d.codes[static_cast<std::size_t>(i - 160)]);
      for (std::int64_t j = 0; j < d.m; ++j) d.x.push_back(d.at(i - 160, j) / 2);
    }
    const auto want = logistic_regression(Context::cpu(2), d.view(), d.codes, classes);
    EXPECT_TRUE(want.converged);
    for (const std::int64_t rows : {1, 7, 128, 129, 299, 300})
      for (const std::int64_t bytes : {1, 0}) {
        Context ctx = Context::cpu(rows % 2 == 1 ? 1 : 3);
        ctx.block_bytes = bytes;
        const auto got = logistic_regression(ctx, ResidentBlocks(d.view(), rows), d.codes, classes);
        EXPECT_EQ(got.n_iterations, want.n_iterations) << rows;
        EXPECT_EQ(got.max_gradient, want.max_gradient) << rows;
        EXPECT_EQ(got.intercepts, want.intercepts) << rows;
        EXPECT_TRUE(std::equal(got.coefficients.data.begin(), got.coefficients.data.end(),
                               want.coefficients.data.begin(), want.coefficients.data.end()))
            << rows;
      }
    d.x[static_cast<std::size_t>(200 * d.m + 3)] = NAN;
    Context ctx = Context::cpu(1);
    ctx.block_bytes = 1;
    EXPECT_THROW(logistic_regression(ctx, ResidentBlocks(d.view(), 50), d.codes, classes), DataError);
  }
}

TEST(LogisticRegression, NoIntercept) {
  const Data d = make_data(3);
  LogisticRegressionOptions o;
  o.fit_intercept = false;
  const auto r = logistic_regression(Context::cpu(1), d.view(), d.codes, 3, o);
  EXPECT_TRUE(r.converged);
  for (const double b : r.intercepts) EXPECT_EQ(b, 0.0);
}

TEST(LogisticRegression, Errors) {
  Data d = make_data(3);
  const Context ctx = Context::cpu(1);
  EXPECT_THROW(logistic_regression(ctx, d.view(), d.codes, 1), InvalidArgument);
  EXPECT_THROW(logistic_regression(ctx, d.view(), d.codes, 4), InvalidArgument);  // nobody in the last class
  LogisticRegressionOptions o;
  o.c = 0;
  EXPECT_THROW(logistic_regression(ctx, d.view(), d.codes, 3, o), InvalidArgument);
  std::vector<std::int32_t> wrong(2, 0);
  EXPECT_THROW(logistic_regression(ctx, d.view(), wrong, 2), ShapeMismatch);
  d.x[7] = NAN;
  EXPECT_THROW(logistic_regression(ctx, d.view(), d.codes, 3), DataError);
}

}  // namespace
}  // namespace scw::tl
