// The byte shuffle of HDF5: first all first bytes of the elements, then all second ones, and so on.
#pragma once

#include <cstddef>

namespace scw::io {

/// `bytes` bytes of elements of `element` bytes; what is left over at the end stays as it is.
void unshuffle(const std::byte* in, std::byte* out, std::size_t bytes, std::size_t element);

}  // namespace scw::io
