// Row blocks put together: for operations that read a matrix many times, where memory holds it.
#pragma once

#include <cstdint>
#include <optional>

#include "scwarp/core/array.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::prim {

/// All rows of x as one matrix on ctx.device, from ctx.workspace, or nothing if it takes more than most_bytes. Two
/// passes over sparse blocks (the first reads values only and counts), one over dense ones. Memory: the matrix.
SCW_API std::optional<AnyMatrix> collect(const Context& ctx, const RowBlocks& x, std::int64_t most_bytes);

}  // namespace scw::prim
