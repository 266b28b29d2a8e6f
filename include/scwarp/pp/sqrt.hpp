// Kind: shared body. Determinism tier A.
#pragma once

#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

/// x <- square root of every stored value, in place, correctly rounded; negative values give NaN.
/// Memory: none. Floor: one read and one write of the values.
SCW_API void sqrt(const Context& ctx, const AnyMutableMatrixView& x);

}  // namespace scw::pp
