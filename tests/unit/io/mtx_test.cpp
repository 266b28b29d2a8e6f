#include "io/mtx.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "core/parallel.hpp"
#include "scwarp/core/error.hpp"
#include "test_folder.hpp"

namespace scw::io {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;

constexpr const char* kHeader = "%%MatrixMarket matrix coordinate integer general\n%a comment\n";
constexpr std::size_t kBlocks[] = {1, 2, 7, 64, 1000, std::size_t{1} << 20};

struct Item {
  std::int64_t gene, cell;  // from 1
  std::string value;
};

std::string text_of(const std::vector<Item>& items, std::int64_t genes, std::int64_t cells,
                    const std::string& end = "\n") {
  std::string out = kHeader + std::to_string(genes) + " " + std::to_string(cells) + " " + std::to_string(items.size());
  out += "\n";
  for (const Item& i : items) out += std::to_string(i.gene) + " " + std::to_string(i.cell) + " " + i.value + end;
  return out;
}

/// About n items of different places, by cell and gene, with values of one to nine digits and some that are no
/// integers.
std::vector<Item> random_items(std::size_t n, std::int64_t genes, std::int64_t cells, bool wide = false) {
  std::mt19937_64 random(7);
  std::vector<Item> out;
  for (std::size_t k = 0; k < n; ++k) {
    const auto gene = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(genes)) + 1;
    // A few cells have most.
    const auto cell = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(k % 2 == 0 ? 3 : cells)) + 1;
    std::string value = std::to_string(random() % (k % 5 == 0 ? 10000000 : 12));
    if (k % 11 == 0) value = "0.1";
    if (k % 13 == 0) value = "-2.5e+01";
    if (k % 17 == 0) value = "16777216";
    if (wide && k == n - 3) value = "123456789";
    out.push_back({gene, cell, value});
  }
  std::sort(out.begin(), out.end(),
            [](const Item& a, const Item& b) { return std::pair(a.cell, a.gene) < std::pair(b.cell, b.gene); });
  out.erase(std::unique(out.begin(), out.end(),
                        [](const Item& a, const Item& b) { return a.cell == b.cell && a.gene == b.gene; }),
            out.end());
  return out;
}

template <class V>
void expect_items(const AnyMatrix& any, std::vector<Item> items, std::int64_t genes, std::int64_t cells) {
  ASSERT_TRUE(std::holds_alternative<Csr<V>>(any));
  const auto& x = std::get<Csr<V>>(any);
  std::sort(items.begin(), items.end(),
            [](const Item& a, const Item& b) { return std::pair(a.cell, a.gene) < std::pair(b.cell, b.gene); });
  ASSERT_EQ(x.n_rows, cells);
  ASSERT_EQ(x.n_cols, genes);
  ASSERT_EQ(x.values.size(), static_cast<std::int64_t>(items.size()));
  std::int64_t p = 0;
  for (std::int64_t i = 0; i < cells; ++i) {
    ASSERT_EQ(x.indptr[i], p);
    for (; p < x.indptr[i + 1]; ++p) {
      const Item& item = items[static_cast<std::size_t>(p)];
      ASSERT_EQ(i + 1, item.cell);
      ASSERT_EQ(x.indices[p] + 1, item.gene);
      ASSERT_EQ(x.values[p], static_cast<V>(std::stod(item.value)));
    }
  }
}

class MtxFile : public testing::Test {
 protected:
  std::string plain(const std::string& text) const {
    const auto path = (folder_ / "matrix.mtx").string();
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  /// Several members, as bgzip and concatenated files have.
  std::string packed(const std::string& text, std::size_t member = std::size_t{1} << 30) const {
    const auto path = (folder_ / "matrix.mtx.gz").string();
    fs::remove(path);
    for (std::size_t from = 0; from < text.size(); from += member) {
      const gzFile f = gzopen(path.c_str(), "ab");
      const auto piece = text.substr(from, member);
      gzwrite(f, piece.data(), static_cast<unsigned>(piece.size()));
      gzclose(f);
    }
    return path;
  }
  TestFolder folder_;
};

/// What a stream gives, asked for in pieces on several threads.
AnyMatrix loaded(const MatrixStream& m) {
  const auto ctx = Context::cpu(3);
  const auto load = [&]<class V>(V) -> AnyMatrix {
    Csr<V> x;
    x.n_rows = m.n_rows;
    x.n_cols = static_cast<std::int32_t>(m.n_cols);
    x.indptr = Array<std::int64_t>(ctx.memory, m.n_rows + 1);
    x.indices = Array<std::int32_t>(ctx.memory, m.nnz);
    x.values = Array<V>(ctx.memory, m.nnz);
    m.indptr(0, m.n_rows + 1, reinterpret_cast<std::byte*>(x.indptr.data()));
    parallel_for(ctx, m.nnz, 777, [&](std::int64_t first, std::int64_t end) {
      m.indices(first, end - first, reinterpret_cast<std::byte*>(x.indices.data() + first));
      m.values(first, end - first, reinterpret_cast<std::byte*>(x.values.data() + first));
    });
    return x;
  };
  return m.dtype == "float32" ? load(float{}) : load(double{});
}

template <class T>
bool same(const Array<T>& a, const Array<T>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

void expect_same(const AnyMatrix& a, const AnyMatrix& b) {
  ASSERT_EQ(a.index(), b.index());
  std::visit(
      [&]<class M>(const M& x) {
        if constexpr (requires { x.indices; }) {
          const M& y = std::get<M>(b);
          EXPECT_EQ(x.n_rows, y.n_rows);
          EXPECT_EQ(x.n_cols, y.n_cols);
          EXPECT_TRUE(same(x.indptr, y.indptr));
          EXPECT_TRUE(same(x.indices, y.indices));
          EXPECT_TRUE(same(x.values, y.values));
        }
      },
      a);
}

/// In memory, after it was compared with what goes through a temporary file.
AnyMatrix read(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells,
               std::size_t block) {
  AnyMatrix x = read_mtx(ctx, source, genes, cells, block);
  for (const std::int64_t range : {std::int64_t{1}, std::int64_t{5000}, std::int64_t{1} << 22})
    expect_same(x, loaded(*stream_mtx(ctx, source, genes, cells, block, range)));
  return x;
}

AnyMatrix read(const std::string& text, std::int64_t genes, std::int64_t cells, std::size_t block, int threads = 3) {
  return read(Context::cpu(threads), {"op", text, "m"}, genes, cells, block);
}

enum class Order { by_cell, genes_fall, by_gene, any };

class MtxOrder : public MtxFile, public testing::WithParamInterface<Order> {};

TEST_P(MtxOrder, BlocksAndThreadsDoNotMatter) {
  constexpr std::int64_t kGenes = 300, kCells = 12000;
  auto items = random_items(6000, kGenes, kCells);
  std::mt19937_64 random(3);
  switch (GetParam()) {
    case Order::by_cell:
      break;
    case Order::genes_fall:
      std::sort(items.begin(), items.end(),
                [](const Item& a, const Item& b) { return std::pair(a.cell, b.gene) < std::pair(b.cell, a.gene); });
      break;
    case Order::by_gene:
      std::sort(items.begin(), items.end(),
                [](const Item& a, const Item& b) { return std::pair(a.gene, a.cell) < std::pair(b.gene, b.cell); });
      break;
    case Order::any:
      std::shuffle(items.begin(), items.end(), random);
      break;
  }
  const auto text = text_of(items, kGenes, kCells);
  for (const std::size_t block : kBlocks)
    for (const int threads : {1, 3}) {
      if (block < 64 && threads == 1) continue;
      expect_items<float>(read(text, kGenes, kCells, block, threads), items, kGenes, kCells);
    }
  for (const auto& path : {plain(text), packed(text), packed(text, 5000)})
    for (const std::size_t block : {std::size_t{300}, std::size_t{1} << 20})
      expect_items<float>(read(Context::cpu(3), {"op", path}, kGenes, kCells, block), items, kGenes, kCells);
}

INSTANTIATE_TEST_SUITE_P(Orders, MtxOrder,
                         testing::Values(Order::by_cell, Order::genes_fall, Order::by_gene, Order::any));

TEST_F(MtxFile, OneLargeValueMakesAllDouble) {
  const auto items = random_items(3000, 300, 500, true);
  const auto text = text_of(items, 300, 500);
  for (const std::size_t block : kBlocks) expect_items<double>(read(text, 300, 500, block), items, 300, 500);
  expect_items<double>(read(Context::cpu(2), {"op", packed(text)}, 300, 500, 999), items, 300, 500);
  // In the last line, which lies across blocks and has no end.
  const auto last = std::string(kHeader) + "2 2 2\n1 1 0.1\n2 2 16777217";
  for (const std::size_t block : kBlocks)
    expect_items<double>(read(last, 2, 2, block), {{1, 1, "0.1"}, {2, 2, "16777217"}}, 2, 2);
}

TEST(Mtx, LineEndsBlanksAndSpaces) {
  const auto items = random_items(500, 300, 50);
  for (const std::size_t block : kBlocks) {
    expect_items<float>(read(text_of(items, 300, 50, "\r\n"), 300, 50, block), items, 300, 50);
    expect_items<float>(read(text_of(items, 300, 50, "\n\n \n\t\r\n"), 300, 50, block), items, 300, 50);
    expect_items<float>(read(text_of(items, 300, 50, "  \n"), 300, 50, block), items, 300, 50);
    auto no_end = text_of(items, 300, 50);
    no_end.pop_back();
    expect_items<float>(read(no_end, 300, 50, block), items, 300, 50);
    expect_items<float>(read(std::string(kHeader) + "9 9 1\n\t 0000000005\t \t007 3.0e0", 9, 9, block), {{5, 7, "3"}},
                        9, 9);
    expect_items<float>(read("%%MatrixMarket matrix coordinate pattern general\n9 9 2\n5 7\n9 1\n", 9, 9, block),
                        {{5, 7, "1"}, {9, 1, "1"}}, 9, 9);
    expect_items<float>(read(std::string(kHeader) + "0 0 0\n", 0, 0, block), {}, 0, 0);
    expect_items<float>(read(std::string(kHeader) + "3 4 0", 3, 4, block), {}, 3, 4);
  }
}

TEST(Mtx, BlankLinesCostNoMemory) {
  const auto text = std::string(kHeader) + "3 4 1\n" + std::string(8 << 20, '\n') + "1 1 1\n";
  const auto ctx = Context::cpu(1);
  const auto memory = std::make_shared<TrackedMemory>(ctx.workspace);
  auto limited = ctx;
  limited.workspace = memory;
  expect_items<float>(read_mtx(limited, {"op", text, "m"}, 3, 4), {{1, 1, "1"}}, 3, 4);
  expect_items<float>(loaded(*stream_mtx(limited, {"op", text, "m"}, 3, 4)), {{1, 1, "1"}}, 3, 4);
  EXPECT_LT(memory->peak_bytes(), std::size_t{10} << 20);
  EXPECT_EQ(memory->used_bytes(), 0U);
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

/// The same one for both readers.
std::string error_of(const TextSource& source, std::int64_t genes, std::int64_t cells, std::size_t block) {
  const auto ctx = Context::cpu(3);
  const auto error = error_of([&] { read_mtx(ctx, source, genes, cells, block); });
  EXPECT_EQ(error, error_of([&] { stream_mtx(ctx, source, genes, cells, block); }));
  return error;
}

TEST_F(MtxFile, ErrorsNameTheirLineInAnyBlock) {
  const auto items = random_items(2000, 300, 50);
  const std::pair<const char*, const char*> kBad[] = {
      {"301 1 1", "entry (301, 1) is out of range (expected up to (300, 50))"},
      {"1 51 1", "entry (1, 51) is out of range (expected up to (300, 50))"},
      {"0 1 1", "entry (0, 1) is out of range (expected up to (300, 50))"},
      {"1 0 1", "entry (1, 0) is out of range (expected up to (300, 50))"},
      {"-1 1 1", "entry (-1, 1) is out of range (expected up to (300, 50))"},
      {"4294967297 1 1", "entry (4294967297, 1) is out of range (expected up to (300, 50))"},
      {"1 4294967297 1", "entry (1, 4294967297) is out of range (expected up to (300, 50))"},
      {"99999999999999999999 1 1", "expected a row number (got '99999999999999999999 1 1')"},
      {"1 99999999999999999999 1", "expected a column number (got '99999999999999999999 1')"},
      {"1 1 1e999", "expected a value (got '1e999')"},
      {"1 1", "expected a value (got '')"},
      {"1", "expected a column number (got '')"},
      {"%comment", "expected a row number (got '%comment')"},
      {"1.5 1 1", "expected a column number (got '.5 1 1')"},
      {"1 1 1 1", "expected the end of the line (got ' 1')"},
      {"1 1 1x", "expected the end of the line (got 'x')"},
      {"1 1 x", "expected a value (got 'x')"},
      {"+1 1 1", "expected a row number (got '+1 1 1')"},
      {"1 2 3\r4 5 6", "expected the end of the line (got '\r4 5 6')"},
  };
  for (const auto& [line, message] : kBad)
    for (const std::size_t where : {std::size_t{0}, std::size_t{1}, items.size() / 2, items.size() - 1}) {
      auto bad = text_of(items, 300, 50);
      std::size_t from = 0;
      for (std::size_t k = 0; k < where + 3; ++k) from = bad.find('\n', from) + 1;
      bad.replace(from, bad.find('\n', from) - from, line);
      // A later error is not the one that is told.
      if (where < items.size() - 1) bad += "x\n";
      const auto expected = "line " + std::to_string(where + 4) + ": " + message;
      for (const std::size_t block : kBlocks)
        ASSERT_THAT(error_of({"op", bad, "m"}, 300, 50, block), EndsWith("op: 'm', " + expected)) << block;
      ASSERT_THAT(error_of({"op", packed(bad)}, 300, 50, 777), EndsWith("matrix.mtx.gz', " + expected));
    }
}

TEST(Mtx, HeadersThatLie) {
  const std::string entries = "1 1 1\n2 1 1\n3 1 1\n";
  for (const std::size_t block : kBlocks) {
    const auto error = [&](const std::string& sizes) {
      return error_of({"op", kHeader + sizes + "\n" + entries, "m"}, 3, 2, block);
    };
    EXPECT_THAT(kHeader + std::string("3 2 3\n") + entries, HasSubstr("3 1 1"));
    EXPECT_EQ(error("3 2 2"), "op: 'm', line 6: the file has 3 entries (expected 2, by its header)");
    EXPECT_EQ(error("3 2 4"), "op: 'm', line 6: the file has 3 entries (expected 4, by its header)");
    EXPECT_EQ(error("3 2 137438953472"),
              "op: 'm', line 6: the file has 3 entries (expected 137438953472, by its header)");
    EXPECT_EQ(error("3 2 9223372036854775807"),
              "op: 'm', line 6: the file has 3 entries (expected 9223372036854775807, by its header)");
    EXPECT_THAT(error("3 2 9223372036854775808"), HasSubstr("line 3: expected the number of entries (got '92233"));
    EXPECT_THAT(error("3 2 -1"), HasSubstr("line 3: the sizes 3 x 2 with -1 entries are out of range"));
    EXPECT_THAT(error("3 2"), HasSubstr("line 3: expected the number of entries (got '')"));
    EXPECT_THAT(error("3 2 3 4"), HasSubstr("line 3: expected the end of the line (got ' 4')"));
    EXPECT_THAT(error("4000000000 2 3"), HasSubstr("the matrix is 4000000000 x 2 (expected 3 features x 2 barcodes)"));
    EXPECT_THAT(error("-3 2 3"), HasSubstr("the matrix is -3 x 2"));
  }
}

TEST(Mtx, GenesTwiceInACell) {
  for (const std::size_t block : kBlocks) {
    EXPECT_EQ(error_of({"op", std::string(kHeader) + "3 2 3\n2 2 1\n1 1 1\n2 2 2\n", "m"}, 3, 2, block),
              "op: 'm': gene 2 occurs twice in cell 2");
    EXPECT_EQ(error_of({"op", std::string(kHeader) + "3 2 4\n3 1 1\n2 2 1\n2 2 2\n3 1 1\n", "m"}, 3, 2, block),
              "op: 'm': gene 3 occurs twice in cell 1");
    // By cell; the first of two, within a block and across; more entries than genes.
    const std::string head = std::string(kHeader) + "4 4 7\n";
    EXPECT_EQ(error_of({"op", head + "1 1 1\n4 2 1\n1 2 1\n4 2 1\n3 3 1\n3 3 1\n1 4 1\n", "m"}, 4, 4, block),
              "op: 'm': gene 4 occurs twice in cell 2");
    EXPECT_EQ(error_of({"op", head + "1 1 1\n4 2 1\n1 2 1\n4 2 1\n1 2 1\n3 2 1\n1 4 1\n", "m"}, 4, 4, block),
              "op: 'm': gene 1 occurs twice in cell 2");
    EXPECT_EQ(error_of({"op", head + "1 4 1\n4 2 1\n1 2 1\n4 2 1\n1 2 1\n3 2 1\n1 1 1\n", "m"}, 4, 4, block),
              "op: 'm': gene 1 occurs twice in cell 2");
  }
}

TEST_F(MtxFile, StreamsKeepTheirFileAndNothingElse) {
  const auto items = random_items(60000, 300, 2000);
  const auto path = plain(text_of(items, 300, 2000));
  const auto ctx = Context::cpu(2);
  const auto memory = std::make_shared<TrackedMemory>(ctx.workspace);
  auto limited = ctx;
  limited.workspace = limited.memory = memory;
  const auto m = stream_mtx(limited, {"op", path}, 300, 2000, 4096);
  EXPECT_LT(memory->peak_bytes(), std::size_t{40000});
  EXPECT_EQ(memory->used_bytes(), 0U);
  fs::remove(path);
  expect_items<float>(loaded(*m), items, 300, 2000);
}

/// Restores an environment variable.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~Environment() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

TEST_F(MtxFile, NoPlaceForTheTemporaryFile) {
  for (const bool by_cell : {true, false}) {
    auto items = random_items(60000, 300, 2000);
    if (!by_cell) std::reverse(items.begin(), items.end());
    const auto text = text_of(items, 300, 2000);
    const TextSource source("op", text, "m");
    const auto error = [&] { return error_of([&] { stream_mtx(Context::cpu(2), source, 300, 2000, 4096); }); };
    {
      const Environment none("TMPDIR", (folder_ / "none").string());
      EXPECT_EQ(error(), "op: no temporary file can be made in '" + (folder_ / "none").string() +
                             "' (No such file or directory); TMPDIR chooses its folder");
    }
    const Environment here("TMPDIR", folder_.path().string());
    EXPECT_EQ(error(), "no error");
    // A limit for files is the disk that is full.
    rlimit old{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
    const auto handler = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{50000, old.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const auto full = error();
    ::setrlimit(RLIMIT_FSIZE, &old);
    ::signal(SIGXFSZ, handler);
    EXPECT_THAT(full, HasSubstr("bytes cannot be written at byte "));
    EXPECT_THAT(full, HasSubstr("of a temporary file in '" + folder_.path().string() + "' (File too large)"));
    EXPECT_TRUE(fs::is_empty(folder_.path()));
  }
}

TEST_F(MtxFile, EndlessLines) {
  const auto text = text_of(random_items(100, 300, 50), 300, 50);
  const auto lines = std::to_string(std::count(text.begin(), text.end(), '\n') + 1);
  const auto message = "line " + lines + ": is longer than 1048576 bytes";
  const auto bad = text + "1 1 1" + std::string(5 << 20, ' ') + "\n";
  for (const std::size_t block : {std::size_t{1000}, std::size_t{1} << 20, std::size_t{2} << 20, std::size_t{9} << 20})
    EXPECT_THAT(error_of({"op", bad, "m"}, 300, 50, block), HasSubstr(message)) << block;
  EXPECT_THAT(error_of({"op", packed(bad)}, 300, 50, std::size_t{1} << 20), HasSubstr(message));
}

TEST_F(MtxFile, DamagedGzip) {
  const auto text = text_of(random_items(5000, 300, 50), 300, 50);
  const auto path = packed(text);
  const auto size = fs::file_size(path);
  fs::resize_file(path, size / 2);
  for (const std::size_t block : {std::size_t{100}, std::size_t{1} << 20})
    EXPECT_THAT(error_of({"op", path}, 300, 50, block), HasSubstr("cannot be read on: the gzip stream ends too early"));
  EXPECT_THROW(read_mtx(Context::cpu(2), {"op", path}, 300, 50), IoError);
  packed(text);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size) - 6);
  file.put('\x55');
  file.close();
  EXPECT_THAT(error_of({"op", path}, 300, 50, 1000), HasSubstr("cannot be read on"));
  EXPECT_THAT(error_of({"op", (folder_ / "none").string()}, 300, 50, 1000), HasSubstr("cannot be opened"));
}

TEST_F(MtxFile, Cancelled) {
  const auto text = text_of(random_items(2000, 300, 50), 300, 50);
  const std::atomic<bool> stop{true};
  for (const int threads : {1, 3}) {
    auto ctx = Context::cpu(threads);
    ctx.cancelled = &stop;
    for (const auto& path : {plain(text), packed(text)}) {
      EXPECT_THROW(read_mtx(ctx, {"op", path}, 300, 50, 100), Cancelled);
      EXPECT_THROW(stream_mtx(ctx, {"op", path}, 300, 50, 100), Cancelled);
    }
  }
}

}  // namespace
}  // namespace scw::io
