// Kind: driver over gene_moments and a shared body. Determinism tier A.
#pragma once

#include <cstdint>
#include <optional>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

struct ScaleOptions {
  /// Subtract the mean of each gene.
  bool zero_center = true;
  /// Clip afterwards: to [-max_value, max_value] with zero_center, else only above; > 0. Unset: no clipping.
  std::optional<double> max_value = {};
  /// [n_cells] on ctx.device, 1 = take part: the others are left out of mean and standard deviation, and are not
  /// changed. Empty: all cells.
  Span<const std::uint8_t> mask = {};
};

/// Both [n_genes], on ctx.device.
struct Scale {
  Array<double> mean;
  /// Square root of the variance (ddof 1); 1 where that is 0.
  Array<double> std;
};

/// z_ij = (x_ij - mean_j) / std_j, or x_ij / std_j without zero_center; in place, computed in double and rounded once.
/// x: cells x genes, float or double, CSR (stored values alone) or dense, on ctx.device, or on the host with a CUDA
/// context. Same definition as scanpy's.
///
/// Throws InvalidArgument or ShapeMismatch (options; a sparse matrix with zero_center: see scale_to_dense); x is then
/// unchanged. A gene with a value that is not finite becomes NaN. Memory: as gene_moments. Floor: two reads and one
/// write of the values.
SCW_API Scale scale(const Context& ctx, const AnyMutableMatrixView& x, const ScaleOptions& options = {});

/// The same into a new dense matrix; on the host if x is not resident as a whole. Memory: the result. Passes over row
/// blocks: those of gene_moments and one.
SCW_API Scale scale_to_dense(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out,
                             const ScaleOptions& options = {});
SCW_API Scale scale_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                             const ScaleOptions& options = {});

}  // namespace scw::pp
