// Single-precision log2, exp2 and x^y for inner loops: only IEEE add and multiply in a written order and integer
// operations on the bits, so every vector width and every machine gives the same bits, and compilers vectorise them.
//
// Argument reductions as in elementary.hpp (mantissa in [sqrt(1/2), sqrt(2)); nearest integer by the magic constant);
// polynomials by Chebyshev interpolation.
#pragma once

#include <cstdint>

#include "scwarp/core/config.hpp"

namespace scw::math {

#if defined(__CUDA_ARCH__)
SCW_HD inline std::uint32_t bits_of(float x) { return __float_as_uint(x); }
SCW_HD inline float from_bits(std::uint32_t b) { return __uint_as_float(b); }
#else
SCW_HD inline std::uint32_t bits_of(float x) { return __builtin_bit_cast(std::uint32_t, x); }
SCW_HD inline float from_bits(std::uint32_t b) { return __builtin_bit_cast(float, b); }
#endif

/// log2 of a positive normal float; absolute error below 2e-7 (1 + |log2 x|).
SCW_HD inline float log2_positive(float x) {
  const std::uint32_t b = bits_of(x);
  const std::int32_t e = static_cast<std::int32_t>(b - 0x3F3504F3u) >> 23;
  const float f = from_bits(b - (static_cast<std::uint32_t>(e) << 23)) - 1.0f;
  // Even and odd parts first (Estrin's scheme): the loops that use this wait for results more than for units.
  const float f2 = f * f;
  const float low = (0x1.715476p+0f - 0x1.71552cp-1f * f) + (0x1.ec756ep-2f - 0x1.70dedep-2f * f) * f2;
  const float high = (0x1.262f0ep-2f - 0x1.fe823ap-3f * f) + (0x1.dc78f4p-3f - 0x1.245f38p-3f * f) * f2;
  const float p = low + high * (f2 * f2);
  return static_cast<float>(e) + f * p;
}

/// 2^t, t clamped to [-126, 126]; relative error below 3e-7.
SCW_HD inline float exp2_clamped(float t) {
  t = t < -126.0f ? -126.0f : t;
  t = t > 126.0f ? 126.0f : t;
  const float shifted = t + 0x1.8p23f;
  const float r = t - (shifted - 0x1.8p23f);
  const float r2 = r * r;
  const float p = ((0x1.000002p+0f + 0x1.62e430p-1f * r) + (0x1.ebf906p-3f + 0x1.c6af6cp-5f * r) * r2) +
                  (0x1.3d1070p-7f + 0x1.5f0890p-10f * r) * (r2 * r2);
  // The low bits of `shifted` hold the integer: adding it to the exponent field multiplies by 2^k.
  return from_bits(bits_of(p) + (bits_of(shifted) << 23));
}

/// x^y of a positive normal x; relative error below 2e-7 (1 + |y log2 x|), saturating at 2^-126 and 2^126.
SCW_HD inline float pow_positive(float x, float y) { return exp2_clamped(y * log2_positive(x)); }

}  // namespace scw::math
