#include "scwarp/tl/leiden.hpp"

#include <cmath>

#include "core/check.hpp"
#include "tl/leiden/graph.hpp"
#include "tl/leiden/kernel.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const AnyCsrView&, Span<const double>, const LeidenOptions&, Span<Leiden>)>
    leiden_kernel{"tl.leiden"};

namespace {

constexpr const char* kOp = "tl.leiden";

void check_graph_shape(const char* op, const AnyCsrView& graph) {
  std::visit(
      [&](const auto& g) {
        SCW_EXPECT_AS(ShapeMismatch, g.n_rows == g.n_cols, op, "the graph must be square (got {} x {})", g.n_rows,
                      g.n_cols);
      },
      graph);
}

void check_resolution(const char* op, double resolution) {
  SCW_EXPECT(resolution >= 0 && resolution <= 1e6, op, "resolution must be in [0, 1e6] (got {})", resolution);
}

}  // namespace

std::vector<Leiden> leiden(const Context& ctx, const AnyCsrView& graph, Span<const double> resolutions,
                           const LeidenOptions& options) {
  check_graph_shape(kOp, graph);
  for (const double r : resolutions) check_resolution(kOp, r);
  const std::int64_t n = std::visit([](const auto& g) { return g.n_rows; }, graph);
  SCW_EXPECT(n <= kMaxVertices, kOp, "the graph has too many vertices (got {}, expected up to {})", n, kMaxVertices);
  SCW_EXPECT(options.n_iterations == -1 || options.n_iterations > 0, kOp,
             "n_iterations must be positive or -1 (got {})", options.n_iterations);
  SCW_EXPECT(options.theta > 0 && std::isfinite(options.theta), kOp, "theta must be positive and finite (got {})",
             options.theta);
  SCW_EXPECT(options.n_starts >= 0, kOp, "n_starts must not be negative (got {})", options.n_starts);
  std::vector<Leiden> out(static_cast<std::size_t>(resolutions.size));
  leiden_kernel(ctx, graph, resolutions, options, Span<Leiden>(out));
  return out;
}

Leiden leiden(const Context& ctx, const AnyCsrView& graph, const LeidenOptions& options) {
  return std::move(leiden(ctx, graph, Span<const double>(&options.resolution, 1), options).front());
}

double modularity(const Context& ctx, const AnyCsrView& graph, Span<const std::int32_t> labels, double resolution,
                  bool use_weights) {
  constexpr const char* op = "tl.modularity";
  SCW_EXPECT_AS(NotSupported, ctx.device.type == DeviceType::cpu, op,
                "host data and a CPU context are expected (got a context on {})", to_string(ctx.device));
  check_graph_shape(op, graph);
  check_resolution(op, resolution);
  const std::int64_t n = std::visit([](const auto& g) { return g.n_rows; }, graph);
  SCW_EXPECT_AS(ShapeMismatch, labels.size == n, op, "labels must have one entry a vertex (got {}, expected {})",
                labels.size, n);
  std::int32_t n_labels = 0;
  for (const std::int32_t c : labels) {
    SCW_EXPECT(c >= 0 && c < n, op, "labels must be in [0, {}) (got {})", n, c);
    n_labels = std::max(n_labels, c + 1);
  }
  const UndirectedGraph undirected(ctx.host(), op, graph, use_weights);
  return undirected.modularity(ctx.host(), labels, n_labels, resolution);
}

}  // namespace scw::tl
