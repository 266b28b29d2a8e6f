// Kind: driver over a shared body. Determinism tier A.
#pragma once

#include <cstdint>
#include <optional>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

struct NormalizeTotalOptions {
  /// Counts per cell afterwards; > 0. Unset: the median of the size factors' counts over cells where they are positive.
  std::optional<double> target_sum;
  /// Leave genes that hold more than max_fraction of the counts of any one cell out of the size factors (they are still
  /// scaled). Weinreb, Wolock & Klein 2018, Bioinformatics 34:1246, section "normalisation".
  bool exclude_highly_expressed = false;
  /// In [0, 1]; ignored without exclude_highly_expressed.
  double max_fraction = 0.05;
};

struct NormalizeTotal {
  /// [n_cells], on ctx.device: c_i, the counts that each cell was divided by (before the division by target_sum).
  Array<double> counts;
  /// T of x_ij * T / c_i.
  double target_sum = 0;
  /// Cells with c_i = 0: left unchanged.
  std::int64_t n_empty = 0;
  /// [n_genes] on the host, 1 = left out of c_i; empty without exclude_highly_expressed.
  Array<std::uint8_t> gene_excluded;
};

/// Scales every cell to the same total, in place: x_ij <- x_ij * T / c_i, computed in double and rounded once.
///
/// x: cells x genes, float or double, CSR or dense, on ctx.device. Without target_sum and without a positive c_i, T
/// = 1. Throws InvalidArgument (options); x is then unchanged. Memory: 8 bytes a cell, 24 for the median (+ 1 a gene
/// with exclusion). Floor: one read and one write of the values; without target_sum, or with exclusion, one read more.
SCW_API NormalizeTotal normalize_total(const Context& ctx, const AnyMutableMatrixView& x,
                                       const NormalizeTotalOptions& options = {});

/// The size factors alone: x stays as it is. One pass over row blocks, three with exclusion.
SCW_API NormalizeTotal size_factors(const Context& ctx, const RowBlocks& x, const NormalizeTotalOptions& options = {});
SCW_API NormalizeTotal size_factors(const Context& ctx, const AnyMatrixView& x,
                                    const NormalizeTotalOptions& options = {});

}  // namespace scw::pp
