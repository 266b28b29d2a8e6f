// Neighbour search and graph: CUDA has the CPU's neighbours and bits, for every metric, layout and method.
#include "scwarp/pp/knn.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "parity/parity.hpp"
#include "scwarp/pp/neighbors.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::expect_same_bits;
using parity::Guarded;
using parity::HostCsr;

template <class T>
std::vector<T> on_host(const Context& ctx, const Array<T>& a) {
  const auto host = to_host<T>(ctx, a.view());
  return {host.begin(), host.end()};
}

struct Lists {
  std::vector<std::int32_t> indices;
  std::vector<float> distances;
};

Lists lists_of(const Context& ctx, const KnnResult& r) { return {on_host(ctx, r.indices), on_host(ctx, r.distances)}; }

void expect_same(const Lists& want, const Lists& got, const std::string& what) {
  SCOPED_TRACE(what);
  expect_same_bits(want.indices, got.indices);
  expect_same_bits(want.distances, got.distances);
}

/// Scores of a PCA: clusters, falling spread, some duplicates and an outlier.
template <class V>
std::vector<V> scores(std::int64_t n, std::int64_t d) {
  std::vector<V> x(static_cast<std::size_t>(n * d));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < d; ++k) {
      const auto ui = static_cast<std::uint64_t>(i % (n - 5)), uk = static_cast<std::uint64_t>(k);
      const double centre = math::random_uniform({1, 1}, ui % 5, uk) * 30;
      const double noise = math::random_uniform({1, 2}, ui, uk) + math::random_uniform({1, 3}, ui, uk);
      x[static_cast<std::size_t>(i * d + k)] =
          static_cast<V>((centre + 4 * noise) / std::sqrt(1.0 + static_cast<double>(k)));
    }
  x[static_cast<std::size_t>(3 * d)] = V(5e4);
  return x;
}

constexpr Metric kAll[] = {Metric::euclidean,     Metric::sqeuclidean,   Metric::manhattan, Metric::chebyshev,
                           Metric::minkowski,     Metric::canberra,      Metric::cosine,    Metric::correlation,
                           Metric::inner_product, Metric::jensenshannon, Metric::hellinger, Metric::hamming,
                           Metric::jaccard,       Metric::braycurtis};
constexpr Metric kSparse[] = {Metric::euclidean, Metric::sqeuclidean, Metric::manhattan, Metric::chebyshev,
                              Metric::minkowski, Metric::canberra,    Metric::cosine,    Metric::inner_product,
                              Metric::hellinger, Metric::jaccard};

template <class V>
Lists run(const Context& ctx, const std::vector<V>& x, std::int64_t n, std::int64_t d, const KnnOptions& options,
          std::int64_t* rescanned = nullptr) {
  Guarded<V> on_device(ctx, x);
  const auto r = knn(ctx, MatrixView<const V>(on_device.cview().data, n, d), options);
  if (rescanned != nullptr) *rescanned = r.n_rescanned;
  static_cast<void>(on_device.host());  // guards
  return lists_of(ctx, r);
}

template <class V>
void check_dense(const Context& ctx) {
  for (const auto& [n, d] : {std::pair<std::int64_t, std::int64_t>{1500, 50}, {130, 7}, {65, 1}, {64, 700}}) {
    const auto x = scores<V>(n, d);
    for (const Metric metric : kAll)
      for (const int k : {1, 2, 15, 60}) {
        const KnnOptions options{.n_neighbors = k, .metric = metric, .p = 2.5, .algorithm = KnnAlgorithm::brute};
        expect_same(run(Context::cpu(2), x, n, d, options), run(ctx, x, n, d, options),
                    std::string(to_string(metric)) + " n " + std::to_string(n) + " d " + std::to_string(d) + " k " +
                        std::to_string(k));
      }
  }
}

TEST(KnnParity, DenseFloat) {
  SCW_CUDA_CONTEXT(cuda);
  check_dense<float>(cuda);
}
TEST(KnnParity, DenseDouble) {
  SCW_CUDA_CONTEXT(cuda);
  check_dense<double>(cuda);
}

TEST(KnnParity, Sparse) {
  SCW_CUDA_CONTEXT(cuda);
  const auto host = HostCsr<float>::random(400, 60, 0.2, 3, true);
  for (const Metric metric : kSparse) {
    const KnnOptions options{.n_neighbors = 12, .metric = metric, .p = 3};
    const auto once = [&](const Context& ctx) {
      DeviceMatrix<float> x(ctx, host);
      return lists_of(ctx, knn(ctx, scw::as_const(x.view(true)), options));
    };
    expect_same(once(Context::cpu(2)), once(cuda), std::string(to_string(metric)));
  }
}

TEST(KnnParity, HaversineDuplicatesAndManyNeighbours) {
  SCW_CUDA_CONTEXT(cuda);
  std::vector<float> places(2 * 300);
  for (std::size_t i = 0; i < places.size(); ++i)
    places[i] = static_cast<float>(math::random_uniform({4, 4}, i) * 3 - 1.5);
  const KnnOptions haversine{.metric = Metric::haversine};
  expect_same(run(Context::cpu(2), places, 300, 2, haversine), run(cuda, places, 300, 2, haversine), "haversine");

  std::vector<float> same(3 * 700, 1.5f);  // float scores cannot tell these apart
  std::int64_t rescanned = 0;
  expect_same(run(Context::cpu(2), same, 700, 3, {}), run(cuda, same, 700, 3, {}, &rescanned), "duplicates");
  EXPECT_EQ(rescanned, 700);

  const auto x = scores<float>(3000, 10);
  const KnnOptions wide{.n_neighbors = 2500};
  expect_same(run(Context::cpu(2), x, 3000, 10, wide), run(cuda, x, 3000, 10, wide), "2500 neighbours");
  auto bad = x;
  bad[57 * 10 + 3] = std::nanf("");
  EXPECT_THROW(run(cuda, bad, 3000, 10, {}), DataError);
}

TEST(KnnParity, SeveralBatches) {
  SCW_CUDA_CONTEXT(cuda);
  const auto x = scores<float>(33500, 8);
  expect_same(run(Context::cpu(2), x, 33500, 8, {}), run(cuda, x, 33500, 8, {}), "33500 cells");
}

TEST(KnnParity, LargeRowBlocks) {
  SCW_CUDA_CONTEXT(cuda);
  const std::int64_t n = 264000, d = 5;
  const auto x = scores<float>(n, d);
  const KnnOptions options{.n_neighbors = 8, .algorithm = KnnAlgorithm::brute};
  expect_same(run(Context::cpu(0), x, n, d, options), run(cuda, x, n, d, options), "264000 cells");
}

// KnnParity.Small*: every kernel of the search, quick enough for compute-sanitizer.

constexpr Metric kTiles[] = {Metric::euclidean, Metric::sqeuclidean, Metric::cosine, Metric::correlation,
                             Metric::inner_product};

template <class V>
void check_tiles(const Context& ctx, const std::vector<V>& x, std::int64_t n, std::int64_t d, int k, Metric metric,
                 const std::string& what) {
  const KnnOptions options{.n_neighbors = k, .metric = metric, .algorithm = KnnAlgorithm::brute};
  expect_same(run(Context::cpu(2), x, n, d, options), run(ctx, x, n, d, options),
              what + " " + std::string(to_string(metric)) + " n " + std::to_string(n) + " d " + std::to_string(d) +
                  " k " + std::to_string(k));
}

TEST(KnnParity, SmallShapes) {
  SCW_CUDA_CONTEXT(cuda);
  for (const auto& [n, d, k] : {std::tuple<std::int64_t, std::int64_t, int>{6, 3, 6},
                                {66, 1, 15},
                                {130, 33, 15},
                                {300, 50, 15},
                                {257, 100, 30},
                                {140, 65, 140},
                                {200, 300, 7}})
    for (const Metric metric : kTiles) check_tiles(cuda, scores<float>(n, d), n, d, k, metric, "float");
  check_tiles(cuda, scores<double>(270, 50), 270, 50, 15, Metric::euclidean, "double");
  check_tiles(cuda, scores<double>(270, 20), 270, 20, 15, Metric::cosine, "double");
  const std::vector<float> one{1.0f, 2.0f};
  check_tiles(cuda, one, 1, 2, 1, Metric::euclidean, "one cell");
  check_tiles(cuda, one, 2, 1, 2, Metric::euclidean, "two cells");
}

TEST(KnnParity, SmallHard) {
  SCW_CUDA_CONTEXT(cuda);
  const std::int64_t n = 400, d = 12;
  const auto size = static_cast<std::size_t>(n * d);
  const auto plain = scores<float>(n, d);
  const auto both = [&](const std::vector<float>& x, const std::string& what) {
    for (const Metric metric : kTiles) check_tiles(cuda, x, n, d, 9, metric, what);
  };
  auto x = plain;
  for (std::size_t i = 0; i < size / 2; ++i) x[i] = x[i % (3 * static_cast<std::size_t>(d))];
  both(x, "duplicates");
  x = plain;
  for (std::size_t i = 0; i < size; ++i) x[i] += i / static_cast<std::size_t>(d) % 2 == 0 ? 1e4f : -1e4f;
  both(x, "two clusters far apart");
  x = plain;
  for (float& v : x) v = 1.0f + 1e-5f * v;
  both(x, "tiny spread");
  for (std::size_t i = 0; i < size; ++i) x[i] = std::floor(3 * plain[i] / 40);
  both(x, "lattice");
  for (std::size_t i = 0; i < size; ++i) x[i] = i % static_cast<std::size_t>(d) < 9 ? 2.5f : plain[i];
  both(x, "constant columns");
  x = plain;
  for (std::size_t i = 0; i < size; ++i) x[i] *= i % 7 == 0 ? 1e12f : (i % 5 == 0 ? 1e-12f : 1.0f);
  both(x, "range");
  x = plain;
  std::fill(x.begin() + 5 * d, x.begin() + 60 * d, 0.0f);
  both(x, "empty cells");
  for (float& v : x) v *= 1e-30f;
  both(x, "smallest numbers");
  std::vector<double> fine(size);
  for (std::size_t i = 0; i < size; ++i) fine[i] = 1e6 + 1e-7 * static_cast<double>(plain[i]);
  check_tiles(cuda, fine, n, d, 9, Metric::euclidean, "digits of double");
}

/// Enough rows for cells, and rows that half precision cannot tell apart in one of them.
void check_cells(const Context& ctx, std::int64_t n, std::int64_t d, int k) {
  auto x = scores<float>(n, d);
  for (std::int64_t i = 0; i < 400; ++i)
    for (std::int64_t c = 0; c < d; ++c) {
      const auto at = static_cast<std::size_t>(i * d + c);
      x[at] = x[static_cast<std::size_t>(c)] + 1e-4f * x[at];
    }
  for (const Metric metric : {Metric::euclidean, Metric::cosine}) check_tiles(ctx, x, n, d, k, metric, "cells");
}
TEST(KnnParity, SmallCells) {
  SCW_CUDA_CONTEXT(cuda);
  check_cells(cuda, 2100, 20, 9);
}
TEST(KnnParity, Cells) {
  SCW_CUDA_CONTEXT(cuda);
  check_cells(cuda, 8400, 35, 15);
  check_cells(cuda, 12000, 50, 100);
  check_cells(cuda, 5000, 120, 15);
  check_cells(cuda, 5000, 200, 70);
}

TEST(NeighborsParity, Graphs) {
  SCW_CUDA_CONTEXT(cuda);
  const std::int64_t n = 1200, d = 12;
  const auto x = scores<float>(n, d);
  for (const Metric metric : {Metric::euclidean, Metric::inner_product})
    for (const auto method : {ConnectivityMethod::umap, ConnectivityMethod::gauss, ConnectivityMethod::jaccard}) {
      const auto once = [&](const Context& ctx) {
        Guarded<float> on_device(ctx, x);
        const auto r = neighbors(ctx, MatrixView<const float>(on_device.cview().data, n, d),
                                 {.knn = {.metric = metric}, .method = method});
        const auto graph = distance_graph(ctx, r.knn);
        EXPECT_EQ(graph.indices.size(), n * 14);
        return std::tuple(on_host(ctx, r.connectivities.indptr), on_host(ctx, r.connectivities.indices),
                          on_host(ctx, r.connectivities.values), on_host(ctx, graph.indptr),
                          on_host(ctx, graph.values));
      };
      const auto want = once(Context::cpu(2)), got = once(cuda);
      expect_same_bits(std::get<0>(want), std::get<0>(got));
      expect_same_bits(std::get<1>(want), std::get<1>(got));
      expect_same_bits(std::get<2>(want), std::get<2>(got));
      expect_same_bits(std::get<3>(want), std::get<3>(got));
      expect_same_bits(std::get<4>(want), std::get<4>(got));
    }
}

TEST(NeighborsParity, DenseKernel) {
  SCW_CUDA_CONTEXT(cuda);
  const std::int64_t n = 200, d = 6;
  const auto x = scores<float>(n, d);
  for (const Metric metric : {Metric::euclidean, Metric::canberra, Metric::inner_product}) {
    const auto once = [&](const Context& ctx) {
      Guarded<float> on_device(ctx, x);
      const auto distances = pairwise_distances(ctx, MatrixView<const float>(on_device.cview().data, n, d), metric);
      const auto kernel = gauss_kernel(ctx, distances.view(), 9);
      return std::pair(on_host(ctx, distances.data), on_host(ctx, kernel.data));
    };
    const auto want = once(Context::cpu(2)), got = once(cuda);
    expect_same_bits(want.first, got.first);
    expect_same_bits(want.second, got.second);
  }
}

}  // namespace
}  // namespace scw::pp
