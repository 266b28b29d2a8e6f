#include "pp/knn/tiles.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace scw::pp::cpu {
namespace {

bool portable(Tile& t) {
  float acc[kTileRows][kTileColumns];
  for (int r = 0; r < kTileRows; ++r)
    for (int c = 0; c < kTileColumns; ++c) acc[r][c] = t.first ? -t.offset[c] : 0.0f;
  for (std::int64_t k = 0; k < t.depth; ++k) {
    const float* const b = t.b + k * kTileColumns;
    for (int r = 0; r < kTileRows; ++r) {
      const float a = t.a[k * kTileRows + r];
      for (int c = 0; c < kTileColumns; ++c) acc[r][c] += a * b[c];
    }
  }
  if (!t.first)
    for (int r = 0; r < kTileRows; ++r)
      for (int c = 0; c < kTileColumns; ++c) acc[r][c] += t.score[r * kTileColumns + c];
  bool any = false;
  if (t.last)
    for (int r = 0; r < kTileRows; ++r) {
      std::uint64_t rows = 0, columns = 0;
      for (int c = 0; c < kTileColumns; ++c) {
        rows |= std::uint64_t{acc[r][c] > t.row_threshold[r]} << c;
        columns |= std::uint64_t{t.both && acc[r][c] > t.column_threshold[c] + t.row_offset[r]} << c;
      }
      t.row_hits[r] = rows;
      t.column_hits[r] = columns;
      any = any || (rows | columns) != 0;
    }
  if (any || !t.last)
    for (int r = 0; r < kTileRows; ++r)
      for (int c = 0; c < kTileColumns; ++c) t.score[r * kTileColumns + c] = acc[r][c];
  return any;
}

#if defined(__x86_64__)

__attribute__((target("avx512f"))) bool avx512(Tile& t) {
  __m512 acc[kTileRows][4];
  for (int v = 0; v < 4; ++v) {
    const __m512 start =
        t.first ? _mm512_sub_ps(_mm512_setzero_ps(), _mm512_loadu_ps(t.offset + 16 * v)) : _mm512_setzero_ps();
    for (int r = 0; r < kTileRows; ++r) acc[r][v] = start;
  }
  const float* a = t.a;
  const float* b = t.b;
  for (std::int64_t k = 0; k < t.depth; ++k, a += kTileRows, b += kTileColumns) {
    const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16), b2 = _mm512_loadu_ps(b + 32),
                 b3 = _mm512_loadu_ps(b + 48);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m512 ar = _mm512_set1_ps(a[r]);
      acc[r][0] = _mm512_fmadd_ps(ar, b0, acc[r][0]);
      acc[r][1] = _mm512_fmadd_ps(ar, b1, acc[r][1]);
      acc[r][2] = _mm512_fmadd_ps(ar, b2, acc[r][2]);
      acc[r][3] = _mm512_fmadd_ps(ar, b3, acc[r][3]);
    }
  }
  if (!t.first)
    for (int r = 0; r < kTileRows; ++r)
      for (int v = 0; v < 4; ++v)
        acc[r][v] = _mm512_add_ps(acc[r][v], _mm512_loadu_ps(t.score + r * kTileColumns + 16 * v));
  std::uint64_t any = 0;
  if (t.last) {
    __m512 column[4];
    for (int v = 0; v < 4; ++v)
      column[v] = t.both ? _mm512_loadu_ps(t.column_threshold + 16 * v) : _mm512_set1_ps(3e38f);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m512 threshold = _mm512_set1_ps(t.row_threshold[r]);
      const __m512 offset = _mm512_set1_ps(t.row_offset[r]);
      std::uint64_t rows = 0, columns = 0;
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        rows |= std::uint64_t{_mm512_cmp_ps_mask(acc[r][v], threshold, _CMP_GT_OQ)} << (16 * v);
        columns |= std::uint64_t{_mm512_cmp_ps_mask(acc[r][v], _mm512_add_ps(column[v], offset), _CMP_GT_OQ)}
                   << (16 * v);
      }
      t.row_hits[r] = rows;
      t.column_hits[r] = columns;
      any |= rows | columns;
    }
  }
  if (any != 0 || !t.last)
    for (int r = 0; r < kTileRows; ++r)
      for (int v = 0; v < 4; ++v) _mm512_storeu_ps(t.score + r * kTileColumns + 16 * v, acc[r][v]);
  return any != 0;
}

__attribute__((target("avx2,fma"))) bool avx2(Tile& t) {
  std::uint64_t any = 0;
  for (int r = 0; r < kTileRows; ++r) t.row_hits[r] = t.column_hits[r] = 0;
  for (int part = 0; part < kTileColumns; part += 16) {  // 12 accumulators fit the 16 registers
    __m256 acc[kTileRows][2];
    for (int v = 0; v < 2; ++v) {
      const __m256 start =
          t.first ? _mm256_sub_ps(_mm256_setzero_ps(), _mm256_loadu_ps(t.offset + part + 8 * v)) : _mm256_setzero_ps();
      for (int r = 0; r < kTileRows; ++r) acc[r][v] = start;
    }
    const float* a = t.a;
    const float* b = t.b + part;
    for (std::int64_t k = 0; k < t.depth; ++k, a += kTileRows, b += kTileColumns) {
      const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
      for (int r = 0; r < kTileRows; ++r) {
        const __m256 ar = _mm256_broadcast_ss(a + r);
        acc[r][0] = _mm256_fmadd_ps(ar, b0, acc[r][0]);
        acc[r][1] = _mm256_fmadd_ps(ar, b1, acc[r][1]);
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        float* const out = t.score + r * kTileColumns + part + 8 * v;
        __m256 s = acc[r][v];
        if (!t.first) s = _mm256_add_ps(s, _mm256_loadu_ps(out));
        _mm256_storeu_ps(out, s);
        if (t.last) {
          const int shift = part + 8 * v;
          const auto rows = static_cast<std::uint64_t>(
              _mm256_movemask_ps(_mm256_cmp_ps(s, _mm256_set1_ps(t.row_threshold[r]), _CMP_GT_OQ)));
          std::uint64_t columns = 0;
          if (t.both)
            columns = static_cast<std::uint64_t>(_mm256_movemask_ps(_mm256_cmp_ps(
                s, _mm256_add_ps(_mm256_loadu_ps(t.column_threshold + shift), _mm256_set1_ps(t.row_offset[r])),
                _CMP_GT_OQ)));
          t.row_hits[r] |= rows << shift;
          t.column_hits[r] |= columns << shift;
          any |= rows | columns;
        }
      }
  }
  return any != 0;
}

#endif

}  // namespace

TileFunction tile_function(std::string_view name) {
#if defined(__x86_64__)
  if (name == "avx512") return __builtin_cpu_supports("avx512f") ? &avx512 : nullptr;
  if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2 : nullptr;
#endif
  return name == "portable" ? &portable : nullptr;
}

TileFunction tile_function() {
  static const TileFunction chosen = [] {
    for (const char* name : {"avx512", "avx2"})
      if (const TileFunction f = tile_function(name)) return f;
    return tile_function("portable");
  }();
  return chosen;
}

}  // namespace scw::pp::cpu
