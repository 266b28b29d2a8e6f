// Score of a set of genes in every cell. Kind: driver over shared bodies. Determinism tier A.
// Satija et al. 2015, Nature Biotechnology 33:495, "Scoring of cells": mean of the set minus mean of control genes.
#pragma once

#include <cstdint>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

/// [n_genes], on the host: mean of each gene over the cells where it is not NaN; NaN if there is none. Exact sums,
/// rounded once. What the bins of control genes are made from. x: cells x genes, on ctx.device; fewer than 2^31 cells.
/// Memory: 48 bytes a gene and thread, 4 a cell. Floor: two reads of x. Two passes over row
/// blocks, three if a value is not finite.
SCW_API Array<double> nan_mean_of_genes(const Context& ctx, const RowBlocks& x);
SCW_API Array<double> nan_mean_of_genes(const Context& ctx, const AnyMatrixView& x);

/// [n_cells], on the host: mean over `genes` minus mean over `control` of each cell, NaN values left out of both; NaN
/// where a cell has nothing but NaN in one of the sets. x: cells x genes, float or double, CSR or dense, on ctx.device.
/// genes, control: column indices of x, on the host, not empty; an index that is repeated counts once. Implicit zeros
/// count. Throws InvalidArgument (empty set, index out of range). Memory: 16 bytes a cell, 3 a gene. Floor on CUDA: one
/// read of the indices (values of the sets' genes alone are read). One pass over row blocks, five if a score is NaN.
SCW_API Array<double> score_genes(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> genes,
                                  Span<const std::int32_t> control);
SCW_API Array<double> score_genes(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> genes,
                                  Span<const std::int32_t> control);

}  // namespace scw::tl
