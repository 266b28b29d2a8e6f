// Statistics of every gene in every group of cells ("pseudobulk"). Kind: driver (median: dual). Determinism tier A.
#pragma once

#include <cstdint>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::get {

struct AggregateOptions {
  /// Which statistics to compute; the others stay empty.
  bool sum = false, mean = false, var = false, sq_sum = false, count_nonzero = false, median = false;
  /// Degrees of freedom taken off n in the variance; >= 0.
  int dof = 1;
};

/// On the host, [n_groups x n_genes] each.
struct Aggregate {
  std::vector<std::int64_t> group_sizes;
  Matrix<double> sum, mean, sq_sum;
  Matrix<double> var;                  ///< sum (x - mean)^2 / (n - dof), without cancellation; NaN where n <= dof
  Matrix<double> median;               ///< middle value, or the mean of the two middle ones
  Matrix<std::int32_t> count_nonzero;  ///< values that are not 0; stored zeros do not count
};

/// x: cells x genes, float or double, CSR or dense, on ctx.device; fewer than 2^31 cells. codes: [n_cells] on the host,
/// group of each cell in [0, n_groups), negative = left out. NaN and infinite values spread as in a plain sum; mean and
/// median of an empty group are NaN.
/// Throws InvalidArgument (options, codes), ShapeMismatch (codes).
/// Memory: the result, 36 bytes a group and gene in batches of groups of up to 256 MB, 48 a thread and gene, 8 a cell;
/// the median as tl::rank_genes_groups (Wilcoxon).
/// Passes over row blocks: two, and one more for each further batch of groups; the median: one, and one for each part
/// of the genes whose values fit into a quarter of the memory (at most 2 GiB).
SCW_API Aggregate aggregate(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes,
                            std::int32_t n_groups, const AggregateOptions& options);
SCW_API Aggregate aggregate(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                            std::int32_t n_groups, const AggregateOptions& options);

}  // namespace scw::get
