// Kind: dual (prim/csr_subset). Determinism tier A.
#pragma once

#include <cstdint>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

/// The cells with keep_cells[i] != 0 and the genes with keep_genes[j] != 0, in order; an empty mask keeps everything.
/// x, cells x genes, float or double, CSR or dense, is on ctx.device, and so is the result, of the same type and
/// layout; the masks, [n_cells] and [n_genes], are on the host. Explicit zeros are kept. Throws ShapeMismatch for a
/// mask of another length. Memory: the result + 9 bytes a cell + 12 bytes a gene. Floor: two reads of the indices, one
/// of the values, one write of the result.
SCW_API AnyMatrix subset(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> keep_cells,
                         Span<const std::uint8_t> keep_genes);

}  // namespace scw::pp
