// Types of numbers by their NumPy names.
#pragma once

#include <cstdint>
#include <string_view>

namespace scw::io {

/// f(T{}) for a type that is stored as it is in memory; false, and nothing called, for others. bool counts as uint8.
template <class F>
bool with_type(std::string_view name, F&& f) {
  const auto yes = [&](auto t) {
    f(t);
    return true;
  };
  if (name == "float32") return yes(float{});
  if (name == "float64") return yes(double{});
  if (name == "bool" || name == "uint8") return yes(std::uint8_t{});
  if (name == "int8") return yes(std::int8_t{});
  if (name == "int16") return yes(std::int16_t{});
  if (name == "uint16") return yes(std::uint16_t{});
  if (name == "int32") return yes(std::int32_t{});
  if (name == "uint32") return yes(std::uint32_t{});
  if (name == "int64") return yes(std::int64_t{});
  if (name == "uint64") return yes(std::uint64_t{});
  return false;
}

}  // namespace scw::io
