// Sums of floating-point numbers that do not depend on the order of the terms: the numbers become integers, and
// integers are added in 128 bits. Chunks, threads and devices may then be merged in any order (tier A).
//
// A set of values that share a scale (a gene, or a matrix) becomes q = round(x * 2^shift), |q| <= 2^47, with the shift
// taken from max |x|. Floats down to max|x| * 2^-23 and counts are exact in it; what is smaller is rounded to
// max|x| * 2^-48. Up to 2^31 terms, the sums of q and of q^2 are exact in 128 bits, and so is the centred sum of
// squares: a variance loses no digits, however far the mean is from zero.
#pragma once

#include <cstdint>

#include "math/elementary.hpp"
#include "scwarp/core/config.hpp"

namespace scw::prim {

__extension__ using Int128 = __int128;
__extension__ using Uint128 = unsigned __int128;

/// |q| <= 2^kFixedBits.
inline constexpr int kFixedBits = 47;
/// Terms that may be added: sum q^2 <= 2^(2*47 + 31) < 2^127.
inline constexpr std::int64_t kFixedMaxTerms = std::int64_t{1} << 31;
/// Terms whose sum of q is safe in 64 bits, for inner loops that flush into 128 bits now and then.
inline constexpr std::int64_t kFixedTermsIn64 = std::int64_t{1} << 15;

/// 2^e as a double, -1022 <= e <= 1023.
SCW_HD inline double power_of_two(int e) {
  return math::from_bits(static_cast<std::uint64_t>(static_cast<std::int64_t>(e) + 1023) << 52);
}

struct FixedScale {
  int shift = 0;
  double factor = 1.0;  // 2^shift

  FixedScale() = default;
  SCW_HD explicit FixedScale(int s) : shift(s), factor(power_of_two(s)) {}
  /// The finest scale for values of magnitude up to max_abs (finite, >= 0). Below 2^-953 everything becomes 0.
  SCW_HD static FixedScale for_max(double max_abs) {
    const int exponent = static_cast<int>((math::bits_of(max_abs) >> 52) & 0x7FF) - 1023;  // max_abs < 2^(exponent + 1)
    const int s = kFixedBits - 1 - exponent;
    return FixedScale(s > 1000 ? 1000 : s);
  }

  /// round(x * 2^shift), halves to even; x finite and within the scale.
  SCW_HD std::int64_t quantise(double x) const {
#if defined(__CUDA_ARCH__)
    return __double2ll_rn(x * factor);
#else
    // Adding 1.5 * 2^52 rounds to an integer and leaves it in the low mantissa bits; vectorises.
    const double shifted = x * factor + 0x1.8p52;
    return static_cast<std::int64_t>(math::bits_of(shifted) - math::bits_of(0x1.8p52));
#endif
  }
};

/// Of x > 0.
SCW_HD inline int leading_zeros(std::uint64_t x) {
#if defined(__CUDA_ARCH__)
  return __clzll(static_cast<long long>(x));
#else
  return __builtin_clzll(x);
#endif
}

/// Nearest double, halves to even (in a written order: the same on every compiler and device).
SCW_HD inline double to_double(Int128 value) {
  const bool negative = value < 0;
  const Uint128 magnitude = negative ? -static_cast<Uint128>(value) : static_cast<Uint128>(value);
  auto high = static_cast<std::uint64_t>(magnitude >> 64);
  auto low = static_cast<std::uint64_t>(magnitude);
  double r = 0;
  if (high == 0) {
    r = static_cast<double>(low);
  } else {
    const int shift = leading_zeros(high);  // bring the leading one to bit 63; what falls off stays as a sticky bit
    if (shift > 0) high = (high << shift) | (low >> (64 - shift));
    low <<= shift;
    r = static_cast<double>(high | static_cast<std::uint64_t>(low != 0)) * power_of_two(64 - shift);
  }
  return negative ? -r : r;
}

/// x * 2^e for any e in [-2044, 2046]: in two steps, so that the factor itself does not overflow.
SCW_HD inline double scale_by(double x, int e) {
  const int half = e / 2;
  return x * power_of_two(half) * power_of_two(e - half);
}

/// n terms with sums sum and sum_sq of q and q^2.
struct FixedMoments {
  Int128 sum = 0;
  Int128 sum_sq = 0;

  SCW_HD void add(std::int64_t q) {
    sum += q;
    sum_sq += static_cast<Int128>(q) * q;
  }
  SCW_HD FixedMoments& operator+=(const FixedMoments& o) {
    sum += o.sum;
    sum_sq += o.sum_sq;
    return *this;
  }
  /// The terms of *this that are not in o: exact, so "everything but this group" costs nothing.
  SCW_HD FixedMoments operator-(const FixedMoments& o) const {
    FixedMoments r;
    r.sum = sum - o.sum;
    r.sum_sq = sum_sq - o.sum_sq;
    return r;
  }
};

/// The same for inner loops of up to kFixedTermsIn64 terms, in 64-bit additions and 32-bit products: with
/// q = h 2^24 + l and |l| <= 2^23, q^2 = h^2 2^48 + h l 2^25 + l^2, where no product exceeds 2^46.
struct FixedMomentsIn64 {
  std::int64_t sum = 0, high = 0, mixed = 0, low = 0;

  SCW_HD void add(std::int64_t q) {
    const std::int32_t l = static_cast<std::int32_t>(static_cast<std::uint32_t>(q) << 8) >> 8;
    const auto h = static_cast<std::int32_t>((q - l) >> 24);
    sum += q;
    high += static_cast<std::int64_t>(h) * h;
    mixed += static_cast<std::int64_t>(h) * l;
    low += static_cast<std::int64_t>(l) * l;
  }
  SCW_HD FixedMoments moments() const {
    FixedMoments m;
    m.sum = sum;
    m.sum_sq = static_cast<Int128>(high) * (std::int64_t{1} << 48) + static_cast<Int128>(mixed) * (1 << 25) + low;
    return m;
  }
};

/// sum of x = sum of q / 2^shift.
SCW_HD inline double fixed_sum(Int128 sum, FixedScale scale) { return scale_by(to_double(sum), -scale.shift); }
SCW_HD inline double fixed_sum_sq(const FixedMoments& m, FixedScale scale) {
  return scale_by(to_double(m.sum_sq), -2 * scale.shift);
}
/// sum = quotient * n + remainder with |remainder| <= n / 2; n > 0.
SCW_HD inline Int128 divide_to_nearest(Int128 sum, std::int64_t n, Int128& remainder) {
  Int128 quotient = 0;
  const Int128 shifted = sum + (sum < 0 ? -(n / 2) : n / 2);
  if (shifted == static_cast<std::int64_t>(shifted))
    quotient = static_cast<std::int64_t>(shifted) / n;  // several times faster than 128 bits
  else
    quotient = shifted / n;
  remainder = sum - quotient * n;
  return quotient;
}

/// n > 0 terms, with q their mean: quotient q and the remainder r = sum - n q, |r| <= n / 2, which is exact.
struct FixedCentre {
  Int128 quotient = 0, remainder = 0;

  SCW_HD FixedCentre(Int128 sum, std::int64_t n) { quotient = divide_to_nearest(sum, n, remainder); }
  SCW_HD double mean(std::int64_t n, FixedScale scale) const {
    return scale_by(to_double(quotient) + to_double(remainder) / static_cast<double>(n), -scale.shift);
  }
  /// Of (x - mean)^2: (sum_sq - n q^2 - 2 q r) - r^2/n, where the parenthesis is an exact integer.
  SCW_HD double centred_sum_sq(const FixedMoments& v, std::int64_t n, FixedScale scale) const {
    const Int128 centred = v.sum_sq - quotient * quotient * n - 2 * quotient * remainder;
    const double rd = to_double(remainder);
    const double d = to_double(centred) - rd * rd / static_cast<double>(n);
    return scale_by(d > 0 ? d : 0.0, -2 * scale.shift);
  }
};

/// Mean over n terms (implicit zeros are counted by n alone); NaN for n = 0. Equal terms have exactly their value as
/// mean, whatever n, so that two groups of a constant gene do not differ.
SCW_HD inline double fixed_mean(Int128 sum, std::int64_t n, FixedScale scale) {
  if (n <= 0) return math::from_bits(0x7FF8000000000000ull);
  return FixedCentre(sum, n).mean(n, scale);
}

/// Sum of (x - mean)^2 over n terms.
SCW_HD inline double fixed_centred_sum_sq(const FixedMoments& v, std::int64_t n, FixedScale scale) {
  return n > 0 ? FixedCentre(v.sum, n).centred_sum_sq(v, n, scale) : 0.0;
}
/// Variance with ddof; NaN for n <= ddof.
SCW_HD inline double fixed_variance(const FixedMoments& v, std::int64_t n, int ddof, FixedScale scale) {
  return n > ddof ? fixed_centred_sum_sq(v, n, scale) / static_cast<double>(n - ddof)
                  : math::from_bits(0x7FF8000000000000ull);
}

/// What integers cannot hold: which non-finite values were among the terms. Combine with |.
inline constexpr std::uint8_t kFixedNan = 1, kFixedPlusInf = 2, kFixedMinusInf = 4;
SCW_HD inline std::uint8_t fixed_flag(double x) {
  if (x != x) return kFixedNan;
  if (x > 1.7976931348623157e308) return kFixedPlusInf;
  return x < -1.7976931348623157e308 ? kFixedMinusInf : std::uint8_t{0};
}
/// The sum that IEEE addition would give: `finite_sum` unless a flag says otherwise.
SCW_HD inline double fixed_sum_with_flags(double finite_sum, std::uint8_t flags) {
  if (flags == 0) return finite_sum;
  if (flags == kFixedPlusInf) return math::from_bits(0x7FF0000000000000ull);
  if (flags == kFixedMinusInf) return math::from_bits(0xFFF0000000000000ull);
  return math::from_bits(0x7FF8000000000000ull);
}

}  // namespace scw::prim
