#include "scwarp/tl/umap.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "parity/parity.hpp"
#include "tl/umap/kernel.hpp"

namespace scw::tl {
namespace {

using parity::Guarded;

/// A symmetric graph of `groups` rings with chords, some edges between them, and isolated cells at the end.
struct Graph {
  std::int64_t n = 0;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;

  static Graph rings(std::int32_t cells, std::int32_t groups, std::int32_t isolated) {
    Graph g;
    g.n = cells + isolated;
    const std::int32_t size = cells / groups;
    for (std::int32_t i = 0; i < cells; ++i) {
      std::vector<std::int32_t> row;
      for (const std::int32_t step : {1, 2, 3, 7, 12})
        for (const std::int32_t j : {i % size + step, i % size - step + size})
          row.push_back(i / size * size + j % size);
      if (i % size % 10 == 0) {
        row.push_back((i + size) % cells);
        row.push_back((i - size + cells) % cells);
      }
      std::sort(row.begin(), row.end());
      row.erase(std::unique(row.begin(), row.end()), row.end());
      for (const std::int32_t j : row) {
        const auto item =
            static_cast<std::uint64_t>(std::min(i, j)) * 100000 + static_cast<std::uint64_t>(std::max(i, j));
        g.indices.push_back(j);
        g.values.push_back(static_cast<float>(0.01 + 0.99 * math::random_uniform({3, 3}, item)));
      }
      g.indptr.push_back(static_cast<std::int64_t>(g.indices.size()));
    }
    for (std::int32_t i = 0; i < isolated; ++i) g.indptr.push_back(g.indptr.back());
    return g;
  }

  /// Components of several sizes (rings with chords, vertices interleaved), isolated cells, and hubs.
  static Graph mixed(std::int32_t scale) {
    const std::vector<std::int32_t> sizes{5 * scale, 2, 3, 40, scale / 2, 1, 1, 3 * scale, 130, 1, 5};
    std::vector<std::vector<std::int32_t>> vertices;
    std::int32_t n = 0;
    for (const std::int32_t size : sizes) {
      vertices.emplace_back();
      for (std::int32_t i = 0; i < size; ++i) vertices.back().push_back(n++);
    }
    std::vector<std::vector<std::pair<std::int32_t, float>>> rows(static_cast<std::size_t>(n));
    const auto shuffled = [n](std::int32_t v) { return static_cast<std::size_t>(std::int64_t{v} * 7919 % n); };
    const auto connect = [&](std::int32_t u, std::int32_t v) {
      const std::size_t a = shuffled(u);
      const std::size_t b = shuffled(v);
      if (a == b) return;
      const auto item = static_cast<std::uint64_t>(std::min(a, b) * 1000000 + std::max(a, b));
      // Few different weights: ties.
      const float w = static_cast<float>(1 + math::random_words({4, 4}, item, 0).v[0] % 16) / 16.0f;
      rows[a].emplace_back(static_cast<std::int32_t>(b), w);
      rows[b].emplace_back(static_cast<std::int32_t>(a), w);
    };
    for (const auto& own : vertices)
      for (std::size_t i = 0; i < own.size(); ++i)
        for (const std::size_t step : {1, 2, 5, 11}) connect(own[i], own[(i + step) % own.size()]);
    for (std::size_t i = 0; i < vertices[0].size(); ++i)  // a hub of every other vertex, and one of every third
      for (const std::size_t every : {2, 3})
        if (i % every == 0) connect(vertices[0][every], vertices[0][i]);
    Graph g;
    g.n = n;
    for (auto& row : rows) {
      std::sort(row.begin(), row.end());
      row.erase(std::unique(row.begin(), row.end(), [](const auto& x, const auto& y) { return x.first == y.first; }),
                row.end());
      for (const auto& [j, w] : row) {
        g.indices.push_back(j);
        g.values.push_back(w);
      }
      g.indptr.push_back(static_cast<std::int64_t>(g.indices.size()));
    }
    return g;
  }
};

/// Both triangles are thinned, each in its own way; `lower` and `upper` of 10 entries are kept there.
Graph thinned(const Graph& g, int lower, int upper) {
  Graph out;
  out.n = g.n;
  for (std::int64_t i = 0; i < g.n; ++i) {
    for (std::int64_t e = g.indptr[static_cast<std::size_t>(i)]; e < g.indptr[static_cast<std::size_t>(i) + 1]; ++e) {
      const std::int32_t j = g.indices[static_cast<std::size_t>(e)];
      const auto item = static_cast<std::uint64_t>(i) * 1000000 + static_cast<std::uint64_t>(j);
      if (static_cast<int>(math::random_words({5, 5}, item, 0).v[0] % 10) >= (j < i ? lower : upper)) continue;
      out.indices.push_back(j);
      out.values.push_back(g.values[static_cast<std::size_t>(e)]);
    }
    out.indptr.push_back(static_cast<std::int64_t>(out.indices.size()));
  }
  return out;
}

/// Five epochs of the layout alone, on guarded buffers.
std::vector<float> epochs(const Context& ctx, int dims) {
  const Graph g = Graph::rings(777, 7, 0);
  std::vector<std::uint32_t> rates;
  for (const float w : g.values) rates.push_back(static_cast<std::uint32_t>(static_cast<double>(w) * 0x1.0p32));
  std::vector<float> start(static_cast<std::size_t>(g.n * dims));
  for (std::size_t k = 0; k < start.size(); ++k) start[k] = static_cast<float>(10 * math::random_uniform({1, 2}, k));
  const Guarded<std::int64_t> indptr(ctx, g.indptr);
  const Guarded<std::int32_t> targets(ctx, g.indices);
  const Guarded<std::uint32_t> on(ctx, rates);
  Guarded<float> y(ctx, start);
  UmapSchedule s;
  s.force = math::UmapForce(0.583, 1.334, 1);
  s.rng = RngKey{11, 12};
  s.n_epochs = 8;
  s.dims = dims;
  int finished = 0;
  umap_run_kernel(ctx, UmapGraph{g.n, g.n, indptr.cview(), targets.cview(), on.cview()}, s, 2, 7, y.view(), finished);
  ctx.synchronize();
  EXPECT_EQ(finished, 7);
  return y.host();
}

std::vector<float> whole(const Context& ctx, const Graph& g, int dims, UmapInit init, int n_epochs = 40,
                         UmapOptions o = {}, std::vector<float> start = {}) {
  const Guarded<std::int64_t> indptr(ctx, g.indptr);
  const Guarded<std::int32_t> indices(ctx, g.indices);
  const Guarded<float> values(ctx, g.values);
  if (start.empty())
    for (std::size_t k = 0; k < static_cast<std::size_t>(g.n * dims); ++k)
      start.push_back(static_cast<float>(math::random_uniform({7, 2}, k)));
  const Guarded<float> given(ctx, start);
  o.maxiter = n_epochs;
  o.n_components = dims;
  o.init = init;
  if (init == UmapInit::array) o.init_positions = MatrixView<const float>(given.cview().data, g.n, dims);
  const CsrView<const float> view(g.n, static_cast<std::int32_t>(g.n), indptr.cview(), indices.cview(), values.cview());
  const Umap r = umap(ctx, view, o);
  ctx.synchronize();
  const auto host = to_host<float>(ctx, r.embedding.data.view());
  return {host.begin(), host.end()};
}

TEST(UmapParity, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  const Graph rings = Graph::rings(1400, 7, 9);
  for (const int dims : {1, 2, 3, 5}) {
    parity::expect_same_bits(epochs(Context::cpu(2), dims), epochs(cuda, dims));
    for (const UmapInit init : {UmapInit::spectral, UmapInit::random, UmapInit::array})
      parity::expect_same_bits(whole(Context::cpu(2), rings, dims, init), whole(cuda, rings, dims, init));
  }
  parity::expect_same_bits(whole(cuda, rings, 2, UmapInit::spectral), whole(cuda, rings, 2, UmapInit::spectral));
}

TEST(UmapParity, ComponentsAndHubs) {
  SCW_CUDA_CONTEXT(cuda);
  const Graph g = Graph::mixed(1300);  // rows beyond the length that is ranked by counting; large and small components
  EXPECT_GT(g.n, 10000);
  for (const int dims : {2, 3}) {
    parity::expect_same_bits(whole(Context::cpu(2), g, dims, UmapInit::spectral, 0),
                             whole(cuda, g, dims, UmapInit::spectral, 0));
    parity::expect_same_bits(whole(Context::cpu(2), g, dims, UmapInit::spectral, 30),
                             whole(cuda, g, dims, UmapInit::spectral, 30));
  }
  for (const int negatives : {0, 1, 2, 4, 7}) {
    UmapOptions o;
    o.negative_sample_rate = negatives;
    parity::expect_same_bits(whole(Context::cpu(2), g, 2, UmapInit::random, 3, o),
                             whole(cuda, g, 2, UmapInit::random, 3, o));
  }
}

/// The average of a graph and its transpose.
Csr<float> averaged(const Context& ctx, const Graph& g) {
  const Guarded<std::int64_t> indptr(ctx, g.indptr);
  const Guarded<std::int32_t> indices(ctx, g.indices);
  const Guarded<float> values(ctx, g.values);
  Csr<float> out, host;
  umap_average_kernel(ctx, {g.n, static_cast<std::int32_t>(g.n), indptr.cview(), indices.cview(), values.cview()}, out);
  host.indptr = to_host<std::int64_t>(ctx, std::as_const(out.indptr).view());
  host.indices = to_host<std::int32_t>(ctx, std::as_const(out.indices).view());
  host.values = to_host<float>(ctx, std::as_const(out.values).view());
  return host;
}

void expect_same_average(const Context& cuda, const Graph& g) {
  const Csr<float> a = averaged(Context::cpu(2), g);
  const Csr<float> b = averaged(cuda, g);
  EXPECT_GT(a.values.size(), 0);
  EXPECT_TRUE(std::equal(a.indptr.begin(), a.indptr.end(), b.indptr.begin(), b.indptr.end()));
  EXPECT_TRUE(std::equal(a.indices.begin(), a.indices.end(), b.indices.begin(), b.indices.end()));
  EXPECT_TRUE(std::equal(a.values.begin(), a.values.end(), b.values.begin(), b.values.end()));
}

TEST(UmapParity, GraphsThatAreNotSymmetric) {
  SCW_CUDA_CONTEXT(cuda);
  const Graph g = Graph::mixed(1300);
  for (const auto& [lower, upper] : {std::pair{0, 10}, std::pair{10, 0}, std::pair{4, 7}, std::pair{10, 9}}) {
    const Graph h = thinned(g, lower, upper);
    expect_same_average(cuda, h);
    for (const UmapInit init : {UmapInit::spectral, UmapInit::random})
      parity::expect_same_bits(whole(Context::cpu(2), h, 2, init, 20), whole(cuda, h, 2, init, 20));
  }
  // All of one triangle: half of the weights, the same embedding.
  parity::expect_same_bits(whole(cuda, thinned(g, 0, 10), 2, UmapInit::random, 20),
                           whole(cuda, g, 2, UmapInit::random, 20));
  Graph one = g;  // one weight of one direction
  one.values[4321] = 0.71f;
  for (const Context& ctx : {Context::cpu(2), cuda}) {
    for (const Graph* h : std::vector<const Graph*>{&g, &one}) {
      const Guarded<std::int64_t> indptr(ctx, h->indptr);
      const Guarded<std::int32_t> indices(ctx, h->indices);
      const Guarded<float> values(ctx, h->values);
      UmapWeights seen;
      umap_weights_kernel(ctx, {h->n, static_cast<std::int32_t>(h->n), indptr.cview(), indices.cview(), values.cview()},
                          seen);
      EXPECT_EQ(seen.symmetric, h == &g);
      EXPECT_EQ(seen.bad, -1);
      EXPECT_EQ(seen.most, 1.0f);
    }
  }
}

TEST(UmapParity, EqualRowsOfAStartAreMovedApart) {
  SCW_CUDA_CONTEXT(cuda);
  const Graph g = Graph::rings(300, 3, 2);
  for (const int dims : {1, 2, 3}) {
    std::vector<float> start(static_cast<std::size_t>(g.n * dims));
    for (std::size_t k = 0; k < start.size(); ++k)
      start[k] = static_cast<float>(k / static_cast<std::size_t>(dims) % 7);
    parity::expect_same_bits(whole(Context::cpu(2), g, dims, UmapInit::array, 0, {}, start),
                             whole(cuda, g, dims, UmapInit::array, 0, {}, start));
  }
}

TEST(UmapParity, ErrorsNameTheSameEntry) {
  SCW_CUDA_CONTEXT(cuda);
  Graph g = Graph::rings(300, 3, 2);
  g.values[777] = -1.0f;
  g.values[900] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::string> texts;
  for (const Context& ctx : {Context::cpu(2), cuda}) try {
      whole(ctx, g, 2, UmapInit::random);
    } catch (const DataError& e) {
      texts.emplace_back(e.what());
    }
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(texts[0], texts[1]);
}

TEST(UmapSmall, OnCuda) {  // small enough for the sanitizers
  SCW_CUDA_CONTEXT(cuda);
  const Graph g = Graph::mixed(220);
  EXPECT_TRUE(std::any_of(g.indptr.begin(), g.indptr.end(), [](std::int64_t p) { return p > 0; }));
  parity::expect_same_bits(whole(Context::cpu(2), g, 2, UmapInit::spectral, 3),
                           whole(cuda, g, 2, UmapInit::spectral, 3));
  expect_same_average(cuda, thinned(g, 5, 6));
  parity::expect_same_bits(whole(Context::cpu(2), thinned(g, 5, 6), 2, UmapInit::random, 3),
                           whole(cuda, thinned(g, 5, 6), 2, UmapInit::random, 3));
}

TEST(UmapParity, GuardsAndMovementOnTheCpu) {
  for (const int dims : {1, 2, 3, 5}) {
    const auto y = epochs(Context::cpu(2), dims);
    double moved = 0;
    for (std::size_t k = 0; k < y.size(); ++k)
      moved += std::abs(static_cast<double>(y[k]) - 10 * math::random_uniform({1, 2}, k));
    EXPECT_GT(moved / static_cast<double>(y.size()), 0.5);
    EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](float v) { return std::isfinite(v); }));
  }
}

}  // namespace
}  // namespace scw::tl
