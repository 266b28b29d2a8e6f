// Kind: dual. Determinism tier A: sums over cells are order-free (prim/fixed_point.hpp), sums along a cell
// are a fixed tree.
#pragma once

#include <cstdint>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

struct QcOptions {
  /// Gene families (mitochondrial, ribosomal, ...): one flag per gene each, on ctx.device.
  std::vector<Span<const std::uint8_t>> families;
  /// For each N: the share of the N largest values in the total of a cell. 1 <= N <= number of genes.
  std::vector<std::int64_t> percent_top;
};

struct QcMetrics {
  Array<std::int32_t> n_genes;              ///< [n_cells] values != 0
  Array<double> total;                      ///< [n_cells] sum of all values
  std::vector<Array<double>> family_total;  ///< per family [n_cells]
  std::vector<Array<double>> pct_top;       ///< per N [n_cells], 0 to 100; NaN for an empty cell
  Array<std::int32_t> n_cells;              ///< [n_genes] values != 0
  Array<double> gene_total;                 ///< [n_genes]
  bool whole_numbers = true;                ///< all values are whole numbers below 2^22
};

/// One pass over cells x genes for everything that scanpy's calculate_qc_metrics reports (McCarthy, Campbell, Lun &
/// Wills 2017, Bioinformatics 33:1179). x: float or double, CSR or dense; results are on ctx.device. Explicit zeros of
/// a sparse matrix are not counted. NaN and infinities go into the sums as IEEE addition would have it.
///
/// Throws InvalidArgument (percent_top), ShapeMismatch (families). Memory: 16 bytes a gene and thread (CUDA: 21 a
/// gene), and the result. Floor: one read of the matrix, two for values that are not whole numbers below 2^22. One pass
/// over row blocks, for such values three.
SCW_API QcMetrics calculate_qc_metrics(const Context& ctx, const RowBlocks& x, const QcOptions& options = {});
SCW_API QcMetrics calculate_qc_metrics(const Context& ctx, const AnyMatrixView& x, const QcOptions& options = {});

struct AxisCounts {
  Array<double> total;             ///< sum of the values
  Array<std::int32_t> n_positive;  ///< values > 0
  bool whole_numbers = true;       ///< of genes: all values are whole numbers below 2^22
};

/// What filter_cells looks at: per cell the total and the number of genes with a value > 0, [n_cells] on ctx.device.
/// One pass over row blocks. Memory: the result.
SCW_API AxisCounts cell_counts(const Context& ctx, const RowBlocks& x);
SCW_API AxisCounts cell_counts(const Context& ctx, const AnyMatrixView& x);
/// What filter_genes looks at: per gene the total and the number of cells with a value > 0, [n_genes] on ctx.device.
/// One pass over row blocks, three for values that are not whole numbers below 2^22. Memory: as calculate_qc_metrics.
SCW_API AxisCounts gene_counts(const Context& ctx, const RowBlocks& x);
SCW_API AxisCounts gene_counts(const Context& ctx, const AnyMatrixView& x);

}  // namespace scw::pp
