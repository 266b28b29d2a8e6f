#include "scwarp/tl/umap.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "math/philox.hpp"
#include "tl/umap/kernel.hpp"
#include "tl/umap/spectral.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const UmapGraph&, const UmapSchedule&, int, int, Span<float>, int&)>
    umap_run_kernel{"tl.umap"};

namespace {

constexpr const char* kOp = "tl.umap";
constexpr std::int64_t kGrain = 4096;
constexpr std::uint64_t kSpectralTag = 0x73706563;  // streams of random numbers
constexpr std::uint64_t kRandomTag = 0x72616E64;
constexpr std::uint64_t kNoiseTag = 0x6E6F6973;
constexpr std::uint64_t kLayoutTag = 0x6C61796F;

int default_epochs(std::int64_t n_cells) { return n_cells <= 10000 ? 500 : 200; }

void check(const CsrView<const float>& g, const UmapOptions& o) {
  SCW_EXPECT_AS(ShapeMismatch, g.n_rows == g.n_cols, kOp, "connectivities must be square (got {} x {})", g.n_rows,
                g.n_cols);
  SCW_EXPECT(o.min_dist >= 0 && std::isfinite(o.min_dist), kOp, "min_dist must not be negative (got {})", o.min_dist);
  SCW_EXPECT(o.spread > 0 && std::isfinite(o.spread), kOp, "spread must be positive (got {})", o.spread);
  SCW_EXPECT(o.n_components >= 1, kOp, "n_components must be at least 1 (got {})", o.n_components);
  SCW_EXPECT(!o.maxiter || *o.maxiter >= 0, kOp, "maxiter must not be negative (got {})", o.maxiter.value_or(0));
  SCW_EXPECT(o.alpha > 0 && std::isfinite(o.alpha), kOp, "alpha must be positive (got {})", o.alpha);
  SCW_EXPECT(o.gamma >= 0 && std::isfinite(o.gamma), kOp, "gamma must not be negative (got {})", o.gamma);
  SCW_EXPECT(o.negative_sample_rate >= 0, kOp, "negative_sample_rate must not be negative (got {})",
             o.negative_sample_rate);
  SCW_EXPECT(!o.a || (*o.a > 0 && std::isfinite(*o.a)), kOp, "a must be positive (got {})", o.a.value_or(0));
  SCW_EXPECT(!o.b || (*o.b > 0 && std::isfinite(*o.b)), kOp, "b must be positive (got {})", o.b.value_or(0));
  if (o.init == UmapInit::array)
    SCW_EXPECT_AS(ShapeMismatch, o.init_positions.n_rows == g.n_rows && o.init_positions.n_cols == o.n_components, kOp,
                  "init_positions has the wrong shape (got {} x {}, expected {} x {})", o.init_positions.n_rows,
                  o.init_positions.n_cols, g.n_rows, o.n_components);
}

/// Rows of the graph without loops and without edges below `cutoff`.
Csr<float> prune(const Context& ctx, const CsrView<const float>& g, float cutoff) {
  Csr<float> out;
  out.n_rows = g.n_rows;
  out.n_cols = g.n_cols;
  out.indptr = Array<std::int64_t>(ctx.workspace, g.n_rows + 1, "umap graph");
  const auto keep = [&](std::int64_t i, std::int64_t e) {
    return g.indices[e] != i && g.values[e] > 0 && g.values[e] >= cutoff;
  };
  out.indptr[0] = 0;
  parallel_for(ctx, g.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t count = 0;
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e) count += keep(i, e) ? 1 : 0;
      out.indptr[i + 1] = count;
    }
  });
  std::partial_sum(out.indptr.begin(), out.indptr.end(), out.indptr.begin());
  out.indices = Array<std::int32_t>(ctx.workspace, out.indptr[g.n_rows], "umap graph");
  out.values = Array<float>(ctx.workspace, out.indptr[g.n_rows], "umap graph");
  parallel_for(ctx, g.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t to = out.indptr[i];
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e)
        if (keep(i, e)) {
          out.indices[to] = g.indices[e];
          out.values[to++] = g.values[e];
        }
    }
  });
  return out;
}

float max_weight(const Context& ctx, const CsrView<const float>& g) {
  std::vector<float> partial(static_cast<std::size_t>(chunk_count(g.n_rows, kGrain)), 0.0f);
  parallel_chunks(ctx, g.n_rows, kGrain, [&](std::int64_t c, std::int64_t begin, std::int64_t end, int) {
    float most = 0;
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e) {
        const float w = g.values[e];
        SCW_EXPECT_AS(DataError, w >= 0 && std::isfinite(w), kOp,
                      "connectivities must be finite and not negative (got {} between cells {} and {})", w, i,
                      g.indices[e]);
        most = std::max(most, w);
      }
    partial[static_cast<std::size_t>(c)] = most;
  });
  float most = 0;
  for (const float m : partial) most = std::max(most, m);
  return most;
}

/// Close to normal with mean 0 and variance 1 (sum of four uniforms): enough to tell points apart.
float noise(RngKey key, std::int64_t item) {
  const math::Philox4 r = math::random_words(key, static_cast<std::uint64_t>(item), 0);
  double s = 0;
  for (const std::uint32_t v : r.v) s += static_cast<double>(v) * 0x1.0p-32 - 0.5;
  return static_cast<float>(s * 1.7320508075688772);
}

bool has_equal_rows(const Matrix<float>& y) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(y.n_rows));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto row = [&](std::int64_t i) { return y.data.data() + i * y.n_cols; };
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return std::lexicographical_compare(row(a), row(a) + y.n_cols, row(b), row(b) + y.n_cols);
  });
  for (std::size_t k = 1; k < order.size(); ++k)
    if (std::equal(row(order[k]), row(order[k]) + y.n_cols, row(order[k - 1]))) return true;
  return false;
}

/// Every axis to [0, 10]; an axis without extent to 0.
void stretch(Matrix<float>& y) {
  for (std::int64_t d = 0; d < y.n_cols; ++d) {
    float low = std::numeric_limits<float>::infinity();
    float high = -low;
    for (std::int64_t i = 0; i < y.n_rows; ++i) {
      low = std::min(low, y.data[i * y.n_cols + d]);
      high = std::max(high, y.data[i * y.n_cols + d]);
    }
    const float extent = high - low;
    for (std::int64_t i = 0; i < y.n_rows; ++i) {
      float& v = y.data[i * y.n_cols + d];
      v = extent > 0 ? 10.0f * ((v - low) / extent) : 0.0f;
    }
  }
}

Matrix<float> start_positions(const Context& ctx, const Csr<float>& graph, const UmapOptions& o) {
  const std::int64_t n = graph.n_rows;
  Matrix<float> y;
  const RngKey noise_key = ctx.rng.fold(kNoiseTag);
  if (o.init == UmapInit::spectral) {
    Context inner = ctx;
    inner.rng = ctx.rng.fold(kSpectralTag);
    y = spectral_layout(inner, graph.view(), o.n_components);
    float largest = 0;
    for (const float v : y.data) largest = std::max(largest, std::abs(v));
    for (std::int64_t k = 0; k < y.data.size(); ++k)
      y.data[k] = (largest > 0 ? y.data[k] * (10.0f / largest) : 0.0f) + 1e-4f * noise(noise_key, k);
  } else {
    y = Matrix<float>(ctx.workspace, n, o.n_components, "umap start");
    if (o.init == UmapInit::random) {
      const RngKey key = ctx.rng.fold(kRandomTag);
      for (std::int64_t k = 0; k < y.data.size(); ++k)
        y.data[k] = static_cast<float>(20.0 * math::random_uniform(key, static_cast<std::uint64_t>(k)) - 10.0);
    } else {
      for (std::int64_t i = 0; i < n; ++i)
        for (int d = 0; d < o.n_components; ++d) {
          const float v = o.init_positions(i, d);
          SCW_EXPECT_AS(DataError, std::isfinite(v), kOp, "init_positions must be finite (got {} at row {}, column {})",
                        v, i, d);
          y.data[i * o.n_components + d] = v;
        }
    }
  }
  stretch(y);
  if (o.init == UmapInit::array && has_equal_rows(y)) {
    // umap-learn's rule, a thousandth of the distance to the nearest neighbour, with the distance of evenly spread
    // cells.
    const float scale = 1e-3f * 10.0f * static_cast<float>(std::pow(static_cast<double>(n), -1.0 / o.n_components));
    for (std::int64_t k = 0; k < y.data.size(); ++k) y.data[k] += scale * noise(noise_key, k);
  }
  return y;
}

}  // namespace

struct UmapLayout::State {
  std::int64_t n_cells = 0, n_active = 0;
  Array<std::int32_t> order;  // cell at each place of the layout
  Array<std::int64_t> indptr;
  Array<std::int32_t> targets;
  Array<std::uint32_t> rates;
  Array<float> y;  // in the order of the layout
  UmapSchedule schedule;
  double a = 0, b = 0;
  int epoch = 0;
};

UmapLayout::UmapLayout(UmapLayout&&) noexcept = default;
UmapLayout& UmapLayout::operator=(UmapLayout&&) noexcept = default;
UmapLayout::~UmapLayout() = default;

UmapLayout::UmapLayout(const Context& caller, const CsrView<const float>& given, const UmapOptions& options)
    : state_(std::make_unique<State>()) {
  check(given, options);
  State& s = *state_;
  // The start is made on the host: a short part of the work, and one start for all devices.
  const Context ctx = caller.host();
  CsrView<const float> g = given;
  UmapOptions o = options;
  Csr<float> copied;
  Array<float> start_copy;
  if (caller.device != Device{}) {
    copied.indptr = to_host<std::int64_t>(caller, given.indptr, "umap graph");
    copied.indices = to_host<std::int32_t>(caller, given.indices, "umap graph");
    copied.values = to_host<float>(caller, given.values, "umap graph");
    g.indptr = std::as_const(copied.indptr).view();
    g.indices = std::as_const(copied.indices).view();
    g.values = std::as_const(copied.values).view();
    if (o.init == UmapInit::array) {
      const auto& x = o.init_positions;
      SCW_EXPECT(x.ld == x.n_cols || x.n_rows == 0, kOp, "init_positions must be contiguous on a device");
      start_copy = to_host<float>(caller, Span<const float>(x.data, x.n_rows * x.n_cols), "umap start");
      o.init_positions = MatrixView<const float>(start_copy.data(), x.n_rows, x.n_cols);
    }
  }
  const std::int64_t n = g.n_rows;
  s.n_cells = n;
  math::UmapCurve curve;
  if (o.a && o.b) {
    curve = {*o.a, *o.b};
  } else {
    curve = math::fit_umap_curve(o.min_dist, o.spread);
  }
  s.a = curve.a;
  s.b = curve.b;
  s.schedule.force = math::UmapForce(curve.a, curve.b, o.gamma);
  s.schedule.rng = ctx.rng.fold(kLayoutTag);
  s.schedule.alpha = static_cast<float>(o.alpha);
  s.schedule.n_epochs = o.maxiter.value_or(default_epochs(n));
  s.schedule.negatives = o.negative_sample_rate;
  s.schedule.dims = o.n_components;

  // An edge of weight w is sampled w / max times an epoch. With few epochs umap-learn keeps the edges of the default.
  const float most = max_weight(ctx, g);
  const float cutoff = most / static_cast<float>(s.schedule.n_epochs > 10 ? s.schedule.n_epochs : default_epochs(n));
  Csr<float> graph = prune(ctx, g, cutoff);
  const Matrix<float> start = start_positions(ctx, graph, o);

  // Cells by falling number of samples: the cells of a vector group have about the same number of steps.
  Array<double> samples(ctx.workspace, n, "umap expected samples");
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      samples[i] = 0;
      for (std::int64_t e = graph.indptr[i]; e < graph.indptr[i + 1]; ++e)
        samples[i] += static_cast<double>(graph.values[e]);
    }
  });
  s.order = Array<std::int32_t>(ctx.memory, n, "umap order");
  std::iota(s.order.begin(), s.order.end(), 0);
  std::stable_sort(s.order.begin(), s.order.end(),
                   [&](std::int32_t i, std::int32_t j) { return samples[i] > samples[j]; });
  Array<std::int32_t> place(ctx.workspace, n, "umap order");
  for (std::int64_t k = 0; k < n; ++k) place[s.order[k]] = static_cast<std::int32_t>(k);
  while (s.n_active < n && samples[s.order[s.n_active]] > 0) ++s.n_active;

  s.indptr = Array<std::int64_t>(ctx.memory, s.n_active + 1, "umap graph");
  s.indptr[0] = 0;
  for (std::int64_t k = 0; k < s.n_active; ++k)
    s.indptr[k + 1] = s.indptr[k] + graph.indptr[s.order[k] + 1] - graph.indptr[s.order[k]];
  s.targets = Array<std::int32_t>(ctx.memory, s.indptr[s.n_active], "umap graph");
  s.rates = Array<std::uint32_t>(ctx.memory, s.indptr[s.n_active], "umap graph");
  s.y = Array<float>(ctx.memory, checked_mul(n, o.n_components), "umap positions");
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t i = s.order[k];
      std::copy_n(start.data.data() + i * o.n_components, o.n_components, s.y.data() + k * o.n_components);
      if (k >= s.n_active) continue;
      // Strong edges first: what a weak edge to another cluster does is then seen by the cell's neighbours before their
      // pull undoes it, which is what moves clusters towards each other.
      std::vector<std::int64_t> by_weight(static_cast<std::size_t>(graph.indptr[i + 1] - graph.indptr[i]));
      std::iota(by_weight.begin(), by_weight.end(), graph.indptr[i]);
      std::stable_sort(by_weight.begin(), by_weight.end(),
                       [&](std::int64_t e, std::int64_t f) { return graph.values[e] > graph.values[f]; });
      std::int64_t to = s.indptr[k];
      for (const std::int64_t e : by_weight) {
        s.targets[to] = place[graph.indices[e]];
        const double rate = static_cast<double>(graph.values[e]) / static_cast<double>(most);
        s.rates[to++] = static_cast<std::uint32_t>(std::min(rate * 0x1.0p32, 4294967295.0));
      }
    }
  });
  if (caller.device != Device{}) {
    const auto upload = [&](auto& a) {
      using T = typename std::remove_reference_t<decltype(a)>::value_type;
      Array<T> there(caller.memory, a.size(), "umap graph", caller.stream);
      copy_bytes(caller, there.data(), caller.device, a.data(), Device{},
                 static_cast<std::size_t>(a.size()) * sizeof(T));
      a = std::move(there);
    };
    upload(s.indptr);
    upload(s.targets);
    upload(s.rates);
    upload(s.y);
    caller.synchronize();
  }
}

void UmapLayout::run(const Context& ctx, int until_epoch) {
  State& s = *state_;
  const int until = std::min(until_epoch, s.schedule.n_epochs);
  if (until <= s.epoch) return;
  SCW_EXPECT_AS(DeviceMismatch, ctx.device == s.y.device() || s.n_cells == 0, kOp,
                "the layout is on {}, the context on {}", to_string(s.y.device()), to_string(ctx.device));
  const UmapGraph graph{s.n_cells, s.n_active, std::as_const(s.indptr).view(), std::as_const(s.targets).view(),
                        std::as_const(s.rates).view()};
  umap_run_kernel(ctx, graph, s.schedule, s.epoch, until, s.y.view(), s.epoch);
}

int UmapLayout::epoch() const { return state_->epoch; }
int UmapLayout::n_epochs() const { return state_->schedule.n_epochs; }
double UmapLayout::a() const { return state_->a; }
double UmapLayout::b() const { return state_->b; }

Matrix<float> UmapLayout::embedding(const Context& ctx) const {
  const State& s = *state_;
  const std::int64_t dims = s.schedule.dims;
  Matrix<float> out(ctx.memory, s.n_cells, dims, "umap embedding", ctx.stream);
  const auto unpermute = [&](const float* y, float* to) {
    for (std::int64_t k = 0; k < s.n_cells; ++k) std::copy_n(y + k * dims, dims, to + std::int64_t{s.order[k]} * dims);
  };
  if (ctx.device == Device{}) {
    unpermute(s.y.data(), out.data.data());
    return out;
  }
  const Array<float> here = to_host<float>(ctx, s.y.view(), "umap positions");
  Array<float> ordered(host_memory(), here.size(), "umap positions");
  unpermute(here.data(), ordered.data());
  copy_bytes(ctx, out.data.data(), ctx.device, ordered.data(), Device{},
             static_cast<std::size_t>(here.size()) * sizeof(float));
  return out;
}

Umap umap(const Context& ctx, const CsrView<const float>& connectivities, const UmapOptions& options) {
  UmapLayout layout(ctx, connectivities, options);
  layout.run(ctx, layout.n_epochs());
  Umap out;
  out.embedding = layout.embedding(ctx);
  out.a = layout.a();
  out.b = layout.b();
  out.n_epochs = layout.n_epochs();
  return out;
}

}  // namespace scw::tl
