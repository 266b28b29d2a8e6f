// Kind: driver over exact integer sums (dual). Determinism tier A.
#pragma once

#include <cstdint>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

struct GeneMomentsOptions {
  /// The variance divides by n - ddof; 0 or 1.
  int ddof = 1;
  /// Moments of exp(x * expm1_scale) - 1, rounded to the value type of x, instead of x: undoes log1p.
  bool expm1 = false;
  /// ln of the base that log1p used; 1 for the natural logarithm. Ignored without expm1.
  double expm1_scale = 1.0;
  /// Group of each row, [n_rows] on ctx.device: codes in [0, n_groups), any other = row left out. Empty: one group of
  /// all rows. A row mask is a code of 0 or -1.
  Span<const std::int32_t> groups = {};
  /// Number of groups; 1 without `groups`.
  std::int32_t n_groups = 1;
  /// Adds, as the last group, the moments over the rows of all groups together.
  bool with_total = false;
};

struct GeneMoments {
  /// [groups x genes] (groups: n_groups, + 1 with_total), row-major, on ctx.device. NaN for a group without rows and
  /// for a gene with a value that is not finite.
  Matrix<double> mean;
  /// The same shape. 0 for a group of one row, as scanpy has it.
  Matrix<double> variance;
  /// [groups] rows in each group, on the host.
  Array<std::int64_t> n_rows;
  /// Every value that was counted is a non-negative integer (before expm1).
  bool counts = true;
};

/// Mean and variance of every column, implicit zeros included, over all rows or per group of rows, in one pass.
///
/// Values become integers that are added exactly in 128 bits (prim/fixed_point.hpp), so the result does not depend on
/// the order of the rows, on blocks or threads, and nothing cancels. The first pass tries the scale 2^31, in which
/// counts below 2^16 and floats in [2^-8, 2^16] are exact; if any value is not, two more passes are made, with the
/// scale of each column taken from its largest value.
///
/// Throws InvalidArgument or ShapeMismatch (options). Memory: 32 bytes a gene, group and thread (at most 512 MiB, by
/// using fewer threads); CUDA: 32 bytes a gene and group, and 4 a row for every further 29 000 genes (counts) or 7 000
/// (other values). Floor: one read of the matrix.
SCW_API GeneMoments gene_moments(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options = {});
SCW_API GeneMoments gene_moments(const Context& ctx, const AnyMatrixView& x, const GeneMomentsOptions& options = {});

}  // namespace scw::pp
