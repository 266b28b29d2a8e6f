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

/// x <- ln(1 + x) (/ ln base) on every stored value, in place. x: cells x genes, float or double, CSR or dense; on
/// ctx.device, or with a CUDA context also on the host (streamed in row blocks, one pass over the values).
/// float: within 0.501 ulp; double: 3 ulp. -1 gives -inf, values below -1 give NaN, as IEEE log1p. Polynomials of our
/// own (src/math/elementary.hpp). Memory: none, streamed two blocks. Floor: one read and one write of the values.
/// Throws InvalidArgument for the base; x is then unchanged.
SCW_API void log1p(const Context& ctx, const AnyMutableMatrixView& x, const Log1pOptions& options = {});

}  // namespace scw::pp
