#include "scwarp/pp/calculate_qc_metrics.hpp"

#include <algorithm>
#include <vector>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/transfer.hpp"
#include "pp/calculate_qc_metrics/kernel.hpp"
#include "prim/group_moments/group_moments.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, const QcOptions&, QcMetrics&)> qc_metrics_kernel{
    "pp.calculate_qc_metrics"};
constinit Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> cell_counts_kernel{"pp.filter_cells"};
constinit Kernel<void(const Context&, const AnyMatrixView&, AxisCounts&)> gene_counts_kernel{"pp.filter_genes"};

SCW_BUILT_ON("pp.calculate_qc_metrics", "prim.group_moments");

namespace {

constexpr const char* kOp = "pp.calculate_qc_metrics";

/// The numbers of a streamed block of rows, put where they belong.
template <class T>
void place(const Context& ctx, const Array<T>& part, std::int64_t first, Array<T>& whole) {
  copy_bytes(ctx, whole.data() + first, ctx.device, part.data(), ctx.device,
             static_cast<std::size_t>(part.size()) * sizeof(T));
}

/// Sums and counts of genes over blocks, on the host. Sums of whole numbers add up exactly, in any cutting. For other
/// values the integers behind the sums need one scale for all blocks, from the largest value of the matrix: two more
/// passes.
class GeneSums {
 public:
  explicit GeneSums(std::int64_t genes)
      : total_(static_cast<std::size_t>(genes), 0.0), count_(static_cast<std::size_t>(genes), 0) {}
  void add(const Context& ctx, const Array<double>& total, const Array<std::int32_t>& count, bool whole_numbers) {
    whole_numbers_ = whole_numbers_ && whole_numbers;
    const Array<double> t = to_host<double>(ctx, total.view());
    const Array<std::int32_t> c = to_host<std::int32_t>(ctx, count.view());
    for (std::size_t j = 0; j < total_.size(); ++j) {
      total_[j] += t[static_cast<std::int64_t>(j)];
      count_[j] += c[static_cast<std::int64_t>(j)];
    }
  }
  bool whole_numbers() const { return whole_numbers_; }
  void put(const Context& ctx, const RowBlocks& x, Array<double>& total, Array<std::int32_t>& count) {
    if (!whole_numbers_) add_fixed(ctx, x);
    copy_bytes(ctx, total.data(), ctx.device, total_.data(), Device{}, total_.size() * sizeof(double));
    copy_bytes(ctx, count.data(), ctx.device, count_.data(), Device{}, count_.size() * sizeof(std::int32_t));
  }

 private:
  void add_fixed(const Context& ctx, const RowBlocks& x) {
    prim::GeneScales scales = prim::gene_scales(ctx, x, {}, false);
    prim::FixedScale coarsest = scales.scale[0];
    for (const prim::FixedScale& s : scales.scale)
      if (s.shift < coarsest.shift) coarsest = s;
    std::fill(scales.scale.begin(), scales.scale.end(), coarsest);
    const prim::GroupMoments m = prim::group_moments(ctx, x, {}, 0, 1, {}, scales, false);
    for (std::size_t j = 0; j < total_.size(); ++j) {
      const auto gene = static_cast<std::int64_t>(j);
      total_[j] = prim::fixed_sum_with_flags(prim::fixed_sum(m.at(0, gene).sum, coarsest), m.flag_at(0, gene));
    }
  }

  bool whole_numbers_ = true;
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

QcMetrics calculate_qc_metrics(const Context& ctx, const RowBlocks& x, const QcOptions& options) {
  const std::int64_t cells = x.n_rows(), genes = x.n_cols();
  for (const auto& family : options.families)
    SCW_EXPECT_AS(ShapeMismatch, family.size == genes, kOp, "a gene family has {} flags, expected {} (genes)",
                  family.size, genes);
  for (const std::int64_t top : options.percent_top)
    SCW_EXPECT(top >= 1 && top <= genes, kOp, "percent_top must be from 1 to the number of genes, {} (got {})", genes,
               top);
  QcMetrics out = make_metrics(ctx, cells, genes, options);
  if (const AnyMatrixView* const all = x.whole(ctx)) {
    qc_metrics_kernel(ctx, *all, options, out);
    return out;
  }
  GeneSums sums(genes);
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& rows) {
    QcMetrics part = make_metrics(ctx, n_rows(rows), genes, options);
    qc_metrics_kernel(ctx, rows, options, part);
    place(ctx, part.n_genes, first, out.n_genes);
    place(ctx, part.total, first, out.total);
    for (std::size_t f = 0; f < part.family_total.size(); ++f)
      place(ctx, part.family_total[f], first, out.family_total[f]);
    for (std::size_t t = 0; t < part.pct_top.size(); ++t) place(ctx, part.pct_top[t], first, out.pct_top[t]);
    sums.add(ctx, part.gene_total, part.n_cells, part.whole_numbers);
  });
  sums.put(ctx, x, out.gene_total, out.n_cells);
  out.whole_numbers = sums.whole_numbers();
  return out;
}

QcMetrics calculate_qc_metrics(const Context& ctx, const AnyMatrixView& x, const QcOptions& options) {
  return calculate_qc_metrics(ctx, ResidentBlocks(x), options);
}

AxisCounts cell_counts(const Context& ctx, const RowBlocks& x) {
  AxisCounts out = make_counts(ctx, x.n_rows());
  if (const AnyMatrixView* const all = x.whole(ctx)) {
    cell_counts_kernel(ctx, *all, out);
    return out;
  }
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& rows) {
    AxisCounts part = make_counts(ctx, n_rows(rows));
    cell_counts_kernel(ctx, rows, part);
    place(ctx, part.total, first, out.total);
    place(ctx, part.n_positive, first, out.n_positive);
  });
  return out;
}

AxisCounts cell_counts(const Context& ctx, const AnyMatrixView& x) { return cell_counts(ctx, ResidentBlocks(x)); }

AxisCounts gene_counts(const Context& ctx, const RowBlocks& x) {
  AxisCounts out = make_counts(ctx, x.n_cols());
  if (const AnyMatrixView* const all = x.whole(ctx)) {
    gene_counts_kernel(ctx, *all, out);
    return out;
  }
  GeneSums sums(x.n_cols());
  x.for_each(ctx, [&](std::int64_t, const AnyMatrixView& rows) {
    AxisCounts part = make_counts(ctx, n_cols(rows));
    gene_counts_kernel(ctx, rows, part);
    sums.add(ctx, part.total, part.n_positive, part.whole_numbers);
  });
  sums.put(ctx, x, out.total, out.n_positive);
  return out;
}

AxisCounts gene_counts(const Context& ctx, const AnyMatrixView& x) { return gene_counts(ctx, ResidentBlocks(x)); }

}  // namespace scw::pp
