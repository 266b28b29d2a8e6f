// Rows and columns of a CSR or dense matrix by mask. Dual; same bits on every backend (values are only moved).
//
// Two passes over the indices (count, fill), one over the values. Floor on CUDA: 8 bytes an entry read twice (indices)
// and once (values), and the result written; 6.5 ms for 601.5M of 1.9e9 float entries at 4.3 TB/s.
#pragma once

#include <cstdint>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/kernel.hpp"

namespace scw::prim {

/// Masks on the host, of the right length or empty (everything); out <- the kept rows and columns, in ctx.memory.
extern SCW_API
    Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, Span<const std::uint8_t>, AnyMatrix&)>
        subset_kernel;

/// The rows with keep_rows[i] != 0 and the columns with keep_cols[j] != 0, in order; an empty mask keeps everything.
/// Masks are on the host, x and the result on ctx.device. Explicit zeros are kept. Throws ShapeMismatch for a mask of
/// another length. Memory: the result, 8 bytes a column and 9 a row of scratch.
AnyMatrix subset(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> keep_rows,
                 Span<const std::uint8_t> keep_cols);

}  // namespace scw::prim
