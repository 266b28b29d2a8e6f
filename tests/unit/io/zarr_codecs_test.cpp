// Every byte codec against bytes that numcodecs made, whole, cut short and damaged.
#include "io/zarr_codecs.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>

namespace scw::io::zarr {
namespace {

Buffer bytes(std::string_view hex) {
  const auto digit = [](char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); };
  Buffer out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<std::byte>(digit(hex[i]) << 4 | digit(hex[i + 1])));
  return out;
}

/// What all of them hold: (i mod 16) * 3 - 7 for i < 512, as int32.
Buffer expected() {
  Buffer out(2048);
  for (std::int32_t i = 0; i < 512; ++i) {
    const std::int32_t v = i % 16 * 3 - 7;
    std::memcpy(out.data() + 4 * i, &v, 4);
  }
  return out;
}

struct Packed {
  const char* name;
  CodecId id;
  const char* hex;
};

const Packed kPacked[] = {
    {"zlib", CodecId::zlib,
     "789cedcb510600211446e12b86886188888868ffdb8bb81d6615f11fbec7b3dc7dfb5f30b30711092f3e64145434740c4c2cfdfaf5ebd7af"
     "5fff75ff01cdf39df0"},
    {"gzip", CodecId::gzip,
     "1f8b08008588036b00ffedcb510600211446e12b86886188888868ffdb8bb81d6615f11fbec7b3dc7dfb5f30b30711092f3e64145434740c"
     "4c2cfdfaf5ebd7af5fff75ff01dea0673a00080000"},
    {"zstd", CodecId::zstd,
     "28b52ffd6000072d0200a403f9fffffffcff0200000005000000080000000b0000000e0000001100000014000000170000001a0000001d00"
     "00002000000023000000260000000200d4fb103ec44011"},
    {"lz4", CodecId::lz4,
     "0008000062f9fffffffcff0100ff250200000005000000080000000b0000000e0000001100000014000000170000001a0000001d00000020"
     "00000023000000260000004000ffffffffffffffaf500026000000"},
    {"blosc_lz4_shuffled", CodecId::blosc,
     "02012104000800000008000082000000140000001c000000ff01f9fcff0205080b0e1114171a1d2023261000ffd9501a1d20232616000000"
     "84ffffff000000000005000f1000ffd95000000000001600000084ffffff000000000005000f1000ffd95000000000001600000084ffffff"
     "000000000005000f1000ffd9500000000000"},
    {"blosc_lz4_bits", CodecId::blosc,
     "02012404000800000008000076000000140000002b0000001f5501002c1fcc01002c1f9601002c2fe71802002b2f071f02002c1fe002002c"
     "1f000200665000070007000d0000002f07000200ffe75000070007000d0000002f07000200ffe75000070007000d0000002f07000200ffe7"
     "500007000700"},
    {"blosc_zstd", CodecId::blosc,
     "02019004000800000008000067000000140000004f00000028b52ffd6000072d0200a403f9fffffffcff0200000005000000080000000b00"
     "00000e0000001100000014000000170000001a0000001d0000002000000023000000260000000200d4fb103ec44011"},
    {"blosc_zstd_shuffled", CodecId::blosc,
     "02019104000800000008000043000000140000002b00000028b52ffd6000070d0100a0f9fcff0205080b0e1114171a1d202326ffffff0003"
     "00ed811fe038a27dd4b904"},
    {"blosc_zlib_shuffled", CodecId::blosc,
     "0201610400080000000800007b000000140000001e000000785efbf9e73f132b07379fa088b894ac82b2dacf51fe88e20300398f7f011300"
     "0000785efbffff3f0332f83fca1f517c00451e5fa113000000785efbffff3f0332f83fca1f517c00451e5fa113000000785efbffff3f0332"
     "f83fca1f517c00451e5fa1"},
    {"blosc_blosclz_shuffled", CodecId::blosc,
     "0201010400080000000800007600000014000000190000002ff9fcff0205080b0e1114171a1d202326e0ffe50f022023261300000024ffff"
     "ff0000e001000000e0ffe50f020000001300000024ffffff0000e001000000e0ffe50f020000001300000024ffffff0000e001000000e0ff"
     "e50f02000000"},
};

class ZarrCodec : public ::testing::TestWithParam<Packed> {
 protected:
  Pipeline pipeline() const {
    Pipeline p;
    p.codecs = {{GetParam().id}};
    return p;
  }
  Unpacker unpacker_;
};

TEST_P(ZarrCodec, UnpacksWhatNumcodecsPacked) {
  const Buffer in = bytes(GetParam().hex);
  Buffer out(2048), any;
  ASSERT_TRUE(unpacker_.unpack(pipeline(), in.data(), in.size(), out.data(), out.size()));
  EXPECT_EQ(out, expected());
  ASSERT_TRUE(unpacker_.unpack(pipeline(), in.data(), in.size(), any));
  EXPECT_EQ(any, expected());
}

TEST_P(ZarrCodec, RefusesOtherSizesThanDeclared) {
  const Buffer in = bytes(GetParam().hex);
  for (const std::size_t n : {std::size_t{2044}, std::size_t{2052}, std::size_t{0}}) {
    Buffer out(n + 1);
    EXPECT_FALSE(unpacker_.unpack(pipeline(), in.data(), in.size(), out.data(), n)) << n;
  }
}

TEST_P(ZarrCodec, RefusesWhatWasCutShort) {
  const Buffer in = bytes(GetParam().hex);
  for (const std::size_t n : {std::size_t{0}, std::size_t{1}, in.size() / 2, in.size() - 1}) {
    const Buffer part(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(n));  // so that sanitizers see its end
    Buffer out(2048), any;
    EXPECT_FALSE(unpacker_.unpack(pipeline(), part.data(), n, out.data(), out.size())) << n;
    EXPECT_FALSE(unpacker_.unpack(pipeline(), part.data(), n, any)) << n;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ZarrCodec, ::testing::ValuesIn(kPacked),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ZarrCodecs, Crc32cOfTheStandardText) {
  const std::string_view text = "123456789";
  EXPECT_EQ(crc32c(reinterpret_cast<const std::byte*>(text.data()), text.size()), 0xE3069283U);
  EXPECT_EQ(crc32c(nullptr, 0), 0U);
  const Buffer zeros(32, std::byte{0});
  EXPECT_EQ(crc32c(zeros.data(), zeros.size()), 0x8A9136AAU);  // RFC 3720, B.4
}

TEST(ZarrCodecs, Crc32cFindsAChangedBit) {
  Buffer in = expected();
  const std::uint32_t sum = crc32c(in.data(), in.size());
  in.resize(in.size() + 4);
  std::memcpy(in.data() + 2048, &sum, 4);
  Pipeline p;
  p.codecs = {{CodecId::crc32c}};
  Unpacker u;
  Buffer out(2048), any;
  ASSERT_TRUE(u.unpack(p, in.data(), in.size(), out.data(), out.size()));
  EXPECT_EQ(out, expected());
  EXPECT_FALSE(u.unpack(p, in.data(), in.size() - 1, out.data(), out.size()));
  for (const std::size_t at : {std::size_t{0}, std::size_t{1000}, std::size_t{2050}}) {
    Buffer bad = in;
    bad[at] ^= std::byte{1};
    EXPECT_FALSE(u.unpack(p, bad.data(), bad.size(), out.data(), out.size())) << at;
    EXPECT_FALSE(u.unpack(p, bad.data(), bad.size(), any)) << at;
  }
}

TEST(ZarrCodecs, Shuffle) {
  const Buffer plain = expected();
  Buffer in(2048);
  for (std::size_t i = 0; i < 512; ++i)
    for (std::size_t b = 0; b < 4; ++b) in[b * 512 + i] = plain[4 * i + b];
  Pipeline p;
  p.codecs = {{CodecId::shuffle, 4}};
  Unpacker u;
  Buffer out(2048);
  ASSERT_TRUE(u.unpack(p, in.data(), in.size(), out.data(), out.size()));
  EXPECT_EQ(out, plain);
  EXPECT_FALSE(u.unpack(p, in.data(), in.size() - 1, out.data(), out.size()));
}

TEST(ZarrCodecs, OneAfterAnother) {
  // zlib, and a checksum of what it made
  Buffer in = bytes(kPacked[0].hex);
  const std::uint32_t sum = crc32c(in.data(), in.size());
  const auto n = in.size();
  in.resize(n + 4);
  std::memcpy(in.data() + n, &sum, 4);
  Pipeline p;
  p.codecs = {{CodecId::zlib}, {CodecId::crc32c}};
  Unpacker u;
  Buffer out(2048), any;
  ASSERT_TRUE(u.unpack(p, in.data(), in.size(), out.data(), out.size()));
  EXPECT_EQ(out, expected());
  ASSERT_TRUE(u.unpack(p, in.data(), in.size(), any));
  EXPECT_EQ(any, expected());
  in[10] ^= std::byte{4};
  EXPECT_FALSE(u.unpack(p, in.data(), in.size(), out.data(), out.size()));
}

TEST(ZarrCodecs, None) {
  const Buffer in = expected();
  Unpacker u;
  Buffer out(2048), any;
  ASSERT_TRUE(u.unpack({}, in.data(), in.size(), out.data(), out.size()));
  EXPECT_EQ(out, in);
  EXPECT_FALSE(u.unpack({}, in.data(), in.size() - 1, out.data(), out.size()));
  ASSERT_TRUE(u.unpack({}, in.data(), in.size(), any));
  EXPECT_EQ(any, in);
}

}  // namespace
}  // namespace scw::io::zarr
