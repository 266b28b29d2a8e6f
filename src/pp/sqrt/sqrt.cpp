#include "scwarp/pp/sqrt.hpp"

#include "pp/sqrt/kernel.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMutableMatrixView&)> sqrt_kernel{"pp.sqrt"};

void sqrt(const Context& ctx, const AnyMutableMatrixView& x) { sqrt_kernel(ctx, x); }

}  // namespace scw::pp
