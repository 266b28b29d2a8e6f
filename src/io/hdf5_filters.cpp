#include "io/hdf5_filters.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "io/lzf.hpp"
#include "io/shuffle.hpp"

namespace scw::io::h5 {
namespace {

constexpr std::size_t kChecksumBytes = 4;

bool is_compressor(H5Z_filter_t id) {
  return id == H5Z_FILTER_DEFLATE || id == kLzf || id == kBlosc || id == kLz4 || id == kZstd ||
         id == H5Z_FILTER_SCALEOFFSET;
}
bool is_ours(H5Z_filter_t id) { return is_compressor(id) || id == H5Z_FILTER_SHUFFLE || id == H5Z_FILTER_FLETCHER32; }

std::uint64_t big_endian(const std::byte* p, std::size_t n) {
  std::uint64_t v = 0;
  for (std::size_t k = 0; k < n; ++k) v = v << 8 | std::to_integer<std::uint64_t>(p[k]);
  return v;
}

/// The lz4 filter's own frame: size of the result (8 bytes), of a block (4), then blocks with their sizes (4) before
/// them; a block as large as its result is stored as it is. Source: HDF5_LZ4.pdf of the plugin's registration.
bool lz4_frame(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  if (n < 12 || big_endian(in, 8) != bytes) return false;
  const std::uint64_t block = big_endian(in + 8, 4);
  if (block == 0) return false;
  std::size_t at = 12;
  for (std::size_t done = 0; done < bytes;) {
    if (n - at < 4) return false;
    const auto packed = static_cast<std::size_t>(big_endian(in + at, 4));
    at += 4;
    const auto plain = static_cast<std::size_t>(std::min<std::uint64_t>(block, bytes - done));
    if (packed > n - at) return false;
    if (packed == plain)
      std::memcpy(out + done, in + at, plain);
    else if (!lz4_block(in + at, packed, out + done, plain))
      return false;
    at += packed;
    done += plain;
  }
  return true;
}

/// The scale-offset filter: numbers less their least one, each in as few bits as the largest needs, first bit first.
/// The library reads past the end of a chunk that is too short for what it declares. Parameters: how numbers were
/// scaled (2: integers), by how much, their number, class (0: integers), bytes, sign, byte order, whether there is a
/// fill value, and that. Source: H5Zscaleoffset.c of HDF5, whose format is described nowhere else.
bool unscale(const std::vector<unsigned>& values, const std::byte* in, std::size_t n, std::byte* out,
             std::size_t bytes) {
  constexpr std::size_t kHead = 21;
  if (values.size() < 8 || n < kHead) return false;
  const std::size_t size = values[4];
  if ((size != 1 && size != 2 && size != 4 && size != 8) || bytes % size != 0 || values[2] != bytes / size)
    return false;
  const bool floating = values[3] == 1, big = values[6] == 1, filled = values[7] == 1;
  if (floating ? values[0] != 0 || size < 4 : values[0] != 2) return false;
  std::uint32_t width = 0;
  std::uint64_t least = 0, fill = 0;
  std::memcpy(&width, in, 4);
  std::memcpy(&least, in + 5, 8);
  for (std::size_t k = 0; filled && k < 2 && 8 + k < values.size(); ++k)
    fill |= std::uint64_t{values[8 + k]} << (32 * k);
  if (width > 8 * size || in[4] != std::byte{8}) return false;
  in += kHead;
  n -= kHead;
  const std::size_t count = bytes / size;
  if (width == 8 * size) {  // as they are
    if (n < bytes) return false;
    std::memcpy(out, in, bytes);
  } else {
    if (count > (n * 8) / std::max(1U, width) && width > 0) return false;
    const std::uint64_t all = width == 0 ? 0 : ~std::uint64_t{0} >> (64 - width);
    const double scale = std::pow(10.0, static_cast<double>(static_cast<int>(values[1])));
    std::size_t bit = 0;
    for (std::size_t i = 0; i < count; ++i) {
      std::uint64_t v = 0;
      for (std::uint32_t k = 0; k < width;) {
        const std::uint32_t left = 8 - static_cast<std::uint32_t>(bit % 8), take = std::min(left, width - k);
        v = v << take | (std::to_integer<std::uint64_t>(in[bit / 8]) >> (left - take) & ((1U << take) - 1));
        bit += take;
        k += take;
      }
      if (filled && v == all) {  // (no bits at all: nothing but the fill value)
        v = fill;
      } else if (!floating) {
        v += least;
      } else if (size == 4) {
        const auto x = static_cast<float>(static_cast<std::int32_t>(v)) / static_cast<float>(scale) +
                       std::bit_cast<float>(static_cast<std::uint32_t>(least));
        v = std::bit_cast<std::uint32_t>(x);
      } else {
        const auto x = static_cast<double>(static_cast<std::int64_t>(v)) / scale + std::bit_cast<double>(least);
        v = std::bit_cast<std::uint64_t>(x);
      }
      std::memcpy(out + i * size, &v, size);
    }
  }
  if (big)
    for (std::size_t i = 0; i < count; ++i) std::reverse(out + i * size, out + (i + 1) * size);
  return true;
}

/// Fletcher's checksum over words of two bytes, the first one high (or, in files from before 1.6.3, low).
/// Source: HDF5 File Format Specification, "Fletcher32 filter".
std::uint32_t fletcher32(const std::byte* p, std::size_t n, bool low_first) {
  std::uint32_t a = 0, b = 0;
  const auto fold = [](std::uint32_t v) { return (v & 0xFFFFU) + (v >> 16); };
  const std::size_t words = n / 2;
  for (std::size_t begin = 0; begin < words; begin += 360) {  // as many as 32 bits can add up
    for (std::size_t i = begin; i < std::min(words, begin + 360); ++i) {
      const auto x = std::to_integer<std::uint32_t>(p[2 * i]), y = std::to_integer<std::uint32_t>(p[2 * i + 1]);
      a += low_first ? y << 8 | x : x << 8 | y;
      b += a;
    }
    a = fold(a);
    b = fold(b);
  }
  if (n % 2 != 0) {
    const auto last = std::to_integer<std::uint32_t>(p[n - 1]);
    a += low_first ? last : last << 8;
    b += a;
    a = fold(a);
    b = fold(b);
  }
  return fold(b) << 16 | fold(a);
}

bool checksum_fits(const std::byte* p, std::size_t n) {
  std::uint32_t stored = 0;
  std::memcpy(&stored, p + n, kChecksumBytes);
  return stored == fletcher32(p, n, false) || stored == fletcher32(p, n, true);
}

}  // namespace

bool Unpacker::unpack(const std::vector<Filter>& filters, unsigned skipped, std::size_t bytes, std::size_t element,
                      std::byte* out) {
  // The size of what was compressed is known: what came before only added checksums.
  std::size_t left = 0, compressed = bytes;
  bool known = true;
  for (std::size_t k = 0; k < filters.size(); ++k) {
    if ((skipped >> k & 1U) != 0) continue;
    ++left;
    known = known && !is_compressor(filters[k].id);
    if (known && filters[k].id == H5Z_FILTER_FLETCHER32) compressed += kChecksumBytes;
  }
  std::size_t have = packed.size();
  const std::byte* from = packed.data();
  int turn = 0;
  for (std::size_t k = filters.size(); k-- > 0;) {
    if ((skipped >> k & 1U) != 0) continue;
    const Filter& f = filters[k];
    --left;
    if (f.id == H5Z_FILTER_FLETCHER32) {
      if (have < kChecksumBytes || !checksum_fits(from, have - kChecksumBytes)) return false;
      have -= kChecksumBytes;
      continue;
    }
    const std::size_t want = is_compressor(f.id) ? compressed : have;
    std::byte* to = out;
    if (left > 0 || want != bytes) {
      spare_[turn].resize(want);
      to = spare_[turn].data();
      turn = 1 - turn;
    }
    bool ok = true;
    switch (f.id) {
      case H5Z_FILTER_SHUFFLE: {
        const std::size_t size = f.values.empty() ? element : f.values[0];
        ok = size > 0;
        if (ok) unshuffle(from, to, have, size);
        break;
      }
      case H5Z_FILTER_DEFLATE:
        ok = codecs_.zlib(from, have, to, want);
        break;
      case kZstd:
        ok = codecs_.zstd(from, have, to, want);
        break;
      case kBlosc:
        ok = blosc(from, have, to, want);
        break;
      case H5Z_FILTER_SCALEOFFSET:
        ok = unscale(f.values, from, have, to, want);
        break;
      case kLz4:
        ok = lz4_frame(from, have, to, want);
        break;
      default:
        ok = lzf_decompress(reinterpret_cast<const std::uint8_t*>(from), have, reinterpret_cast<std::uint8_t*>(to),
                            want) == static_cast<std::int64_t>(want);
    }
    if (!ok) return false;
    have = want;
    from = to;
  }
  if (have != bytes) return false;
  if (from != out) std::memcpy(out, from, bytes);
  return true;
}

std::optional<std::vector<Filter>> own_filters(const Dataset& d) {
  std::vector<Filter> out;
  bool ours = true;
  int compressors = 0;
  const int n = H5Pget_nfilters(d.plist.get());
  if (n < 0) d.fail("its filters are damaged ({})", last_error());
  for (int k = 0; k < n; ++k) {
    unsigned flags = 0, config = 0, values[20] = {};
    std::size_t n_values = std::size(values);
    char name[64] = "";
    const auto id =
        H5Pget_filter2(d.plist.get(), static_cast<unsigned>(k), &flags, &n_values, values, sizeof name, name, &config);
    if (id < 0) d.fail("its filters are damaged ({})", last_error());
    out.push_back({id, {values, values + std::min(n_values, std::size(values))}});
    if (is_ours(id)) {
      compressors += is_compressor(id);
      continue;
    }
    ours = false;
    if (id <= H5Z_FILTER_SCALEOFFSET)
      d.fail<NotSupported>(
          "is compressed by HDF5's filter {} ('{}'), which scwarp does not undo (gzip, scaleoffset, zstd, blosc, lz4, "
          "lzf and none it does)",
          id, std::string_view(name, strnlen(name, sizeof name)));
    if (H5Zfilter_avail(id) <= 0)
      d.fail<NotSupported>(
          "is compressed by filter {} ('{}'), which is not installed (gzip, zstd, blosc, lz4, lzf and none are built "
          "in)",
          id, std::string_view(name, strnlen(name, sizeof name)));
  }
  if (compressors > 1) d.fail<NotSupported>("is compressed {} times over; scwarp undoes one compression", compressors);
  if (ours && n > 8) d.fail<NotSupported>("has {} filters (expected at most 8)", n);
  if (ours) return out;
  // The library's own filters believe what they are given: they may not run behind others'.
  for (const Filter& f : out)
    if (f.id == H5Z_FILTER_FLETCHER32 || f.id == H5Z_FILTER_SCALEOFFSET)
      d.fail<NotSupported>("is compressed by filters {} and {}, which scwarp does not undo together", f.id,
                           std::find_if(out.begin(), out.end(), [](const Filter& g) { return !is_ours(g.id); })->id);
  return std::nullopt;
}

std::int64_t max_expansion(const Dataset& d) {
  std::int64_t most = 1040;  // also of chunks that were never written
  const int n = H5Pget_nfilters(d.plist.get());
  for (int k = 0; k < n; ++k) {
    std::size_t none = 0;
    unsigned flags = 0;
    switch (H5Pget_filter2(d.plist.get(), static_cast<unsigned>(k), &flags, &none, nullptr, 0, nullptr, nullptr)) {
      case H5Z_FILTER_SHUFFLE:
      case H5Z_FILTER_FLETCHER32:
        break;
      case H5Z_FILTER_SCALEOFFSET:
      case kZstd:
      case kBlosc:
        most = std::max<std::int64_t>(most, 40000);  // zstd: 128 KiB of one byte in 4
        break;
      default:
        break;  // deflate: 258 bytes in 2 bits; lz4 255, lzf 88 in one byte
    }
  }
  return most;
}

}  // namespace scw::io::h5
