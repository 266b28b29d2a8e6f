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

}  // namespace scw::pp
