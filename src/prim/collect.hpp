// Row blocks put together: for operations that need the whole matrix on the device.
#pragma once

#include "scwarp/core/array.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::prim {

/// All rows of x as one matrix on ctx.device, from ctx.workspace. Two passes over sparse blocks (the first counts), one
/// over dense ones. Memory: the matrix.
AnyMatrix collect(const Context& ctx, const RowBlocks& x);

}  // namespace scw::prim
