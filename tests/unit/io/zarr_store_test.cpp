// Arrays of Zarr stores in memory: which element is where, for every layout that a chunk can have.
#include "io/zarr_store.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <libdeflate.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "io/zarr_codecs.hpp"
#include "test_folder.hpp"

namespace scw::io::zarr {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;
using Sizes = std::vector<std::int64_t>;

Bytes bytes(std::string_view text) {
  const auto* p = reinterpret_cast<const std::byte*>(text.data());
  return Bytes(p, p + text.size());
}
void append(Bytes& to, const Bytes& more) { to.insert(to.end(), more.begin(), more.end()); }

Bytes packed(const Bytes& in) {
  auto* const z = libdeflate_alloc_compressor(1);
  Bytes out(libdeflate_zlib_compress_bound(z, in.size()));
  out.resize(libdeflate_zlib_compress(z, in.data(), in.size(), out.data(), out.size()));
  libdeflate_free_compressor(z);
  return out;
}

/// How an array is written by the slow and obvious writer below.
struct Layout {
  Sizes shape, chunk;
  std::vector<std::size_t> order = {};  ///< of the dimensions as stored; empty: as they are
  bool big_endian = false;
  bool compressed = true;
  Sizes shard = {};
  bool index_at_end = true;
  bool version2 = false;
};

std::int64_t value_at(const Layout& l, const Sizes& at) {
  std::int64_t v = 0;
  for (std::size_t k = 0; k < at.size(); ++k) v = v * l.shape[k] + at[k];
  return v + 1;
}

/// f(index) for every index below `extent`, the last dimension fastest.
template <class F>
void for_each_index(const Sizes& extent, F&& f) {
  if (std::find(extent.begin(), extent.end(), 0) != extent.end()) return;
  Sizes i(extent.size(), 0);
  for (;;) {
    f(i);
    std::size_t k = extent.size();
    while (k-- > 0) {
      if (++i[k] < extent[k]) break;
      i[k] = 0;
    }
    if (k == static_cast<std::size_t>(-1)) return;
  }
}
Sizes divided(const Sizes& a, const Sizes& b) {
  Sizes out;
  for (std::size_t k = 0; k < a.size(); ++k) out.push_back((a[k] + b[k] - 1) / b[k]);
  return out;
}

/// The bytes of a chunk of int32; what is outside of the array is -1.
Bytes chunk_bytes(const Layout& l, const Sizes& at) {
  const std::size_t rank = l.shape.size();
  std::vector<std::size_t> order = l.order;
  if (order.empty()) {
    order.resize(rank);
    std::iota(order.begin(), order.end(), 0);
  }
  Sizes extent;
  for (const auto d : order) extent.push_back(l.chunk[d]);
  Bytes out;
  for_each_index(extent, [&](const Sizes& i) {
    Sizes where(rank);
    bool inside = true;
    for (std::size_t k = 0; k < rank; ++k) where[order[k]] = at[order[k]] * l.chunk[order[k]] + i[k];
    for (std::size_t k = 0; k < rank; ++k) inside = inside && where[k] < l.shape[k];
    auto v = static_cast<std::uint32_t>(inside ? value_at(l, where) : -1);
    if (l.big_endian) v = __builtin_bswap32(v);
    const auto* p = reinterpret_cast<const std::byte*>(&v);
    out.insert(out.end(), p, p + 4);
  });
  return l.compressed ? packed(out) : out;
}

std::string key_of(const Layout& l, const Sizes& at) {
  return l.version2 ? fmt::format("a/{}", fmt::join(at, ".")) : fmt::format("a/c/{}", fmt::join(at, "/"));
}

ZarrFiles files_of(const Layout& l) {
  ZarrFiles files;
  const Sizes& file = l.shard.empty() ? l.chunk : l.shard;
  if (l.version2) {
    files[".zgroup"] = bytes(R"({"zarr_format": 2})");
    Json j = Json::parse(R"({"zarr_format": 2, "fill_value": -7, "filters": null})");
    j["shape"] = l.shape;
    j["chunks"] = l.chunk;
    j["dtype"] = l.big_endian ? ">i4" : "<i4";
    j["order"] = l.order.empty() ? "C" : "F";
    j["compressor"] = l.compressed ? Json::parse(R"({"id": "zlib"})") : Json(nullptr);
    files["a/.zarray"] = bytes(j.dump());
  } else {
    files["zarr.json"] = bytes(R"({"zarr_format": 3, "node_type": "group", "attributes": {}})");
    Json codecs = Json::array();
    if (!l.order.empty()) codecs.push_back({{"name", "transpose"}, {"configuration", {{"order", l.order}}}});
    codecs.push_back({{"name", "bytes"}, {"configuration", {{"endian", l.big_endian ? "big" : "little"}}}});
    if (l.compressed) codecs.push_back({{"name", "numcodecs.zlib"}});
    if (!l.shard.empty())
      codecs = Json::array({{{"name", "sharding_indexed"},
                             {"configuration",
                              {{"chunk_shape", l.chunk},
                               {"codecs", codecs},
                               {"index_codecs", {"bytes", "crc32c"}},
                               {"index_location", l.index_at_end ? "end" : "start"}}}}});
    const Json j = {{"zarr_format", 3},
                    {"node_type", "array"},
                    {"shape", l.shape},
                    {"data_type", "int32"},
                    {"chunk_grid", {{"name", "regular"}, {"configuration", {{"chunk_shape", file}}}}},
                    {"chunk_key_encoding", {{"name", "default"}}},
                    {"fill_value", -7},
                    {"codecs", codecs}};
    files["a/zarr.json"] = bytes(j.dump());
  }
  const Sizes inside = l.shard.empty() ? Sizes(l.shape.size(), 1) : divided(l.shard, l.chunk);
  for_each_index(divided(l.shape, file), [&](const Sizes& at) {
    if (l.shard.empty()) {
      files[key_of(l, at)] = chunk_bytes(l, at);
      return;
    }
    Bytes chunks, index;
    std::uint64_t n_inside = 1;
    for (const auto k : inside) n_inside *= static_cast<std::uint64_t>(k);
    for_each_index(inside, [&](const Sizes& i) {
      Sizes chunk(at.size());
      bool exists = true;
      for (std::size_t k = 0; k < at.size(); ++k) {
        chunk[k] = at[k] * inside[k] + i[k];
        exists = exists && chunk[k] * l.chunk[k] < l.shape[k];
      }
      std::uint64_t entry[2] = {~0ULL, ~0ULL};
      if (exists) {
        const Bytes part = chunk_bytes(l, chunk);
        entry[0] = chunks.size() + (l.index_at_end ? 0 : 16 * n_inside + 4);
        entry[1] = part.size();
        append(chunks, part);
      }
      const auto* p = reinterpret_cast<const std::byte*>(entry);
      index.insert(index.end(), p, p + 16);
    });
    const std::uint32_t sum = crc32c(index.data(), index.size());
    const auto* p = reinterpret_cast<const std::byte*>(&sum);
    index.insert(index.end(), p, p + 4);
    Bytes& shard = files[key_of(l, at)];
    append(shard, l.index_at_end ? chunks : index);
    append(shard, l.index_at_end ? index : chunks);
  });
  return files;
}

struct Opened {
  std::shared_ptr<const ZarrStore> store;
  std::unique_ptr<StoredArray> array;
  const StoredArray* operator->() const { return array.get(); }
};
Opened open(ZarrFiles files) {
  Opened out;
  out.store = ZarrStore::open("test", "store", open_files(std::move(files)));
  out.array = out.store->root()->child("a")->array();
  return out;
}

template <class T = std::int32_t>
std::vector<T> read(const Opened& a, std::int64_t first, std::int64_t n, int threads = 1) {
  const std::int64_t width = a->rows() == 0 ? 0 : a->count / a->rows();
  std::vector<T> out(static_cast<std::size_t>(n * width));
  EXPECT_TRUE(a->read(Context::cpu(threads), first, n, out.data()));
  return out;
}

/// Every range of rows, from memory as they lie there and through a conversion.
void check_all(const Layout& l) {
  const Opened a = open(files_of(l));
  EXPECT_EQ(a->dims, l.shape);
  EXPECT_TRUE(a->is_concurrent());
  const std::int64_t rows = a->rows(), width = rows == 0 ? 0 : a->count / rows;
  for (std::int64_t first = 0; first <= rows; ++first)
    for (std::int64_t n = 0; first + n <= rows; ++n) {
      std::vector<std::int32_t> want(static_cast<std::size_t>(n * width));
      std::iota(want.begin(), want.end(), static_cast<std::int32_t>(first * width + 1));
      ASSERT_EQ(read(a, first, n, 1 + static_cast<int>(n % 3)), want) << first << " " << n;
      const std::vector<double> wide(want.begin(), want.end());
      ASSERT_EQ(read<double>(a, first, n), wide) << first << " " << n;
      a->will_read(first, n + 5);
    }
}

std::string refusal(const Opened& a) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(a->count));
  try {
    a->read(Context::cpu(1), 0, a->rows(), out.data());
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(ZarrArray, ChunksOfOneDimension) {
  for (const bool compressed : {true, false})
    for (const std::int64_t chunk : {1, 3, 4, 12, 20})
      for (const bool version2 : {true, false})
        check_all({.shape = {12}, .chunk = {chunk}, .compressed = compressed, .version2 = version2});
}

TEST(ZarrArray, ChunksOfTwoDimensions) {
  for (const bool compressed : {true, false})
    for (const Sizes& chunk : {Sizes{3, 2}, Sizes{2, 5}, Sizes{7, 5}, Sizes{1, 1}, Sizes{9, 3}, Sizes{4, 9}})
      for (const bool version2 : {true, false})
        check_all({.shape = {7, 5}, .chunk = chunk, .compressed = compressed, .version2 = version2});
}

TEST(ZarrArray, ChunksOfThreeDimensions) {
  for (const Sizes& chunk : {Sizes{2, 2, 2}, Sizes{2, 3, 4}, Sizes{1, 3, 4}, Sizes{5, 1, 4}})
    check_all({.shape = {5, 3, 4}, .chunk = chunk});
}

TEST(ZarrArray, FOrder) {
  for (const bool version2 : {true, false})
    for (const Sizes& chunk : {Sizes{3, 2}, Sizes{7, 5}})
      check_all({.shape = {7, 5}, .chunk = chunk, .order = {1, 0}, .version2 = version2});
  check_all({.shape = {5, 3, 4}, .chunk = {2, 2, 3}, .order = {2, 0, 1}});
  check_all({.shape = {5, 3, 4}, .chunk = {2, 3, 4}, .order = {0, 2, 1}, .compressed = false});
}

TEST(ZarrArray, BigEndian) {
  for (const bool version2 : {true, false})
    for (const bool compressed : {true, false})
      for (const Sizes& chunk : {Sizes{3, 5}, Sizes{3, 2}})
        check_all(
            {.shape = {7, 5}, .chunk = chunk, .big_endian = true, .compressed = compressed, .version2 = version2});
}

TEST(ZarrArray, Shards) {
  for (const bool at_end : {true, false})
    for (const bool compressed : {true, false}) {
      check_all({.shape = {23}, .chunk = {3}, .compressed = compressed, .shard = {6}, .index_at_end = at_end});
      check_all({.shape = {7, 5}, .chunk = {2, 3}, .compressed = compressed, .shard = {4, 6}, .index_at_end = at_end});
    }
}

TEST(ZarrArray, NoElements) {
  for (const Sizes& shape : {Sizes{0}, Sizes{0, 5}, Sizes{5, 0}})
    for (const bool version2 : {true, false}) {
      Layout l{.shape = shape, .chunk = Sizes(shape.size(), 2), .version2 = version2};
      const Opened a = open(files_of(l));
      EXPECT_EQ(a->count, 0);
      float out = 5;
      EXPECT_TRUE(a->read(Context::cpu(2), 0, a->rows(), &out));
      EXPECT_EQ(out, 5);
    }
}

TEST(ZarrArray, AScalar) {
  auto files = files_of({.shape = {}, .chunk = {}, .version2 = true});
  files["a/0"] = chunk_bytes({.shape = {}, .chunk = {}}, {});
  const Opened a = open(files);
  EXPECT_EQ(a->rows(), 1);
  EXPECT_THAT(read(a, 0, 1), ElementsAre(1));
}

TEST(ZarrArray, MissingChunksAreFill) {
  for (const bool compressed : {true, false}) {
    const Layout l{.shape = {7, 5}, .chunk = {3, 2}, .compressed = compressed};
    auto files = files_of(l);
    files.erase("a/c/1/1");
    files.erase("a/c/2/0");
    const auto got = read(open(files), 0, 7, 2);
    for (std::int64_t i = 0; i < 7; ++i)
      for (std::int64_t j = 0; j < 5; ++j) {
        const bool missing = (i / 3 == 1 && j / 2 == 1) || (i / 3 == 2 && j / 2 == 0);
        EXPECT_EQ(got[static_cast<std::size_t>(i * 5 + j)], missing ? -7 : i * 5 + j + 1) << i << " " << j;
      }
  }
}

TEST(ZarrArray, MissingShardsAndChunksOfShardsAreFill) {
  Layout l{.shape = {12}, .chunk = {2}, .compressed = false, .shard = {6}};
  auto files = files_of(l);
  files.erase("a/c/1");
  Bytes& shard = files["a/c/0"];
  const std::size_t index = shard.size() - 4 - 3 * 16;
  std::fill_n(shard.begin() + static_cast<std::ptrdiff_t>(index) + 16, 16, std::byte{255});
  const std::uint32_t sum = crc32c(shard.data() + index, 48);
  std::memcpy(shard.data() + index + 48, &sum, 4);
  EXPECT_THAT(read(open(files), 0, 12), ElementsAre(1, 2, -7, -7, 5, 6, -7, -7, -7, -7, -7, -7));
}

TEST(ZarrArray, DamagedChunksAreNamed) {
  for (const bool compressed : {true, false}) {
    auto files = files_of({.shape = {7, 5}, .chunk = {3, 2}, .compressed = compressed});
    files["a/c/1/1"].pop_back();
    EXPECT_THAT(refusal(open(files)), HasSubstr("the chunk at (1, 1)")) << compressed;
    files["a/c/1/1"].clear();
    EXPECT_THAT(refusal(open(files)), HasSubstr("the chunk at (1, 1)")) << compressed;
  }
  auto longer = files_of({.shape = {6}, .chunk = {3}, .compressed = false});
  longer["a/c/1"].push_back(std::byte{0});
  EXPECT_THAT(refusal(open(longer)), HasSubstr("has 13 bytes (expected 12)"));
}

TEST(ZarrArray, DamagedShardsAreNamed) {
  const Layout l{.shape = {12}, .chunk = {2}, .shard = {6}};
  const auto with = [&](auto&& change) {
    auto files = files_of(l);
    change(files["a/c/1"]);
    return refusal(open(files));
  };
  EXPECT_EQ(with([](Bytes&) {}), "");
  EXPECT_THAT(with([](Bytes& s) { s.resize(20); }), HasSubstr("too short for an index of 3 chunks"));
  EXPECT_THAT(with([](Bytes& s) { s[s.size() - 10] ^= std::byte{1}; }), HasSubstr("index of the shard"));
  EXPECT_THAT(with([](Bytes& s) {
                const std::size_t index = s.size() - 52;
                const std::uint64_t far = s.size();
                std::memcpy(s.data() + index + 16, &far, 8);
                const std::uint32_t sum = crc32c(s.data() + index, 48);
                std::memcpy(s.data() + index + 48, &sum, 4);
              }),
              HasSubstr("chunk 1 of the shard 'a/c/1'"));
}

TEST(ZarrArray, OnlyChunksWithWantedColumnsAreRead) {
  auto files = files_of({.shape = {7, 5}, .chunk = {3, 2}});
  for (auto& [key, content] : files)
    if (key.ends_with("/1") && key.starts_with("a/c/")) content = bytes("damaged");
  const Opened a = open(files);
  EXPECT_THAT(refusal(a), HasSubstr("the chunk at (0, 1)"));
  std::vector<float> out(35);
  ASSERT_TRUE(a->read(Context::cpu(2), 0, 7, out.data(), {-1, 0, -1, -1, 1}));
  for (std::size_t i = 0; i < 7; ++i)
    for (const std::size_t j : {std::size_t{1}, std::size_t{4}})
      EXPECT_EQ(out[i * 5 + j], static_cast<float>(i * 5 + j + 1));
}

TEST(ZarrArray, ManyReadersAtOnce) {
  const Opened a = open(files_of({.shape = {997, 3}, .chunk = {10, 2}, .shard = {40, 4}}));
  std::vector<std::thread> readers;
  std::vector<int> right(4, 0);
  for (std::size_t t = 0; t < right.size(); ++t)
    readers.emplace_back([&, t] {
      bool same = true;
      for (std::int64_t first = static_cast<std::int64_t>(t); first + 100 < 997; first += 50) {
        std::vector<std::int32_t> got(300);
        same = same && a->read(Context::cpu(2), first, 100, got.data());
        for (std::size_t k = 0; k < got.size(); ++k)
          same = same && got[k] == first * 3 + static_cast<std::int64_t>(k) + 1;
      }
      right[t] = same ? 1 : 0;
    });
  for (auto& r : readers) r.join();
  EXPECT_THAT(right, ElementsAre(1, 1, 1, 1));
}

/// One chunk that is not compressed.
ZarrFiles single(const char* dtype, std::int64_t n, const Bytes& chunk, const Json& fill = 0,
                 const Json& filters = nullptr) {
  Json j = Json::parse(R"({"zarr_format": 2, "order": "C", "compressor": null})");
  j["shape"] = {n};
  j["chunks"] = {n};
  j["dtype"] = dtype;
  j["fill_value"] = fill;
  j["filters"] = filters;
  ZarrFiles files;
  files[".zgroup"] = bytes(R"({"zarr_format": 2})");
  files["a/.zarray"] = bytes(j.dump());
  if (!chunk.empty()) files["a/0"] = chunk;
  return files;
}
template <class T>
Bytes stored(const std::vector<T>& values) {
  const auto* p = reinterpret_cast<const std::byte*>(values.data());
  return Bytes(p, p + values.size() * sizeof(T));
}

TEST(ZarrArray, WhatDoesNotFitIsSaid) {
  const Context ctx = Context::cpu(1);
  const Opened a = open(single("<i8", 3, stored<std::int64_t>({1, std::int64_t{1} << 40, -5})));
  std::int32_t narrow[3];
  std::int64_t wide[3];
  float real[3];
  EXPECT_FALSE(a->read(ctx, 0, 3, narrow));
  EXPECT_TRUE(a->read(ctx, 0, 1, narrow));
  EXPECT_TRUE(a->read(ctx, 0, 3, wide));
  EXPECT_EQ(wide[1], std::int64_t{1} << 40);
  EXPECT_FALSE(a->read(ctx, 0, 3, real));
  const Opened d = open(single("<f8", 1, stored<double>({0.1})));
  EXPECT_TRUE(d->read(ctx, 0, 1, real));
  EXPECT_EQ(real[0], 0.1F);
  EXPECT_THROW(d->read(ctx, 0, 1, narrow), FormatError);
}

TEST(ZarrArray, HalfPrecision) {
  const Opened a = open(single("<f2", 5, stored<std::uint16_t>({0x3C00, 0xC100, 0x0001, 0x7BFF, 0xFC00})));
  EXPECT_THAT(read<double>(a, 0, 5), ElementsAre(1.0, -2.5, 0x1p-24, 65504.0, -INFINITY));
}

TEST(ZarrArray, Texts) {
  const Context ctx = Context::cpu(2);
  const Json filters = Json::parse(R"([{"id": "vlen-utf8"}])");
  const auto vlen = [](const std::vector<std::string>& texts) {
    Bytes out = stored<std::uint32_t>({static_cast<std::uint32_t>(texts.size())});
    for (const auto& t : texts) {
      append(out, stored<std::uint32_t>({static_cast<std::uint32_t>(t.size())}));
      append(out, bytes(t));
    }
    return out;
  };
  const std::vector<std::string> words{"T cell", "", "\xc3\xa9"};
  EXPECT_EQ(open(single("|O", 3, vlen(words), "", filters))->texts(ctx), words);
  EXPECT_THAT(open(single("|O", 2, {}, "none", filters))->texts(ctx), ElementsAre("none", "none"));
  for (auto damage : {0, 1, 2, 3}) {
    Bytes chunk = vlen(words);
    if (damage == 0) chunk.pop_back();
    if (damage == 1) chunk[0] = std::byte{4};
    if (damage == 2) chunk[7] = std::byte{255};
    if (damage == 3) chunk.resize(3);
    EXPECT_THROW(open(single("|O", 3, chunk, "", filters))->texts(ctx), FormatError) << damage;
  }
  const std::vector<std::uint32_t> letters{'a', 0xE9, 0, 0x1F600, 0, 0};
  EXPECT_THAT(open(single("<U3", 2, stored(letters)))->texts(ctx), ElementsAre("a\xc3\xa9", "\xf0\x9f\x98\x80"));
  auto swapped = letters;
  for (auto& c : swapped) c = __builtin_bswap32(c);
  EXPECT_THAT(open(single(">U3", 2, stored(swapped)))->texts(ctx), ElementsAre("a\xc3\xa9", "\xf0\x9f\x98\x80"));
  EXPECT_THAT(open(single("|S3", 3, bytes(std::string("abc\0\0\0a\0\0", 9))))->texts(ctx), ElementsAre("abc", "", "a"));
  EXPECT_THROW(open(single("<i4", 1, stored<std::int32_t>({1})))->texts(ctx), FormatError);
}

TEST(ZarrArray, MoreThanIsStoredIsRefused) {
  auto files = files_of({.shape = {8}, .chunk = {4}});
  const auto with = [&](const Json& v) {
    Json j = parse_json(files["a/zarr.json"]);
    j["shape"] = {v};
    j["chunk_grid"]["configuration"]["chunk_shape"] = {v};
    auto changed = files;
    changed["a/zarr.json"] = bytes(j.dump());
    return changed;
  };
  EXPECT_NO_THROW(open(with(8)));
  EXPECT_THROW(open(with(std::int64_t{1} << 38)), FormatError);
}

TEST(ZarrArray, UnknownCodec) {
  auto files = files_of({.shape = {8}, .chunk = {4}});
  Json j = parse_json(files["a/zarr.json"]);
  j["codecs"].push_back("packbits");
  files["a/zarr.json"] = bytes(j.dump());
  EXPECT_THAT(refusal(open(files)), HasSubstr("codec 'packbits'"));
}

TEST(ZarrFolder, ReadsTheSameAndFollowsNoLinks) {
  const TestFolder folder;
  const auto files = files_of({.shape = {7, 5}, .chunk = {3, 2}});
  for (const auto& [key, content] : files) {
    const auto path = folder / ("store/" + key);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  }
  const auto opened = [&] {
    Opened out;
    out.store = ZarrStore::open("test", "store", open_folder("test", (folder / "store").string()));
    out.array = out.store->root()->child("a")->array();
    return out;
  };
  const auto want = read(open(files), 0, 7);
  EXPECT_EQ(read(opened(), 0, 7, 2), want);
  opened()->will_read(0, 7);
  // A chunk that is a link to the same bytes elsewhere is not read.
  std::filesystem::rename(folder / "store/a/c/0/0", folder / "elsewhere");
  std::filesystem::create_symlink(folder / "elsewhere", folder / "store/a/c/0/0");
  EXPECT_NE(refusal(opened()), "");
  std::filesystem::remove(folder / "store/a/c/0/0");
  EXPECT_EQ(read(opened(), 0, 1).front(), -7);
}

}  // namespace
}  // namespace scw::io::zarr
