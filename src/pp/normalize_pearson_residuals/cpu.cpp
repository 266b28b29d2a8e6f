#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/normalize_pearson_residuals/kernel.hpp"

#include "pp/normalize_pearson_residuals/body.inl"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kRowGrain = 16;

SCW_CLONES void zeros(const PearsonCell& cell, const double* sums, std::int64_t n, float* out) {
  for (std::int64_t j = 0; j < n; ++j) out[j] = static_cast<float>(cell(0.0, sums[j]));
}
SCW_CLONES void zeros(const PearsonCell& cell, const double* sums, std::int64_t n, double* out) {
  for (std::int64_t j = 0; j < n; ++j) out[j] = cell(0.0, sums[j]);
}
SCW_CLONES void values(const PearsonCell& cell, const float* x, const double* sums, std::int64_t n, float* out) {
  for (std::int64_t j = 0; j < n; ++j) out[j] = static_cast<float>(cell(static_cast<double>(x[j]), sums[j]));
}
SCW_CLONES void values(const PearsonCell& cell, const float* x, const double* sums, std::int64_t n, double* out) {
  for (std::int64_t j = 0; j < n; ++j) out[j] = cell(static_cast<double>(x[j]), sums[j]);
}
SCW_CLONES void values(const PearsonCell& cell, const double* x, const double* sums, std::int64_t n, double* out) {
  for (std::int64_t j = 0; j < n; ++j) out[j] = cell(x[j], sums[j]);
}
void values(const PearsonCell& cell, const double* x, const double* sums, std::int64_t n, float* out) {
  for (std::int64_t j = 0; j < n; ++j) out[j] = static_cast<float>(cell(x[j], sums[j]));
}

template <class V, class Out>
void row(const CsrView<const V>& x, std::int64_t i, const PearsonCell& cell, const double* sums, Out* out) {
  zeros(cell, sums, x.n_cols, out);
  for (std::int64_t k = x.indptr[i]; k < x.indptr[i + 1]; ++k) {
    const std::int32_t j = x.indices[k];
    out[j] = static_cast<Out>(cell(static_cast<double>(x.values[k]), sums[j]));
  }
}
template <class V, class Out>
void row(const MatrixView<const V>& x, std::int64_t i, const PearsonCell& cell, const double* sums, Out* out) {
  values(cell, x.row(i), sums, x.n_cols, out);
}

}  // namespace

void pearson_residuals(const Context& ctx, const AnyMatrixView& x, const PearsonModel& m,
                       const AnyMutableDenseView& out) {
  std::visit(
      [&](const auto& v, const auto& to) {
        parallel_for(ctx, v.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const std::int32_t g = m.groups.empty() ? 0 : m.groups[i];
            if (g < 0 || g >= m.gene_sums.n_rows) {  // in no group: nobody reads this row, but it must not be garbage
              for (std::int64_t j = 0; j < to.n_cols; ++j) to(i, j) = 0;
              continue;
            }
            row(v, i, PearsonCell{m.row_share[i], m.clip[g], m.inverse_theta, !m.zero_for_nan}, m.gene_sums.row(g),
                to.row(i));
          }
        });
      },
      x, out);
}

SCW_REGISTER(pearson_residuals_kernel, cpu, &pearson_residuals);

}  // namespace scw::pp::cpu
