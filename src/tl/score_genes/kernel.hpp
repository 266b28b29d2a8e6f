#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/tl/score_genes.hpp"

namespace scw::tl {

/// What of a value counts.
enum class SetTerm : std::uint8_t {
  value,      ///< x
  not_nan,    ///< x, 0 for NaN
  nan_count,  ///< 1 for NaN, else 0
};

/// out[i] = sum over the columns j of row i with in_set[j] != 0 of the term of x_ij (in_set on ctx.device).
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, SetTerm, Span<double>)>
    set_sums_kernel;
/// out[i] = mean of row i over the genes of set 0 minus that over set 1: sums[i] as by set_sums, divided by the sizes.
/// sets[j]: bit s set if gene j is in set s (on ctx.device, as out).
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, double size_0, double size_1,
                           Span<double>)>
    set_scores_kernel;
/// out[j] = number of NaN values of gene j; out on the host.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<std::int64_t>)> count_nan_kernel;

}  // namespace scw::tl
