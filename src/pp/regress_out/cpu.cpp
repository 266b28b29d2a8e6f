#include <algorithm>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/regress_out/kernel.hpp"
#include "scwarp/core/array.hpp"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kTile = 512;  // columns whose sums stay in the first-level cache
constexpr std::int64_t kRowGrain = 64;
constexpr std::int64_t kMinChunk = 1024;  // rows that share one partial sum
constexpr std::int64_t kMaxChunks = 64;   // partial sums, whatever the number of rows

SCW_CLONES void add_projection(const float* x, std::int64_t n, const double* q, std::int64_t p, double* sums) {
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < n; ++j) sums[k * kTile + j] += q[k] * static_cast<double>(x[j]);
}
SCW_CLONES void add_projection(const double* x, std::int64_t n, const double* q, std::int64_t p, double* sums) {
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < n; ++j) sums[k * kTile + j] += q[k] * x[j];
}
/// y = x - sum_k q[k] c[k], in this order.
SCW_CLONES void residual(const float* x, std::int64_t n, const double* q, std::int64_t p, const double* c,
                         std::int64_t ld, double* y) {
  for (std::int64_t j = 0; j < n; ++j) y[j] = static_cast<double>(x[j]);
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < n; ++j) y[j] -= q[k] * c[k * ld + j];
}
SCW_CLONES void residual(const double* x, std::int64_t n, const double* q, std::int64_t p, const double* c,
                         std::int64_t ld, double* y) {
  for (std::int64_t j = 0; j < n; ++j) y[j] = x[j];
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < n; ++j) y[j] -= q[k] * c[k * ld + j];
}
SCW_CLONES void store(const double* y, std::int64_t n, float* x) {
  for (std::int64_t j = 0; j < n; ++j) x[j] = static_cast<float>(y[j]);
}
void store(const double* y, std::int64_t n, double* x) { std::copy(y, y + n, x); }
SCW_CLONES void subtract(float* x, std::int64_t n, const double* mean) {
  for (std::int64_t j = 0; j < n; ++j) x[j] = static_cast<float>(static_cast<double>(x[j]) - mean[j]);
}
SCW_CLONES void subtract(double* x, std::int64_t n, const double* mean) {
  for (std::int64_t j = 0; j < n; ++j) x[j] -= mean[j];
}

template <class V>
void apply(const Context& ctx, const MatrixView<V>& x, MatrixView<const double> q, Span<const double> d) {
  const std::int64_t n = x.n_rows, m = x.n_cols, p = q.n_cols;
  const std::int64_t chunk = std::max(kMinChunk, (n + kMaxChunks - 1) / kMaxChunks);
  const std::int64_t chunks = chunk_count(n, chunk);
  const std::int64_t tiles = chunk_count(m, kTile);
  Array<double> partial(ctx.workspace, checked_mul(chunks, checked_mul(p, m)), "projections");
  parallel_for(ctx, chunks * tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sums(static_cast<std::size_t>(p * kTile));
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t c = t / tiles, j = t % tiles * kTile, width = std::min(kTile, m - j);
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t i = c * chunk; i < std::min(n, (c + 1) * chunk); ++i)
        add_projection(x.row(i) + j, width, q.row(i), p, sums.data());
      for (std::int64_t k = 0; k < p; ++k)
        std::copy_n(sums.data() + k * kTile, width, partial.data() + (c * p + k) * m + j);
    }
  });
  Array<double> coefficients(ctx.workspace, p * m, "coefficients");
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < m; ++j) {
      double sum = 0;
      for (std::int64_t c = 0; c < chunks; ++c) sum += partial[(c * p + k) * m + j];
      coefficients[k * m + j] = sum * d[k];
    }
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    double y[kTile];
    for (std::int64_t j = 0; j < m; j += kTile) {
      const std::int64_t width = std::min(kTile, m - j);
      for (std::int64_t i = begin; i < end; ++i) {
        residual(x.row(i) + j, width, q.row(i), p, coefficients.data() + j, m, y);
        store(y, width, x.row(i) + j);
      }
    }
  });
}

}  // namespace

void remove_projection(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> q,
                       Span<const double> d) {
  std::visit([&](const auto& v) { apply(ctx, v, q, d); }, x);
}

void subtract_group_means(const Context& ctx, const AnyMutableDenseView& x, Span<const std::int32_t> codes,
                          MatrixView<const double> means) {
  std::visit(
      [&](const auto& v) {
        parallel_for(ctx, v.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i)
            if (codes[i] >= 0 && codes[i] < means.n_rows) subtract(v.row(i), v.n_cols, means.row(codes[i]));
        });
      },
      x);
}

void densify(const Context& ctx, const AnyCsrView& x, const AnyMutableDenseView& out) {
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        const auto& to = std::get<MatrixView<V>>(out);
        parallel_for(ctx, v.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            V* const row = to.row(i);
            std::fill_n(row, to.n_cols, V{0});
            for (std::int64_t k = v.indptr[i]; k < v.indptr[i + 1]; ++k) row[v.indices[k]] = v.values[k];
          }
        });
      },
      x);
}

void residual_to_dense(const Context& ctx, const AnyCsrView& x, MatrixView<const double> q, Span<const double> d,
                       const AnyMutableDenseView& out) {
  densify(ctx, x, out);
  remove_projection(ctx, out, q, d);
}

SCW_REGISTER(remove_projection_kernel, cpu, &remove_projection);
SCW_REGISTER(residual_to_dense_kernel, cpu, &residual_to_dense);
SCW_REGISTER(subtract_group_means_kernel, cpu, &subtract_group_means);
SCW_REGISTER(densify_kernel, cpu, &densify);

}  // namespace scw::pp::cpu
