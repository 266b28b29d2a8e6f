#include "scwarp/tl/umap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "math/philox.hpp"
#include "math/umap_curve.hpp"
#include "prim/eigsh/eigsh.hpp"
#include "tl/umap/kernel.hpp"
#include "tl/umap/spectral.hpp"

namespace scw::tl {
namespace {

struct Graph {
  std::int32_t n = 0;
  std::vector<std::int64_t> indptr;
  std::vector<std::int32_t> indices;
  std::vector<float> values;
  CsrView<const float> view() const {
    return {n, n, Span<const std::int64_t>(indptr), Span<const std::int32_t>(indices), Span<const float>(values)};
  }
};

using Entries = std::map<std::pair<std::int32_t, std::int32_t>, float>;

Graph graph_of(std::int32_t n, const Entries& upper) {
  Entries all;
  for (const auto& [at, w] : upper) {
    all[at] = w;
    all[{at.second, at.first}] = w;
  }
  Graph g;
  g.n = n;
  g.indptr.assign(static_cast<std::size_t>(n) + 1, 0);
  for (const auto& [at, w] : all) {
    ++g.indptr[static_cast<std::size_t>(at.first) + 1];
    g.indices.push_back(at.second);
    g.values.push_back(w);
  }
  std::partial_sum(g.indptr.begin(), g.indptr.end(), g.indptr.begin());
  return g;
}

/// Groups of consecutive vertices with random edges inside and, where far > 0, a few between.
Graph clusters(std::int32_t n, std::int32_t groups, int degree, double far, std::uint64_t seed = 1,
               std::int32_t isolated = 0) {
  const RngKey key{seed, 0};
  Entries e;
  for (std::int32_t i = 0; i < n; ++i)
    for (int d = 0; d < degree; ++d) {
      const auto item = static_cast<std::uint64_t>(i) * 64 + static_cast<std::uint64_t>(d);
      const std::int32_t size = n / groups;
      const std::int32_t base = std::min(i / size, groups - 1) * size;
      const std::int32_t count = base / size == groups - 1 ? n - base : size;
      const std::uint32_t word = math::random_words(key, item, 1).v[0];
      const std::int32_t j =
          math::random_uniform(key, item, 2) < far
              ? static_cast<std::int32_t>(math::bounded(word, static_cast<std::uint32_t>(n)))
              : base + static_cast<std::int32_t>(math::bounded(word, static_cast<std::uint32_t>(count)));
      if (j != i) e[std::minmax(i, j)] = static_cast<float>(0.05 + 0.95 * math::random_uniform(key, item, 3));
    }
  return graph_of(n + isolated, e);
}

Context context(int threads = 1, std::uint64_t seed = 0) {
  Context ctx = Context::cpu(threads);
  ctx.rng.seed = seed;
  return ctx;
}

std::vector<float> embed(const Context& ctx, const Graph& g, const UmapOptions& o = {}) {
  const Umap r = umap(ctx, g.view(), o);
  EXPECT_EQ(r.embedding.n_rows, g.n);
  EXPECT_EQ(r.embedding.n_cols, o.n_components);
  return {r.embedding.data.begin(), r.embedding.data.end()};
}

bool all_finite(const std::vector<float>& y) {
  return std::all_of(y.begin(), y.end(), [](float v) { return std::isfinite(v); });
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST(UmapMath, PowerIsClose) {
  for (const float y : {0.3f, 0.79f, 1.0f, 1.3341670f, 2.5f})
    for (double x = 1e-18; x < 1e8; x *= 1.37) {
      const auto xf = static_cast<float>(x);
      const double exact = std::pow(static_cast<double>(xf), static_cast<double>(y));
      if (exact < 1e-37 || exact > 1e37) continue;
      const double bound = 4e-7 * (1 + std::abs(static_cast<double>(y) * std::log2(x)));
      EXPECT_NEAR(static_cast<double>(math::pow_positive(xf, y)) / exact, 1.0, bound) << x << " ^ " << y;
    }
  EXPECT_EQ(math::pow_positive(1e-30f, 5.0f), std::ldexp(1.0f, -126) * 0x1.000002p+0f);
}

TEST(UmapMath, CurveOfTheDefaults) {
  const auto c = math::fit_umap_curve(0.5, 1.0);
  EXPECT_NEAR(c.a / 0.5830300205483709, 1, 1e-6);
  EXPECT_NEAR(c.b / 1.334166992455648, 1, 1e-6);
  const auto d = math::fit_umap_curve(0.1, 1.0);  // umap-learn's own defaults
  EXPECT_NEAR(d.a / 1.576943460405378, 1, 1e-6);
  EXPECT_NEAR(d.b / 0.8950608781227859, 1, 1e-6);
  const auto scaled = math::fit_umap_curve(1.0, 2.0);  // x -> 2x: b stays, a -> a / 2^2b
  EXPECT_NEAR(scaled.b / c.b, 1, 1e-9);
  EXPECT_NEAR(scaled.a * std::pow(2.0, 2 * c.b) / c.a, 1, 1e-9);
}

TEST(UmapMath, ForcesAreTheGradients) {
  // Attraction: d/dd of ln phi; repulsion: of ln(1 - phi) apart from the 0.001, along a line.
  const math::UmapForce f(0.583, 1.334, 1.5);
  for (const double d : {0.05, 0.3, 1.0, 2.5, 9.0}) {
    const double a = 0.583;
    const double b = 1.334;
    const auto phi = [&](double x) { return 1.0 / (1.0 + a * std::pow(x, 2 * b)); };
    const double h = 1e-5 * d;
    const double pull = (std::log(phi(d + h)) - std::log(phi(d - h))) / (2 * h);
    EXPECT_NEAR(static_cast<double>(f.attraction(static_cast<float>(d * d))) * d / pull, 1, 1e-4);
    const double push = 1.5 * (std::log(1 - phi(d + h)) - std::log(1 - phi(d - h))) / (2 * h);
    const double softened = push * d * d / (0.001 + d * d);
    EXPECT_NEAR(static_cast<double>(f.repulsion(static_cast<float>(d * d))) * d / softened, 1, 1e-4);
  }
  EXPECT_TRUE(std::isfinite(f.attraction(0.0f)));
  EXPECT_TRUE(std::isfinite(f.repulsion(0.0f)));
  EXPECT_TRUE(std::isfinite(math::UmapForce(1.58, 0.1, 1).attraction(0.0f)));
}

TEST(Eigsh, AgreesWithJacobi) {
  const std::int64_t n = 200;
  const RngKey key{7, 0};
  std::vector<double> a(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = i; j < n; ++j) {
      // A smooth kernel: eigenvalues that fall off.
      const double v = std::exp(-0.02 * std::abs(static_cast<double>(i - j))) / 60.0 +
                       0.001 * math::random_uniform(key, static_cast<std::uint64_t>(i * n + j));
      a[static_cast<std::size_t>(i * n + j)] = a[static_cast<std::size_t>(j * n + i)] = v;
    }
  const auto exact = prim::small_eigh(a, static_cast<int>(n));
  for (std::int64_t k = 0; k < n; ++k) {  // A v = lambda v
    double worst = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      double s = 0;
      for (std::int64_t j = 0; j < n; ++j)
        s += a[static_cast<std::size_t>(i * n + j)] * exact.vectors[static_cast<std::size_t>(j * n + k)];
      worst = std::max(worst, std::abs(s - exact.values[static_cast<std::size_t>(k)] *
                                               exact.vectors[static_cast<std::size_t>(i * n + k)]));
    }
    EXPECT_LT(worst, 1e-11);
  }
  prim::EigshOptions o;
  o.n_eigen = 3;
  o.lower = -0.1;
  o.upper = 3.0;
  o.tolerance = 1e-5;
  const auto product = [&](const float* x, float* y, int q) {
    for (std::int64_t i = 0; i < n; ++i)
      for (int b = 0; b < q; ++b) {
        double s = 0;
        for (std::int64_t j = 0; j < n; ++j)
          s += a[static_cast<std::size_t>(i * n + j)] * static_cast<double>(x[j * q + b]);
        y[i * q + b] = static_cast<float>(s);
      }
  };
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    const auto e = prim::eigsh(context(threads), n, product, o);
    EXPECT_TRUE(e.converged);
    for (int k = 0; k < 3; ++k) {
      EXPECT_NEAR(e.values[static_cast<std::size_t>(k)], exact.values[static_cast<std::size_t>(k)], 1e-5);
      double dot = 0;
      for (std::int64_t i = 0; i < n; ++i)
        dot += static_cast<double>(e.vectors.data[i * 3 + k]) * exact.vectors[static_cast<std::size_t>(i * n + k)];
      EXPECT_NEAR(std::abs(dot), 1, 1e-4);
    }
    const std::vector<float> v(e.vectors.data.begin(), e.vectors.data.end());
    if (first.empty()) first = v;
    EXPECT_TRUE(same_bits(first, v));
  }
}

TEST(UmapSpectral, RingBecomesACircle) {
  const std::int32_t n = 300;
  Entries e;
  for (std::int32_t i = 0; i < n; ++i)
    for (const std::int32_t step : {1, 2, 5}) e[std::minmax(i, (i + step) % n)] = 1.0f;
  const Graph g = graph_of(n, e);
  const auto y = spectral_layout(context(), g.view(), 2);
  double low = 1e9;
  double high = 0;
  for (std::int32_t i = 0; i < n; ++i) {
    const double r = std::hypot(y.data[2 * i], y.data[2 * i + 1]);
    low = std::min(low, r);
    high = std::max(high, r);
  }
  EXPECT_GT(low, 0.9 * high);
  // Once around: opposite vertices are on opposite sides.
  for (std::int32_t i = 0; i < n / 2; ++i) {
    EXPECT_LT(y.data[2 * i] * y.data[2 * (i + n / 2)] + y.data[2 * i + 1] * y.data[2 * (i + n / 2) + 1], 0);
  }
}

TEST(UmapSpectral, PathOrdersItsVertices) {  // dense solver (48) and filter (150)
  for (const std::int32_t n : {48, 150}) {
    Entries e;
    for (std::int32_t i = 0; i + 1 < n; ++i) e[{i, i + 1}] = 0.7f;
    const Graph g = graph_of(n, e);
    const auto y = spectral_layout(context(), g.view(), 2);
    int wrong = 0;  // the ends are flattened by the degree, the middle is monotone
    for (std::int32_t i = 3; i + 4 < n; ++i)
      wrong += (y.data[2 * i + 2] - y.data[2 * i] > 0) != (y.data[2 * n - 8] > y.data[6]);
    EXPECT_EQ(wrong, 0) << n;
  }
}

TEST(UmapSpectral, ComponentsDoNotOverlap) {
  for (const int dims : {2, 3}) {
    for (const std::int32_t groups : {2, 4, 9}) {
      const Graph g = clusters(720, groups, 6, 0.0);
      const auto y = spectral_layout(context(), g.view(), dims);
      const std::int32_t size = 720 / groups;
      for (std::int32_t p = 0; p < groups; ++p)
        for (std::int32_t q = 0; q < p; ++q) {
          std::vector<double> middle(static_cast<std::size_t>(2 * dims), 0);
          const auto at = [&](std::int32_t i, int d) { return static_cast<double>(y.data[i * dims + d]); };
          for (std::int32_t i = 0; i < size; ++i)
            for (int d = 0; d < dims; ++d) {
              middle[static_cast<std::size_t>(d)] += at(p * size + i, d) / size;
              middle[static_cast<std::size_t>(dims + d)] += at(q * size + i, d) / size;
            }
          double apart = 0;
          for (int d = 0; d < dims; ++d)
            apart += std::pow(middle[static_cast<std::size_t>(d)] - middle[static_cast<std::size_t>(dims + d)], 2);
          EXPECT_GT(std::sqrt(apart), dims == 2 ? 0.7 : 0.3) << groups << " " << p << " " << q;
        }
    }
  }
}

/// Mean over vertices of the share of edges whose ends are closer than the median distance to 50 random vertices.
double neighbourhood(const Graph& g, const std::vector<float>& y, int dims) {
  const RngKey key{99, 0};
  const auto distance = [&](std::int64_t i, std::int64_t j) {
    double s = 0;
    for (int d = 0; d < dims; ++d)
      s += std::pow(
          static_cast<double>(y[static_cast<std::size_t>(i * dims + d)] - y[static_cast<std::size_t>(j * dims + d)]),
          2);
    return s;
  };
  double good = 0;
  double all = 0;
  for (std::int64_t i = 0; i < g.n; ++i) {
    std::vector<double> far;
    for (std::uint64_t t = 0; t < 50; ++t)
      far.push_back(distance(i, math::bounded(math::random_words(key, static_cast<std::uint64_t>(i), t).v[0],
                                              static_cast<std::uint32_t>(g.n))));
    std::nth_element(far.begin(), far.begin() + 5, far.end());
    for (std::int64_t e = g.indptr[static_cast<std::size_t>(i)]; e < g.indptr[static_cast<std::size_t>(i) + 1]; ++e) {
      good += distance(i, g.indices[static_cast<std::size_t>(e)]) < far[5] ? 1 : 0;
      all += 1;
    }
  }
  return good / all;
}

TEST(Umap, PutsNeighboursTogether) {
  const Graph g = clusters(1200, 12, 8, 0.02);
  for (const UmapInit init : {UmapInit::spectral, UmapInit::random}) {
    UmapOptions o;
    o.init = init;
    o.maxiter = 0;
    const auto start = embed(context(), g, o);
    EXPECT_EQ(*std::min_element(start.begin(), start.end()), 0.0f);
    EXPECT_EQ(*std::max_element(start.begin(), start.end()), 10.0f);
    o.maxiter = 200;
    const auto y = embed(context(), g, o);
    EXPECT_TRUE(all_finite(y));
    EXPECT_GT(neighbourhood(g, y, 2), 0.9);
    if (init == UmapInit::random) {
      EXPECT_LT(neighbourhood(g, start, 2), 0.3);
    }
    EXPECT_LT(*std::max_element(y.begin(), y.end()) - *std::min_element(y.begin(), y.end()), 40.0f);
  }
}

TEST(Umap, SameBitsForThreadsRerunsAndResumption) {
  const Graph g = clusters(5000, 10, 6, 0.02, 3, 30);
  for (const int dims : {1, 2, 3}) {
    UmapOptions o;
    o.n_components = dims;
    o.maxiter = 30;
    const auto once = embed(context(1), g, o);
    EXPECT_TRUE(all_finite(once));
    for (const int threads : {1, 2, 3})
      EXPECT_TRUE(same_bits(once, embed(context(threads), g, o))) << dims << " " << threads;
    UmapLayout layout(context(2), g.view(), o);
    layout.run(context(1), 7);
    EXPECT_EQ(layout.epoch(), 7);
    UmapLayout moved = std::move(layout);
    moved.run(context(3), 7);
    moved.run(context(2), 21);
    moved.run(context(1), 1000);
    EXPECT_EQ(moved.epoch(), 30);
    const auto end = moved.embedding(context());
    EXPECT_TRUE(same_bits(once, {end.data.begin(), end.data.end()}));
    EXPECT_FALSE(same_bits(once, embed(context(1, 5), g, o)));
  }
}

TEST(Umap, SameBitsInEveryVectorWidth) {
  const std::int64_t n = 333;  // not a multiple of any width
  const Graph g = clusters(static_cast<std::int32_t>(n), 3, 5, 0.05);
  std::vector<std::uint32_t> rates;
  for (const float w : g.values) rates.push_back(static_cast<std::uint32_t>(static_cast<double>(w) * 0x1.0p32));
  const UmapGraph graph{n, n, Span<const std::int64_t>(g.indptr), Span<const std::int32_t>(g.indices),
                        Span<const std::uint32_t>(rates)};
  for (const int dims : {2, 3}) {
    std::vector<float> first;
    for (const int width : {1, 4, 8, 16}) {
      UmapSchedule s;
      s.force = math::UmapForce(0.583, 1.334, 1);
      s.rng = RngKey{0x123456789ABCDEFull, 0xFEDCBA987654321ull};
      s.n_epochs = 10;
      s.negatives = 5;
      s.dims = dims;
      s.max_width = width;
      std::vector<float> y(static_cast<std::size_t>(n * dims));
      for (std::size_t k = 0; k < y.size(); ++k) y[k] = static_cast<float>(math::random_uniform(RngKey{4, 4}, k) * 10);
      for (int d = 0; d < dims; ++d)
        y[static_cast<std::size_t>(dims + d)] = y[static_cast<std::size_t>(d)];  // two at one place
      const auto before = y;
      int finished = 0;
      umap_run_kernel(context(), graph, s, 0, 10, Span<float>(y), finished);
      EXPECT_EQ(finished, 10);
      EXPECT_TRUE(all_finite(y));
      EXPECT_FALSE(same_bits(before, y));
      if (first.empty()) first = y;
      EXPECT_TRUE(same_bits(first, y)) << "width " << width << " dims " << dims;
    }
  }
}

TEST(Umap, EdgesAreSampledInProportionToTheirWeights) {
  // Far out on a line the pull is clipped to 4 whatever the distance: displacement counts the samples. 40 pairs.
  const std::int32_t pairs = 40;
  Entries e;
  for (std::int32_t p = 0; p < pairs; ++p)
    e[{2 * p, 2 * p + 1}] = p == 0 ? 1.0f : 0.02f + 0.02f * static_cast<float>(p);
  const Graph g = graph_of(2 * pairs, e);
  std::vector<std::uint32_t> rates;
  for (const float w : g.values)
    rates.push_back(static_cast<std::uint32_t>(std::min(static_cast<double>(w) * 0x1.0p32, 4294967295.0)));
  const UmapGraph graph{2 * pairs, 2 * pairs, Span<const std::int64_t>(g.indptr), Span<const std::int32_t>(g.indices),
                        Span<const std::uint32_t>(rates)};
  UmapSchedule s;
  s.force = math::UmapForce(1, 1, 1);
  s.force.attract = -1e12f;
  s.n_epochs = 1 << 20;  // alpha stays 1
  s.negatives = 0;
  std::vector<float> y;
  for (std::int32_t p = 0; p < pairs; ++p) y.insert(y.end(), {0.0f, 0.0f, 1e5f, 0.0f});
  int finished = 0;
  umap_run_kernel(context(), graph, s, 0, 500, Span<float>(y), finished);
  for (std::size_t p = 0; p < static_cast<std::size_t>(pairs); ++p) {
    const double expected = p == 0 ? 1000.0 : 1000.0 * static_cast<double>(0.02f + 0.02f * static_cast<float>(p));
    EXPECT_NEAR(static_cast<double>(y[4 * p]) / 4, expected, 1.5 + 1e-3 * expected) << p;
    EXPECT_NEAR((1e5 - static_cast<double>(y[4 * p + 2])) / 4, expected, 1.5 + 1e-3 * expected) << p;
  }
}

TEST(Umap, TinyInputs) {
  for (const int dims : {1, 2, 3, 5}) {
    for (std::int32_t n = 0; n <= 8; ++n) {
      Entries e;
      for (std::int32_t i = 0; i + 1 < n; ++i) e[{i, i + 1}] = 0.5f;
      UmapOptions o;
      o.n_components = dims;
      EXPECT_TRUE(all_finite(embed(context(2), graph_of(n, e), o))) << n << " " << dims;
      EXPECT_TRUE(all_finite(embed(context(2), graph_of(n, {}), o))) << n << " " << dims;  // no edges at all
    }
  }
}

TEST(Umap, IsolatedAndDisconnected) {
  const Graph g = clusters(900, 9, 6, 0.0, 2, 40);
  UmapOptions o;
  o.maxiter = 100;
  const auto y = embed(context(2), g, o);
  o.maxiter = 0;
  const auto start = embed(context(), g, o);
  EXPECT_TRUE(all_finite(y));
  for (std::size_t i = 900 * 2; i < 940 * 2; ++i) EXPECT_EQ(y[i], start[i]);  // a cell without edges stays
  EXPECT_GT(neighbourhood(g, y, 2), 0.9);
  for (const float v : y) EXPECT_LT(std::abs(v), 40.0f);
}

TEST(Umap, LoopsAndWeakEdgesDoNotCount) {
  Graph g = clusters(300, 3, 6, 0.02);
  UmapOptions o;
  o.maxiter = 50;
  const auto y = embed(context(), g, o);
  Graph h;
  h.n = g.n;
  h.indptr.push_back(0);
  for (std::int32_t i = 0; i < g.n; ++i) {
    bool done = false;
    const auto loop = [&] {
      h.indices.push_back(i);
      h.values.push_back(0.9f);
      done = true;
    };
    for (std::int64_t e = g.indptr[static_cast<std::size_t>(i)]; e < g.indptr[static_cast<std::size_t>(i) + 1]; ++e) {
      if (!done && g.indices[static_cast<std::size_t>(e)] > i) loop();
      h.indices.push_back(g.indices[static_cast<std::size_t>(e)]);
      h.values.push_back(g.values[static_cast<std::size_t>(e)]);
    }
    if (!done) loop();
    h.indptr.push_back(static_cast<std::int64_t>(h.indices.size()));
  }
  EXPECT_TRUE(same_bits(y, embed(context(), h, o)));
}

TEST(Umap, StartFromAnArray) {
  const Graph g = clusters(200, 2, 6, 0.02);
  std::vector<float> start(400);
  for (std::size_t k = 0; k < start.size(); ++k)
    start[k] = static_cast<float>(math::random_uniform(RngKey{1, 1}, k)) - 7.0f;
  UmapOptions o;
  o.init = UmapInit::array;
  o.init_positions = MatrixView<const float>(start.data(), 200, 2);
  o.maxiter = 0;
  auto y = embed(context(), g, o);
  for (int d = 0; d < 2; ++d) {
    float low = 1e9f;
    float high = -1e9f;
    for (std::size_t i = 0; i < 200; ++i) {
      low = std::min(low, start[2 * i + static_cast<std::size_t>(d)]);
      high = std::max(high, start[2 * i + static_cast<std::size_t>(d)]);
    }
    for (std::size_t i = 0; i < 200; ++i) {
      const auto k = 2 * i + static_cast<std::size_t>(d);
      EXPECT_NEAR(y[k], 10 * (start[k] - low) / (high - low), 1e-5);
    }
  }
  std::fill(start.begin(), start.end(), 3.0f);  // all at one place: noise tells them apart
  o.maxiter = 100;
  y = embed(context(), g, o);
  EXPECT_TRUE(all_finite(y));
  EXPECT_GT(neighbourhood(g, y, 2), 0.2);
  start[17] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(umap(context(), g.view(), o), DataError);
  o.init_positions = MatrixView<const float>(start.data(), 100, 4);
  EXPECT_THROW(umap(context(), g.view(), o), ShapeMismatch);
}

TEST(Umap, RejectsWhatMakesNoSense) {
  Graph g = clusters(50, 1, 4, 0.0);
  const auto with = [&](auto change) {
    UmapOptions o;
    change(o);
    return o;
  };
  const auto bad = [&](const UmapOptions& o) { EXPECT_THROW(umap(context(), g.view(), o), InvalidArgument); };
  bad(with([](auto& o) { o.min_dist = -1; }));
  bad(with([](auto& o) { o.spread = 0; }));
  bad(with([](auto& o) { o.n_components = 0; }));
  bad(with([](auto& o) { o.maxiter = -1; }));
  bad(with([](auto& o) { o.alpha = 0; }));
  bad(with([](auto& o) { o.gamma = -1; }));
  bad(with([](auto& o) { o.negative_sample_rate = -1; }));
  bad(with([](auto& o) { o.a = -1; }));
  bad(with([](auto& o) { o.b = std::numeric_limits<double>::quiet_NaN(); }));
  CsrView<const float> wide = g.view();
  wide.n_cols += 1;
  EXPECT_THROW(umap(context(), wide), ShapeMismatch);
  for (const float w : {-0.1f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Graph h = g;
    h.values[7] = w;
    EXPECT_THROW(umap(context(), h.view()), DataError);
  }
}

struct StopAfter final : Progress {
  std::atomic<bool> stop{false};
  std::int64_t at = 0;
  std::int64_t seen = 0;
  void update(std::string_view, std::int64_t done, std::int64_t total) override {
    seen = done;
    EXPECT_EQ(total, 60);
    if (done == at) stop = true;
  }
};

/// (A + A^T) / 2.
Graph average(const Graph& g) {
  Entries sum;
  for (std::int32_t i = 0; i < g.n; ++i)
    for (std::int64_t e = g.indptr[static_cast<std::size_t>(i)]; e < g.indptr[static_cast<std::size_t>(i) + 1]; ++e) {
      const std::int32_t j = g.indices[static_cast<std::size_t>(e)];
      const float w = g.values[static_cast<std::size_t>(e)];
      sum[std::minmax(i, j)] += i == j ? w : 0.5f * w;
    }
  return graph_of(g.n, sum);
}

Graph thinned(const Graph& g, const std::function<bool(std::int32_t, std::int32_t)>& keep) {
  Graph out;
  out.n = g.n;
  out.indptr = {0};
  for (std::int32_t i = 0; i < g.n; ++i) {
    for (std::int64_t e = g.indptr[static_cast<std::size_t>(i)]; e < g.indptr[static_cast<std::size_t>(i) + 1]; ++e) {
      if (!keep(i, g.indices[static_cast<std::size_t>(e)])) continue;
      out.indices.push_back(g.indices[static_cast<std::size_t>(e)]);
      out.values.push_back(g.values[static_cast<std::size_t>(e)]);
    }
    out.indptr.push_back(static_cast<std::int64_t>(out.indices.size()));
  }
  return out;
}

TEST(Umap, OfAGraphThatIsNotSymmetricTheAverageIsEmbedded) {
  const Graph g = clusters(400, 4, 5, 0.1, 1, 3);
  const auto mixed = [](std::int32_t i, std::int32_t j) { return (i * 31 + j * 17) % 5 > 1; };
  std::vector<Graph> graphs{thinned(g, [](auto i, auto j) { return i < j; }),
                            thinned(g, [](auto i, auto j) { return i > j; }), thinned(g, mixed), g};
  graphs.back().values[7] *= 2;
  for (const Graph& h : graphs) {
    const Graph mean = average(h);
    for (const UmapInit init : {UmapInit::spectral, UmapInit::random}) {
      UmapOptions o;
      o.init = init;
      o.maxiter = 30;
      const Umap r = umap(context(2), h.view(), o);
      EXPECT_FALSE(r.symmetric);
      EXPECT_TRUE(same_bits({r.embedding.data.begin(), r.embedding.data.end()}, embed(context(), mean, o)));
    }
  }
  EXPECT_TRUE(umap(context(), g.view()).symmetric);
  EXPECT_TRUE(umap(context(), average(graphs[2]).view()).symmetric);
}

TEST(Umap, AStoredZeroIsNoEdge) {
  Graph g = clusters(300, 3, 6, 0.02);
  const auto pruned = [](std::int32_t i, std::int32_t j) { return (std::min(i, j) * 7 + std::max(i, j)) % 6 != 0; };
  const Graph without = thinned(g, pruned);
  for (std::int32_t i = 0; i < g.n; ++i)
    for (std::int64_t e = g.indptr[static_cast<std::size_t>(i)]; e < g.indptr[static_cast<std::size_t>(i) + 1]; ++e)
      if (!pruned(i, g.indices[static_cast<std::size_t>(e)])) g.values[static_cast<std::size_t>(e)] = 0;
  // Those above the diagonal alone: a zero needs no zero on the other side.
  const Graph half = thinned(g, [&](std::int32_t i, std::int32_t j) { return i < j || pruned(i, j); });
  EXPECT_GT(half.indices.size(), without.indices.size());
  UmapOptions o;
  o.maxiter = 30;
  const auto y = embed(context(), without, o);
  for (const Graph* h : std::vector<const Graph*>{&g, &half}) {
    const Umap r = umap(context(), h->view(), o);
    EXPECT_TRUE(r.symmetric);
    EXPECT_TRUE(same_bits(y, {r.embedding.data.begin(), r.embedding.data.end()}));
  }
}

TEST(Umap, ABlockOfRowsKeepsItsOffsets) {
  const Graph g = clusters(200, 4, 5, 0.1);
  Graph shifted = g;
  for (std::int64_t& p : shifted.indptr) p += 3;
  shifted.indices.insert(shifted.indices.begin(), 3, -1);
  shifted.values.insert(shifted.values.begin(), 3, -1.0f);
  UmapOptions o;
  for (const int epochs : {20, 1000000}) {  // with and without edges left out
    o.maxiter = epochs;
    o.alpha = 1;
    UmapLayout a(context(), g.view(), o), b(context(), shifted.view(), o);
    a.run(context(), 5);
    b.run(context(), 5);
    const auto x = a.embedding(context()), y = b.embedding(context());
    EXPECT_TRUE(same_bits({x.data.begin(), x.data.end()}, {y.data.begin(), y.data.end()}));
  }
}

TEST(Umap, ACancelledLayoutGoesOnWhereItStopped) {
  const Graph g = clusters(2000, 5, 6, 0.02);
  UmapOptions o;
  o.maxiter = 60;
  const auto whole = embed(context(), g, o);
  StopAfter progress;
  progress.at = 25;
  Context ctx = context(2);
  ctx.progress = &progress;
  ctx.cancelled = &progress.stop;
  UmapLayout layout(ctx, g.view(), o);
  EXPECT_THROW(layout.run(ctx, 60), Cancelled);
  EXPECT_EQ(layout.epoch(), 25);
  progress.stop = false;
  progress.at = -1;
  layout.run(ctx, 60);
  EXPECT_EQ(progress.seen, 60);
  const auto end = layout.embedding(ctx);
  EXPECT_TRUE(same_bits(whole, {end.data.begin(), end.data.end()}));
}

TEST(Umap, NothingIsLeftInMemory) {
  const Graph g = clusters(500, 5, 6, 0.02);
  const auto memory = std::make_shared<TrackedMemory>(host_memory());
  Context ctx = context();
  ctx.memory = memory;
  ctx.workspace = memory;
  UmapOptions o;
  o.maxiter = 5;
  umap(ctx, g.view(), o);
  EXPECT_GT(memory->peak_bytes(), 0u);
  EXPECT_TRUE(memory->holders().empty());
  umap(ctx, thinned(g, [](std::int32_t i, std::int32_t j) { return i < j; }).view(), o);
  EXPECT_TRUE(memory->holders().empty());
}

}  // namespace
}  // namespace scw::tl
