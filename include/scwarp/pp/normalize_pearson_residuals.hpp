// Kind: driver over a shared body. Determinism tier A.
#pragma once

#include <optional>

#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"
#include "scwarp/pp/scale.hpp"

namespace scw::pp {

struct PearsonResidualsOptions {
  /// Overdispersion of the negative binomial model, shared by all genes; > 0, infinity for Poisson.
  double theta = 100;
  /// Residuals are clipped to [-clip, clip]; >= 0. Unset: square root of the number of cells.
  std::optional<double> clip = {};
};

struct PearsonResiduals {
  /// The limit that was used.
  double clip = 0;
  /// All values of x are non-negative integers, as the model expects.
  bool counts = true;
};

/// out_ij <- (x_ij - mu_ij) / sqrt(mu_ij + mu_ij^2 / theta) with mu_ij = (row sum i)(column sum j) / total, clipped: a
/// dense matrix of the value type of x, computed in double. Cells and genes without counts give NaN.
///
/// Lause, Berens & Kobak 2021, Genome Biol 22:258, equation 2. Throws InvalidArgument (options). Memory: the result,
/// and as gene_moments. Floor: two reads of x, one write of out. Passes over row blocks: those of
/// gene_moments and two; out is on the host if x is not resident as a whole.
SCW_API PearsonResiduals normalize_pearson_residuals(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out,
                                                     const PearsonResidualsOptions& options = {});
SCW_API PearsonResiduals normalize_pearson_residuals(const Context& ctx, const AnyMatrixView& x, AnyDenseMatrix& out,
                                                     const PearsonResidualsOptions& options = {});

}  // namespace scw::pp
