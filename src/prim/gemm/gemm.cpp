#include "core/check.hpp"
#include "prim/gemm/kernel.hpp"

namespace scw::prim {

constinit Kernel<void(const Context&, const MatrixView<const float>&, const MatrixView<const float>&,
                      const MatrixView<float>&, const GemmOptions&)>
    gemm_f32_kernel{"prim.gemm: float"};
constinit Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                      const MatrixView<double>&, const GemmOptions&)>
    gemm_f64_kernel{"prim.gemm: double"};

namespace {

template <class T>
void check(const MatrixView<const T>& a, const MatrixView<const T>& b, const MatrixView<T>& c, const GemmOptions& o) {
  constexpr std::int64_t limit = std::int64_t{1} << 31;  // BLAS indices are 32-bit
  SCW_ASSERT((o.trans_a ? a.n_cols : a.n_rows) == c.n_rows);
  SCW_ASSERT((o.trans_b ? b.n_rows : b.n_cols) == c.n_cols);
  SCW_ASSERT((o.trans_a ? a.n_rows : a.n_cols) == (o.trans_b ? b.n_cols : b.n_rows));
  SCW_ASSERT(a.ld < limit && b.ld < limit && c.ld < limit && c.n_rows < limit && a.n_rows < limit && b.n_rows < limit);
}

}  // namespace

void gemm(const Context& ctx, const MatrixView<const float>& a, const MatrixView<const float>& b,
          const MatrixView<float>& c, const GemmOptions& options) {
  check(a, b, c, options);
  if (c.n_rows > 0 && c.n_cols > 0) gemm_f32_kernel(ctx, a, b, c, options);
}

void gemm(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& b,
          const MatrixView<double>& c, const GemmOptions& options) {
  check(a, b, c, options);
  if (c.n_rows > 0 && c.n_cols > 0) gemm_f64_kernel(ctx, a, b, c, options);
}

}  // namespace scw::prim
