#pragma once

#include "prim/group_moments/group_moments.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/tl/rank_genes_groups.hpp"

namespace scw::tl {

/// How values become ranks.
struct RankSpec {
  std::int32_t n_groups = 0;
  /// Rank each group with this one only; -1: rank all cells.
  std::int32_t reference = -1;
  /// 0: ranks of the values themselves; else of their bins over [low, high].
  std::int32_t n_bins = 0;
  double low = 0, high = 0;
  /// Binned: zeros lie in a bin of their own, below the bins of the stored values (sparse data without negative
  /// values).
  bool zeros_apart = false;
};

/// What the test needs, exact; on the host.
struct RankSums {
  Array<std::int64_t> twice_rank_sum;  // [n_groups x n_genes]: 2 * sum of the average ranks of the group's cells
  Array<double> ties;                  // sum of t^3 - t over runs of equal values, rounded once:
                                       // [n_genes], or with a reference [n_groups x n_genes] (group and reference)
  std::int64_t bad_gene = -1;          // the first gene with a value that is not finite (or too large once mapped); the
                                       // rest is then undefined
};

/// Smallest and largest value of x; 0 counts for sparse matrices.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, double&, double&)> value_range_kernel;

/// codes: group of each cell, or n_groups (in none). moments, on the host, has n_groups + 1 groups; scale, sum and
/// nonzero are filled here, sum_sq is not.
extern SCW_API Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t>, const RankSpec&,
                           const prim::ValueMap&, prim::GroupMoments&, RankSums&)>
    rank_sums_kernel;

}  // namespace scw::tl
