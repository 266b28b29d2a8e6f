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

SCW_CLONES void add_projection(const float* x, std::int64_t n, const double* q, std::int64_t p, double* sums) {
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < n; ++j) sums[k * kTile + j] += q[k] * static_cast<double>(x[j]);
}
SCW_CLONES void add_projection(const double* x, std::int64_t n, const double* q, std::int64_t p, double* sums) {
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < n; ++j) sums[k * kTile + j] += q[k] * x[j];
}
/// y = x - sum_k q[k] c[k], in this order.
SCW_CLONES void fit_residual(const float* x, std::int64_t n, const double* q, std::int64_t p, const double* c,
                             std::int64_t ld, double* y) {
  for (std::int64_t j = 0; j < n; ++j) y[j] = static_cast<double>(x[j]);
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0; j < n; ++j) y[j] -= q[k] * c[k * ld + j];
}
SCW_CLONES void fit_residual(const double* x, std::int64_t n, const double* q, std::int64_t p, const double* c,
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

/// Slabs that the block has rows of.
std::int64_t slab_count(std::int64_t rows, const Slabs& slabs) { return chunk_count(rows, slabs.rows); }

template <class V>
void project(const Context& ctx, const MatrixView<const V>& x, MatrixView<const double> q, const Slabs& slabs,
             double* partial) {
  const std::int64_t n = x.n_rows, m = x.n_cols, p = q.n_cols, tiles = chunk_count(m, kTile);
  parallel_for(ctx, slab_count(n, slabs) * tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sums(static_cast<std::size_t>(p * kTile));
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t s = t / tiles, j = t % tiles * kTile, width = std::min(kTile, m - j);
      double* const own = partial + (slabs.first + s) * p * m + j;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t k = 0; slabs.begun && k < p; ++k) std::copy_n(own + k * m, width, sums.data() + k * kTile);
      for (std::int64_t i = s * slabs.rows; i < std::min(n, (s + 1) * slabs.rows); ++i)
        add_projection(x.row(i) + j, width, q.row(i), p, sums.data());
      for (std::int64_t k = 0; k < p; ++k) std::copy_n(sums.data() + k * kTile, width, own + k * m);
    }
  });
}
/// What is not stored would add zero: the same sums.
template <class V>
void project(const Context& ctx, const CsrView<const V>& x, MatrixView<const double> q, const Slabs& slabs,
             double* partial) {
  const std::int64_t m = x.n_cols, p = q.n_cols;
  parallel_for(ctx, slab_count(x.n_rows, slabs), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) {
      double* const own = partial + (slabs.first + s) * p * m;
      if (!slabs.begun) std::fill_n(own, p * m, 0.0);
      for (std::int64_t i = s * slabs.rows; i < std::min(x.n_rows, (s + 1) * slabs.rows); ++i)
        for (std::int64_t e = x.indptr[i]; e < x.indptr[i + 1]; ++e) {
          const auto v = static_cast<double>(x.values[e]);
          for (std::int64_t k = 0; k < p; ++k) own[k * m + x.indices[e]] += q(i, k) * v;
        }
    }
  });
}

template <class V>
void subtract_fit(const Context& ctx, const MatrixView<V>& x, MatrixView<const double> q, MatrixView<const double> c) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    double y[kTile];
    for (std::int64_t j = 0; j < x.n_cols; j += kTile) {
      const std::int64_t width = std::min(kTile, x.n_cols - j);
      for (std::int64_t i = begin; i < end; ++i) {
        fit_residual(x.row(i) + j, width, q.row(i), q.n_cols, c.data + j, c.ld, y);
        store(y, width, x.row(i) + j);
      }
    }
  });
}

}  // namespace

void projection(const Context& ctx, const AnyMatrixView& x, MatrixView<const double> q, const Slabs& slabs,
                Span<double> partial) {
  std::visit([&](const auto& v) { project(ctx, v, q, slabs, partial.data); }, x);
}

void coefficients(const Context&, Span<const double> partial, Span<const double> d, MatrixView<double> out) {
  const std::int64_t size = out.n_rows * out.n_cols, slabs = size > 0 ? partial.size / size : 0;
  for (std::int64_t k = 0; k < out.n_rows; ++k)
    for (std::int64_t j = 0; j < out.n_cols; ++j) {
      double sum = 0;
      for (std::int64_t s = 0; s < slabs; ++s) sum += partial[s * size + k * out.n_cols + j];
      out(k, j) = sum * d[k];
    }
}

void residual(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> q,
              MatrixView<const double> c) {
  std::visit([&](const auto& v) { subtract_fit(ctx, v, q, c); }, x);
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

void residual_to_dense(const Context& ctx, const AnyCsrView& x, MatrixView<const double> q, MatrixView<const double> c,
                       const AnyMutableDenseView& out) {
  densify(ctx, x, out);
  residual(ctx, out, q, c);
}

SCW_REGISTER(projection_kernel, cpu, &projection);
SCW_REGISTER(coefficients_kernel, cpu, &coefficients);
SCW_REGISTER(residual_kernel, cpu, &residual);
SCW_REGISTER(residual_to_dense_kernel, cpu, &residual_to_dense);
SCW_REGISTER(subtract_group_means_kernel, cpu, &subtract_group_means);
SCW_REGISTER(densify_kernel, cpu, &densify);

}  // namespace scw::pp::cpu
