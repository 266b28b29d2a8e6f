// The step of a group of cells, compiled by cpu.cpp once per instruction set. The includer defines
//   SCW_LANES_SPACE   namespace of this version
//   SCW_WIDTH         lanes of a vector: 4, 8 or 16
// and, in that namespace before the inclusion, nothing else. A lane never reads another lane, and every operation is an
// IEEE operation in the written order, so all versions give the same bits.

namespace SCW_LANES_SPACE {

using vf [[gnu::vector_size(4 * SCW_WIDTH)]] = float;
using vi [[gnu::vector_size(4 * SCW_WIDTH)]] = std::int32_t;
using vu [[gnu::vector_size(4 * SCW_WIDTH)]] = std::uint32_t;

#define SCW_INLINE [[gnu::always_inline]] inline

SCW_INLINE vf splat(float x) { return x - vf{}; }
SCW_INLINE vu splat_u(std::uint32_t x) { return x - vu{}; }

SCW_INLINE vu load(const std::int32_t* from) {
  vu x;
  std::memcpy(&x, from, sizeof(vu));
  return x;
}

/// The two halves of the 64-bit products a * b.
SCW_INLINE void multiply(vu a, std::uint32_t b, vu& high, vu& low) {
#if defined(__x86_64__)
#if SCW_WIDTH == 16
  const __m512i m = _mm512_set1_epi32(static_cast<int>(b));
  const __m512i even = _mm512_mul_epu32((__m512i)a, m);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), m);
  high = (vu)_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
  low = (vu)_mm512_mask_mov_epi32(even, 0xAAAA, _mm512_slli_epi64(odd, 32));
#elif SCW_WIDTH == 8
  const __m256i m = _mm256_set1_epi32(static_cast<int>(b));
  const __m256i even = _mm256_mul_epu32((__m256i)a, m);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), m);
  high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
  low = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
#else
  const __m128i m = _mm_set1_epi32(static_cast<int>(b));
  const __m128i even = _mm_mul_epu32((__m128i)a, m);
  const __m128i odd = _mm_mul_epu32(_mm_srli_epi64((__m128i)a, 32), m);
  const __m128i mask = _mm_set_epi32(-1, 0, -1, 0);
  high = (vu)_mm_or_si128(_mm_srli_epi64(even, 32), _mm_and_si128(odd, mask));
  low = (vu)_mm_or_si128(_mm_andnot_si128(mask, even), _mm_slli_epi64(odd, 32));
#endif
#else
  for (int l = 0; l < SCW_WIDTH; ++l) {
    const std::uint64_t p = std::uint64_t{a[l]} * b;
    high[l] = static_cast<std::uint32_t>(p >> 32);
    low[l] = static_cast<std::uint32_t>(p);
  }
#endif
}

/// The coordinates of 16 ... 4 cells.
template <int D>
SCW_INLINE void gather(const float* y, vu cell, vf* out) {
#if defined(__x86_64__) && SCW_WIDTH == 16
  if constexpr (D == 2) {  // a cell is one 8-byte element
    const __m512d low = _mm512_i32gather_pd(_mm512_castsi512_si256((__m512i)cell), y, 8);
    const __m512d high = _mm512_i32gather_pd(_mm512_extracti64x4_epi64((__m512i)cell, 1), y, 8);
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    out[0] = (vf)_mm512_permutex2var_ps(_mm512_castpd_ps(low), even, _mm512_castpd_ps(high));
    out[1] = (vf)_mm512_permutex2var_ps(_mm512_castpd_ps(low), odd, _mm512_castpd_ps(high));
    return;
  }
#elif defined(__x86_64__) && SCW_WIDTH == 8
  if constexpr (D == 2) {
    const auto* const pairs = reinterpret_cast<const double*>(y);
    const __m256d low = _mm256_i32gather_pd(pairs, _mm256_castsi256_si128((__m256i)cell), 8);
    const __m256d high = _mm256_i32gather_pd(pairs, _mm256_extracti128_si256((__m256i)cell, 1), 8);
    const __m256 a = _mm256_permute2f128_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high), 0x20);
    const __m256 b = _mm256_permute2f128_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high), 0x31);
    // a = cells 0 1 4 5, b = cells 2 3 6 7, as pairs
    out[0] = (vf)_mm256_shuffle_ps(a, b, 0x88);
    out[1] = (vf)_mm256_shuffle_ps(a, b, 0xDD);
    return;
  }
#endif
  for (int l = 0; l < SCW_WIDTH; ++l)
    for (int k = 0; k < D; ++k) out[k][l] = y[std::int64_t{cell[l]} * D + k];
}

// Vector forms of math/pow.hpp and math/umap_curve.hpp, operation by operation.
SCW_INLINE vf pow_positive(vf x, float y) {
  const vu bits = (vu)x;
  const vi e = (vi)(bits - 0x3F3504F3u) >> 23;
  const vf f = (vf)(bits - ((vu)e << 23)) - 1.0f;
  const vf f2 = f * f;
  const vf low = (0x1.715476p+0f - 0x1.71552cp-1f * f) + (0x1.ec756ep-2f - 0x1.70dedep-2f * f) * f2;
  const vf high = (0x1.262f0ep-2f - 0x1.fe823ap-3f * f) + (0x1.dc78f4p-3f - 0x1.245f38p-3f * f) * f2;
  const vf p = low + high * (f2 * f2);
  vf t = y * (__builtin_convertvector(e, vf) + f * p);
  t = t < -126.0f ? splat(-126.0f) : t;
  t = t > 126.0f ? splat(126.0f) : t;
  const vf shifted = t + 0x1.8p23f;
  const vf r = t - (shifted - 0x1.8p23f);
  const vf r2 = r * r;
  const vf q = ((0x1.000002p+0f + 0x1.62e430p-1f * r) + (0x1.ebf906p-3f + 0x1.c6af6cp-5f * r) * r2) +
               (0x1.3d1070p-7f + 0x1.5f0890p-10f * r) * (r2 * r2);
  return (vf)((vu)q + ((vu)shifted << 23));
}
SCW_INLINE vf not_zero(vf d2) { return d2 > 1e-30f ? d2 : splat(1e-30f); }
SCW_INLINE vf clip4(vf x) {
  x = x < -4.0f ? splat(-4.0f) : x;
  return x > 4.0f ? splat(4.0f) : x;
}

/// collect() of cpu.cpp for a row: 16 edges at a time where the machine can pack the ones that are due.
SCW_INLINE std::int32_t collect_row(const UmapPass& p, std::int64_t begin, std::int64_t end, std::int32_t* out) {
#if defined(__x86_64__) && SCW_WIDTH == 16
  const __m512i iota = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const vu steps = (vu)iota * kGolden;
  std::int32_t count = 0;
  for (std::int64_t e = begin; e < end; e += 16) {
    const auto valid = static_cast<__mmask16>(end - e >= 16 ? 0xFFFF : (1 << (end - e)) - 1);
    const vu rate = (vu)_mm512_maskz_loadu_epi32(valid, p.graph.rates.data + e);
    const vu phase = static_cast<std::uint32_t>(e) * kGolden + steps + p.number * rate;
    const __mmask16 due = _mm512_mask_cmplt_epu32_mask(valid, (__m512i)phase, (__m512i)rate);
    const __m512i targets = _mm512_maskz_loadu_epi32(valid, p.graph.targets.data + e);
    _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(due, targets));
    count += __builtin_popcount(due);
  }
  return count;
#else
  return due_edges(p, begin, end, out);
#endif
}

/// The targets of a step; 0 where a lane has no more.
SCW_INLINE vu step_targets(const std::int32_t* targets, vi offset, vi count, int step) {
  const vi at = count > step ? offset + step : vi{};
#if defined(__x86_64__) && SCW_WIDTH == 16
  const vu x = (vu)_mm512_i32gather_epi32((__m512i)at, targets, 4);
#else
  vu x;
  for (int l = 0; l < SCW_WIDTH; ++l) x[l] = static_cast<std::uint32_t>(targets[at[l]]);
#endif
  return count > step ? x : vu{};
}

/// Cells [first, first + kUnroll * SCW_WIDTH) of the chunk, sorted by their number of steps. A step is a long chain of
/// dependent operations: two vectors of cells side by side keep the units busy.
inline constexpr int kUnroll = 2;

template <int D>
SCW_INLINE void step_lanes(const UmapPass& p, const Chunk& chunk, int first, const float* y, float* moved) {
  const auto n = static_cast<std::uint32_t>(p.graph.n_cells);
  vu ids[kUnroll];
  vi count[kUnroll];
  vi offset[kUnroll];
  vf here[kUnroll][D];
  for (int u = 0; u < kUnroll; ++u) {
    ids[u] = load(chunk.cell + first + u * SCW_WIDTH);
    count[u] = (vi)load(chunk.count + first + u * SCW_WIDTH);
    offset[u] = (vi)load(chunk.offset + first + u * SCW_WIDTH);
    gather<D>(y, ids[u], here[u]);
  }
  const int most = *std::max_element(chunk.count + first, chunk.count + first + kUnroll * SCW_WIDTH);

  const math::UmapForce force = p.force;
  const auto key_low = static_cast<std::uint32_t>(p.rng.seed);
  const auto key_high = static_cast<std::uint32_t>(p.rng.seed >> 32);
  const auto stream_low = static_cast<std::uint32_t>(p.rng.stream);
  const auto stream_high = static_cast<std::uint32_t>(p.rng.stream >> 32);
  vu words[kUnroll][4];
  std::uint32_t draw = 0;
  for (int step = 0; step < most; ++step) {
    vf alpha[kUnroll];
    for (int u = 0; u < kUnroll; ++u) {
      alpha[u] = count[u] > step ? splat(p.alpha) : vf{};
      const vu other = step_targets(chunk.targets, offset[u], count[u], step);
      vf at[D];
      gather<D>(y, other, at);
      vf d2{};
      for (int k = 0; k < D; ++k) {
        at[k] = here[u][k] - at[k];
        d2 += at[k] * at[k];
      }
      const vf s = not_zero(d2);
      const vf power = pow_positive(s, force.b);
      const vf f = force.attract * power / (s * (1.0f + force.a * power));
      for (int k = 0; k < D; ++k) here[u][k] += clip4(f * at[k]) * alpha[u];
    }

    vf push[kUnroll][D] = {};
    for (int t = 0; t < p.negatives; ++t, ++draw) {
      if (draw % 4 == 0) {  // random_words(rng, cell + 2^32 * pass, draw / 4)
        for (int u = 0; u < kUnroll; ++u) {
          vu c0 = ids[u];
          vu c1 = splat_u(p.number);
          vu c2 = splat_u((draw / 4) ^ stream_low);
          vu c3 = splat_u(stream_high);
          std::uint32_t k0 = key_low;
          std::uint32_t k1 = key_high;
          for (int round = 0; round < 10; ++round) {
            vu high0;
            vu low0;
            vu high1;
            vu low1;
            multiply(c0, 0xD2511F53u, high0, low0);
            multiply(c2, 0xCD9E8D57u, high1, low1);
            c0 = high1 ^ c1 ^ k0;
            c1 = low1;
            c2 = high0 ^ c3 ^ k1;
            c3 = low0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
          }
          words[u][0] = c0;
          words[u][1] = c1;
          words[u][2] = c2;
          words[u][3] = c3;
        }
      }
      for (int u = 0; u < kUnroll; ++u) {
        vu other;
        vu low;
        multiply(words[u][draw % 4], n, other, low);  // math::bounded
        vf at[D];
        gather<D>(y, other, at);
        vf d2{};
        for (int k = 0; k < D; ++k) {
          at[k] = here[u][k] - at[k];
          d2 += at[k] * at[k];
        }
        const vf s = not_zero(d2);
        const vf f = force.repel / ((0.001f + s) * (1.0f + force.a * pow_positive(s, force.b)));
        for (int k = 0; k < D; ++k) push[u][k] += clip4(f * at[k]);
      }
    }
    for (int u = 0; u < kUnroll; ++u)
      for (int k = 0; k < D; ++k) here[u][k] += push[u][k] * alpha[u];
  }
  for (int u = 0; u < kUnroll; ++u)
    for (int l = 0; l < SCW_WIDTH; ++l) {
      const std::int32_t slot = chunk.slot[first + u * SCW_WIDTH + l];
      for (int k = 0; k < D; ++k) moved[std::int64_t{slot} * D + k] = here[u][k][l];
    }
}

/// The cells of groups [begin, end) of a block: new positions into moved (a row per slot of the chunk, and one to
/// spare).
template <int D>
void step_chunk(const UmapPass& p, Chunk& chunk, std::int64_t block, std::int64_t begin, std::int64_t end,
                const float* y, float* moved) {
  std::int32_t offset[kChunkCells];
  std::int32_t count[kChunkCells];
  std::int32_t n = 0;
  std::int32_t used = 0;
  const UmapDeal deal(p.graph.n_active);
  for (std::int64_t g = begin; g < end; ++g) {
    const std::int64_t i = deal.group(block, g) * kUmapLanes;
    for (std::int64_t l = 0; l < kUmapLanes && i + l < p.graph.n_active; ++l, ++n) {
      offset[n] = used;
      count[n] = collect_row(p, p.graph.indptr[i + l], p.graph.indptr[i + l + 1], chunk.targets + used);
      used += count[n];
    }
  }
  // Counting sort: the cells of a vector have about the same number of steps.
  constexpr int kBuckets = 64;
  std::int32_t start[kBuckets + 1] = {};
  const auto bucket = [&](std::int32_t c) { return kBuckets - 1 - std::min(c, kBuckets - 1); };
  for (std::int32_t k = 0; k < n; ++k) ++start[bucket(count[k]) + 1];
  for (int k = 0; k < kBuckets; ++k) start[k + 1] += start[k];
  for (std::int32_t k = 0; k < n; ++k) {
    const std::int32_t at = start[bucket(count[k])]++;
    const std::int64_t g = begin + k / kUmapLanes;
    chunk.cell[at] = static_cast<std::int32_t>(deal.group(block, g) * kUmapLanes + k % kUmapLanes);
    chunk.offset[at] = offset[k];
    chunk.count[at] = count[k];
    chunk.slot[at] = k;
  }
  for (std::int32_t at = n; at < n + kUnroll * SCW_WIDTH; ++at) {  // the lanes past the end of the last vector
    chunk.cell[at] = 0;
    chunk.offset[at] = 0;
    chunk.count[at] = 0;
    chunk.slot[at] = kChunkCells;
  }
  for (int first = 0; first < n; first += kUnroll * SCW_WIDTH) step_lanes<D>(p, chunk, first, y, moved);
}

inline void step_2d(const UmapPass& p, Chunk& chunk, std::int64_t block, std::int64_t begin, std::int64_t end,
                    const float* y, float* moved) {
  step_chunk<2>(p, chunk, block, begin, end, y, moved);
}
inline void step_3d(const UmapPass& p, Chunk& chunk, std::int64_t block, std::int64_t begin, std::int64_t end,
                    const float* y, float* moved) {
  step_chunk<3>(p, chunk, block, begin, end, y, moved);
}

#undef SCW_INLINE

}  // namespace SCW_LANES_SPACE
