#include "scwarp/pp/calculate_qc_metrics.hpp"

#include <cmath>
#include <vector>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "pp/calculate_qc_metrics/kernel.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, const QcOptions&, QcMetrics&)> qc_metrics_kernel{
    "pp.calculate_qc_metrics"};
constinit Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> cell_counts_kernel{"pp.filter_cells"};
constinit Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> gene_counts_kernel{"pp.filter_genes"};

namespace {

constexpr const char* kOp = "pp.calculate_qc_metrics";

/// The numbers of a streamed block of rows, put where they belong.
template <class T>
void place(const Context& ctx, const Array<T>& part, std::int64_t first, Array<T>& whole) {
  copy_bytes(ctx, whole.data() + first, ctx.device, part.data(), ctx.device,
             static_cast<std::size_t>(part.size()) * sizeof(T));
}

/// Sums and counts of genes over streamed blocks. Whole numbers below 2^53 add up exactly, in any cutting; other sums
/// would depend on the blocks, because the integers behind them have a scale for each block.
class GeneSums {
 public:
  GeneSums(const char* op, std::int64_t genes)
      : op_(op), total_(static_cast<std::size_t>(genes), 0.0), count_(static_cast<std::size_t>(genes), 0) {}
  void add(const Context& ctx, const Array<double>& total, const Array<std::int32_t>& count) {
    const Array<double> t = to_host<double>(ctx, total.view());
    const Array<std::int32_t> c = to_host<std::int32_t>(ctx, count.view());
    for (std::size_t j = 0; j < total_.size(); ++j) {
      const double value = t[static_cast<std::int64_t>(j)];
      total_[j] += value;
      count_[j] += c[static_cast<std::int64_t>(j)];
      SCW_EXPECT_AS(NotSupported, value == std::floor(value) && std::abs(total_[j]) < 0x1p53, op_,
                    "a matrix that is streamed must hold counts (gene {} has a total of {}): raise the memory limit so "
                    "that it fits, or use device='cpu'",
                    j, value);
    }
  }
  void put(const Context& ctx, Array<double>& total, Array<std::int32_t>& count) const {
    copy_bytes(ctx, total.data(), ctx.device, total_.data(), Device{}, total_.size() * sizeof(double));
    copy_bytes(ctx, count.data(), ctx.device, count_.data(), Device{}, count_.size() * sizeof(std::int32_t));
  }

 private:
  const char* op_;
  std::vector<double> total_;
  std::vector<std::int32_t> count_;
};

QcMetrics make_metrics(const Context& ctx, std::int64_t cells, std::int64_t genes, const QcOptions& options) {
  QcMetrics out;
  out.n_genes = Array<std::int32_t>(ctx.memory, cells, "qc: n_genes", ctx.stream);
  out.total = Array<double>(ctx.memory, cells, "qc: total", ctx.stream);
  for (std::size_t i = 0; i < options.families.size(); ++i)
    out.family_total.emplace_back(ctx.memory, cells, "qc: family total", ctx.stream);
  for (std::size_t i = 0; i < options.percent_top.size(); ++i)
    out.pct_top.emplace_back(ctx.memory, cells, "qc: pct_top", ctx.stream);
  out.n_cells = Array<std::int32_t>(ctx.memory, genes, "qc: n_cells", ctx.stream);
  out.gene_total = Array<double>(ctx.memory, genes, "qc: gene total", ctx.stream);
  return out;
}

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
  QcMetrics out = make_metrics(ctx, cells, genes, options);
  if (is_resident(ctx, x)) {
    qc_metrics_kernel(ctx, x, options, out);
    return out;
  }
  GeneSums sums(kOp, genes);
  stream_rows(ctx, x, RowParts::all, [&](std::int64_t first, const AnyMatrixView& rows) {
    QcMetrics part = make_metrics(ctx, n_rows(rows), genes, options);
    qc_metrics_kernel(ctx, rows, options, part);
    place(ctx, part.n_genes, first, out.n_genes);
    place(ctx, part.total, first, out.total);
    for (std::size_t f = 0; f < part.family_total.size(); ++f)
      place(ctx, part.family_total[f], first, out.family_total[f]);
    for (std::size_t t = 0; t < part.pct_top.size(); ++t) place(ctx, part.pct_top[t], first, out.pct_top[t]);
    sums.add(ctx, part.gene_total, part.n_cells);
  });
  sums.put(ctx, out.gene_total, out.n_cells);
  return out;
}

AxisCounts cell_counts(const Context& ctx, const AnyMatrixView& x) {
  AxisCounts out = make_counts(ctx, n_rows(x));
  if (is_resident(ctx, x)) {
    cell_counts_kernel(ctx, x, out);
    return out;
  }
  stream_rows(ctx, x, RowParts::all, [&](std::int64_t first, const AnyMatrixView& rows) {
    AxisCounts part = make_counts(ctx, n_rows(rows));
    cell_counts_kernel(ctx, rows, part);
    place(ctx, part.total, first, out.total);
    place(ctx, part.n_positive, first, out.n_positive);
  });
  return out;
}

AxisCounts gene_counts(const Context& ctx, const AnyMatrixView& x) {
  AxisCounts out = make_counts(ctx, n_cols(x));
  if (is_resident(ctx, x)) {
    gene_counts_kernel(ctx, x, out);
    return out;
  }
  GeneSums sums("pp.filter_genes", n_cols(x));
  stream_rows(ctx, x, RowParts::all, [&](std::int64_t, const AnyMatrixView& rows) {
    AxisCounts part = make_counts(ctx, n_cols(rows));
    gene_counts_kernel(ctx, rows, part);
    sums.add(ctx, part.total, part.n_positive);
  });
  sums.put(ctx, out.total, out.n_positive);
  return out;
}

}  // namespace scw::pp
