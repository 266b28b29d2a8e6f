#include "scwarp/pp/knn.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numbers>
#include <numeric>
#include <vector>

#include "math/metrics.hpp"
#include "math/philox.hpp"
#include "pp/knn/tiles.hpp"

namespace scw::pp {
namespace {

using Real = long double;
using Row = std::vector<Real>;

/// Clusters in `d` columns whose spread falls, as scores of a PCA.
std::vector<float> clustered(std::int64_t n, std::int64_t d, std::uint64_t seed = 1) {
  std::vector<float> x(static_cast<std::size_t>(n * d));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto cluster =
        math::bounded(static_cast<std::uint32_t>(math::random_u64({seed, 1}, static_cast<std::uint64_t>(i))), 7);
    for (std::int64_t k = 0; k < d; ++k) {
      const double centre = math::random_uniform({seed, 2}, cluster, static_cast<std::uint64_t>(k)) - 0.5;
      const double noise =
          math::random_uniform({seed, 3}, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(k)) +
          math::random_uniform({seed, 4}, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(k)) - 1;
      x[static_cast<std::size_t>(i * d + k)] =
          static_cast<float>((40 * centre + 6 * noise) / std::sqrt(1.0 + static_cast<double>(k)) + 3);
    }
  }
  return x;
}

/// Mostly zeros, the rest positive.
std::vector<float> sparse_like(std::int64_t n, std::int64_t d) {
  std::vector<float> x(static_cast<std::size_t>(n * d));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double u = math::random_uniform({5, 0}, i);
    x[i] = u < 0.6 ? 0.0f : static_cast<float>(10 * (u - 0.6));
  }
  return x;
}

Csr<float> to_csr(const std::vector<float>& x, std::int64_t n, std::int64_t d) {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < d; ++k)
      if (const float v = x[static_cast<std::size_t>(i * d + k)]; v != 0) {
        indices.push_back(static_cast<std::int32_t>(k));
        values.push_back(v);
      }
    indptr.push_back(static_cast<std::int64_t>(values.size()));
  }
  Csr<float> out;
  out.n_rows = n;
  out.n_cols = static_cast<std::int32_t>(d);
  out.indptr = Array<std::int64_t>(host_memory(), n + 1);
  out.indices = Array<std::int32_t>(host_memory(), static_cast<std::int64_t>(values.size()));
  out.values = Array<float>(host_memory(), static_cast<std::int64_t>(values.size()));
  std::copy(indptr.begin(), indptr.end(), out.indptr.begin());
  std::copy(indices.begin(), indices.end(), out.indices.begin());
  std::copy(values.begin(), values.end(), out.values.begin());
  return out;
}

Real sum(const Row& x, const std::function<Real(Real)>& f) {
  Real s = 0;
  for (const Real v : x) s += f(v);
  return s;
}
Real cosine(const Row& x, const Row& y) {
  Real xy = 0, xx = 0, yy = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    xy += x[k] * y[k];
    xx += x[k] * x[k];
    yy += y[k] * y[k];
  }
  return xx > 0 && yy > 0 ? 1 - xy / std::sqrt(xx * yy) : 1;
}

/// Definitions, straight from a textbook.
Real distance(Metric metric, double p, const Row& x, const Row& y) {
  const std::size_t d = x.size();
  Real s = 0, t = 0;
  switch (metric) {
    case Metric::euclidean:
    case Metric::sqeuclidean:
      for (std::size_t k = 0; k < d; ++k) s += (x[k] - y[k]) * (x[k] - y[k]);
      return metric == Metric::euclidean ? std::sqrt(s) : s;
    case Metric::manhattan:
      for (std::size_t k = 0; k < d; ++k) s += std::abs(x[k] - y[k]);
      return s;
    case Metric::chebyshev:
      for (std::size_t k = 0; k < d; ++k) s = std::max(s, std::abs(x[k] - y[k]));
      return s;
    case Metric::minkowski:
      for (std::size_t k = 0; k < d; ++k) s += std::pow(std::abs(x[k] - y[k]), static_cast<Real>(p));
      return std::pow(s, 1 / static_cast<Real>(p));
    case Metric::canberra:
      for (std::size_t k = 0; k < d; ++k)
        if (x[k] != 0 || y[k] != 0) s += std::abs(x[k] - y[k]) / (std::abs(x[k]) + std::abs(y[k]));
      return s;
    case Metric::cosine:
      return cosine(x, y);
    case Metric::correlation: {
      Row a = x, b = y;
      const Real ma = sum(x, [](Real v) { return v; }) / static_cast<Real>(d);
      const Real mb = sum(y, [](Real v) { return v; }) / static_cast<Real>(d);
      for (Real& v : a) v -= ma;
      for (Real& v : b) v -= mb;
      return cosine(a, b);
    }
    case Metric::inner_product:
      for (std::size_t k = 0; k < d; ++k) s += x[k] * y[k];
      return s;
    case Metric::jensenshannon: {
      const Real sx = sum(x, [](Real v) { return v; }), sy = sum(y, [](Real v) { return v; });
      for (std::size_t k = 0; k < d; ++k) {
        const Real a = x[k] / sx, b = y[k] / sy, m = (a + b) / 2;
        if (a > 0) s += a * std::log(a / m);
        if (b > 0) s += b * std::log(b / m);
      }
      return std::sqrt(s / 2);
    }
    case Metric::hellinger:
      for (std::size_t k = 0; k < d; ++k) s += std::sqrt(x[k] * y[k]);
      return std::sqrt(std::max<Real>(0, 1 - s));
    case Metric::haversine: {
      const Real a = std::sin((x[0] - y[0]) / 2), b = std::sin((x[1] - y[1]) / 2);
      return 2 * std::asin(std::sqrt(a * a + std::cos(x[0]) * std::cos(y[0]) * b * b));
    }
    case Metric::hamming:
      for (std::size_t k = 0; k < d; ++k) s += x[k] != y[k] ? 1 : 0;
      return s / static_cast<Real>(d);
    case Metric::jaccard:
      for (std::size_t k = 0; k < d; ++k) {
        s += (x[k] != 0) != (y[k] != 0) ? 1 : 0;
        t += x[k] != 0 || y[k] != 0 ? 1 : 0;
      }
      return t > 0 ? s / t : 0;
    case Metric::braycurtis:
      for (std::size_t k = 0; k < d; ++k) {
        s += std::abs(x[k] - y[k]);
        t += std::abs(x[k]) + std::abs(y[k]);
      }
      return s / t;
  }
  return 0;
}

/// The distances of the result are the k smallest of all, and belong to its indices.
void expect_nearest(const KnnResult& got, const std::vector<float>& x, std::int64_t n, std::int64_t d, double p = 2) {
  const auto row = [&](std::int64_t i) { return Row(x.begin() + i * d, x.begin() + (i + 1) * d); };
  const bool similarity = got.metric == Metric::inner_product;
  for (std::int64_t i = 0; i < n; ++i) {
    const Row a = row(i);
    std::vector<Real> all;
    Real scale = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const Real v = distance(got.metric, p, a, row(j));
      scale = std::max(scale, std::abs(v));
      if (j != i) all.push_back(similarity ? -v : v);
    }
    std::sort(all.begin(), all.end());
    const Real tolerance = 1e-12L * (1 + scale);
    ASSERT_EQ(got.indices[i * got.k], i);
    if (!similarity) {
      ASSERT_EQ(got.distances[i * got.k], 0.0f);
    }
    std::vector<std::int32_t> seen(got.indices.begin() + i * got.k, got.indices.begin() + (i + 1) * got.k);
    std::sort(seen.begin(), seen.end());
    ASSERT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end()) << "row " << i;
    for (int m = 1; m < got.k; ++m) {
      const std::int32_t j = got.indices[i * got.k + m];
      const Real own = distance(got.metric, p, a, row(j));
      ASSERT_NEAR(static_cast<double>(similarity ? -own : own),
                  static_cast<double>(all[static_cast<std::size_t>(m - 1)]),
                  static_cast<double>(tolerance) *
                      (got.metric == Metric::jensenshannon || got.metric == Metric::hellinger ? 1e5 : 1))
          << to_string(got.metric) << " row " << i << " place " << m;
      ASSERT_NEAR(got.distances[i * got.k + m], static_cast<double>(own),
                  1e-7 * (1 + std::abs(static_cast<double>(own))) + (got.metric == Metric::hellinger ? 1e-6 : 0));
    }
  }
}

bool same(const KnnResult& a, const KnnResult& b) {
  return a.indices.size() == b.indices.size() &&
         std::memcmp(a.indices.data(), b.indices.data(),
                     static_cast<std::size_t>(a.indices.size()) * sizeof(std::int32_t)) == 0 &&
         std::memcmp(a.distances.data(), b.distances.data(),
                     static_cast<std::size_t>(a.distances.size()) * sizeof(float)) == 0;
}

constexpr Metric kDense[] = {Metric::euclidean,     Metric::sqeuclidean, Metric::manhattan, Metric::chebyshev,
                             Metric::minkowski,     Metric::canberra,    Metric::cosine,    Metric::correlation,
                             Metric::inner_product, Metric::hamming,     Metric::jaccard,   Metric::braycurtis};

TEST(Knn, EveryDenseMetricAgainstItsDefinition) {
  const std::int64_t n = 330, d = 13;
  const auto x = clustered(n, d);
  for (const Metric metric : kDense) {
    KnnOptions options{.n_neighbors = 11, .metric = metric, .p = 3.5};
    expect_nearest(knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), options), x, n, d, 3.5);
  }
  const auto counts = sparse_like(n, d);
  for (const Metric metric : {Metric::jensenshannon, Metric::jaccard, Metric::hamming, Metric::canberra}) {
    KnnOptions options{.n_neighbors = 11, .metric = metric};
    expect_nearest(knn(Context::cpu(2), MatrixView<const float>(counts.data(), n, d), options), counts, n, d);
  }
  auto probabilities = counts;
  for (float& v : probabilities) v *= 0.01f;
  expect_nearest(
      knn(Context::cpu(2), MatrixView<const float>(probabilities.data(), n, d), {.metric = Metric::hellinger}),
      probabilities, n, d);
  std::vector<float> places(2 * 330);
  for (std::size_t i = 0; i < places.size(); ++i)
    places[i] = static_cast<float>((math::random_uniform({3, 9}, i) - 0.5) * (i % 2 == 0 ? 1 : 2) * std::numbers::pi);
  expect_nearest(knn(Context::cpu(2), MatrixView<const float>(places.data(), n, 2), {.metric = Metric::haversine}),
                 places, n, 2);
}

TEST(Knn, SparseHasTheBitsOfDense) {
  const std::int64_t n = 300, d = 40;
  auto x = sparse_like(n, d);
  std::fill_n(x.begin() + 3 * d, d, 0.0f);  // an empty cell
  const Csr<float> csr = to_csr(x, n, d);
  for (const Metric metric :
       {Metric::euclidean, Metric::sqeuclidean, Metric::manhattan, Metric::chebyshev, Metric::minkowski,
        Metric::canberra, Metric::cosine, Metric::inner_product, Metric::hellinger, Metric::jaccard}) {
    const KnnOptions options{.n_neighbors = 9, .metric = metric, .p = 3};
    const auto dense = knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), options);
    EXPECT_TRUE(same(dense, knn(Context::cpu(2), csr.view(), options))) << to_string(metric);
  }
  EXPECT_THROW(knn(Context::cpu(1), csr.view(), {.metric = Metric::correlation}), NotSupported);
}

TEST(Knn, LargeEnoughForSeveralBlocks) {
  const std::int64_t n = 900, d = 50;
  const auto x = clustered(n, d);
  const auto got = knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), {});
  EXPECT_EQ(got.n_rescanned, 0);
  expect_nearest(got, x, n, d);
}

TEST(Knn, WideRowsPassThroughSeveralDepthBlocks) {
  const std::int64_t n = 260, d = 1301;
  const auto x = clustered(n, d);
  expect_nearest(knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), {.n_neighbors = 6}), x, n, d);
  expect_nearest(knn(Context::cpu(2), to_csr(x, n, d).view(), {.n_neighbors = 6, .metric = Metric::cosine}), x, n, d);
}

TEST(Knn, SameBitsForAnyNumberOfThreadsAndOnEveryRun) {
  const std::int64_t n = 1500, d = 20;
  const auto x = clustered(n, d);
  for (const Metric metric : {Metric::euclidean, Metric::cosine, Metric::manhattan}) {
    const KnnOptions options{.n_neighbors = 15, .metric = metric};
    const auto one = knn(Context::cpu(1), MatrixView<const float>(x.data(), n, d), options);
    for (int threads : {2, 3, 2, 3, 2})
      EXPECT_TRUE(same(one, knn(Context::cpu(threads), MatrixView<const float>(x.data(), n, d), options)));
  }
}

TEST(Knn, FarFromTheOriginAndWithOutliers) {
  const std::int64_t n = 700, d = 10;
  auto x = clustered(n, d);
  for (float& v : x) v += 4096.0f;  // scores alone could not separate these
  x[5 * d] = 3e6f;
  x[9 * d + 3] = -2e6f;
  expect_nearest(knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), {}), x, n, d);
  for (float& v : x) v *= 1e25f;  // squares overflow float
  const auto huge = knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), {});
  EXPECT_EQ(huge.indices[0], 0);
  expect_nearest(huge, x, n, d);
}

TEST(Knn, DuplicatesKeepTheCellFirstAndTiesGoToTheLowerIndex) {
  const std::int64_t n = 600, d = 3;
  std::vector<float> x(static_cast<std::size_t>(n * d), 1.5f);
  for (std::int64_t i = 500; i < n; ++i) x[static_cast<std::size_t>(i * d)] = 2.5f;
  for (const Metric metric : {Metric::euclidean, Metric::manhattan, Metric::cosine}) {
    const auto got =
        knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), {.n_neighbors = 4, .metric = metric});
    const auto row = [&](std::int64_t i) {
      return std::vector<std::int32_t>(got.indices.begin() + i * 4, got.indices.begin() + i * 4 + 4);
    };
    EXPECT_THAT(row(0), ::testing::ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(row(2), ::testing::ElementsAre(2, 0, 1, 3));
    EXPECT_THAT(row(499), ::testing::ElementsAre(499, 0, 1, 2));
    EXPECT_THAT(row(550), ::testing::ElementsAre(550, 500, 501, 502));
    for (const float v : got.distances) EXPECT_NEAR(v, 0.0f, metric == Metric::cosine ? 1e-6 : 0);
    if (metric == Metric::euclidean) {
      EXPECT_EQ(got.n_rescanned, 600);
    }  // the float scores cannot tell these apart
  }
}

TEST(Knn, DoubleInputKeepsItsDigits) {
  // Differences of 1e-9 vanish in float.
  std::vector<double> x(64);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 1.0 + 1e-9 * static_cast<double>((i * 29) % 64);
  const auto got = knn(Context::cpu(1), MatrixView<const double>(x.data(), 64, 1), {.n_neighbors = 2});
  for (std::int64_t i = 0; i < 64; ++i) EXPECT_NEAR(got.distances[2 * i + 1], 1e-9, 1e-14);
}

TEST(Knn, EdgesAndErrors) {
  const std::vector<float> x{0, 1, 3, 7, 4, 4};
  const MatrixView<const float> three(x.data(), 3, 2);
  const auto all = knn(Context::cpu(2), three, {.n_neighbors = 3});  // k = n
  EXPECT_EQ(all.indices[0], 0);
  EXPECT_EQ(all.indices[1], 2);
  EXPECT_EQ(all.indices[2], 1);
  const auto self = knn(Context::cpu(2), three, {.n_neighbors = 1});
  EXPECT_EQ(self.indices[2], 2);
  EXPECT_EQ(self.distances[2], 0.0f);
  EXPECT_EQ(knn(Context::cpu(1), MatrixView<const float>(x.data(), 0, 2), {.n_neighbors = 1}).indices.size(), 0);
  EXPECT_EQ(knn(Context::cpu(1), MatrixView<const float>(x.data(), 1, 2), {.n_neighbors = 1}).indices[0], 0);
  EXPECT_EQ(knn(Context::cpu(1), MatrixView<const float>(x.data(), 3, 0), {.n_neighbors = 2}).indices[1], 1);
  EXPECT_THROW(knn(Context::cpu(1), three, {.n_neighbors = 4}), InvalidArgument);
  EXPECT_THROW(knn(Context::cpu(1), three, {.n_neighbors = 0}), InvalidArgument);
  EXPECT_THROW(
      knn(Context::cpu(1), MatrixView<const float>(x.data(), 2, 3), {.n_neighbors = 2, .metric = Metric::haversine}),
      InvalidArgument);
  EXPECT_THROW(knn(Context::cpu(1), three, {.n_neighbors = 2, .metric = Metric::minkowski, .p = 0.5}), InvalidArgument);
  std::vector<float> bad = x;
  bad[3] = std::nanf("");
  try {
    knn(Context::cpu(1), MatrixView<const float>(bad.data(), 3, 2), {.n_neighbors = 2});
    FAIL();
  } catch (const DataError& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("cell 1"));
  }
  bad[3] = -1;
  EXPECT_THROW(
      knn(Context::cpu(1), MatrixView<const float>(bad.data(), 3, 2), {.n_neighbors = 2, .metric = Metric::hellinger}),
      DataError);
  EXPECT_THROW(parse_metric("euclid"), InvalidArgument);
  EXPECT_EQ(parse_metric("taxicab"), Metric::manhattan);
  EXPECT_EQ(parse_metric("linf"), Metric::chebyshev);
}

TEST(Knn, Cancelled) {
  const std::int64_t n = 1000, d = 4;
  const auto x = clustered(n, d);
  const std::atomic<bool> stop{true};
  Context ctx = Context::cpu(2);
  ctx.cancelled = &stop;
  EXPECT_THROW(knn(ctx, MatrixView<const float>(x.data(), n, d), {}), Cancelled);
}

TEST(Knn, AllDistances) {
  const std::int64_t n = 37, d = 5;
  const auto x = clustered(n, d);
  const auto got = pairwise_distances(Context::cpu(2), MatrixView<const float>(x.data(), n, d), Metric::canberra);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      EXPECT_NEAR(got.data[i * n + j],
                  static_cast<double>(distance(Metric::canberra, 2, Row(x.begin() + i * d, x.begin() + (i + 1) * d),
                                               Row(x.begin() + j * d, x.begin() + (j + 1) * d))),
                  1e-6);
}

TEST(KnnDescent, RecallIsWhatItSays) {
  const std::int64_t n = 6000, d = 12;
  const auto x = clustered(n, d);
  const MatrixView<const float> view(x.data(), n, d);
  for (const Metric metric : {Metric::euclidean, Metric::cosine, Metric::inner_product}) {
    const auto exact = knn(Context::cpu(2), view, {.metric = metric, .algorithm = KnnAlgorithm::brute});
    const auto got = knn(Context::cpu(2), view,
                         {.metric = metric, .algorithm = KnnAlgorithm::nn_descent, .recall_sample = n, .n_trees = 3});
    ASSERT_EQ(got.algorithm, KnnAlgorithm::nn_descent);
    EXPECT_EQ(got.recall_cells, n);
    std::int64_t found = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::vector<std::int32_t> mine(got.indices.begin() + i * 15, got.indices.begin() + (i + 1) * 15);
      ASSERT_EQ(mine[0], i);
      for (int m = 1; m < 15; ++m) {
        const auto at = std::find(mine.begin() + 1, mine.end(), exact.indices[i * 15 + m]);
        if (at == mine.end()) continue;
        ++found;
        ASSERT_EQ(got.distances[i * 15 + (at - mine.begin())], exact.distances[i * 15 + m]);  // same bits
      }
    }
    const double recall = static_cast<double>(found) / static_cast<double>(n * 14);
    EXPECT_GE(recall, 0.98) << to_string(metric);
    EXPECT_NEAR(recall, got.recall, 1e-12) << to_string(metric);
  }
}

TEST(KnnDescent, SameBitsForAnyNumberOfThreadsAndSeedsDiffer) {
  const std::int64_t n = 9300, d = 30;
  const auto x = clustered(n, d);
  const MatrixView<const float> view(x.data(), n, d);
  const KnnOptions options{.algorithm = KnnAlgorithm::nn_descent, .min_recall = 0.1, .n_trees = 2, .max_rounds = 1};
  const auto one = knn(Context::cpu(1), view, options);
  EXPECT_EQ(one.rounds, 1);
  for (int threads : {2, 3}) EXPECT_TRUE(same(one, knn(Context::cpu(threads), view, options)));
  Context other = Context::cpu(2);
  other.rng.seed = 99;
  EXPECT_FALSE(same(one, knn(other, view, options)));
}

TEST(KnnDescent, RepairsAndGivesWay) {
  const std::int64_t n = 9300, d = 30;
  auto x = clustered(n, d);
  const MatrixView<const float> view(x.data(), n, d);
  const auto exact = knn(Context::cpu(2), view, {.algorithm = KnnAlgorithm::brute});
  // One tree does not reach this; more are planted, or the search becomes exact.
  const auto got = knn(Context::cpu(2), view,
                       {.algorithm = KnnAlgorithm::nn_descent, .min_recall = 0.97, .n_trees = 1, .max_rounds = 0});
  EXPECT_GE(got.recall, 0.97);
  // Small data are searched exactly whatever was asked for, and the result says so.
  const auto few =
      knn(Context::cpu(2), MatrixView<const float>(x.data(), 500, d), {.algorithm = KnnAlgorithm::nn_descent});
  EXPECT_EQ(few.algorithm, KnnAlgorithm::brute);
  EXPECT_EQ(few.recall, 1.0);
  // Automatic: by work.
  EXPECT_EQ(knn(Context::cpu(2), view, {.brute_work = 1e6, .min_recall = 0.5}).algorithm, KnnAlgorithm::nn_descent);
  EXPECT_TRUE(same(exact, knn(Context::cpu(2), view, {})));
  EXPECT_THROW(knn(Context::cpu(1), view, {.metric = Metric::manhattan, .algorithm = KnnAlgorithm::nn_descent}),
               NotSupported);
  // All cells the same: the leaves cannot be told apart, still n_neighbors of them come back.
  std::fill(x.begin(), x.begin() + 4700 * d, 1.0f);
  const auto equal = knn(Context::cpu(2), MatrixView<const float>(x.data(), 4700, d),
                         {.n_neighbors = 5, .algorithm = KnnAlgorithm::nn_descent});
  for (const float v : equal.distances) ASSERT_EQ(v, 0.0f);
}

/// Every instruction set that this machine has takes the same pairs, away from the thresholds.
TEST(KnnTiles, EveryInstructionSet) {
  constexpr std::int64_t depth = 37;
  std::vector<float> a(depth * cpu::kTileRows), b(depth * cpu::kTileColumns);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(math::random_uniform({1, 1}, i) - 0.5);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(math::random_uniform({1, 2}, i) - 0.5);
  std::vector<float> offset(64, 0.25f), columns(64, 0.4f), rows{0.1f, 0.2f, 0.3f, -0.1f, -0.2f, 100.0f},
      row_offset{0.0f, 0.1f, -0.2f, 0.3f, 0.0f, 200.0f};
  int found = 0;
  for (const char* name : {"portable", "avx2", "avx512"}) {
    const cpu::TileFunction f = cpu::tile_function(name);
    if (f == nullptr) continue;
    ++found;
    for (const std::int64_t split : {depth, std::int64_t{20}}) {
      std::vector<float> score(6 * 64, -77.0f);
      cpu::Tile t;
      t.offset = offset.data();
      t.row_threshold = rows.data();
      t.column_threshold = columns.data();
      t.row_offset = row_offset.data();
      t.score = score.data();
      t.a = a.data();
      t.b = b.data();
      t.depth = split;
      t.last = split == depth;
      bool any = f(t);
      if (split != depth) {
        t.a += split * cpu::kTileRows;
        t.b += split * cpu::kTileColumns;
        t.depth = depth - split;
        t.first = false;
        t.last = true;
        any = f(t);
      }
      EXPECT_TRUE(any);
      for (int r = 0; r < cpu::kTileRows; ++r)
        for (int c = 0; c < cpu::kTileColumns; ++c) {
          double exact = -0.25;
          for (std::int64_t k = 0; k < depth; ++k)
            exact += static_cast<double>(a[static_cast<std::size_t>(k * 6 + r)]) *
                     static_cast<double>(b[static_cast<std::size_t>(k * 64 + c)]);
          EXPECT_NEAR(score[static_cast<std::size_t>(r * 64 + c)], exact, 1e-5) << name;
          const auto ur = static_cast<std::size_t>(r);
          if (std::abs(exact - static_cast<double>(rows[ur])) > 1e-5) {
            EXPECT_EQ((t.row_hits[r] >> c) & 1, exact > static_cast<double>(rows[ur])) << name;
          }
          const double column = 0.4 + static_cast<double>(row_offset[ur]);
          if (std::abs(exact - column) > 1e-5) {
            EXPECT_EQ((t.column_hits[r] >> c) & 1, exact > column) << name;
          }
        }
    }
  }
  EXPECT_GE(found, 1);
}

TEST(Metrics, SineCosineArcsine) {
  for (int i = 0; i < 20000; ++i) {
    const double x = (math::random_uniform({1, 7}, static_cast<std::uint64_t>(i)) - 0.5) * (i % 2 == 0 ? 10 : 1000);
    double s = 0, c = 0;
    math::sin_cos(x, s, c);
    ASSERT_NEAR(s, std::sin(x), 4e-16);
    ASSERT_NEAR(c, std::cos(x), 4e-16);
    const double y = math::random_uniform({1, 8}, static_cast<std::uint64_t>(i));
    ASSERT_NEAR(math::arc_sine(y), std::asin(y), 5e-16 * (1 + y));
  }
  EXPECT_EQ(math::arc_sine(0.0), 0.0);
  EXPECT_NEAR(math::arc_sine(1.0), std::numbers::pi / 2, 1e-15);
}

}  // namespace
}  // namespace scw::pp
