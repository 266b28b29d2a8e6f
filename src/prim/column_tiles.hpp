// Row blocks by columns, on the host: what per-gene sorting needs of a matrix that is never in memory as a whole.
#pragma once

#include <functional>

#include "scwarp/core/row_blocks.hpp"

namespace scw::prim {

/// body(first, tile) with all rows of consecutive tiles of columns, in order; a matrix that is in memory as a whole is
/// one tile. One pass over sparse blocks to count, then one for each tile; dense blocks need no counting. A tile takes
/// ctx.block_bytes, or a quarter of the memory that is left and at most 2 GiB (but always holds a column). ctx is a CPU
/// context.
void for_each_column_tile(const Context& ctx, const RowBlocks& x,
                          const std::function<void(std::int64_t first, const AnyMatrixView& tile)>& body);

}  // namespace scw::prim
