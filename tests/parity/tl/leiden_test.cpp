#include "scwarp/tl/leiden.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "parity/parity.hpp"

namespace scw::tl {
namespace {

using parity::Guarded;

template <class V>
struct Graph {
  std::int32_t n = 0;
  std::vector<std::int64_t> indptr;
  std::vector<std::int32_t> indices;
  std::vector<V> values;

  using Edges = std::vector<std::pair<std::pair<std::int32_t, std::int32_t>, double>>;

  /// Entries as given (symmetric: also mirrored); of equal positions the first counts.
  static Graph of(std::int32_t n, const Edges& edges, bool symmetric = true, std::int64_t first = 0) {
    std::vector<std::map<std::int32_t, double>> rows(static_cast<std::size_t>(n));
    for (const auto& [at, w] : edges) {
      rows[static_cast<std::size_t>(at.first)].emplace(at.second, w);
      if (symmetric) rows[static_cast<std::size_t>(at.second)].emplace(at.first, w);
    }
    Graph g;
    g.n = n;
    // Entries that belong to no row, as before the rows of a block.
    g.indices.assign(static_cast<std::size_t>(first), -7);
    g.values.assign(static_cast<std::size_t>(first), V{-1});
    g.indptr.push_back(first);
    for (const auto& row : rows) {
      for (const auto& [j, w] : row) {
        g.indices.push_back(j);
        g.values.push_back(static_cast<V>(w));
      }
      g.indptr.push_back(static_cast<std::int64_t>(g.indices.size()));
    }
    return g;
  }
};
using Edges = Graph<float>::Edges;

double uniform(std::uint64_t seed, std::uint64_t item, std::uint64_t draw) {
  return math::random_uniform({seed, 77}, item, draw);
}

/// Groups of unequal size with local structure, and a part of the edges anywhere.
Edges communities(std::int32_t first, std::int32_t n, int degree, double far, std::uint64_t seed, bool whole = false) {
  Edges edges;
  for (std::int32_t i = 0; i < n; ++i)
    for (int d = 0; d < degree; ++d) {
      const auto item = static_cast<std::uint64_t>(i) * 64 + static_cast<std::uint64_t>(d);
      const double u = uniform(seed, item, 0);
      const std::int32_t group = n / 30 * (1 + i * 3 / n);
      const std::int32_t base = i / group * group, size = std::min(group, n - base);
      const double reach = u < far ? 1.0 : u < 0.5 ? 0.03 : 0.3;
      const auto step = static_cast<std::int32_t>(uniform(seed, item, 1) * reach * (u < far ? n : size));
      const std::int32_t j = u < far ? (i + step) % n : base + (i - base + step) % size;
      const double w = whole ? 1.0 : 0.05 + uniform(seed, item, 2);
      if (j != i) edges.push_back({{first + i, first + j}, w});
    }
  return edges;
}
Edges star(std::int32_t centre, std::int32_t first, std::int32_t leaves) {
  Edges edges;
  for (std::int32_t i = 0; i < leaves; ++i) edges.push_back({{centre, first + i}, 1.0});
  return edges;
}
Edges operator+(Edges a, const Edges& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Answer {
  std::vector<std::int32_t> labels;
  std::vector<std::int64_t> sizes;
  double modularity;
  int passes;
};

template <class V>
std::vector<Answer> run(const Context& ctx, const Graph<V>& g, const std::vector<double>& resolutions,
                        const LeidenOptions& options) {
  const Guarded<std::int64_t> indptr(ctx, g.indptr);
  const Guarded<std::int32_t> indices(ctx, g.indices);
  const Guarded<V> values(ctx, g.values);
  const CsrView<const V> view(g.n, g.n, indptr.cview(), indices.cview(), values.cview());
  std::vector<Answer> out;
  for (const Leiden& r : leiden(ctx, view, Span<const double>(resolutions), options)) {
    const auto labels = to_host<std::int32_t>(ctx, r.labels.view());
    out.push_back({{labels.begin(), labels.end()},
                   {r.cluster_sizes.begin(), r.cluster_sizes.end()},
                   r.modularity,
                   r.n_iterations});
  }
  return out;
}

template <class V>
void expect_parity(const Context& cuda, const std::string& name, const Graph<V>& g,
                   const std::vector<double>& resolutions, const LeidenOptions& options = {}, int reruns = 1) {
  SCOPED_TRACE(name);
  const auto want = run(Context::cpu(), g, resolutions, options);
  for (int rerun = 0; rerun < reruns; ++rerun) {
    const auto got = run(cuda, g, resolutions, options);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t r = 0; r < want.size(); ++r) {
      SCOPED_TRACE(resolutions[r]);
      parity::expect_same_bits(want[r].labels, got[r].labels);
      EXPECT_EQ(want[r].sizes, got[r].sizes);
      EXPECT_EQ(want[r].modularity, got[r].modularity);
      EXPECT_EQ(want[r].passes, got[r].passes);
    }
  }
}

const std::vector<double> kResolutions{0, 0.05, 0.5, 1, 5, 50};

TEST(LeidenParity, Weighted) {
  SCW_CUDA_CONTEXT(cuda);
  const auto edges = communities(0, 30000, 6, 0.1, 1);
  expect_parity(cuda, "float", Graph<float>::of(30000, edges), kResolutions);
  expect_parity(cuda, "double", Graph<double>::of(30000, edges), {1});
  expect_parity(cuda, "offset", Graph<float>::of(30000, edges, true, 5), {1});
  expect_parity(cuda, "two passes", Graph<float>::of(30000, edges), {0.3, 3}, {.n_iterations = 2, .theta = 1.0});
  expect_parity(cuda, "every vertex alone", Graph<float>::of(30000, edges), {1e6});
  expect_parity(cuda, "three starts", Graph<float>::of(10000, communities(0, 10000, 5, 0.2, 2)), {2}, {.n_starts = 3});
}

TEST(LeidenParity, TwentyReruns) {
  SCW_CUDA_CONTEXT(cuda);
  expect_parity(cuda, "reruns", Graph<float>::of(25000, communities(0, 25000, 7, 0.1, 3)), {1}, {}, 20);
}

TEST(LeidenParity, Unweighted) {
  SCW_CUDA_CONTEXT(cuda);
  const auto plain = Graph<float>::of(20000, communities(0, 20000, 6, 0.1, 4, true));
  expect_parity(cuda, "ones", plain, {0.1, 1, 10});
  auto weighted = Graph<float>::of(20000, communities(0, 20000, 6, 0.1, 4));
  for (std::size_t e = 0; e < weighted.values.size(); e += 3) weighted.values[e] = 0;  // no edges; not symmetric
  expect_parity(cuda, "use_weights = false", weighted, {0.1, 1, 10}, {.use_weights = false});
  expect_parity(cuda, "zeros", weighted, {1});
}

TEST(LeidenParity, DisconnectedIsolatedAndLoops) {
  SCW_CUDA_CONTEXT(cuda);
  auto edges = communities(100, 9000, 6, 0.05, 5) + communities(9500, 5000, 4, 0.3, 6);
  for (std::int32_t i = 0; i < 15000; i += 13)
    edges.push_back({{i, i}, 3 * uniform(1, static_cast<std::uint64_t>(i), 5)});
  expect_parity(cuda, "parts", Graph<float>::of(15000, edges), kResolutions);
  expect_parity(cuda, "no edges", Graph<float>::of(9000, {}), {1});
  expect_parity(cuda, "loops only", Graph<float>::of(9000, {{{3, 3}, 2.0}, {{8999, 8999}, 1.0}}), {1});
}

TEST(LeidenParity, Asymmetric) {
  SCW_CUDA_CONTEXT(cuda);
  auto edges = communities(0, 16000, 6, 0.1, 7);
  for (std::int32_t i = 0; i < 16000; i += 29) edges.push_back({{i, i}, 0.5});
  expect_parity(cuda, "float", Graph<float>::of(16000, edges, false), {0.2, 1, 4});
  expect_parity(cuda, "double", Graph<double>::of(16000, edges, false), {1}, {.use_weights = false});
}

/// What is sorted at once holds 3125 edges.
Context in_batches(Context ctx) {
  ctx.block_bytes = 100'000;
  return ctx;
}

TEST(LeidenParity, Batches) {
  SCW_CUDA_CONTEXT(cuda);
  const Context small = in_batches(cuda);
  auto edges = communities(0, 20000, 6, 0.1, 13);
  expect_parity(small, "float", Graph<float>::of(20000, edges), {0.2, 1, 5});
  expect_parity(small, "double", Graph<double>::of(20000, edges, true, 3), {1}, {.use_weights = false});
  for (std::int32_t i = 0; i < 20000; i += 31) edges.push_back({{i, i}, 0.25});
  expect_parity(small, "loops", Graph<float>::of(20000, edges), {1});
  expect_parity(small, "asymmetric", Graph<float>::of(20000, edges, false), {1, 4});
  auto zeros = Graph<float>::of(20000, edges, false, 5);
  for (std::size_t e = 5; e < zeros.values.size(); e += 3) zeros.values[e] = 0;
  expect_parity(small, "asymmetric with zeros", zeros, {1});
}

TEST(LeidenParity, BatchesOfHubs) {
  // Rows and parts of more edges than a batch has, and many without any.
  SCW_CUDA_CONTEXT(cuda);
  const Context small = in_batches(cuda);
  expect_parity(small, "star", Graph<float>::of(30000, star(7, 8, 19000)), {0.5, 1.5});
  expect_parity(small, "stars, asymmetric", Graph<float>::of(30000, star(7, 8, 9000) + star(29999, 8, 9000), false),
                {1});
  expect_parity(small, "ends without edges", Graph<float>::of(30000, communities(9000, 9000, 6, 0.3, 14)), {0.3, 2});
  expect_parity(small, "no edges", Graph<float>::of(9000, {}), {1});
}

TEST(LeidenParity, OnePassOfBatches) {
  // Small, for the race checker.
  SCW_CUDA_CONTEXT(cuda);
  const auto edges = communities(0, 8200, 2, 0.1, 15);
  for (const bool symmetric : {true, false})
    expect_parity(in_batches(cuda), "batches", Graph<float>::of(8200, edges, symmetric), {1},
                  {.n_iterations = 1, .n_starts = 1});
}

TEST(LeidenParity, HeavyParts) {
  // Weights of the levels that need 64 bits, and such that 32 bits hold.
  SCW_CUDA_CONTEXT(cuda);
  auto edges = communities(0, 20000, 5, 0.2, 16);
  for (std::int32_t i = 0; i < 40; ++i) edges.push_back({{i, i + 1}, 5000.0});
  expect_parity(cuda, "heavy", Graph<float>::of(20000, edges), {0.5, 1});
  expect_parity(in_batches(cuda), "heavy, in batches", Graph<double>::of(20000, edges), {1});
}

TEST(LeidenParity, LargeDegrees) {
  // A star whose leaves crowd in, hubs for the tables in shared and in device memory, and a dense part.
  SCW_CUDA_CONTEXT(cuda);
  expect_parity(cuda, "star", Graph<float>::of(20000, star(7, 8, 19000)), {0.5, 1, 1.5, 1.9, 2.5});
  auto edges = communities(0, 20000, 5, 0.1, 8);
  for (std::int32_t hub = 0; hub < 40; ++hub)
    for (std::int32_t i = 0; i < 20000; i += 7 + 13 * hub)
      if (i != hub) edges.push_back({{hub, i}, 0.1 + uniform(2, static_cast<std::uint64_t>(i + hub), 1)});
  expect_parity(cuda, "hubs", Graph<float>::of(20000, edges), {0.1, 1, 8});
  expect_parity(cuda, "dense", Graph<float>::of(9000, communities(0, 9000, 90, 0.6, 9)), {0.5, 1, 2});
}

TEST(LeidenParity, OnePassWithHubs) {
  // Small, for the race checker: a row for a warp, for a table in shared memory, and for one in device memory.
  SCW_CUDA_CONTEXT(cuda);
  auto edges = communities(0, 8200, 3, 0.1, 12);
  for (std::int32_t i = 10; i < 410; ++i) edges.push_back({{0, i}, 0.5});
  for (std::int32_t i = 10; i < 2010; ++i) edges.push_back({{1, i}, 0.5});
  expect_parity(cuda, "hubs", Graph<float>::of(8200, edges), {1}, {.n_iterations = 1, .n_starts = 1});
}

TEST(LeidenParity, Small) {
  SCW_CUDA_CONTEXT(cuda);
  for (const std::int32_t n : {1, 2, 50, 3000, 8192, 8193})
    expect_parity(cuda, std::to_string(n), Graph<float>::of(n, n < 50 ? Edges{} : communities(0, n, 5, 0.2, 10)),
                  {0.5, 2});
}

TEST(LeidenParity, Errors) {
  SCW_CUDA_CONTEXT(cuda);
  const auto good = Graph<float>::of(10000, communities(0, 10000, 4, 0.2, 11));
  const auto message = [](const Context& ctx, const Graph<float>& g) -> std::string {
    try {
      run(ctx, g, {1}, {});
    } catch (const DataError& e) {
      return e.what();
    }
    return "no error";
  };
  for (const int kind : {0, 1, 2, 3}) {
    auto bad = good;
    const auto at = static_cast<std::size_t>(bad.indptr[4321]) + 1;
    if (kind == 0) bad.values[at] = -1;
    if (kind == 1) bad.values[at] = std::numeric_limits<float>::quiet_NaN();
    if (kind == 2) bad.indices[at] = 10000;
    if (kind == 3) bad.indices[at] = bad.indices[at - 1];
    EXPECT_NE(message(cuda, bad), "no error");
    EXPECT_EQ(message(cuda, bad), message(Context::cpu(), bad));
  }
}

}  // namespace
}  // namespace scw::tl
