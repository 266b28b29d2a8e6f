// What the parts of the HDF5 reader share.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "io/hdf5.hpp"

namespace scw::io::h5 {

constexpr H5Z_filter_t kLzf = 32000;           // as h5py registers it
constexpr std::int64_t kMaxExpansion = 1040;   // deflate cannot do better than 1032 to 1
constexpr std::int64_t kFreeBytes = 64 << 20;  // declared sizes below this are not questioned

/// The filters of a chunked dataset; nothing if we cannot undo one ourselves. Throws if HDF5 cannot either.
std::optional<std::vector<H5Z_filter_t>> own_filters(const Dataset& d);

}  // namespace scw::io::h5
