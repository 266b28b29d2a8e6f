// What the checks of an HDF5 file's structure are written with.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "io/hdf5_structure.hpp"

namespace scw::io::h5 {

constexpr std::uint64_t kUndefined = ~std::uint64_t{0};

template <class... Args>
[[noreturn]] inline void damage(fmt::format_string<Args...> text, Args&&... args) {
  throw Structure::Damage{fmt::format(text, std::forward<Args>(args)...)};
}
inline void require(bool ok, const char* what) {
  if (!ok) damage("{}", what);
}

/// Bytes that are taken from the front, little-endian. Throws Damage when they run out.
struct Structure::Cursor {
  const std::uint8_t* p = nullptr;
  std::size_t n = 0;

  std::uint64_t take(std::size_t bytes) {
    require(bytes <= n && bytes <= 8, "a header message is too short");
    std::uint64_t v = 0;
    std::memcpy(&v, p, bytes);
    p += bytes;
    n -= bytes;
    return v;
  }
  void skip(std::uint64_t bytes) {
    require(bytes <= n, "a header message is too short");
    p += bytes;
    n -= bytes;
  }
  Cursor part(std::uint64_t bytes) {
    const Cursor c{p, static_cast<std::size_t>(bytes)};
    skip(bytes);
    return c;
  }
};

}  // namespace scw::io::h5
