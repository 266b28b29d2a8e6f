#include "io/zarr_codecs.hpp"

#include <blosc.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "io/shuffle.hpp"

namespace scw::io::zarr {
namespace {

using Table = std::array<std::array<std::uint32_t, 256>, 8>;

Table make_table() {
  Table t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = c >> 1 ^ ((c & 1U) != 0 ? 0x82F63B78U : 0U);
    t[0][i] = c;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t i = 0; i < 256; ++i) t[k][i] = t[k - 1][i] >> 8 ^ t[0][t[k - 1][i] & 255U];
  return t;
}

std::uint32_t load32(const std::byte* p) {
  std::uint32_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return v;
}

std::size_t most_bytes(std::size_t n) {
  return static_cast<std::size_t>(kFreeBytes) + n * 1040;  // deflate's best; texts are no zeros
}

bool inflate_any(const std::byte* in, std::size_t n, Buffer& out) {
  if (n > UINT32_MAX) return false;
  z_stream z{};
  constexpr int kZlibOrGzip = 15 + 32;
  if (inflateInit2(&z, kZlibOrGzip) != Z_OK) return false;
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in));
  z.avail_in = static_cast<uInt>(n);
  std::size_t have = 0;
  int status = Z_OK;
  out.resize(std::max<std::size_t>(n * 4, 4096));
  while (status == Z_OK) {
    if (have == out.size()) {
      if (out.size() >= most_bytes(n)) break;
      out.resize(std::min(out.size() * 2, most_bytes(n)));
    }
    const std::size_t room = std::min<std::size_t>(out.size() - have, 1U << 30);
    z.next_out = reinterpret_cast<Bytef*>(out.data() + have);
    z.avail_out = static_cast<uInt>(room);
    status = inflate(&z, Z_NO_FLUSH);
    have += room - z.avail_out;
  }
  inflateEnd(&z);
  out.resize(have);
  return status == Z_STREAM_END;
}

bool unzstd_any(const std::byte* in, std::size_t n, Buffer& out) {
  const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> z(ZSTD_createDCtx(), &ZSTD_freeDCtx);
  if (!z) return false;
  ZSTD_DCtx_setParameter(z.get(), ZSTD_d_windowLogMax, 27);
  ZSTD_inBuffer from{in, n, 0};
  std::size_t have = 0, status = 1;
  out.resize(std::max<std::size_t>(n * 4, 4096));
  while (from.pos < from.size || status != 0) {
    if (have == out.size()) {
      if (out.size() >= most_bytes(n)) return false;
      out.resize(std::min(out.size() * 2, most_bytes(n)));
    }
    ZSTD_outBuffer to{out.data() + have, out.size() - have, 0};
    const std::size_t before = from.pos;
    status = ZSTD_decompressStream(z.get(), &to, &from);
    if (ZSTD_isError(status) != 0) return false;
    have += to.pos;
    if (status != 0 && from.pos == before && to.pos == 0) return false;  // cut short
  }
  out.resize(have);
  return true;
}

}  // namespace

std::uint32_t crc32c(const std::byte* data, std::size_t n) {
  static const Table t = make_table();
  std::uint32_t c = ~0U;
  for (; n >= 8; data += 8, n -= 8) {
    const std::uint32_t a = load32(data) ^ c, b = load32(data + 4);
    c = t[7][a & 255U] ^ t[6][a >> 8 & 255U] ^ t[5][a >> 16 & 255U] ^ t[4][a >> 24] ^ t[3][b & 255U] ^
        t[2][b >> 8 & 255U] ^ t[1][b >> 16 & 255U] ^ t[0][b >> 24];
  }
  for (; n > 0; ++data, --n) c = c >> 8 ^ t[0][(c ^ std::to_integer<std::uint32_t>(*data)) & 255U];
  return ~c;
}

bool Unpacker::step(const Codec& c, const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  switch (c.id) {
    case CodecId::zlib:
      return codecs_.zlib(in, n, out, bytes);
    case CodecId::gzip:
      return codecs_.gzip(in, n, out, bytes);
    case CodecId::zstd:
      return codecs_.zstd(in, n, out, bytes);
    case CodecId::lz4:  // numcodecs puts the size before the block
      return n >= 4 && load32(in) == bytes && lz4_block(in + 4, n - 4, out, bytes);
    case CodecId::blosc:
      return blosc(in, n, out, bytes);
    case CodecId::crc32c:
      if (n != bytes + 4 || crc32c(in, bytes) != load32(in + bytes)) return false;
      std::memcpy(out, in, bytes);
      return true;
    case CodecId::shuffle:
      if (n != bytes) return false;
      unshuffle(in, out, bytes, c.element);
      return true;
  }
  return false;
}

bool Unpacker::step(const Codec& c, const std::byte* in, std::size_t n, Buffer& out) {
  std::size_t bytes = n;
  switch (c.id) {
    case CodecId::zlib:
    case CodecId::gzip:
      return inflate_any(in, n, out);
    case CodecId::zstd:
      return unzstd_any(in, n, out);
    case CodecId::lz4:
      if (n < 4) return false;
      bytes = load32(in);
      break;
    case CodecId::blosc:
      if (n < BLOSC_MIN_HEADER_LENGTH || blosc_cbuffer_validate(in, n, &bytes) < 0) return false;
      break;
    case CodecId::crc32c:
      if (n < 4) return false;
      bytes = n - 4;
      break;
    case CodecId::shuffle:
      break;
  }
  if (bytes > most_bytes(n)) return false;
  out.resize(bytes);
  return step(c, in, n, out.data(), bytes);
}

bool Unpacker::unpack(const Pipeline& p, const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  if (p.codecs.empty()) {
    if (n != bytes) return false;
    std::memcpy(out, in, bytes);
    return true;
  }
  // Shuffling keeps the size and crc32c adds four bytes: below the innermost compressor sizes are known.
  for (std::size_t k = p.codecs.size(); k-- > 0;) {
    std::size_t expected = bytes;
    bool is_known = true;
    for (std::size_t i = 0; i < k; ++i) {
      if (p.codecs[i].id == CodecId::crc32c)
        expected += 4;
      else
        is_known = is_known && p.codecs[i].id == CodecId::shuffle;
    }
    if (k == 0) return step(p.codecs[0], in, n, out, bytes);
    auto& to = spare_[k % 2];
    if (is_known) to.resize(expected);
    if (!(is_known ? step(p.codecs[k], in, n, to.data(), expected) : step(p.codecs[k], in, n, to))) return false;
    in = to.data();
    n = to.size();
  }
  return false;
}

bool Unpacker::unpack(const Pipeline& p, const std::byte* in, std::size_t n, Buffer& out) {
  if (p.codecs.empty()) {
    out.assign(in, in + n);
    return true;
  }
  for (std::size_t k = p.codecs.size(); k-- > 0;) {
    auto& to = k == 0 ? out : spare_[k % 2];
    if (!step(p.codecs[k], in, n, to)) return false;
    in = to.data();
    n = to.size();
  }
  return true;
}

}  // namespace scw::io::zarr
