#include "pp/pca/sparse_tile.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace scw::pp::cpu {
namespace {

template <class T, class Index>
void plain(const T* dense, const Index* rows, const T* values, std::int64_t n, T* sums) {
  constexpr std::int64_t width = kSparseBlockBytes / static_cast<std::int64_t>(sizeof(T));
  T local[width] = {};
  for (std::int64_t e = 0; e < n; ++e) {
    const T* const row = dense + rows[e] * width;
    for (std::int64_t j = 0; j < width; ++j) local[j] += values[e] * row[j];
  }
  for (std::int64_t j = 0; j < width; ++j) sums[j] = local[j];
}

#if defined(__x86_64__)

template <class Index>
__attribute__((target("avx512f"))) void avx512(const float* dense, const Index* rows, const float* values,
                                               std::int64_t n, float* sums) {
  __m512 s[8];
  for (auto& v : s) v = _mm512_setzero_ps();
  for (std::int64_t e = 0; e < n; ++e) {
    const float* const row = dense + rows[e] * 128;
    const __m512 value = _mm512_set1_ps(values[e]);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) s[j] = _mm512_fmadd_ps(value, _mm512_load_ps(row + 16 * j), s[j]);
  }
  for (int j = 0; j < 8; ++j) _mm512_store_ps(sums + 16 * j, s[j]);
}

template <class Index>
__attribute__((target("avx512f"))) void avx512(const double* dense, const Index* rows, const double* values,
                                               std::int64_t n, double* sums) {
  __m512d s[8];
  for (auto& v : s) v = _mm512_setzero_pd();
  for (std::int64_t e = 0; e < n; ++e) {
    const double* const row = dense + rows[e] * 64;
    const __m512d value = _mm512_set1_pd(values[e]);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) s[j] = _mm512_fmadd_pd(value, _mm512_load_pd(row + 8 * j), s[j]);
  }
  for (int j = 0; j < 8; ++j) _mm512_store_pd(sums + 8 * j, s[j]);
}

// Two passes: sixteen registers hold half of the sums.
template <class Index>
__attribute__((target("avx2,fma"))) void avx2(const float* dense, const Index* rows, const float* values,
                                              std::int64_t n, float* sums) {
  for (int half = 0; half < 2; ++half) {
    __m256 s[8];
    for (auto& v : s) v = _mm256_setzero_ps();
    for (std::int64_t e = 0; e < n; ++e) {
      const float* const row = dense + rows[e] * 128 + 64 * half;
      const __m256 value = _mm256_set1_ps(values[e]);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) s[j] = _mm256_fmadd_ps(value, _mm256_load_ps(row + 8 * j), s[j]);
    }
    for (int j = 0; j < 8; ++j) _mm256_store_ps(sums + 64 * half + 8 * j, s[j]);
  }
}

template <class Index>
__attribute__((target("avx2,fma"))) void avx2(const double* dense, const Index* rows, const double* values,
                                              std::int64_t n, double* sums) {
  for (int half = 0; half < 2; ++half) {
    __m256d s[8];
    for (auto& v : s) v = _mm256_setzero_pd();
    for (std::int64_t e = 0; e < n; ++e) {
      const double* const row = dense + rows[e] * 64 + 32 * half;
      const __m256d value = _mm256_set1_pd(values[e]);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) s[j] = _mm256_fmadd_pd(value, _mm256_load_pd(row + 4 * j), s[j]);
    }
    for (int j = 0; j < 8; ++j) _mm256_store_pd(sums + 32 * half + 4 * j, s[j]);
  }
}

#endif

}  // namespace

template <class T, class Index>
SparseRowProduct<T, Index> sparse_row_product() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") != 0) return static_cast<SparseRowProduct<T, Index>>(&avx512<Index>);
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0)
    return static_cast<SparseRowProduct<T, Index>>(&avx2<Index>);
#endif
  return &plain<T, Index>;
}

template SparseRowProduct<float, std::uint16_t> sparse_row_product();
template SparseRowProduct<double, std::uint16_t> sparse_row_product();
template SparseRowProduct<double, std::int32_t> sparse_row_product();

}  // namespace scw::pp::cpu
