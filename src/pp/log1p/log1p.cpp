#include "scwarp/pp/log1p.hpp"

#include <cmath>

#include "core/check.hpp"
#include "math/elementary.hpp"
#include "pp/log1p/kernel.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMutableMatrixView&, double)> log1p_kernel{"pp.log1p"};

void log1p(const Context& ctx, const AnyMutableMatrixView& x, const Log1pOptions& options) {
  SCW_EXPECT(!options.base || (*options.base > 0 && *options.base != 1 && std::isfinite(*options.base)), "pp.log1p",
             "base must be positive, finite and not 1 (got {})", options.base.value_or(0));
  const double scale = options.base ? 1.0 / math::log_positive(*options.base) : 1.0;
  stream_rows(ctx, x, RowParts::values,
              [&](std::int64_t, const AnyMutableMatrixView& rows) { log1p_kernel(ctx, rows, scale); });
}

}  // namespace scw::pp
