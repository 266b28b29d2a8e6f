// Kind: shared body. What every operation on a CsrView relies on: columns ascending and unique in each row, in range.
// Floor: one read of the column indices.
#pragma once

#include <cstdint>

#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw {

/// Bits of csr_defects.
enum CsrDefect : std::int32_t { kUnsortedColumns = 1, kColumnOutOfRange = 2 };

/// 0 if the columns of every row ascend strictly and lie in [0, n_cols), else which of that fails; on ctx.device.
SCW_API std::int32_t csr_defects(const Context& ctx, std::int32_t n_cols, Span<const std::int64_t> indptr,
                                 Span<const std::int32_t> indices);

}  // namespace scw
