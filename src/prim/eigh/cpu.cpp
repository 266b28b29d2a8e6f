#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>

#include "core/parallel.hpp"
#include "prim/eigh/kernel.hpp"
#include "prim/gemm/kernel.hpp"
#include "prim/row_ops.hpp"
#include "scwarp/core/array.hpp"

#include "prim/eigh/body.inl"

namespace scw::prim::cpu {
namespace {

#if defined(__x86_64__)

// Sixteen vectors against eight rows of the matrix in sixteen registers: the matrix is read once, straight from memory,
// where a BLAS would copy all of it into its own layout for a product this thin.
constexpr std::int64_t kVectors = 16;

/// out[r, 0..16) = sum over k of a[r, k] * v[k, 0..16) for R rows.
template <int R>
__attribute__((target("avx512f"))) void rows_times_16(const double* a, std::int64_t ld, const double* v, std::int64_t m,
                                                      double* out) {
  __m512d low[R], high[R];
  for (int r = 0; r < R; ++r) low[r] = high[r] = _mm512_setzero_pd();
  for (std::int64_t k = 0; k < m; ++k) {
    const __m512d v_low = _mm512_load_pd(v + k * kVectors), v_high = _mm512_load_pd(v + k * kVectors + 8);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512d x = _mm512_set1_pd(a[r * ld + k]);
      low[r] = _mm512_fmadd_pd(x, v_low, low[r]);
      high[r] = _mm512_fmadd_pd(x, v_high, high[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm512_store_pd(out + r * kVectors, low[r]);
    _mm512_store_pd(out + r * kVectors + 8, high[r]);
  }
}

void product_avx512(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& v,
                    const MatrixView<double>& w) {
  const std::int64_t m = a.n_rows;
  Array<double> columns(ctx.workspace, m * kVectors, "eigh vectors");
  for (std::int64_t k = 0; k < m; ++k)
    for (std::int64_t b = 0; b < kVectors; ++b) columns[k * kVectors + b] = v(b, k);
  parallel_for(ctx, m, 64, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) double out[8 * kVectors];
    for (std::int64_t i = begin; i < end; i += 8) {
      const std::int64_t rows = std::min<std::int64_t>(8, end - i);
      if (rows == 8) {
        rows_times_16<8>(a.row(i), a.ld, columns.data(), m, out);
      } else {
        for (std::int64_t r = 0; r < rows; ++r)
          rows_times_16<1>(a.row(i + r), a.ld, columns.data(), m, out + r * kVectors);
      }
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t b = 0; b < kVectors; ++b) w(b, i + r) = out[r * kVectors + b];
    }
  });
}

#endif

}  // namespace

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

void symmetric_product(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& v,
                       const MatrixView<double>& w) {
#if defined(__x86_64__)
  if (v.n_rows == kVectors && __builtin_cpu_supports("avx512f") != 0) return product_avx512(ctx, a, v, w);
#endif
  gemm(ctx, v, a, w);
}

/// The reference of the CUDA kernel: the iteration on the CPU separates its vectors itself, and in more ways.
void orthogonalise(const Context& ctx, const MatrixView<const double>& basis, const MatrixView<double>& next,
                   const MatrixView<double>& coefficients, Span<std::int32_t> trouble) {
  constexpr std::int64_t b = kEighDeviceBlock;
  const std::int64_t s = basis.n_rows, m = next.n_cols;
  Array<double> h(ctx.workspace, b * s, "eigh coefficients");
  for (int round = 0; round < 2; ++round) {
    if (s > 0) {
      const MatrixView<double> products(h.data(), b, s);
      gemm(ctx, next, basis, products, {.trans_b = true});
      for (std::int64_t i = 0; i < b && round == 0 && coefficients.data != nullptr; ++i)
        std::copy_n(products.row(i), s, coefficients.row(i));
      gemm(ctx, products, basis, next, {.alpha = -1, .beta = 1});
    }
    double full[b * b], gram[kEighPairs], inverse[b][b];
    gemm(ctx, next, next, MatrixView<double>(full, b, b), {.trans_b = true});
    for (std::int64_t i = 0, pair = 0; i < b; ++i)
      for (std::int64_t j = 0; j <= i; ++j) gram[pair++] = full[i * b + j];
    if (!inverse_cholesky(gram, kEighLeastPivot[round], inverse)) trouble[0] = 1;
    parallel_for(ctx, m, 1024, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        for (std::int64_t i = b - 1; i >= 0; --i) {
          double sum = 0;
          for (std::int64_t j = 0; j <= i; ++j) sum += inverse[i][j] * next(j, p);
          next(i, p) = sum;
        }
    });
  }
}

SCW_REGISTER(symmetric_product_kernel, cpu, &symmetric_product);
SCW_REGISTER(orthogonalise_kernel, cpu, &orthogonalise);
SCW_REGISTER(residual_norms_kernel, cpu, &residual_norms);

}  // namespace scw::prim::cpu
