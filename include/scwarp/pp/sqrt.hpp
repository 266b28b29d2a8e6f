// Kind: shared body. Determinism tier A.
#pragma once

#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

/// x <- square root of every stored value, in place, correctly rounded (IEEE 754); negative values give NaN. x: as in
/// log1p(). Memory: none, streamed two blocks. Floor: one read and one write of the values. Throws nothing of its own.
SCW_API void sqrt(const Context& ctx, const AnyMutableMatrixView& x);

}  // namespace scw::pp
