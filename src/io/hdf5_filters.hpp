// The filters of chunked datasets, undone by our own threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "io/codecs.hpp"
#include "io/hdf5.hpp"

namespace scw::io::h5 {

// Registered with The HDF Group: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
constexpr H5Z_filter_t kLzf = 32000;  // h5py's
constexpr H5Z_filter_t kBlosc = 32001;
constexpr H5Z_filter_t kLz4 = 32004;
constexpr H5Z_filter_t kZstd = 32015;
constexpr std::int64_t kFreeBytes = 64 << 20;  // declared sizes below this are not questioned

struct Filter {
  H5Z_filter_t id = 0;
  std::vector<unsigned> values;
};

/// The filters of a chunked dataset, in the order in which they were applied; nothing if we cannot undo one ourselves.
/// Throws NotSupported if HDF5 cannot either.
std::optional<std::vector<Filter>> own_filters(const Dataset& d);

/// Bytes that one stored byte can unpack to, at most.
std::int64_t max_expansion(const Dataset& d);

/// Undoes filters. Not for use by two threads at once.
class Unpacker {
 public:
  Unpacker() = default;
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;

  /// For the caller: a chunk as it is stored, and as it is.
  std::vector<std::byte> packed, plain;

  /// packed -> `out`, which gets `bytes` bytes of elements of `element` bytes; false if the chunk is damaged.
  bool unpack(const std::vector<Filter>& filters, unsigned skipped, std::size_t bytes, std::size_t element,
              std::byte* out);

 private:
  Codecs codecs_;
  std::vector<std::byte> spare_[2];
};

}  // namespace scw::io::h5
