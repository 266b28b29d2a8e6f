#include "scwarp/tl/umap.hpp"

#include <algorithm>
#include <cmath>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "tl/umap/kernel.hpp"
#include "tl/umap/spectral.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const UmapGraph&, const UmapSchedule&, int, int, Span<float>, int&)>
    umap_run_kernel{"tl.umap"};
constinit Kernel<void(const Context&, const CsrView<const float>&, UmapWeights&)> umap_weights_kernel{
    "tl.umap: weights"};
constinit Kernel<void(const Context&, const CsrView<const float>&, Csr<float>&)> umap_average_kernel{
    "tl.umap: average"};
constinit Kernel<void(const Context&, const CsrView<const float>&, float, Csr<float>&)> umap_prune_kernel{
    "tl.umap: prune"};
constinit Kernel<void(const Context&, UmapStart&, Matrix<float>&)> umap_start_kernel{"tl.umap: start"};
constinit Kernel<void(const Context&, const CsrView<const float>&, float, const MatrixView<const float>&, UmapOrder&)>
    umap_order_kernel{"tl.umap: order"};
constinit Kernel<void(const Context&, Span<const std::int32_t>, Span<const float>, const MatrixView<float>&)>
    umap_unorder_kernel{"tl.umap: result"};

namespace {

constexpr const char* kOp = "tl.umap";
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

/// DataError if a weight is negative or not finite.
UmapWeights check_weights(const Context& ctx, const CsrView<const float>& g) {
  UmapWeights weights;
  umap_weights_kernel(ctx, g, weights);
  if (weights.bad >= 0) {
    const auto indptr = to_host<std::int64_t>(ctx, g.indptr);
    const std::int64_t row = std::upper_bound(indptr.begin(), indptr.end(), weights.bad) - indptr.begin() - 1;
    SCW_EXPECT_AS(DataError, weights.bad < 0, kOp,
                  "connectivities must be finite and not negative (got {} between cells {} and {})",
                  to_host<float>(ctx, g.values.subspan(weights.bad, 1))[0], row,
                  to_host<std::int32_t>(ctx, g.indices.subspan(weights.bad, 1))[0]);
  }
  return weights;
}

Matrix<float> start_positions(const Context& ctx, const CsrView<const float>& graph, const UmapOptions& o) {
  Matrix<float> y;
  if (o.init == UmapInit::spectral) {
    Context inner = ctx;
    inner.rng = ctx.rng.fold(kSpectralTag);
    y = spectral_layout(inner, graph, o.n_components);
  } else {
    y = Matrix<float>(ctx.workspace, graph.n_rows, o.n_components, "umap start", ctx.stream);
  }
  UmapStart start{o.init, ctx.rng.fold(kRandomTag), ctx.rng.fold(kNoiseTag), o.init_positions, -1};
  if (graph.n_rows > 0) umap_start_kernel(ctx, start, y);
  if (start.bad >= 0) {
    const std::int64_t row = start.bad / o.n_components;
    const std::int64_t column = start.bad % o.n_components;
    const auto v = to_host<float>(ctx, Span<const float>(o.init_positions.row(row) + column, 1));
    SCW_EXPECT_AS(DataError, start.bad < 0, kOp, "init_positions must be finite (got {} at row {}, column {})", v[0],
                  row, column);
  }
  return y;
}

}  // namespace

struct UmapLayout::State {
  std::int64_t n_cells = 0;
  UmapOrder layout;  // y: where the cells are now
  UmapSchedule schedule;
  double a = 0, b = 0;
  int epoch = 0;
  bool symmetric = true;
};

UmapLayout::UmapLayout(UmapLayout&&) noexcept = default;
UmapLayout& UmapLayout::operator=(UmapLayout&&) noexcept = default;
UmapLayout::~UmapLayout() = default;

UmapLayout::UmapLayout(const Context& ctx, const CsrView<const float>& g, const UmapOptions& o)
    : state_(std::make_unique<State>()) {
  check(g, o);
  State& s = *state_;
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
  if (n == 0) return;

  // An edge of weight w is sampled w / max times an epoch. With few epochs umap-learn keeps the edges of the default.
  UmapWeights weights = check_weights(ctx, g);
  s.symmetric = weights.symmetric;
  CsrView<const float> graph = g;
  Csr<float> own;  // what the layout is made from, where that is not g
  if (!s.symmetric) {
    umap_average_kernel(ctx, g, own);
    graph = std::as_const(own).view();
    weights = check_weights(ctx, graph);
  }
  const float cutoff =
      weights.most / static_cast<float>(s.schedule.n_epochs > 10 ? s.schedule.n_epochs : default_epochs(n));
  Csr<float> pruned;
  umap_prune_kernel(ctx, graph, cutoff, pruned);
  if (!pruned.indptr.empty()) {
    own = std::move(pruned);
    graph = std::as_const(own).view();
  }
  const Matrix<float> start = start_positions(ctx, graph, o);
  umap_order_kernel(ctx, graph, weights.most, start.view(), s.layout);
}

void UmapLayout::run(const Context& ctx, int until_epoch) {
  State& s = *state_;
  const int until = std::min(until_epoch, s.schedule.n_epochs);
  if (until <= s.epoch) return;
  if (s.n_cells == 0) {
    s.epoch = until;
    return;
  }
  SCW_EXPECT_AS(DeviceMismatch, ctx.device == s.layout.y.device(), kOp, "the layout is on {}, the context on {}",
                to_string(s.layout.y.device()), to_string(ctx.device));
  const UmapGraph graph{s.n_cells, s.layout.n_active, std::as_const(s.layout.indptr).view(),
                        std::as_const(s.layout.targets).view(), std::as_const(s.layout.rates).view()};
  umap_run_kernel(ctx, graph, s.schedule, s.epoch, until, s.layout.y.view(), s.epoch);
}

int UmapLayout::epoch() const { return state_->epoch; }
int UmapLayout::n_epochs() const { return state_->schedule.n_epochs; }
double UmapLayout::a() const { return state_->a; }
double UmapLayout::b() const { return state_->b; }
bool UmapLayout::symmetric() const { return state_->symmetric; }

Matrix<float> UmapLayout::embedding(const Context& ctx) const {
  const State& s = *state_;
  Matrix<float> out(ctx.memory, s.n_cells, s.schedule.dims, "umap embedding", ctx.stream);
  if (s.n_cells > 0) umap_unorder_kernel(ctx, s.layout.order.view(), s.layout.y.view(), out.view());
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
  out.symmetric = layout.symmetric();
  return out;
}

}  // namespace scw::tl
