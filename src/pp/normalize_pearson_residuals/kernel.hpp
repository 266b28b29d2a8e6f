#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/normalize_pearson_residuals.hpp"
#include "scwarp/pp/regress_out.hpp"

namespace scw::pp {

/// Everything on ctx.device. Rows of the block have group 0 where `groups` is empty.
struct PearsonModel {
  Span<const double> row_share;        // [rows of the block] row sum / total of its group
  Span<const std::int32_t> groups;     // [rows of the block] or empty
  MatrixView<const double> gene_sums;  // [n_groups x n_cols]
  Span<const double> clip;             // [n_groups]
  double inverse_theta;
  bool zero_for_nan;  // what cells and genes without counts give
};

/// out (dense) <- residuals of a block.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, const PearsonModel&, const AnyMutableDenseView& out)>
    pearson_residuals_kernel;

}  // namespace scw::pp
