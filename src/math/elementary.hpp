// Our own exp, expm1, log and log1p: the same bits on CPU and GPU, in every vector width, because they use only IEEE
// add, multiply and divide in a written order (built without contraction to fused multiply-add).
//
// Series and reductions: log(m 2^k) = k ln2 + 2 atanh((m-1)/(m+1)) (Abramowitz & Stegun 4.1.27);
// exp(x) = 2^k exp(r), r = x - k ln2 in two parts (Cody & Waite 1980); log1p by the correction of Kahan,
// log(u) + (x - (u - 1))/u with u = fl(1 + x).
#pragma once

#include <cstdint>
#include <limits>

#include "scwarp/core/config.hpp"

namespace scw::math {

#if defined(__CUDA_ARCH__)
SCW_HD inline std::uint64_t bits_of(double x) { return static_cast<std::uint64_t>(__double_as_longlong(x)); }
SCW_HD inline double from_bits(std::uint64_t b) { return __longlong_as_double(static_cast<long long>(b)); }
#else
SCW_HD inline std::uint64_t bits_of(double x) { return __builtin_bit_cast(std::uint64_t, x); }
SCW_HD inline double from_bits(std::uint64_t b) { return __builtin_bit_cast(double, b); }
#endif

inline constexpr double kLn2Hi = 0x1.62e42fefa3800p-1;  // 42 bits of ln 2: k * kLn2Hi is exact for |k| < 2^11
inline constexpr double kLn2Lo = 0x1.ef35793c76730p-45;
inline constexpr double kInvLn2 = 0x1.71547652b82fep+0;

/// x = m * 2^k with m in [sqrt(1/2), sqrt(2)); x positive, finite, normal.
SCW_HD inline double split_exponent(double x, double& k) {
  const std::uint64_t b = bits_of(x);
  // Shifting by the bits of sqrt(1/2) makes the exponent field change at sqrt(1/2) instead of at 1.
  const std::uint64_t shifted = b - 0x3FE6A09E667F3BCDull;
  const std::int64_t e = static_cast<std::int64_t>(shifted) >> 52;
  // int -> double through the mantissa of 2^52: vectorises without AVX-512DQ, exact for |e| < 2^51.
  k = from_bits(0x4338000000000000ull + static_cast<std::uint64_t>(e)) - 0x1.8p52;
  return from_bits(b - (static_cast<std::uint64_t>(e) << 52));
}

/// ln of a positive normal number; 2 ulp. (Callers deal with 0, negative, infinite, NaN.)
SCW_HD inline double log_positive(double x) {
  double k = 0;
  const double m = split_exponent(x, k);
  const double f = m - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double p = 2.0 / 23.0;
  p = p * z + 2.0 / 21.0;
  p = p * z + 2.0 / 19.0;
  p = p * z + 2.0 / 17.0;
  p = p * z + 2.0 / 15.0;
  p = p * z + 2.0 / 13.0;
  p = p * z + 2.0 / 11.0;
  p = p * z + 2.0 / 9.0;
  p = p * z + 2.0 / 7.0;
  p = p * z + 2.0 / 5.0;
  p = p * z + 2.0 / 3.0;
  return k * kLn2Hi + (2.0 * s + (s * z * p + k * kLn2Lo));
}

/// ln(1 + x) in double; 3 ulp. log1p(-1) = -inf, NaN below -1.
SCW_HD inline double log1p(double x) {
  const double u = 1.0 + x;
  const double c = u > 2.0 ? 1.0 - (u - x) : x - (u - 1.0);
  const double safe = (u > 0.0 && u <= std::numeric_limits<double>::max()) ? u : 1.0;
  double r = log_positive(safe) + c / safe;
  r = x > -1.0 ? r : (x == -1.0 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN());
  return u > std::numeric_limits<double>::max() ? u : r;
}

/// a b + c, rounded twice, or once if kFused.
template <bool kFused>
SCW_HD inline double multiply_add(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  if constexpr (kFused) return fma(a, b, c);
#endif
  return a * b + c;
}

/// ln u for log1p(float), u a positive normal number; relative error below 3.5e-11.
template <bool kFused = false>
SCW_HD inline double log_for_float(double u) {
  double k = 0;
  const double f = split_exponent(u, k) - 1.0;  // [-0.2929, 0.4143)
  // ln(1+f) = f + f^2 q(f); q: Chebyshev interpolation of (ln(1+f) - f)/f^2 on that interval.
  double q = 0x1.b9ce201c5fbb0p-5;
  q = multiply_add<kFused>(q, f, -0x1.903d12a33abedp-4);
  q = multiply_add<kFused>(q, f, 0x1.967b6c007aa1cp-4);
  q = multiply_add<kFused>(q, f, -0x1.96fbfe69b0695p-4);
  q = multiply_add<kFused>(q, f, 0x1.c3b930b4ce5fdp-4);
  q = multiply_add<kFused>(q, f, -0x1.ffed885e08173p-4);
  q = multiply_add<kFused>(q, f, 0x1.24a4605850f32p-3);
  q = multiply_add<kFused>(q, f, -0x1.555628452ffd2p-3);
  q = multiply_add<kFused>(q, f, 0x1.99994a9651e26p-3);
  q = multiply_add<kFused>(q, f, -0x1.fffffce751926p-3);
  q = multiply_add<kFused>(q, f, 0x1.5555558685d78p-2);
  q = multiply_add<kFused>(q, f, -0x1.0000000061fefp-1);
  return multiply_add<kFused>(k, kLn2Hi + kLn2Lo, multiply_add<kFused>(f * f, q, f));
}

/// ln(1 + x) of a float, through double without a division: within 0.501 ulp.
SCW_HD inline float log1p(float xf) {
  const double x = static_cast<double>(xf);
  const double u = 1.0 + x;
#if defined(__CUDA_ARCH__)
  // Nearly every value. Double is what a GPU is short of: half of the arithmetic, fused, gives a double that is at most
  // 16 units of the last place from the one below. (|f| < 0.42, so q is wrong by 1.5 of 2^-53 and f + f^2 q by 2.4, and
  // with k >= 1 at most half of the digits cancel: 5.4, in either way.) If no float ends within 64 units of it, both
  // round to the same float; one value in four million is done again.
  if (xf > 1.01e-4f && xf < 3e38f) {
    const double fused = log_for_float<true>(u);
    constexpr unsigned kBelow = (1u << 29) - 1, kHalf = 1u << 28, kNear = 64;  // the 29 bits that a float does not have
    if ((static_cast<unsigned>(bits_of(fused)) & kBelow) - (kHalf - kNear) > 2 * kNear)
      return static_cast<float>(fused);
    return static_cast<float>(log_for_float(u));
  }
#endif
  const double safe = (u > 0.0 && u <= 3.5e38) ? u : 1.0;
  double r = log_for_float(safe);
  const double tiny = x - x * x * (0.5 - x * (1.0 / 3.0));  // 1 + x has lost the digits of a tiny x
  r = (x < 1e-4 && x > -1e-4) ? tiny : r;
  r = x > -1.0 ? r : (x == -1.0 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN());
  return static_cast<float>(u > 3.5e38 ? u : r);
}

/// exp(x) - 1 for |x| <= ln2 / 2 by its Taylor series to the 14th power.
SCW_HD inline double expm1_reduced(double r) {
  double p = 1.0 / 87178291200.0;
  p = p * r + 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  return r + r * r * p;
}

/// exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1); 3 ulp. -1 below -38, +inf above 709.78, NaN stays.
SCW_HD inline double expm1(double x) {
  const double clamped = x < -40.0 ? -40.0 : (x > 709.782712893384 ? 709.782712893384 : x);
  const double shifted = clamped * kInvLn2 + 0x1.8p52;  // rounds to the nearest integer in the low mantissa bits
  const double k = shifted - 0x1.8p52;
  const double r = (clamped - k * kLn2Hi) - k * kLn2Lo;
  const double e = expm1_reduced(r);
  // 2^k in two factors, so that k = 1024 does not overflow on the way.
  const double half = from_bits((bits_of(shifted) + 1022) << 52);  // 2^(k-1)
  const double y = 2.0 * (half * e + (half - 0.5));
  return x > 709.782712893384 ? std::numeric_limits<double>::infinity() : (x != x ? x : y);
}

/// exp(x); 3 ulp. 0 below -708 (no subnormal results), +inf above 709.78, NaN stays.
SCW_HD inline double exp(double x) {
  const double clamped = x < -708.0 ? -708.0 : (x > 709.782712893384 ? 709.782712893384 : x);
  const double shifted = clamped * kInvLn2 + 0x1.8p52;
  const double k = shifted - 0x1.8p52;
  const double r = (clamped - k * kLn2Hi) - k * kLn2Lo;
  const double half = from_bits((bits_of(shifted) + 1022) << 52);
  const double y = 2.0 * (half + half * expm1_reduced(r));
  const double capped = x > 709.782712893384 ? std::numeric_limits<double>::infinity() : y;
  return x < -708.0 ? 0.0 : (x != x ? x : capped);
}

}  // namespace scw::math
