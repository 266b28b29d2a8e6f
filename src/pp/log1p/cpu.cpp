#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/log1p/kernel.hpp"

#include "pp/log1p/body.inl"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kGrain = 1 << 16;

SCW_CLONES void natural(float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = math::log1p(x[i]);
}
SCW_CLONES void scaled(float* x, std::int64_t n, double scale) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = log1p_value(x[i], scale);
}
SCW_CLONES void scaled(double* x, std::int64_t n, double scale) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = log1p_value(x[i], scale);
}

template <class V>
void run(const Context& ctx, V* x, std::int64_t n, double scale) {
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    if constexpr (std::is_same_v<V, float>) {
      if (scale == 1.0) return natural(x + begin, end - begin);
    }
    scaled(x + begin, end - begin, scale);
  });
}

template <class V>
void apply(const Context& ctx, const CsrView<V>& x, double scale) {
  if (x.n_rows > 0) run(ctx, x.values.data + x.indptr[0], x.nnz(), scale);
}
template <class V>
void apply(const Context& ctx, const MatrixView<V>& x, double scale) {
  if (x.ld == x.n_cols) return run(ctx, x.data, x.n_rows * x.n_cols, scale);
  for (std::int64_t i = 0; i < x.n_rows; ++i) run(ctx, x.row(i), x.n_cols, scale);
}

}  // namespace

void log1p(const Context& ctx, const AnyMutableMatrixView& x, double scale) {
  std::visit([&](const auto& v) { apply(ctx, v, scale); }, x);
}

SCW_REGISTER(log1p_kernel, cpu, &log1p);

}  // namespace scw::pp::cpu
