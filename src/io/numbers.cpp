#include "io/numbers.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/simd.hpp"

namespace scw::io {
namespace {

/// Converts n values; true if all fit.
template <class Dst, class Src>
SCW_CLONES bool convert_all(const Src* in, Dst* out, std::int64_t n) {
  if constexpr (std::is_same_v<Src, Dst>) {
    std::memcpy(out, in, static_cast<std::size_t>(n) * sizeof(Dst));
    return true;
  } else if constexpr (std::is_integral_v<Src> && std::is_integral_v<Dst>) {
    using Bits = std::make_unsigned_t<Src>;
    for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<Dst>(in[i]);
    // In this form the compiler finds vectors: what differs after the way back, and signs that differ.
    Bits bad = 0;
    for (std::int64_t i = 0; i < n; ++i) bad |= static_cast<Bits>(in[i] ^ static_cast<Src>(static_cast<Dst>(in[i])));
    if constexpr (std::is_signed_v<Src> != std::is_signed_v<Dst>) {
      constexpr int kTop = 8 * static_cast<int>(std::min(sizeof(Src), sizeof(Dst))) - 1;
      if constexpr (std::is_signed_v<Src> || sizeof(Src) >= sizeof(Dst)) {
        Bits signs = 0;
        for (std::int64_t i = 0; i < n; ++i) signs |= static_cast<Bits>(in[i]);
        if constexpr (std::is_signed_v<Src>)
          bad |= static_cast<Bits>(signs >> (8 * sizeof(Src) - 1));
        else
          bad |= static_cast<Bits>(signs >> kTop & 1U);
      }
    }
    return bad == 0;
  } else if constexpr (std::is_integral_v<Src>) {
    // Integers up to 2^24 (2^53) are exact in float (double); larger ones are asked for more room, also when they
    // happen to be exact.
    constexpr std::int64_t kExact = std::int64_t{1} << (std::is_same_v<Dst, float> ? 24 : 53);
    for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<Dst>(in[i]);
    if constexpr (sizeof(Src) * 8 - std::is_signed_v<Src> <= (std::is_same_v<Dst, float> ? 24 : 53)) {
      return true;
    } else {
      Src least = 0, most = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        least = std::min(least, in[i]);
        most = std::max(most, in[i]);
      }
      return std::cmp_greater_equal(least, -kExact) && std::cmp_less_equal(most, kExact);
    }
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<Dst>(in[i]);
    return true;
  }
}

}  // namespace

template <class Dst, class Src>
bool convert(const Src* in, Dst* out, std::int64_t n) {
  return convert_all(in, out, n);
}

#define SCW_CONVERT_FROM(Src)                                     \
  template bool convert(const Src*, std::uint8_t*, std::int64_t); \
  template bool convert(const Src*, std::int32_t*, std::int64_t); \
  template bool convert(const Src*, std::int64_t*, std::int64_t); \
  template bool convert(const Src*, float*, std::int64_t);        \
  template bool convert(const Src*, double*, std::int64_t)
SCW_CONVERT_FROM(std::int8_t);
SCW_CONVERT_FROM(std::uint8_t);
SCW_CONVERT_FROM(std::int16_t);
SCW_CONVERT_FROM(std::uint16_t);
SCW_CONVERT_FROM(std::int32_t);
SCW_CONVERT_FROM(std::uint32_t);
SCW_CONVERT_FROM(std::int64_t);
SCW_CONVERT_FROM(std::uint64_t);
#undef SCW_CONVERT_FROM
template bool convert(const float*, float*, std::int64_t);
template bool convert(const float*, double*, std::int64_t);
template bool convert(const double*, float*, std::int64_t);
template bool convert(const double*, double*, std::int64_t);

}  // namespace scw::io
