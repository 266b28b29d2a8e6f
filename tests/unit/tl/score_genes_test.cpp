#include "scwarp/tl/score_genes.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "scwarp/core/error.hpp"

namespace scw::tl {
namespace {

std::vector<float> random_matrix(std::int64_t n, std::int64_t m) {
  std::mt19937 gen(5);
  std::vector<float> x(static_cast<std::size_t>(n * m));
  for (float& v : x) v = gen() % 3 == 0 ? static_cast<float>(gen() % 1000) / 7 : 0.0f;
  return x;
}

TEST(ScoreGenes, MeansOfTheSets) {
  const std::int64_t n = 700, m = 90;
  auto x = random_matrix(n, m);
  x[5 * m + 3] = NAN;
  for (const std::int64_t j : {3, 80, 7}) x[9 * m + j] = NAN;  // the whole set in this cell
  const MatrixView<const float> view(x.data(), n, m);
  const std::vector<std::int32_t> genes = {3, 80, 7, 7}, control = {1, 2, 89};
  const auto got = score_genes(Context::cpu(1), view, genes, control);
  for (std::int64_t i = 0; i < n; ++i) {
    double a = 0, na = 0, b = 0;
    for (const std::int64_t j : {3, 80, 7})
      if (!std::isnan(x[static_cast<std::size_t>(i * m + j)])) a += x[static_cast<std::size_t>(i * m + j)], ++na;
    for (const std::int64_t j : {1, 2, 89}) b += x[static_cast<std::size_t>(i * m + j)];
    if (na == 0)
      EXPECT_TRUE(std::isnan(got[i]));
    else
      EXPECT_NEAR(got[i], a / na - b / 3, 1e-12) << i;
  }
  for (const int threads : {2, 3}) {
    const auto again = score_genes(Context::cpu(threads), view, genes, control);
    EXPECT_EQ(std::memcmp(got.data(), again.data(), static_cast<std::size_t>(n) * 8), 0);
  }
}

TEST(ScoreGenes, MeansOfGenesLeaveNanOut) {
  const std::int64_t n = 300, m = 20;
  auto x = random_matrix(n, m);
  x[3] = NAN;
  x[10 * m + 3] = NAN;
  x[7] = INFINITY;
  for (std::int64_t i = 0; i < n; ++i) x[static_cast<std::size_t>(i * m + 5)] = NAN;
  const auto got = nan_mean_of_genes(Context::cpu(2), MatrixView<const float>(x.data(), n, m));
  for (std::int64_t j = 0; j < m; ++j) {
    double sum = 0, count = 0;
    for (std::int64_t i = 0; i < n; ++i)
      if (const float v = x[static_cast<std::size_t>(i * m + j)]; !std::isnan(v)) sum += v, ++count;
    if (j == 5)
      EXPECT_TRUE(std::isnan(got[j]));
    else if (j == 7)
      EXPECT_EQ(got[j], INFINITY);
    else
      EXPECT_NEAR(got[j], sum / count, 1e-12 * sum) << j;
  }
}

TEST(ScoreGenes, Errors) {
  const auto x = random_matrix(4, 5);
  const MatrixView<const float> view(x.data(), 4, 5);
  const std::vector<std::int32_t> none, some = {1}, wrong = {5};
  EXPECT_THROW(score_genes(Context::cpu(1), view, none, some), InvalidArgument);
  EXPECT_THROW(score_genes(Context::cpu(1), view, some, none), InvalidArgument);
  EXPECT_THROW(score_genes(Context::cpu(1), view, some, wrong), InvalidArgument);
  EXPECT_EQ(score_genes(Context::cpu(1), MatrixView<const float>(nullptr, 0, 5), some, some).size(), 0);
}

}  // namespace
}  // namespace scw::tl
