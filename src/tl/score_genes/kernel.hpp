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
/// out[j] = number of NaN values of gene j.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Span<std::int64_t>)> count_nan_kernel;

}  // namespace scw::tl
