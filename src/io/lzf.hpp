// The LZF byte format, as h5py's "lzf" filter stores it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "scwarp/core/config.hpp"

namespace scw::io {

/// Bytes written to `out`, or -1 if the input is damaged or does not fit `capacity`.
SCW_API std::int64_t lzf_decompress(const std::uint8_t* in, std::size_t size, std::uint8_t* out, std::size_t capacity);

/// Bytes written, or -1 if they would not fit `capacity`.
SCW_API std::int64_t lzf_compress(const std::uint8_t* in, std::size_t size, std::uint8_t* out, std::size_t capacity);

}  // namespace scw::io
