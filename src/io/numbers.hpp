// From the number types of files to those of matrices.
#pragma once

#include <cstddef>
#include <cstdint>

#include "io/store.hpp"

namespace scw::io {

/// Converts n values; true if all fit. Integers that a floating-point type need not hold exactly (above 2^24, 2^53) do
/// not fit it; rounding a floating-point number is no misfit. Src: one of the ten number types; Dst: uint8, int32,
/// int64 and, from any Src, float and double.
template <class Dst, class Src>
bool convert(const Src* in, Dst* out, std::int64_t n);

/// f(T{}) for the type of integers (or booleans, stored as int8) of this size.
template <class F>
void visit_integer(Kind kind, std::size_t size, bool is_signed, F&& f) {
  if (kind == Kind::boolean) return f(std::int8_t{});
  if (is_signed) switch (size) {
      case 1:
        return f(std::int8_t{});
      case 2:
        return f(std::int16_t{});
      case 4:
        return f(std::int32_t{});
      default:
        return f(std::int64_t{});
    }
  switch (size) {
    case 1:
      return f(std::uint8_t{});
    case 2:
      return f(std::uint16_t{});
    case 4:
      return f(std::uint32_t{});
    default:
      return f(std::uint64_t{});
  }
}

}  // namespace scw::io
