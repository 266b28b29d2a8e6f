// Kind: shared body. Determinism tier A.
#pragma once

#include <optional>

#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

struct Log1pOptions {
  /// Base of the logarithm, > 0 and not 1; unset: e.
  std::optional<double> base;
};

/// x <- ln(1 + x) (/ ln base) on every stored value, in place. float: within 0.501 ulp; double: 3 ulp.
/// -1 gives -inf, values below -1 give NaN, as IEEE log1p. Memory: none. Floor: one read and one write of the values.
/// Throws InvalidArgument for the base; x is then unchanged.
SCW_API void log1p(const Context& ctx, const AnyMutableMatrixView& x, const Log1pOptions& options = {});

}  // namespace scw::pp
