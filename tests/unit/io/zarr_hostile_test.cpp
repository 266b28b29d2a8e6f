// Stores that mean harm: refused by name, before anything is allocated for them.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstring>
#include <string>
#include <string_view>

#include "scwarp/io/zarr.hpp"

namespace scw::io {
namespace {

using testing::HasSubstr;

std::vector<std::byte> bytes(std::string_view text) {
  std::vector<std::byte> out(text.size());
  if (!text.empty()) std::memcpy(out.data(), text.data(), text.size());
  return out;
}

/// An array of version 3.
std::string array(std::string_view type, std::string_view shape, std::string_view chunk, std::string_view codecs,
                  std::string_view fill) {
  return fmt::format(
      R"({{"zarr_format": 3, "node_type": "array", "data_type": {}, "shape": {}, "chunk_grid": {{"name": "regular",
      "configuration": {{"chunk_shape": {}}}}}, "chunk_key_encoding": {{"name": "default"}}, "codecs": {},
      "fill_value": {}, "attributes": {{"encoding-type": "array", "encoding-version": "0.2.0"}}}})",
      type, shape, chunk, codecs, fill);
}

/// Two cells, two genes, and X.
ZarrFiles store(const std::string& x) {
  ZarrFiles files;
  files["zarr.json"] = bytes(R"({"zarr_format": 3, "node_type": "group", "attributes": {}})");
  for (const std::string name : {"obs", "var"}) {
    files[name + "/zarr.json"] = bytes(
        R"({"zarr_format": 3, "node_type": "group", "attributes": {"encoding-type": "dataframe",
        "encoding-version": "0.2.0", "_index": "_index", "column-order": []}})");
    files[name + "/_index/zarr.json"] =
        bytes(array(R"({"name": "null_terminated_bytes", "configuration": {"length_bytes": 1}})", "[2]", "[2]",
                    R"(["bytes"])", R"("")"));
    files[name + "/_index/c/0"] = bytes("ab");
  }
  files["X/zarr.json"] = bytes(x);
  return files;
}

/// The message that reading it ends with; empty: it is read.
std::string refusal(const ZarrFiles& files) {
  try {
    read_zarr(Context::cpu(1), files, "hostile").validate();
    return {};
  } catch (const FormatError& e) {
    return e.what();
  }
}

TEST(ZarrHostile, ReadsWhatIsRight) {
  auto files = store(array(R"("uint8")", "[2, 2]", "[2, 2]", R"(["bytes"])", "0"));
  files["X/c/0/0"] = bytes("abcd");
  EXPECT_EQ(refusal(files), "");
}

TEST(ZarrHostile, ShardsWithoutConfiguration) {
  EXPECT_THAT(refusal(store(array(R"("uint8")", "[2, 2]", "[2, 2]", R"(["sharding_indexed"])", "0"))),
              HasSubstr("no 'chunk_shape'"));
}

TEST(ZarrHostile, ChunksOfShardsOnTopOfEachOther) {
  auto files = store(array(R"("uint8")", "[2, 2]", "[2, 2]",
                           R"([{"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 2],
                           "codecs": ["bytes"], "index_codecs": ["bytes"]}}])",
                           "0"));
  const std::uint64_t apart[] = {0, 2, 2, 2}, same[] = {0, 34, 0, 34};
  const auto shard = [](const std::uint64_t(&index)[4]) {
    return bytes("abcd" + std::string(reinterpret_cast<const char*>(index), sizeof index));
  };
  files["X/c/0/0"] = shard(apart);
  EXPECT_EQ(refusal(files), "");
  files["X/c/0/0"] = shard(same);
  EXPECT_THAT(refusal(files), HasSubstr("overlap"));
}

TEST(ZarrHostile, AChunkMuchLargerThanItsArray) {
  EXPECT_THAT(refusal(store(array(R"("uint8")", "[2, 2]", "[1048576, 1048576]", R"(["bytes"])", "0"))),
              HasSubstr("chunks of 1099511627776 bytes"));
}

TEST(ZarrHostile, TextsThatNobodyWrote) {
  auto files = store(array(R"("uint8")", "[2, 2]", "[2, 2]", R"(["bytes"])", "0"));
  const auto names = [&](std::string_view shape, const std::string& fill) {
    files["obs/_index/zarr.json"] = bytes(array(R"("string")", shape, shape, R"(["vlen-utf8"])", '"' + fill + '"'));
    files["obs/_index/c/0"].clear();
    files.erase("obs/_index/c/0");
    return refusal(files);
  };
  EXPECT_THAT(names("[200000000]", ""), HasSubstr("declares 6400000000 bytes"));
  EXPECT_THAT(names("[4611686018427387904]", ""), HasSubstr("declares"));
  EXPECT_THAT(names("[1000000]", std::string(1000000, 'x')), HasSubstr("fill value of 1000000 bytes"));
}

TEST(ZarrHostile, RowsOfAMatrixByColumnThatNobodyNamed) {
  auto files = store("");
  files["X/zarr.json"] = bytes(
      R"({"zarr_format": 3, "node_type": "group", "attributes": {"encoding-type": "csc_matrix",
      "encoding-version": "0.1.0", "shape": [2147483647, 2]}})");
  const std::pair<const char*, const char*> parts[] = {{"data", "[2]"}, {"indices", "[2]"}, {"indptr", "[3]"}};
  for (const auto& [name, shape] : parts)
    files[std::string("X/") + name + "/zarr.json"] = bytes(array(R"("uint8")", shape, shape, R"(["bytes"])", "0"));
  EXPECT_THAT(refusal(files), HasSubstr("declares 2147483647 rows in a file of 2 names"));
}

TEST(ZarrHostile, TypesThatAreNone) {
  EXPECT_NE(refusal(store(array(R"("int08")", "[2, 2]", "[2, 2]", R"(["bytes"])", "0"))), "");
}

}  // namespace
}  // namespace scw::io
