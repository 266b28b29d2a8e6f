#include "scwarp/tl/leiden.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>
#include <vector>

#include "math/philox.hpp"

namespace scw::tl {
namespace {

struct Edge {
  std::int32_t i, j;
  double w;
};

template <class V>
struct Graph {
  std::int32_t n = 0;
  std::vector<std::int64_t> indptr;
  std::vector<std::int32_t> indices;
  std::vector<V> values;
  CsrView<const V> view() const {
    return {n, n, Span<const std::int64_t>(indptr), Span<const std::int32_t>(indices), Span<const V>(values)};
  }
};

/// Entries as given (symmetric: also mirrored), sorted; equal positions add up.
template <class V = float>
Graph<V> graph_of(std::int32_t n, const std::vector<Edge>& edges, bool symmetric = true) {
  std::map<std::pair<std::int32_t, std::int32_t>, double> entries;
  for (const Edge& e : edges) {
    entries[{e.i, e.j}] += e.w;
    if (symmetric && e.i != e.j) entries[{e.j, e.i}] += e.w;
  }
  Graph<V> g;
  g.n = n;
  g.indptr.assign(static_cast<std::size_t>(n) + 1, 0);
  for (const auto& [at, w] : entries) {
    ++g.indptr[static_cast<std::size_t>(at.first) + 1];
    g.indices.push_back(at.second);
    g.values.push_back(static_cast<V>(w));
  }
  std::partial_sum(g.indptr.begin(), g.indptr.end(), g.indptr.begin());
  return g;
}

/// A ring lattice of cliques with random weights and some random long edges: clusters of unequal sizes.
std::vector<Edge> random_edges(std::int32_t n, int degree, double far, std::uint64_t seed) {
  const RngKey key{seed, 0};
  std::map<std::pair<std::int32_t, std::int32_t>, double> seen;
  for (std::int32_t i = 0; i < n; ++i)
    for (int d = 0; d < degree; ++d) {
      const auto item = static_cast<std::uint64_t>(i) * 64 + static_cast<std::uint64_t>(d);
      const math::Philox4 r = math::random_words(key, item, 1);
      const std::int32_t group = std::max<std::int32_t>(1, n / 20 * (1 + i * 3 / n));
      const std::int32_t base = i / group * group;
      const std::int32_t j =
          math::random_uniform(key, item, 2) < far
              ? static_cast<std::int32_t>(math::bounded(r.v[0], static_cast<std::uint32_t>(n)))
              : std::min(n - 1,
                         base + static_cast<std::int32_t>(math::bounded(r.v[1], static_cast<std::uint32_t>(group))));
      if (j != i) seen[std::minmax(i, j)] = 0.05 + math::random_uniform(key, item, 3);
    }
  std::vector<Edge> edges;
  for (const auto& [at, w] : seen) edges.push_back({at.first, at.second, w});
  return edges;
}

Context context(int threads = 1, std::uint64_t seed = 0) {
  Context ctx = Context::cpu(threads);
  ctx.rng.seed = seed;
  return ctx;
}

template <class V>
double modularity_by_definition(const Graph<V>& g, const std::vector<std::int32_t>& labels, double resolution) {
  const auto n = static_cast<std::size_t>(g.n);
  std::vector<std::vector<double>> a(n, std::vector<double>(n, 0));
  for (std::size_t i = 0; i < n; ++i)
    for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e) {
      const auto at = static_cast<std::size_t>(e), j = static_cast<std::size_t>(g.indices[at]);
      a[i][j] += g.values[at] / 2.0;
      a[j][i] += g.values[at] / 2.0;
    }
  std::vector<double> k(n, 0);
  double total = 0, q = 0;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) k[i] += a[i][j];
  for (const double x : k) total += x;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j)
      if (labels[i] == labels[j]) q += (a[i][j] - resolution * k[i] * k[j] / total) / total;
  return q;
}

template <class V>
std::int64_t connected_parts(const Graph<V>& g, Span<const std::int32_t> labels) {
  std::vector<std::int32_t> parent(static_cast<std::size_t>(g.n));
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](std::int32_t v) {
    while (parent[static_cast<std::size_t>(v)] != v) v = parent[static_cast<std::size_t>(v)];
    return v;
  };
  std::int64_t parts = g.n;
  for (std::int32_t i = 0; i < g.n; ++i)
    for (std::int64_t e = g.indptr[static_cast<std::size_t>(i)]; e < g.indptr[static_cast<std::size_t>(i) + 1]; ++e) {
      const auto at = static_cast<std::size_t>(e);
      const std::int32_t j = g.indices[at];
      if (g.values[at] == 0 || labels[i] != labels[j] || root(i) == root(j)) continue;
      parent[static_cast<std::size_t>(root(i))] = root(j);
      --parts;
    }
  return parts;
}

std::vector<std::int32_t> labels_of(const Leiden& r) { return {r.labels.begin(), r.labels.end()}; }

std::vector<Edge> clique(std::int32_t first, std::int32_t n, double w = 1) {
  std::vector<Edge> edges;
  for (std::int32_t i = 0; i < n; ++i)
    for (std::int32_t j = i + 1; j < n; ++j) edges.push_back({first + i, first + j, w});
  return edges;
}

std::vector<Edge> operator+(std::vector<Edge> a, const std::vector<Edge>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Leiden, TwoCliquesAndABridge) {
  const auto g = graph_of(9, clique(0, 4) + clique(4, 5) + std::vector<Edge>{{3, 4, 0.5}});
  const Leiden r = leiden(context(), g.view());
  EXPECT_EQ(labels_of(r), (std::vector<std::int32_t>{1, 1, 1, 1, 0, 0, 0, 0, 0}));  // 0 is the larger one
  EXPECT_EQ(r.n_clusters, 2);
  EXPECT_EQ(r.cluster_sizes[0], 5);
  EXPECT_EQ(r.cluster_sizes[1], 4);
  EXPECT_TRUE(r.converged);
  EXPECT_NEAR(r.modularity, modularity_by_definition(g, labels_of(r), 1), 1e-12);
  // Resolution 0 joins what is connected, a large one leaves every vertex alone.
  EXPECT_EQ(leiden(context(), g.view(), {.resolution = 0}).n_clusters, 1);
  EXPECT_EQ(leiden(context(), g.view(), {.resolution = 1e6}).n_clusters, 9);
}

TEST(Leiden, FindsTheBestPartitionOfSmallGraphs) {
  // Every partition of 8 vertices, by restricted growth strings.
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const auto g = graph_of(8, random_edges(8, 3, 0.5, seed));
    for (const double resolution : {0.5, 1.0, 1.7}) {
      double best = -1;
      std::vector<std::int32_t> p(8, 0);
      while (true) {
        best = std::max(best, modularity_by_definition(g, p, resolution));
        int i = 7;
        for (; i > 0; --i)
          if (p[static_cast<std::size_t>(i)] <= *std::max_element(p.begin(), p.begin() + i)) break;
        if (i == 0) break;
        ++p[static_cast<std::size_t>(i)];
        std::fill(p.begin() + i + 1, p.end(), 0);
      }
      const Leiden r = leiden(context(), g.view(), {.resolution = resolution});
      EXPECT_LE(r.modularity, best + 1e-9);
      EXPECT_GE(r.modularity, best - 0.03) << "seed " << seed << " resolution " << resolution;
    }
  }
}

TEST(Leiden, ModularityIsItsDefinition) {
  const RngKey key{5, 0};
  auto edges = random_edges(60, 4, 0.3, 3) + std::vector<Edge>{{7, 7, 2.5}, {9, 9, 0.25}};
  const auto symmetric = graph_of(60, edges);
  const auto one_sided = graph_of<double>(60, edges, false);
  for (std::uint64_t t = 0; t < 4; ++t) {
    std::vector<std::int32_t> labels(60);
    for (std::size_t i = 0; i < 60; ++i) labels[i] = static_cast<std::int32_t>(math::random_u64(key, i, t) % 7);
    for (const double resolution : {0.0, 0.4, 1.0, 3.0}) {
      EXPECT_NEAR(modularity(context(), symmetric.view(), Span<const std::int32_t>(labels), resolution),
                  modularity_by_definition(symmetric, labels, resolution), 1e-12);
      EXPECT_NEAR(modularity(context(2), one_sided.view(), Span<const std::int32_t>(labels), resolution),
                  modularity_by_definition(one_sided, labels, resolution), 1e-12);
    }
  }
}

TEST(Leiden, SameBitsForAnyNumberOfThreads) {
  // Small: one vertex after the other, several starts. Large: classes and levels are worked on by several threads.
  for (const std::int32_t n : {3000, 40000}) {
    const auto g = graph_of(n, random_edges(n, 4, 0.1, 1));
    const std::vector<double> resolutions{0.5, 5};
    const auto run = [&](int threads) {
      return leiden(context(threads), g.view(), Span<const double>(resolutions), {.n_iterations = 2});
    };
    const auto want = run(1);
    for (const int threads : {1, 2, 3}) {
      const auto got = run(threads);
      for (std::size_t r = 0; r < resolutions.size(); ++r) {
        ASSERT_EQ(labels_of(got[r]), labels_of(want[r])) << threads << " threads, resolution " << resolutions[r];
        EXPECT_EQ(got[r].modularity, want[r].modularity);
        EXPECT_EQ(got[r].n_iterations, want[r].n_iterations);
      }
      const Leiden alone = leiden(context(threads), g.view(), {.resolution = 5, .n_iterations = 2});
      ASSERT_EQ(labels_of(alone), labels_of(want[1])) << threads << " threads";
    }
    EXPECT_NE(labels_of(leiden(context(2, 99), g.view(), {.resolution = 5, .n_iterations = 2})), labels_of(want[1]));
  }
}

TEST(Leiden, ClustersAreConnectedAndLabelsOrdered) {
  for (const double resolution : {0.05, 0.5, 1.0, 3.0, 20.0})
    for (const int passes : {1, 2, -1}) {
      // Vertex by vertex, and in synchronous rounds.
      const std::int32_t n = passes == 2 ? 12000 : 3000;
      const auto g = graph_of(n, random_edges(n, 3, 0.1, 7));
      const Leiden r = leiden(context(2), g.view(), {.resolution = resolution, .n_iterations = passes});
      EXPECT_EQ(connected_parts(g, r.labels.view()), r.n_clusters);
      std::vector<std::int64_t> sizes(static_cast<std::size_t>(r.n_clusters), 0);
      std::vector<std::int32_t> first(sizes.size(), g.n);
      for (std::int32_t v = 0; v < g.n; ++v) {
        const auto c = static_cast<std::size_t>(r.labels[v]);
        ASSERT_LT(c, sizes.size());
        ++sizes[c];
        first[c] = std::min(first[c], v);
      }
      for (std::size_t c = 0; c < sizes.size(); ++c) {
        EXPECT_EQ(sizes[c], r.cluster_sizes[static_cast<std::int64_t>(c)]);
        if (c > 0) {
          EXPECT_TRUE(sizes[c - 1] > sizes[c] || (sizes[c - 1] == sizes[c] && first[c - 1] < first[c]));
        }
      }
      EXPECT_LE(r.n_iterations, passes < 0 ? 1000 : passes);
      EXPECT_TRUE(passes > 0 || r.converged);
    }
}

TEST(Leiden, MorePassesAreNotWorse) {
  for (const std::int32_t n : {4000, 12000}) {
    const auto g = graph_of(n, random_edges(n, 4, 0.25, 11));
    double previous = -1;
    for (const int passes : {1, 2, 4, -1}) {
      const double q = leiden(context(), g.view(), {.resolution = 2, .n_iterations = passes, .n_starts = 1}).modularity;
      EXPECT_GE(q, previous - 1e-9);
      previous = q;
    }
  }
}

TEST(Leiden, MoreStartsAreNotWorse) {
  for (const std::int32_t n : {1500, 9000}) {
    const auto g = graph_of(n, random_edges(n, 3, 0.3, 29));
    double previous = -1;
    for (const int starts : {1, 3, 6}) {
      const Leiden r = leiden(context(2), g.view(), {.resolution = 2, .n_starts = starts});
      EXPECT_GE(r.modularity, previous - 1e-9);
      EXPECT_EQ(labels_of(r), labels_of(leiden(context(1), g.view(), {.resolution = 2, .n_starts = starts})));
      previous = r.modularity;
    }
  }
}

TEST(Leiden, NoVertexWantsToMoveInTheEnd) {
  for (const std::size_t n : {2000, 15000}) {
    const auto g = graph_of(static_cast<std::int32_t>(n), random_edges(static_cast<std::int32_t>(n), 4, 0.2, 13));
    const Leiden r = leiden(context(), g.view());
    EXPECT_TRUE(r.converged);
    std::vector<double> k(n, 0), cluster(static_cast<std::size_t>(r.n_clusters), 0);
    double total = 0;
    for (std::size_t i = 0; i < n; ++i)
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e) k[i] += g.values[static_cast<std::size_t>(e)];
    for (std::size_t i = 0; i < n; ++i) {
      cluster[static_cast<std::size_t>(r.labels[static_cast<std::int64_t>(i)])] += k[i];
      total += k[i];
    }
    for (std::size_t i = 0; i < n; ++i) {
      std::map<std::int32_t, double> to;
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e)
        to[r.labels[g.indices[static_cast<std::size_t>(e)]]] += g.values[static_cast<std::size_t>(e)];
      const std::int32_t here = r.labels[static_cast<std::int64_t>(i)];
      const double stay = to[here] - k[i] * (cluster[static_cast<std::size_t>(here)] - k[i]) / total;
      for (const auto& [c, w] : to) {
        if (c != here) {
          EXPECT_LE(w - k[i] * cluster[static_cast<std::size_t>(c)] / total, stay + 1e-5) << i;
        }
      }
    }
  }
}

TEST(Leiden, CrowdsDoNotOverfillAStar) {
  // All leaves want to join the centre at once, and only some may; a second step of MoveRound that let one in at a time
  // would take 20 000 rounds.
  std::vector<Edge> edges;
  const std::int32_t leaves = 20000;
  for (std::int32_t i = 1; i <= leaves; ++i) edges.push_back({0, i, 1});
  const auto g = graph_of(leaves + 1, edges);
  for (const double resolution : {0.5, 1.0, 1.5, 1.9}) {
    const Leiden r = leiden(context(2), g.view(), {.resolution = resolution});
    EXPECT_TRUE(r.converged);
    // A leaf joins as long as 1 >= resolution * (leaves + m) / (2 leaves), m leaves being inside already.
    const double inside = std::min<double>(leaves, leaves * (2 / resolution - 1));
    EXPECT_NEAR(static_cast<double>(r.cluster_sizes[0]), inside + 1, 2) << resolution;
    EXPECT_EQ(r.labels[0], 0);
  }
  EXPECT_EQ(leiden(context(), g.view(), {.resolution = 2.1}).n_clusters, leaves + 1);
}

TEST(Leiden, DisconnectedAndIsolated) {
  // 0 and 10 to 12 have no edges; 12 has a loop only.
  auto edges = clique(1, 4) + clique(5, 5) + std::vector<Edge>{{12, 12, 3}};
  const auto g = graph_of(13, edges);
  const Leiden r = leiden(context(), g.view(), {.resolution = 0.1});
  EXPECT_EQ(labels_of(r), (std::vector<std::int32_t>{2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 3, 4, 5}));
  EXPECT_NEAR(r.modularity, modularity_by_definition(g, labels_of(r), 0.1), 1e-12);
}

TEST(Leiden, NoEdges) {
  for (const std::int32_t n : {0, 1, 5}) {
    for (const int threads : {1, 2}) {
      const auto g = graph_of(n, {});
      const Leiden r = leiden(context(threads), g.view());
      EXPECT_EQ(r.n_clusters, n);
      EXPECT_EQ(r.modularity, 0);
      EXPECT_TRUE(r.converged);
      for (std::int32_t v = 0; v < n; ++v) EXPECT_EQ(r.labels[v], v);
    }
  }
}

TEST(Leiden, ZeroWeightsAreNoEdges) {
  auto g = graph_of(6, clique(0, 3) + clique(3, 3) + std::vector<Edge>{{0, 3, 0}, {1, 4, 0}, {2, 5, 0}});
  for (const bool weights : {true, false}) {
    const Leiden r = leiden(context(), g.view(), {.resolution = 0, .use_weights = weights});
    EXPECT_EQ(labels_of(r), (std::vector<std::int32_t>{0, 0, 0, 1, 1, 1}));
  }
  std::fill(g.values.begin(), g.values.end(), 0.0f);
  EXPECT_EQ(leiden(context(), g.view()).n_clusters, 6);
}

TEST(Leiden, AsymmetricGraphIsItsSumWithItsTranspose) {
  const auto edges = random_edges(500, 4, 0.2, 17);
  const auto symmetric = graph_of(500, edges), one_sided = graph_of(500, edges, false);
  const Leiden a = leiden(context(), symmetric.view()), b = leiden(context(2), one_sided.view());
  EXPECT_EQ(labels_of(a), labels_of(b));
  EXPECT_NEAR(a.modularity, b.modularity, 1e-12);
}

TEST(Leiden, ScaleOfTheWeightsDoesNotMatterToTheGreedySearch) {
  const auto edges = random_edges(800, 4, 0.2, 19);
  const Leiden want = leiden(context(), graph_of(800, edges).view(), {.theta = 1e-9});
  for (const double factor : {0x1p-60, 0x1p60}) {
    auto scaled = edges;
    for (Edge& e : scaled) e.w *= factor;
    const Leiden got = leiden(context(), graph_of(800, scaled).view(), {.theta = 1e-9 * factor});
    EXPECT_EQ(labels_of(got), labels_of(want));
    EXPECT_NEAR(got.modularity, want.modularity, 1e-12);
  }
}

TEST(Leiden, WeightsOfVeryDifferentSizes) {
  // One edge holds nearly all the weight; the tiny ones must still connect.
  const auto g = graph_of<double>(5, {{0, 1, 1e12}, {2, 3, 1e-12}, {3, 4, 1e-12}});
  const Leiden r = leiden(context(), g.view(), {.resolution = 0});
  EXPECT_EQ(labels_of(r), (std::vector<std::int32_t>{1, 1, 0, 0, 0}));
}

TEST(Leiden, Errors) {
  const auto good = graph_of(4, clique(0, 4));
  const auto message = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_THROW(leiden(context(), good.view(), {.resolution = -0.1}), InvalidArgument);
  EXPECT_THROW(leiden(context(), good.view(), {.resolution = std::nan("")}), InvalidArgument);
  EXPECT_THROW(leiden(context(), good.view(), {.n_iterations = 0}), InvalidArgument);
  EXPECT_THROW(leiden(context(), good.view(), {.theta = 0}), InvalidArgument);
  EXPECT_THROW(leiden(context(), good.view(), {.n_starts = -1}), InvalidArgument);
  auto view = good.view();
  view.n_cols = 5;
  EXPECT_THROW(leiden(context(), view), ShapeMismatch);
  for (const float w : {-1.0f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    auto bad = graph_of(4, clique(0, 4));
    bad.values[4] = w;  // row 1, column 2
    EXPECT_THROW(leiden(context(2), bad.view()), DataError);
    EXPECT_NE(message([&] { leiden(context(), bad.view()); }).find("edge (1, 2)"), std::string::npos);
  }
  auto bad = graph_of(4, clique(0, 4));
  bad.indices[2] = 4;
  EXPECT_EQ(message([&] { leiden(context(), bad.view()); }),
            "tl.leiden: column index out of range (row 0: got 4, expected 0 to 3)");
  bad.indices[2] = 2;
  EXPECT_EQ(message([&] { leiden(context(), bad.view()); }),
            "tl.leiden: column indices must be sorted and unique in a row (row 0: 2 after 2)");
  const std::vector<std::int32_t> short_labels{0, 1}, far_labels{0, 1, 2, 4};
  EXPECT_THROW(modularity(context(), good.view(), Span<const std::int32_t>(short_labels)), ShapeMismatch);
  EXPECT_THROW(modularity(context(), good.view(), Span<const std::int32_t>(far_labels)), InvalidArgument);
  Context elsewhere = context();
  elsewhere.device = {DeviceType::cuda, 0};
  EXPECT_THROW(modularity(elsewhere, good.view(), Span<const std::int32_t>(short_labels)), NotSupported);
}

TEST(Leiden, Cancels) {
  const auto g = graph_of(1000, random_edges(1000, 3, 0.2, 23));
  const std::atomic<bool> stop{true};
  Context ctx = context();
  ctx.cancelled = &stop;
  EXPECT_THROW(leiden(ctx, g.view()), Cancelled);
}

}  // namespace
}  // namespace scw::tl
