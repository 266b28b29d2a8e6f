#include "scwarp/pp/sqrt.hpp"

#include "pp/sqrt/kernel.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMutableMatrixView&)> sqrt_kernel{"pp.sqrt"};

void sqrt(const Context& ctx, const AnyMutableMatrixView& x) {
  stream_rows(ctx, x, RowParts::values,
              [&](std::int64_t, const AnyMutableMatrixView& rows) { sqrt_kernel(ctx, rows); });
}

}  // namespace scw::pp
