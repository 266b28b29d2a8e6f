// Metadata of arrays, versions 2 and 3: what is read from it, and what is refused.
#include "io/zarr_meta.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <string>

namespace scw::io::zarr {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json v2() {
  return Json::parse(R"({"zarr_format": 2, "shape": [5, 7], "chunks": [2, 3], "dtype": "<f4", "fill_value": 0,
                         "order": "C", "filters": null, "compressor": {"id": "zlib", "level": 1}})");
}

Json v3() {
  return Json::parse(R"({"zarr_format": 3, "node_type": "array", "shape": [5, 7], "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
    "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "attributes": {},
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}]})");
}

Json sharded() {
  Json j = v3();
  j["chunk_grid"]["configuration"]["chunk_shape"] = {4, 6};
  j["codecs"] = Json::parse(R"([{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 3],
    "codecs": ["bytes", "gzip"], "index_codecs": ["bytes", "crc32c"], "index_location": "start"}}])");
  return j;
}

template <class T>
T fill_of(const ArrayMeta& m) {
  T v{};
  EXPECT_EQ(m.fill.size(), sizeof v);
  if (m.fill.size() == sizeof v) std::memcpy(&v, m.fill.data(), sizeof v);
  return v;
}

template <class Parse>
std::string refusal(const Parse& parse, const Json& j) {
  try {
    parse(j);
    return "";
  } catch (const Damage& d) {
    return d.what;
  }
}

TEST(ZarrMeta, Version2) {
  const ArrayMeta m = parse_v2(v2());
  EXPECT_THAT(m.shape, ElementsAre(5, 7));
  EXPECT_THAT(m.chunk, ElementsAre(2, 3));
  EXPECT_THAT(m.shard, ElementsAre(2, 3));
  EXPECT_EQ(m.type.element.kind, Kind::floating);
  EXPECT_EQ(m.type.element.size, 4u);
  EXPECT_EQ(m.type.element.name, "float32");
  EXPECT_FALSE(m.sharded);
  EXPECT_FALSE(m.pipeline.swapped);
  EXPECT_TRUE(m.pipeline.order.empty());
  ASSERT_EQ(m.pipeline.codecs.size(), 1u);
  EXPECT_EQ(m.pipeline.codecs[0].id, CodecId::zlib);
  EXPECT_EQ(m.chunk_elements(), 6);
  EXPECT_EQ(m.chunk_bytes(), 24);
  EXPECT_EQ(m.key({1, 12}), "1.12");
  EXPECT_EQ(m.unsupported, "");
}

TEST(ZarrMeta, Version2Choices) {
  Json j = v2();
  j["dtype"] = ">i2";
  j["order"] = "F";
  j["dimension_separator"] = "/";
  j["filters"] = Json::parse(R"([{"id": "shuffle", "elementsize": 2}])");
  j["compressor"] = Json::parse(R"({"id": "blosc"})");
  const ArrayMeta m = parse_v2(j);
  EXPECT_TRUE(m.pipeline.swapped);
  EXPECT_THAT(m.pipeline.order, ElementsAre(1, 0));
  EXPECT_EQ(m.key({1, 12}), "1/12");
  ASSERT_EQ(m.pipeline.codecs.size(), 2u);
  EXPECT_EQ(m.pipeline.codecs[0].id, CodecId::shuffle);
  EXPECT_EQ(m.pipeline.codecs[0].element, 2u);
  EXPECT_EQ(m.pipeline.codecs[1].id, CodecId::blosc);
}

TEST(ZarrMeta, KeyOfAScalar) {
  Json j = v2();
  j["shape"] = Json::array();
  j["chunks"] = Json::array();
  EXPECT_EQ(parse_v2(j).key({}), "0");
  j = v3();
  j["shape"] = Json::array();
  j["chunk_grid"]["configuration"]["chunk_shape"] = Json::array();
  EXPECT_EQ(parse_v3(j).key({}), "c");
}

TEST(ZarrMeta, Version3) {
  const ArrayMeta m = parse_v3(v3());
  EXPECT_THAT(m.shape, ElementsAre(5, 7));
  EXPECT_THAT(m.chunk, ElementsAre(2, 3));
  EXPECT_EQ(m.type.element.name, "float32");
  EXPECT_EQ(m.key({1, 12}), "c/1/12");
  ASSERT_EQ(m.pipeline.codecs.size(), 1u);
  EXPECT_EQ(m.pipeline.codecs[0].id, CodecId::zstd);
}

TEST(ZarrMeta, Version3Choices) {
  Json j = v3();
  j["chunk_key_encoding"] = Json::parse(R"({"name": "v2", "configuration": {"separator": "/"}})");
  j["codecs"] = Json::parse(R"([{"name": "transpose", "configuration": {"order": [1, 0]}},
    {"name": "bytes", "configuration": {"endian": "big"}}, {"name": "numcodecs.zlib"}, "crc32c"])");
  const ArrayMeta m = parse_v3(j);
  EXPECT_EQ(m.key({1, 12}), "1/12");
  EXPECT_TRUE(m.pipeline.swapped);
  EXPECT_THAT(m.pipeline.order, ElementsAre(1, 0));
  ASSERT_EQ(m.pipeline.codecs.size(), 2u);
  EXPECT_EQ(m.pipeline.codecs[0].id, CodecId::zlib);
  EXPECT_EQ(m.pipeline.codecs[1].id, CodecId::crc32c);
}

TEST(ZarrMeta, Shards) {
  const ArrayMeta m = parse_v3(sharded());
  EXPECT_TRUE(m.sharded);
  EXPECT_THAT(m.shard, ElementsAre(4, 6));
  EXPECT_THAT(m.chunk, ElementsAre(2, 3));
  EXPECT_FALSE(m.index_at_end);
  ASSERT_EQ(m.index.codecs.size(), 1u);
  EXPECT_EQ(m.index.codecs[0].id, CodecId::crc32c);
  EXPECT_EQ(m.pipeline.codecs.at(0).id, CodecId::gzip);
}

TEST(ZarrMeta, UnknownCodecsAreNamed) {
  Json j = v2();
  j["compressor"] = Json::parse(R"({"id": "pcodec"})");
  EXPECT_EQ(parse_v2(j).unsupported, "pcodec");
  j = v3();
  j["codecs"].push_back("packbits");
  EXPECT_EQ(parse_v3(j).unsupported, "packbits");
  j = sharded();
  j["codecs"][0]["configuration"]["index_codecs"] = {"bytes", "gzip"};
  EXPECT_EQ(parse_v3(j).unsupported, "compressed index of shards");
}

TEST(ZarrMeta, FillValues) {
  const auto with = [](const char* type, const Json& fill) {
    Json j = v3();
    j["data_type"] = type;
    j["fill_value"] = fill;
    return parse_v3(j);
  };
  EXPECT_EQ(fill_of<float>(with("float32", 1.5)), 1.5F);
  EXPECT_TRUE(std::isnan(fill_of<double>(with("float64", "NaN"))));
  EXPECT_EQ(fill_of<double>(with("float64", "-Infinity")), -INFINITY);
  EXPECT_EQ(fill_of<float>(with("float32", "0x40490fdb")), 3.14159274F);
  EXPECT_EQ(fill_of<std::uint16_t>(with("float16", 1.5)), 0x3E00);
  EXPECT_EQ(fill_of<std::uint16_t>(with("float16", 65520)), 0x7C00);
  EXPECT_EQ(fill_of<std::uint16_t>(with("float16", std::ldexp(1.0, -24))), 1);
  EXPECT_EQ(fill_of<std::int16_t>(with("int16", -3)), -3);
  EXPECT_EQ(fill_of<std::uint64_t>(with("uint64", 18446744073709551615ULL)), ~0ULL);
  EXPECT_EQ(fill_of<std::uint8_t>(with("bool", true)), 1);
  Json j = v2();
  j["dtype"] = "|S4";
  j["fill_value"] = "YWI=";  // base64 of ab
  const ArrayMeta text = parse_v2(j);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(text.fill.data()), text.fill.size()), std::string("ab\0\0", 4));
}

TEST(ZarrMeta, Records) {
  Json j = v2();
  j["dtype"] = Json::parse(R"([["a", "<i4"], ["b", ">f8"], ["c", "<U2"]])");
  const ArrayMeta m = parse_v2(j);
  EXPECT_EQ(m.type.element.size, 4u + 8u + 8u);
  ASSERT_EQ(m.type.fields.size(), 3u);
  EXPECT_EQ(m.type.fields[1].offset, 4u);
  EXPECT_TRUE(m.type.fields[1].type.swapped);
  EXPECT_EQ(m.type.fields[2].type.text, TextForm::utf32);
}

struct Change {
  const char* path;
  const char* value;  ///< null: taken out
  const char* refusal;
};

void expect_refusals(const Json& right, ArrayMeta (*parse)(const Json&), const std::vector<Change>& changes) {
  EXPECT_EQ(refusal(parse, right), "");
  for (const Change& c : changes) {
    Json j = right;
    const Json::json_pointer at(c.path);
    if (c.value == nullptr)
      j.at(at.parent_pointer()).erase(at.back());
    else
      j[at] = Json::parse(c.value);
    EXPECT_THAT(refusal(parse, j), HasSubstr(c.refusal)) << c.path << " = " << (c.value ? c.value : "nothing");
  }
}

TEST(ZarrMeta, RefusedOfVersion2) {
  expect_refusals(v2(), parse_v2,
                  {{"/zarr_format", "3", "not of version 2"},
                   {"/shape", nullptr, "no 'shape'"},
                   {"/shape", "5", "not a list"},
                   {"/shape", "[5, -1]", "holds -1"},
                   {"/shape", "[5, 1.5]", "holds 1.5"},
                   {"/shape", "[5, 18446744073709551615]", "holds 18446744073709551615"},
                   {"/shape", "[5]", "has 1 dimensions, but chunks of 2"},
                   {"/shape", "[9223372036854775807, 2]", "more elements than 64 bits"},
                   {"/shape", "[4611686018427387904, 1]", "more bytes than 64 bits"},
                   {"/chunks", "[2, 0]", "holds 0"},
                   {"/chunks", "[2, 3, 1]", "has 2 dimensions, but chunks of 3"},
                   {"/chunks", "[1099511627776, 2]", "chunks that are too large"},
                   {"/chunks", "[1099511627776, 1]", "chunks that are too large"},
                   {"/dtype", "\"f4\"", "its type is 'f4'"},
                   {"/dtype", "\"<f\"", "its type is '<f'"},
                   {"/dtype", "\"<f0\"", "its type is '<f0'"},
                   {"/dtype", "\"<U99999999\"", "its type is '<U99999999'"},
                   {"/dtype", "7", "its type is 7"},
                   {"/dtype", "[[\"a\"]]", "has a field"},
                   {"/dtype", "[[\"a\", \"|O\"]]", "no fixed size"},
                   {"/order", "\"K\"", "its order is 'K'"},
                   {"/order", nullptr, "no 'order'"},
                   {"/dimension_separator", "\"-\"", "its dimension_separator is '-'"},
                   {"/filters", "7", "its filters are 7"},
                   {"/filters", "[{\"id\": \"shuffle\", \"elementsize\": 0}]", "elements of 0 bytes"},
                   {"/compressor", "{}", "no 'id'"},
                   {"/fill_value", "\"much\"", "its fill value is \"much\""},
                   {"/fill_value", nullptr, "no 'fill_value'"}});
}

TEST(ZarrMeta, RefusedOfVersion3) {
  expect_refusals(v3(), parse_v3,
                  {{"/zarr_format", "2", "not those of an array"},
                   {"/node_type", "\"group\"", "not those of an array"},
                   {"/shape", "[5, -1]", "holds -1"},
                   {"/chunk_grid/name", "\"rectilinear\"", "grid 'rectilinear'"},
                   {"/chunk_grid/configuration/chunk_shape", "[2]", "chunks of 1"},
                   {"/chunk_grid/configuration", nullptr, "no 'configuration'"},
                   {"/chunk_key_encoding/name", "\"other\"", "chunk_key_encoding is 'other'"},
                   {"/chunk_key_encoding/configuration", "{\"separator\": \"..\"}", "separated by '..'"},
                   {"/codecs", "[]", "its codecs are []"},
                   {"/codecs", "[\"bytes\", \"bytes\"]", "its codecs are"},
                   {"/codecs", "7", "its codecs are 7"},
                   {"/codecs/0", "{\"configuration\": {}}", "no 'name'"},
                   {"/codecs/0/name", "7", "'name' that is no text"},
                   {"/fill_value", "[]", "its fill value is []"},
                   {"/fill_value", "\"0xzz\"", "its fill value is '0xzz'"}});
  Json j = v3();
  j["codecs"] = Json::parse(R"([{"name": "transpose", "configuration": {"order": [1, 1]}}, "bytes"])");
  EXPECT_THAT(refusal(parse_v3, j), HasSubstr("its codecs are"));
  j["codecs"][0]["configuration"]["order"] = {0};
  EXPECT_THAT(refusal(parse_v3, j), HasSubstr("its codecs are"));
}

TEST(ZarrMeta, RefusedOfShards) {
  expect_refusals(sharded(), parse_v3,
                  {{"/codecs/0/configuration/chunk_shape", "[3, 3]", "cannot be cut into chunks of 3"},
                   {"/codecs/0/configuration/chunk_shape", "[2]", "chunks of 1"},
                   {"/codecs/0/configuration/chunk_shape", "[2, 0]", "holds 0"},
                   {"/codecs/0/configuration/index_codecs", nullptr, "no 'index_codecs'"},
                   {"/codecs/0/configuration/index_location", "\"middle\"", "index_location is 'middle'"}});
}

TEST(ZarrMeta, DeepJsonIsRefused) {
  const auto bytes = [](const std::string& s) {
    const auto* p = reinterpret_cast<const std::byte*>(s.data());
    return std::vector<std::byte>(p, p + s.size());
  };
  EXPECT_EQ(parse_json(bytes("{\"a\": [1]}")).at("a").at(0), 1);
  EXPECT_THROW(parse_json(bytes(std::string(100, '['))), Damage);
  EXPECT_THROW(parse_json(bytes("{\"a\": ")), Damage);
}

}  // namespace
}  // namespace scw::io::zarr
