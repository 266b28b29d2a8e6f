#include "scwarp/pp/calculate_qc_metrics.hpp"

#include "core/check.hpp"
#include "pp/calculate_qc_metrics/kernel.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, const QcOptions&, QcMetrics&)> qc_metrics_kernel{
    "pp.calculate_qc_metrics"};
constinit Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> cell_counts_kernel{"pp.filter_cells"};
constinit Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> gene_counts_kernel{"pp.filter_genes"};

namespace {

constexpr const char* kOp = "pp.calculate_qc_metrics";

AxisCounts make_counts(const Context& ctx, std::int64_t n) {
  AxisCounts c;
  c.total = Array<double>(ctx.memory, n, "totals", ctx.stream);
  c.n_positive = Array<std::int32_t>(ctx.memory, n, "expressed", ctx.stream);
  return c;
}

}  // namespace

QcMetrics calculate_qc_metrics(const Context& ctx, const AnyMatrixView& x, const QcOptions& options) {
  const std::int64_t cells = n_rows(x), genes = n_cols(x);
  for (const auto& family : options.families)
    SCW_EXPECT_AS(ShapeMismatch, family.size == genes, kOp, "a gene family has {} flags, expected {} (genes)",
                  family.size, genes);
  for (const std::int64_t top : options.percent_top)
    SCW_EXPECT(top >= 1 && top <= genes, kOp, "percent_top must be from 1 to the number of genes, {} (got {})", genes,
               top);
  QcMetrics out;
  out.n_genes = Array<std::int32_t>(ctx.memory, cells, "qc: n_genes", ctx.stream);
  out.total = Array<double>(ctx.memory, cells, "qc: total", ctx.stream);
  for (std::size_t i = 0; i < options.families.size(); ++i)
    out.family_total.emplace_back(ctx.memory, cells, "qc: family total", ctx.stream);
  for (std::size_t i = 0; i < options.percent_top.size(); ++i)
    out.pct_top.emplace_back(ctx.memory, cells, "qc: pct_top", ctx.stream);
  out.n_cells = Array<std::int32_t>(ctx.memory, genes, "qc: n_cells", ctx.stream);
  out.gene_total = Array<double>(ctx.memory, genes, "qc: gene total", ctx.stream);
  qc_metrics_kernel(ctx, x, options, out);
  return out;
}

AxisCounts cell_counts(const Context& ctx, const AnyMatrixView& x) {
  AxisCounts out = make_counts(ctx, n_rows(x));
  cell_counts_kernel(ctx, x, out);
  return out;
}

AxisCounts gene_counts(const Context& ctx, const AnyMatrixView& x) {
  AxisCounts out = make_counts(ctx, n_cols(x));
  gene_counts_kernel(ctx, x, out);
  return out;
}

}  // namespace scw::pp
