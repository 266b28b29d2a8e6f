#include "io/hdf5_filters.hpp"

#include <libdeflate.h>

#include <cstring>

#include "io/lzf.hpp"
#include "io/shuffle.hpp"

namespace scw::io::h5 {

struct Unpacker::Codecs {
  libdeflate_decompressor* deflate = nullptr;

  Codecs() = default;
  Codecs(const Codecs&) = delete;
  Codecs& operator=(const Codecs&) = delete;
  ~Codecs() {
    if (deflate != nullptr) libdeflate_free_decompressor(deflate);
  }

  /// False unless the result has exactly `bytes` bytes.
  bool undo(const Filter& filter, const std::byte* from, std::size_t have, std::byte* to, std::size_t bytes,
            std::size_t element) {
    switch (filter.id) {
      case H5Z_FILTER_SHUFFLE:
        if (have != bytes) return false;
        unshuffle(from, to, bytes, element);
        return true;
      case H5Z_FILTER_DEFLATE: {
        if (deflate == nullptr) deflate = libdeflate_alloc_decompressor();
        std::size_t got = 0;
        return deflate != nullptr &&
               libdeflate_zlib_decompress(deflate, from, have, to, bytes, &got) == LIBDEFLATE_SUCCESS && got == bytes;
      }
      default:
        return lzf_decompress(reinterpret_cast<const std::uint8_t*>(from), have, reinterpret_cast<std::uint8_t*>(to),
                              bytes) == static_cast<std::int64_t>(bytes);
    }
  }
};

Unpacker::Unpacker() : codecs_(std::make_unique<Codecs>()) {}
Unpacker::~Unpacker() = default;

bool Unpacker::unpack(const std::vector<Filter>& filters, unsigned skipped, std::size_t bytes, std::size_t element,
                      std::byte* out) {
  std::size_t left = 0;
  for (std::size_t k = 0; k < filters.size(); ++k) left += (skipped >> k & 1U) == 0;
  std::size_t have = packed.size();
  const std::byte* from = packed.data();
  int turn = 0;
  for (std::size_t k = filters.size(); k-- > 0;) {
    if ((skipped >> k & 1U) != 0) continue;
    std::byte* to = out;
    if (--left > 0) {
      spare_[turn].resize(bytes);
      to = spare_[turn].data();
      turn = 1 - turn;
    }
    if (!codecs_->undo(filters[k], from, have, to, bytes, element)) return false;
    have = bytes;
    from = to;
  }
  if (have != bytes) return false;
  if (from == packed.data()) std::memcpy(out, from, bytes);
  return true;
}

std::optional<std::vector<Filter>> own_filters(const Dataset& d) {
  std::vector<Filter> out;
  bool ours = true;
  const int n = H5Pget_nfilters(d.plist.get());
  for (int k = 0; k < n; ++k) {
    unsigned flags = 0, config = 0;
    std::size_t n_values = 0;
    char name[64] = "";
    const auto id =
        H5Pget_filter2(d.plist.get(), static_cast<unsigned>(k), &flags, &n_values, nullptr, sizeof name, name, &config);
    if (id < 0) d.fail("its filters are damaged ({})", last_error());
    out.push_back({id, {}});
    ours = ours && (id == H5Z_FILTER_DEFLATE || id == H5Z_FILTER_SHUFFLE || id == kLzf);
    if (H5Zfilter_avail(id) <= 0)
      d.fail<NotSupported>(
          "is compressed by filter {} ('{}'), which is not installed (gzip, lzf and none are built in)", id,
          std::string_view(name, strnlen(name, sizeof name)));
  }
  if (!ours || n > 8) return std::nullopt;
  return out;
}

}  // namespace scw::io::h5
