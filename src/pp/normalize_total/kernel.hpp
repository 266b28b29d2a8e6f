#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/normalize_total.hpp"

namespace scw::pp {

/// out[i] = sum of row i without the genes whose flag is set (no flags: all genes).
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, Span<double>)>
    row_totals_kernel;
/// flags[j] = 1 if x_ij > max_fraction * totals[i] for any i; flags come zeroed.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<const double>, double, Span<std::uint8_t>)>
    dominant_genes_kernel;
/// x_ij <- x_ij * (target / counts[i]) where counts[i] > 0.
extern SCW_API Kernel<void(const Context&, const AnyMutableMatrixView&, Span<const double>, double)> scale_rows_kernel;
/// row_totals and scale_rows in one pass over x, for a target that is known: counts are written.
extern SCW_API Kernel<void(const Context&, const AnyMutableMatrixView&, double, Span<double>)> normalize_rows_kernel;

struct PositiveCounts {
  std::int64_t n = 0;  // entries > 0
  double median = 1;   // numpy.median of them; 1 if there is none or it was not asked for
};
/// What a driver needs to know of the counts; the flag asks for the median.
extern SCW_API Kernel<void(const Context&, Span<const double>, bool, PositiveCounts&)> positive_counts_kernel;

}  // namespace scw::pp
