#include "scwarp/pp/normalize_pearson_residuals.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/transfer.hpp"
#include "pp/gene_moments/kernel.hpp"
#include "pp/normalize_pearson_residuals/blocks.hpp"
#include "pp/normalize_total/kernel.hpp"
#include "prim/dense_by_blocks.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, const PearsonModel&, const AnyMutableDenseView&)>
    pearson_residuals_kernel{"pp.normalize_pearson_residuals"};

SCW_BUILT_ON("pp.normalize_pearson_residuals", "pp.gene_moments");

namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{16} << 20;       // stays in the cache
constexpr std::int64_t kCudaBlockBytes = std::int64_t{512} << 20;  // fills the chip

}  // namespace

PearsonSums pearson_sums(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> groups, std::int32_t n_groups,
                         const PearsonResidualsOptions& options, const char* op) {
  SCW_EXPECT(options.theta > 0, op, "theta must be positive (got {})", options.theta);
  SCW_EXPECT(!options.clip || *options.clip >= 0, op, "clip must not be negative (got {})", options.clip.value_or(0));
  GeneMomentsOptions g;
  g.groups = groups;
  g.n_groups = n_groups;
  const GeneSums sums = gene_sums(ctx, x, g, op);
  PearsonSums out;
  out.counts = sums.counts;
  const std::int64_t genes = x.n_cols();
  const auto host = ctx.host().workspace;
  Matrix<double> gene_sum(host, n_groups, genes, "gene sums");
  std::vector<double> total(static_cast<std::size_t>(n_groups), 0.0), clip(total);
  for (std::int32_t b = 0; b < n_groups; ++b) {
    for (std::int64_t j = 0; j < genes; ++j) {
      const auto k = static_cast<std::size_t>(j);
      SCW_EXPECT_AS(DataError, sums.finite[k] != 0, op, "gene {} has a value that is not finite", j);
      gene_sum.view()(b, j) = prim::fixed_sum(sums.sums[b * genes + j].sum, sums.scale[k]);
      total[static_cast<std::size_t>(b)] += gene_sum.view()(b, j);
    }
    const auto n = static_cast<double>(sums.n_rows[static_cast<std::size_t>(b)]);
    clip[static_cast<std::size_t>(b)] = options.clip.value_or(std::sqrt(n));
  }
  out.first_clip = clip[0];

  Array<double> row_sum(ctx.workspace, x.n_rows(), "row sums", ctx.stream);
  const auto add = [&](std::int64_t first, const AnyMatrixView& block) {
    row_totals_kernel(ctx, block, {}, row_sum.view().subspan(first, scw::n_rows(block)));
  };
  x.for_each(ctx, add, RowParts::values);
  Array<double> share = to_host<double>(ctx, std::as_const(row_sum).view());
  const Array<std::int32_t> codes = to_host<std::int32_t>(ctx, groups);
  for (std::int64_t i = 0; i < share.size(); ++i) {
    const std::int32_t b = codes.empty() ? 0 : codes[i];
    share[i] = b >= 0 && b < n_groups ? share[i] / total[static_cast<std::size_t>(b)] : 0.0;
  }
  if (ctx.device.type == DeviceType::cpu) {
    out.row_share = std::move(share);
    out.gene_sums = std::move(gene_sum);
    out.clip = Array<double>(ctx.workspace, n_groups, "clip");
    std::copy(clip.begin(), clip.end(), out.clip.begin());
    return out;
  }
  out.row_share = to_device<double>(ctx, std::as_const(share).view());
  out.gene_sums = Matrix<double>(ctx.workspace, n_groups, genes, "gene sums", ctx.stream);
  copy_bytes(ctx, out.gene_sums.data.data(), ctx.device, gene_sum.data.data(), Device{},
             static_cast<std::size_t>(gene_sum.data.size()) * sizeof(double));
  out.clip = to_device<double>(ctx, Span<const double>(clip));
  return out;
}

void PearsonBlocks::visit(const Context& ctx, RowParts, const Body& body) const {
  const std::int64_t genes = x_.n_cols();
  const std::int64_t bytes = ctx.device.type == DeviceType::cpu ? kBlockBytes : kCudaBlockBytes;
  const std::int64_t rows = std::max<std::int64_t>(64, bytes / std::max<std::int64_t>(1, genes * 8));
  Matrix<double> buffer(ctx.workspace, std::min(rows, x_.n_rows()), genes, "residuals", ctx.stream);
  x_.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    for (std::int64_t i = 0; i < scw::n_rows(block); i += rows) {
      const std::int64_t n = std::min(rows, scw::n_rows(block) - i);
      const MatrixView<double> to(buffer.data.data(), n, genes);
      pearson_residuals_kernel(ctx, prim::rows_of(block, i, n),
                               PearsonModel{sums_.row_share.view().subspan(first + i, n),
                                            groups_.empty() ? groups_ : groups_.subspan(first + i, n),
                                            sums_.gene_sums.view(), sums_.clip.view(), 1.0 / theta_, true},
                               to);
      body(first + i, MatrixView<const double>(to));
    }
  });
}

PearsonResiduals normalize_pearson_residuals(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out,
                                             const PearsonResidualsOptions& options) {
  const PearsonSums sums = pearson_sums(ctx, x, {}, 1, options, "pp.normalize_pearson_residuals");
  const auto make = [&](const AnyMatrixView& rows, std::int64_t first, const auto& to) {
    const auto share = sums.row_share.view().subspan(first, to.n_rows);
    const PearsonModel model{share, {}, sums.gene_sums.view(), sums.clip.view(), 1.0 / options.theta, false};
    pearson_residuals_kernel(ctx, rows, model, to);
  };
  out = prim::dense_by_blocks(ctx, x, x.n_cols(), "residuals", make);
  return {sums.first_clip, sums.counts};
}

PearsonResiduals normalize_pearson_residuals(const Context& ctx, const AnyMatrixView& x, AnyDenseMatrix& out,
                                             const PearsonResidualsOptions& options) {
  return normalize_pearson_residuals(ctx, ResidentBlocks(x), out, options);
}

}  // namespace scw::pp
