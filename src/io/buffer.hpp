// Bytes that are about to be written: nobody has to clear them first.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace scw::io {

/// Leaves new elements as they are.
template <class T>
struct Unset : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = Unset<U>;
  };
  template <class U>
  void construct(U* p) noexcept {
    ::new (static_cast<void*>(p)) U;
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
};

/// A vector whose resize() does not set what is new. Memory that several chunks take turns in.
using Buffer = std::vector<std::byte, Unset<std::byte>>;

}  // namespace scw::io
