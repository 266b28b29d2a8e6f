#include "scwarp/pp/neighbors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "math/philox.hpp"

namespace scw::pp {
namespace {

using Pairs = std::map<std::pair<std::int64_t, std::int64_t>, double>;

std::vector<float> cloud(std::int64_t n, std::int64_t d) {
  std::vector<float> x(static_cast<std::size_t>(n * d));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(math::random_uniform({2, 1}, i) + math::random_uniform({2, 2}, i));
  return x;
}

Pairs to_pairs(const Csr<float>& c) {
  Pairs out;
  for (std::int64_t i = 0; i < c.n_rows; ++i)
    for (std::int64_t e = c.indptr[i]; e < c.indptr[i + 1]; ++e)
      out[{i, c.indices[e]}] = static_cast<double>(c.values[e]);
  return out;
}

/// Sorted columns, no diagonal, symmetric to the last bit, weights in (0, 1].
void expect_graph(const Csr<float>& c) {
  const auto pairs = to_pairs(c);
  EXPECT_EQ(static_cast<std::int64_t>(pairs.size()), c.indices.size());
  for (std::int64_t i = 0; i < c.n_rows; ++i)
    for (std::int64_t e = c.indptr[i]; e < c.indptr[i + 1]; ++e) {
      if (e > c.indptr[i]) {
        ASSERT_LT(c.indices[e - 1], c.indices[e]);
      }
      ASSERT_NE(c.indices[e], i);
      ASSERT_GT(c.values[e], 0.0f);
      ASSERT_LE(c.values[e], 1.0f);
      const auto other = pairs.find({c.indices[e], i});
      ASSERT_NE(other, pairs.end());
      ASSERT_EQ(other->second, static_cast<double>(c.values[e]));
    }
}

TEST(Neighbors, CheckVector) {
  const std::vector<float> x{1, 0, 3, 0, 5, 6, 0, 4};
  const auto got = neighbors(Context::cpu(2), MatrixView<const float>(x.data(), 4, 2), {.knn = {.n_neighbors = 3}});
  const auto distances = to_pairs(distance_graph(Context::cpu(2), got.knn));
  const Pairs expected_distances{{{0, 1}, 2},      {{0, 3}, 4.1231}, {{1, 0}, 2},      {{1, 3}, 5},
                                 {{2, 1}, 6.3246}, {{2, 3}, 5.3852}, {{3, 0}, 4.1231}, {{3, 1}, 5}};
  ASSERT_EQ(distances.size(), expected_distances.size());
  for (const auto& [at, value] : expected_distances) EXPECT_NEAR(distances.at(at), value, 1e-4);
  expect_graph(got.connectivities);
  const auto weights = to_pairs(got.connectivities);
  const Pairs upper{{{0, 1}, 1}, {{0, 3}, 1}, {{1, 2}, 0.584969}, {{1, 3}, 0.827742}, {{2, 3}, 1}};
  ASSERT_EQ(weights.size(), 2 * upper.size());
  for (const auto& [at, value] : upper) EXPECT_NEAR(weights.at(at), value, 1e-6);
}

/// umap weights by the definition, with sigma found to the last digit.
TEST(Neighbors, FuzzyWeightsSolveTheirEquation) {
  const std::int64_t n = 400, d = 6;
  const int k = 12;
  const auto x = cloud(n, d);
  const auto got = neighbors(Context::cpu(2), MatrixView<const float>(x.data(), n, d), {.knn = {.n_neighbors = k}});
  expect_graph(got.connectivities);
  Pairs directed;
  for (std::int64_t i = 0; i < n; ++i) {
    const float* const row = got.knn.distances.data() + i * k;
    const double rho = static_cast<double>(row[1]);
    double low = 1e-6, high = 1e3;
    for (int step = 0; step < 200; ++step) {
      const double mid = 0.5 * (low + high);
      double sum = 0;
      for (int j = 1; j < k; ++j) sum += std::exp(-std::max(0.0, static_cast<double>(row[j]) - rho) / mid);
      (sum > std::log2(k) ? high : low) = mid;
    }
    for (int j = 1; j < k; ++j)
      directed[{i, got.knn.indices[i * k + j]}] = std::exp(-std::max(0.0, static_cast<double>(row[j]) - rho) / low);
  }
  const auto weights = to_pairs(got.connectivities);
  for (const auto& [at, a] : directed) {
    const auto back = directed.find({at.second, at.first});
    const double b = back == directed.end() ? 0 : back->second;
    ASSERT_NEAR(weights.at(at), a + b - a * b, 1e-5);
  }
  for (const auto& [at, w] : weights) ASSERT_TRUE(directed.contains(at) || directed.contains({at.second, at.first}));
}

TEST(Neighbors, GaussAndJaccardByTheirDefinitions) {
  const std::int64_t n = 150, d = 4;
  const int k = 8;
  const auto x = cloud(n, d);
  const auto lists = knn(Context::cpu(2), MatrixView<const float>(x.data(), n, d), {.n_neighbors = k});
  std::vector<std::vector<std::int32_t>> sets;
  std::vector<double> width;
  for (std::int64_t i = 0; i < n; ++i) {
    sets.emplace_back(lists.indices.begin() + i * k + 1, lists.indices.begin() + (i + 1) * k);
    std::sort(sets.back().begin(), sets.back().end());
    width.push_back(std::pow(static_cast<double>(lists.distances[i * k + 4]), 2));  // median of 7
  }
  const auto gauss = connectivities(Context::cpu(2), lists, {.method = ConnectivityMethod::gauss});
  const auto jaccard = connectivities(Context::cpu(2), lists, {.method = ConnectivityMethod::jaccard});
  expect_graph(gauss);
  expect_graph(jaccard);
  const auto g = to_pairs(gauss), w = to_pairs(jaccard);
  std::size_t edges = 0, overlaps = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const auto ui = static_cast<std::size_t>(i), uj = static_cast<std::size_t>(j);
      const bool ij = std::binary_search(sets[ui].begin(), sets[ui].end(), j),
                 ji = std::binary_search(sets[uj].begin(), sets[uj].end(), i);
      if (!ij && !ji) continue;
      ++edges;
      double d2 = 0;
      for (std::int64_t c = 0; c < d; ++c)
        d2 += std::pow(static_cast<double>(x[static_cast<std::size_t>(i * d + c)]) -
                           static_cast<double>(x[static_cast<std::size_t>(j * d + c)]),
                       2);
      const double den = width[ui] + width[uj];
      EXPECT_NEAR(g.at({i, j}), std::sqrt(2 * std::sqrt(width[ui] * width[uj]) / den) * std::exp(-d2 / den), 1e-6);
      std::vector<std::int32_t> both;
      std::set_intersection(sets[ui].begin(), sets[ui].end(), sets[uj].begin(), sets[uj].end(),
                            std::back_inserter(both));
      const double share =
          static_cast<double>(both.size()) / static_cast<double>(2 * (k - 1) - static_cast<int>(both.size()));
      const double expected = share * (static_cast<int>(ij) + static_cast<int>(ji)) / 2;
      overlaps += expected > 0 ? 1 : 0;
      EXPECT_NEAR(w.contains({i, j}) ? w.at({i, j}) : 0.0, expected, 1e-7);
    }
  EXPECT_EQ(g.size(), edges);
  EXPECT_EQ(w.size(), overlaps);
}

TEST(Neighbors, DenseGauss) {
  const std::int64_t n = 60, d = 3;
  const auto x = cloud(n, d);
  const auto distances = pairwise_distances(Context::cpu(2), MatrixView<const float>(x.data(), n, d));
  const auto got = gauss_kernel(Context::cpu(2), distances.view(), 5);
  std::vector<double> width;
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<float> row(distances.data.begin() + i * n, distances.data.begin() + (i + 1) * n);
    std::sort(row.begin(), row.end());
    width.push_back(std::pow(static_cast<double>(row[4]), 2) / 4);
  }
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const double den = width[static_cast<std::size_t>(i)] + width[static_cast<std::size_t>(j)];
      const double w =
          std::sqrt(2 * std::sqrt(width[static_cast<std::size_t>(i)] * width[static_cast<std::size_t>(j)]) / den) *
          std::exp(-std::pow(static_cast<double>(distances.data[i * n + j]), 2) / den);
      EXPECT_NEAR(got.data[i * n + j], w > 1e-14 ? w : 0.0, 1e-6);
    }
}

TEST(Neighbors, InnerProductPutsTheMostSimilarNearest) {
  const std::int64_t n = 80, d = 5;
  const auto x = cloud(n, d);
  const auto got = neighbors(Context::cpu(2), MatrixView<const float>(x.data(), n, d),
                             {.knn = {.n_neighbors = 6, .metric = Metric::inner_product}});
  expect_graph(got.connectivities);
  const auto weights = to_pairs(got.connectivities);
  for (std::int64_t i = 0; i < n; ++i) EXPECT_EQ(weights.at({i, got.knn.indices[i * 6 + 1]}), 1.0);
}

TEST(Neighbors, SameBitsForAnyNumberOfThreads) {
  const std::int64_t n = 5000, d = 4;
  const auto x = cloud(n, d);
  const MatrixView<const float> view(x.data(), n, d);
  for (const auto method : {ConnectivityMethod::umap, ConnectivityMethod::gauss, ConnectivityMethod::jaccard}) {
    const auto one = neighbors(Context::cpu(1), view, {.knn = {}, .method = method});
    for (int threads : {2, 3}) {
      const auto other = neighbors(Context::cpu(threads), view, {.knn = {}, .method = method});
      ASSERT_EQ(one.connectivities.indices.size(), other.connectivities.indices.size());
      EXPECT_TRUE(std::equal(one.connectivities.indices.begin(), one.connectivities.indices.end(),
                             other.connectivities.indices.begin()));
      EXPECT_EQ(0, std::memcmp(one.connectivities.values.data(), other.connectivities.values.data(),
                               static_cast<std::size_t>(one.connectivities.values.size()) * sizeof(float)));
    }
  }
}

TEST(Neighbors, Edges) {
  const std::vector<float> x{0, 1, 5, 6};
  // More neighbours than cells: 1 + n / 2, as scanpy.
  EXPECT_EQ(neighbors(Context::cpu(1), MatrixView<const float>(x.data(), 4, 1), {}).knn.k, 3);
  const auto one = neighbors(Context::cpu(1), MatrixView<const float>(x.data(), 1, 1), {});
  EXPECT_EQ(one.knn.k, 1);
  EXPECT_EQ(one.connectivities.indices.size(), 0);
  // Duplicates: distances of 0 weigh 1, nothing is NaN.
  const std::vector<float> same(20, 2.0f);
  for (const auto method : {ConnectivityMethod::umap, ConnectivityMethod::gauss, ConnectivityMethod::jaccard})
    expect_graph(neighbors(Context::cpu(1), MatrixView<const float>(same.data(), 20, 1),
                           {.knn = {.n_neighbors = 4}, .method = method})
                     .connectivities);
  std::vector<std::int32_t> ids{0, 1, 1, 7};
  std::vector<float> distances{0, 1, 0, 1};
  EXPECT_THROW(
      connectivities(Context::cpu(1), KnnView(2, 2, Span<const std::int32_t>(ids), Span<const float>(distances))),
      InvalidArgument);
  ids[3] = -1;  // missing
  EXPECT_EQ(connectivities(Context::cpu(1), KnnView(2, 2, Span<const std::int32_t>(ids), Span<const float>(distances)))
                .indices.size(),
            2);
  EXPECT_THROW(
      connectivities(Context::cpu(1), KnnView(2, 3, Span<const std::int32_t>(ids), Span<const float>(distances))),
      ShapeMismatch);
}

}  // namespace
}  // namespace scw::pp
