#include <cmath>

#include "core/parallel.hpp"
#include "prim/eigh/kernel.hpp"
#include "prim/row_ops.hpp"

namespace scw::prim::cpu {

void residual_norms(const Context& ctx, const MatrixView<const double>& w, const MatrixView<const double>& y,
                    Span<const double> values, Span<double> out) {
  parallel_for(ctx, w.n_rows, 1, [&](std::int64_t i, std::int64_t) {
    double lanes[32] = {};
    for (std::int64_t j = 0; j < w.n_cols; ++j) {
      const double r = w(i, j) - values[i] * y(i, j);
      lanes[j % 32] += r * r;
    }
    out[i] = std::sqrt(lane_tree(lanes));
  });
}

SCW_REGISTER(residual_norms_kernel, cpu, &residual_norms);

}  // namespace scw::prim::cpu
