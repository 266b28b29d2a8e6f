#include "scwarp/pp/normalize_total.hpp"

#include <cmath>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "pp/normalize_total/kernel.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, Span<double>)> row_totals_kernel{
    "pp.normalize_total: row_totals"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const double>, double, Span<std::uint8_t>)>
    dominant_genes_kernel{"pp.normalize_total: dominant_genes"};
constinit Kernel<void(const Context&, const AnyMutableMatrixView&, Span<const double>, double)> scale_rows_kernel{
    "pp.normalize_total: scale_rows"};
constinit Kernel<void(const Context&, const AnyMutableMatrixView&, double, Span<double>)> normalize_rows_kernel{
    "pp.normalize_total: normalize_rows"};
constinit Kernel<void(const Context&, Span<const double>, bool, PositiveCounts&)> positive_counts_kernel{
    "pp.normalize_total: positive_counts"};

namespace {

constexpr const char* kOp = "pp.normalize_total";

void check(const NormalizeTotalOptions& options) {
  SCW_EXPECT(!options.target_sum || (*options.target_sum > 0 && std::isfinite(*options.target_sum)), kOp,
             "target_sum must be positive and finite (got {})", options.target_sum.value_or(0));
  SCW_EXPECT(!options.exclude_highly_expressed || (options.max_fraction >= 0 && options.max_fraction <= 1), kOp,
             "max_fraction must be in [0, 1] (got {})", options.max_fraction);
}

/// target_sum and n_empty, from the counts.
void finish(const Context& ctx, const NormalizeTotalOptions& options, NormalizeTotal& out) {
  PositiveCounts positive;
  positive_counts_kernel(ctx, std::as_const(out.counts).view(), !options.target_sum, positive);
  out.n_empty = out.counts.size() - positive.n;
  out.target_sum = options.target_sum.value_or(positive.median);
}

}  // namespace

NormalizeTotal size_factors(const Context& ctx, const RowBlocks& x, const NormalizeTotalOptions& options) {
  check(options);
  NormalizeTotal out;
  out.counts = Array<double>(ctx.memory, x.n_rows(), "size factors", ctx.stream);
  const auto totals = [&](Span<const std::uint8_t> excluded) {
    const RowParts parts = excluded.empty() ? RowParts::values : RowParts::all;
    const auto add = [&](std::int64_t first, const AnyMatrixView& rows) {
      row_totals_kernel(ctx, rows, excluded, out.counts.view().subspan(first, n_rows(rows)));
    };
    x.for_each(ctx, add, parts);
  };
  totals({});
  if (options.exclude_highly_expressed) {
    out.gene_excluded = Array<std::uint8_t>(host_memory(), x.n_cols(), "excluded genes");
    std::fill(out.gene_excluded.begin(), out.gene_excluded.end(), std::uint8_t{0});
    auto flags = to_device<std::uint8_t>(ctx, out.gene_excluded.view());
    x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& rows) {
      const auto counts = std::as_const(out.counts).view().subspan(first, n_rows(rows));
      dominant_genes_kernel(ctx, rows, counts, options.max_fraction, flags.view());
    });
    totals(std::as_const(flags).view());
    out.gene_excluded = to_host<std::uint8_t>(ctx, std::as_const(flags).view());
  }
  finish(ctx, options, out);
  return out;
}

NormalizeTotal size_factors(const Context& ctx, const AnyMatrixView& x, const NormalizeTotalOptions& options) {
  return size_factors(ctx, ResidentBlocks(x), options);
}

NormalizeTotal normalize_total(const Context& ctx, const AnyMutableMatrixView& x,
                               const NormalizeTotalOptions& options) {
  if (options.target_sum && !options.exclude_highly_expressed) {
    check(options);
    NormalizeTotal out;
    out.counts = Array<double>(ctx.memory, n_rows(as_const(x)), "size factors", ctx.stream);
    stream_rows(ctx, x, RowParts::values, [&](std::int64_t first, const AnyMutableMatrixView& rows) {
      const auto counts = out.counts.view().subspan(first, n_rows(as_const(rows)));
      normalize_rows_kernel(ctx, rows, *options.target_sum, counts);
    });
    finish(ctx, options, out);
    return out;
  }
  NormalizeTotal out = size_factors(ctx, as_const(x), options);
  stream_rows(ctx, x, RowParts::values, [&](std::int64_t first, const AnyMutableMatrixView& rows) {
    const auto counts = std::as_const(out.counts).view().subspan(first, n_rows(as_const(rows)));
    scale_rows_kernel(ctx, rows, counts, out.target_sum);
  });
  return out;
}

}  // namespace scw::pp
