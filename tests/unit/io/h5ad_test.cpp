#include "scwarp/io/h5ad.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "io/lzf.hpp"
#include "test_folder.hpp"

namespace scw::io {
namespace {

namespace fs = std::filesystem;

class H5adTest : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  TestFolder folder_;
};

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

template <class V>
Csr<V> counts(const Context& ctx, std::int64_t n, std::int32_t m) {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int32_t j = 0; j < m; ++j)
      if ((i * 7 + j * 13) % 5 == 0 && i != 2) indices.push_back(j);
    indptr.push_back(static_cast<std::int64_t>(indices.size()));
  }
  Csr<V> x;
  x.n_rows = n;
  x.n_cols = m;
  x.indptr = Array<std::int64_t>(ctx.memory, n + 1);
  std::copy(indptr.begin(), indptr.end(), x.indptr.begin());
  x.indices = Array<std::int32_t>(ctx.memory, indptr.back());
  std::copy(indices.begin(), indices.end(), x.indices.begin());
  x.values = Array<V>(ctx.memory, indptr.back());
  for (std::int64_t p = 0; p < indptr.back(); ++p) x.values[p] = static_cast<V>(p % 17 + 1);
  return x;
}

Matrix<float> dense(const Context& ctx, std::int64_t n, std::int64_t m) {
  Matrix<float> x(ctx.memory, n, m);
  for (std::int64_t i = 0; i < n * m; ++i) x.data[i] = static_cast<float>(i) * 0.5F;
  return x;
}

AnnData example(const Context& ctx, std::int64_t n = 300, std::int32_t m = 200) {
  AnnData a;
  std::vector<std::string> cells, genes, labels;
  for (std::int64_t i = 0; i < n; ++i) {
    cells.push_back("cell-" + std::to_string(i) + "\xC3\xA9");
    labels.push_back(std::string(1, static_cast<char>('a' + i % 3)));
  }
  for (std::int32_t j = 0; j < m; ++j) genes.push_back("gene" + std::to_string(j));
  a.obs = DataFrame(cells, "barcode");
  a.var = DataFrame(genes);
  a.set_X(counts<float>(ctx, n, m));
  MatrixElement csc(counts<double>(ctx, n, m));
  csc.stored_layout = StoredLayout::csc;
  csc.stored_dtype = "int64";
  a.set_layer("counts", std::move(csc));
  a.set_obsm("X_pca", dense(ctx, n, 50));
  a.obs.set("label", Categorical::from_labels(labels));
  std::vector<double> x(static_cast<std::size_t>(n), 0.25);
  x[1] = NAN;
  a.obs.set("x", x);
  Column nullable(std::vector<std::int64_t>(static_cast<std::size_t>(n), 5));
  nullable.missing = std::vector<std::uint8_t>(static_cast<std::size_t>(n), 0);
  (*nullable.missing)[2] = 1;
  a.obs.set("nullable", std::move(nullable));
  a.obs.set("text", labels);
  a.obs.set("flag", Bools{std::vector<std::uint8_t>(static_cast<std::size_t>(n), 1)});
  StructArray names;
  names.n_rows = 2;
  names.fields.emplace_back("0", std::vector<std::string>{"MS4A1", "CD79A"});
  names.fields.emplace_back("1", std::vector<std::string>{"GNLY", "\xCE\xB2"});
  a.uns["rank_genes_groups"]["names"] = names;
  a.uns["pca"]["variance"] = std::vector<double>{2.0, 1.0};
  a.uns["log1p"]["base"] = Value();
  a.uns["n"] = 3;
  a.set_raw_from_X(ctx);
  return a;
}

TEST_F(H5adTest, WhatIsWrittenIsRead) {
  const auto ctx = Context::cpu(2);
  const AnnData a = example(ctx);
  write_h5ad(ctx, a, path("a.h5ad"));
  const AnnData b = read_h5ad(ctx, path("a.h5ad"));
  EXPECT_EQ(b.obs.index(), a.obs.index());
  EXPECT_EQ(b.obs.index_name, "barcode");
  EXPECT_EQ(b.var.index(), a.var.index());
  const auto& x = std::get<Csr<float>>(a.X->data);
  const auto& y = std::get<Csr<float>>(b.X->data);
  ASSERT_EQ(x.values.size(), y.values.size());
  EXPECT_TRUE(std::equal(x.values.begin(), x.values.end(), y.values.begin()));
  EXPECT_TRUE(std::equal(x.indices.begin(), x.indices.end(), y.indices.begin()));
  EXPECT_TRUE(std::equal(x.indptr.begin(), x.indptr.end(), y.indptr.begin()));
  const auto& layer = b.matrix("counts");
  EXPECT_EQ(layer.stored_layout, StoredLayout::csc);
  EXPECT_EQ(layer.stored_dtype, "int64");
  const auto& z = std::get<Csr<float>>(layer.data);
  EXPECT_TRUE(std::equal(x.values.begin(), x.values.end(), z.values.begin()));
  EXPECT_TRUE(std::equal(x.indices.begin(), x.indices.end(), z.indices.begin()));
  const auto& pca = std::get<Matrix<float>>(b.obsm_matrix("X_pca").data);
  EXPECT_EQ(pca.data[299 * 50 + 49], (299 * 50 + 49) * 0.5F);
  EXPECT_EQ(b.obs.at("label").to_strings(), a.obs.at("label").to_strings());
  EXPECT_TRUE(std::isnan(b.obs.at("x").to_double()[1]));
  EXPECT_TRUE(std::isnan(b.obs.at("nullable").to_double()[2]));
  EXPECT_EQ(std::get<Bools>(b.obs.at("flag").data).values[7], 1);
  const auto* names = b.uns.find("rank_genes_groups")->find("names")->get<StructArray>();
  ASSERT_NE(names, nullptr);
  EXPECT_EQ(std::get<std::vector<std::string>>(names->fields[1].second)[1], "\xCE\xB2");
  EXPECT_EQ(b.uns.find("pca")->find("variance")->get<NdArray<double>>()->values[0], 2.0);
  EXPECT_TRUE(b.uns.find("log1p")->find("base")->is_null());
  EXPECT_EQ(*b.uns.find("n")->get<std::int64_t>(), 3);
  EXPECT_EQ(b.raw->X.n_cols(), 200);
  EXPECT_EQ(read_h5ad_matrix(ctx, path("a.h5ad"), "layers/counts").n_cols(), 200);
}

std::vector<std::uint8_t> every_third(std::int64_t n, std::int64_t offset) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = (i + offset) % 3 == 0 ? 2 : 0;
  return out;
}

TEST_F(H5adTest, TextsBesideAMatrix) {
  const Context ctx = Context::cpu(2);
  AnnData a;
  std::vector<std::string> cells(20000);
  for (std::size_t i = 0; i < cells.size(); ++i) cells[i] = std::string(i % 50, 'x') + std::to_string(i);
  a.obs = DataFrame(cells);
  a.var = DataFrame(std::vector<std::string>{"g", "", "\u00e4"});
  a.X = MatrixElement(counts<float>(ctx, 20000, 3));
  write_h5ad(ctx, a, path("a.h5ad"));
  const auto want = std::get<Csr<float>>(read_h5ad_matrix(ctx, path("a.h5ad")).data);
  // Two threads that take turns with the library.
  std::vector<std::string> found;
  std::thread other([&] {
    for (int round = 0; round < 5; ++round) found = read_h5ad_texts(Context::cpu(1), path("a.h5ad"), "obs/_index");
  });
  for (int round = 0; round < 5; ++round) {
    const auto x = std::get<Csr<float>>(read_h5ad_matrix(ctx, path("a.h5ad")).data);
    EXPECT_TRUE(std::equal(x.values.begin(), x.values.end(), want.values.begin(), want.values.end()));
    EXPECT_TRUE(std::equal(x.indices.begin(), x.indices.end(), want.indices.begin(), want.indices.end()));
  }
  other.join();
  EXPECT_EQ(found, cells);
  EXPECT_EQ(read_h5ad_texts(ctx, path("a.h5ad"), "var/_index"), (std::vector<std::string>{"g", "", "\u00e4"}));
  EXPECT_THROW(read_h5ad_texts(ctx, path("a.h5ad"), "obs/none"), InvalidArgument);
  EXPECT_THROW(read_h5ad_texts(ctx, path("a.h5ad"), "X/data"), FormatError);
  EXPECT_THROW(read_h5ad_texts(ctx, path("a.h5ad"), "obs"), FormatError);
}

TEST_F(H5adTest, MasksGiveWhatASubsetAfterwardsGives) {
  const auto ctx = Context::cpu(2);
  AnnData whole = example(ctx);
  whole.set_layer("dense", dense(ctx, 300, 200));
  MatrixElement wide(dense(ctx, 300, 200));  // whole and subset afterwards: 64-bit integers
  for (auto& v : std::get<Matrix<float>>(wide.data).data) v *= 2;
  wide.stored_dtype = "int64";
  whole.set_layer("wide", std::move(wide));
  whole.set_obsp("graph", counts<float>(ctx, 300, 300));
  whole.set_varm("PCs", dense(ctx, 200, 5));
  write_h5ad(ctx, whole, path("a.h5ad"));
  const auto cells = every_third(300, 1), genes = every_third(200, 2);
  const std::vector<std::uint8_t> none(300, 0), all(300, 1);
  const auto span = [](const std::vector<std::uint8_t>& v) {
    return Span<const std::uint8_t>{v.data(), static_cast<std::int64_t>(v.size())};
  };
  const std::pair<Span<const std::uint8_t>, Span<const std::uint8_t>> cases[] = {
      {span(cells), span(genes)}, {span(cells), {}}, {{}, span(genes)}, {span(none), {}}, {span(all), span(genes)}};
  for (const auto& [obs, var] : cases) {
    ReadH5adOptions options;
    options.obs_mask = obs;
    options.var_mask = var;
    const AnnData some = read_h5ad(ctx, path("a.h5ad"), options);
    AnnData expected = read_h5ad(ctx, path("a.h5ad"));
    if (!obs.empty()) expected.subset_obs(ctx, obs);
    if (!var.empty()) expected.subset_var(ctx, var);
    some.validate();
    EXPECT_EQ(some.n_obs(),
              obs.empty() ? 300 : std::count(obs.begin(), obs.end(), 2) + (obs.data == all.data() ? 300 : 0));
    EXPECT_EQ(some.n_vars(), var.empty() ? 200 : std::count(var.begin(), var.end(), 2));
    EXPECT_EQ(some.raw->X.n_cols(), 200);
    write_h5ad(ctx, some, path("some.h5ad"));
    write_h5ad(ctx, expected, path("expected.h5ad"));
    EXPECT_EQ(bytes_of(path("some.h5ad")), bytes_of(path("expected.h5ad")));
  }
  ReadH5adOptions bad;
  bad.obs_mask = span(genes);
  EXPECT_THROW(read_h5ad(ctx, path("a.h5ad"), bad), ShapeMismatch);
  bad.obs_mask = {};
  bad.var_mask = span(cells);
  EXPECT_THROW(read_h5ad(ctx, path("a.h5ad"), bad), ShapeMismatch);
  bad.var_mask = span(genes);
  bad.stream_matrices = true;
  EXPECT_THROW(read_h5ad(ctx, path("a.h5ad"), bad), InvalidArgument);
}

TEST_F(H5adTest, BytesDoNotDependOnThreadsAndSurviveACopy) {
  const AnnData a = example(Context::cpu(1), 3000, 400);
  write_h5ad(Context::cpu(1), a, path("1"));
  write_h5ad(Context::cpu(2), a, path("2"));
  write_h5ad(Context::cpu(3), a, path("3"));
  EXPECT_TRUE(bytes_of(path("1")) == bytes_of(path("2")));
  EXPECT_TRUE(bytes_of(path("1")) == bytes_of(path("3")));
  const auto ctx = Context::cpu(2);
  write_h5ad(ctx, read_h5ad(ctx, path("1")), path("4"));
  write_h5ad(ctx, read_h5ad(ctx, path("4")), path("7"));
  EXPECT_TRUE(bytes_of(path("4")) == bytes_of(path("7")));
  WriteH5adOptions plain;
  plain.compression_level = 0;
  write_h5ad(ctx, read_h5ad(ctx, path("1")), path("5"), plain);
  write_h5ad(ctx, read_h5ad(ctx, path("5")), path("6"));
  EXPECT_GT(fs::file_size(path("5")), fs::file_size(path("1")));
}

TEST_F(H5adTest, ReplacesTheFileThatItWasReadFrom) {
  const auto ctx = Context::cpu(2);
  write_h5ad(ctx, example(ctx), path("a.h5ad"));
  ::chmod(path("a.h5ad").c_str(), 0600);
  AnnData a = read_h5ad(ctx, path("a.h5ad"));
  std::vector<std::uint8_t> keep(300, 0);
  keep[5] = keep[7] = 1;
  a.subset_obs(ctx, keep);
  a.uns["pca"]["more"] = "x";
  write_h5ad(ctx, a, path("a.h5ad"));
  const AnnData b = read_h5ad(ctx, path("a.h5ad"));
  EXPECT_EQ(b.n_obs(), 2);
  EXPECT_EQ(*b.uns.find("pca")->find("more")->get<std::string>(), "x");
  EXPECT_NE(b.uns.find("pca")->find("variance"), nullptr);
  struct stat s {};
  ASSERT_EQ(::stat(path("a.h5ad").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777, 0600U);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1) << "a temporary file was left";
}

TEST_F(H5adTest, AFailedWriteLeavesTheOldFile) {
  const auto ctx = Context::cpu(1);
  write_h5ad(ctx, example(ctx), path("a.h5ad"));
  const auto before = bytes_of(path("a.h5ad"));
  AnnData a = example(ctx);
  a.obs.set("lost", Foreign{"/nowhere", "test"});
  EXPECT_THROW(write_h5ad(ctx, a, path("a.h5ad")), Error);
  std::atomic<bool> cancelled{true};
  Context stopped = ctx;
  stopped.cancelled = &cancelled;
  EXPECT_THROW(write_h5ad(stopped, example(ctx), path("a.h5ad")), Cancelled);
  EXPECT_TRUE(bytes_of(path("a.h5ad")) == before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1) << "a temporary file was left";
  EXPECT_THROW(write_h5ad(ctx, a, path("no/such/folder.h5ad")), IoError);
  EXPECT_THROW(write_h5ad(ctx, a, "/dev/null"), IoError);
}

TEST_F(H5adTest, ASourceThatChangedIsNotCopiedFrom) {
  const auto ctx = Context::cpu(1);
  write_h5ad(ctx, example(ctx), path("a.h5ad"));
  AnnData a = read_h5ad(ctx, path("a.h5ad"));
  std::ofstream(path("a.h5ad"), std::ios::app) << "more";
  // What was decoded is written from memory.
  write_h5ad(ctx, a, path("b.h5ad"));
  const AnnData b = read_h5ad(ctx, path("b.h5ad"));
  EXPECT_EQ(b.uns.find("pca")->find("variance")->get<NdArray<double>>()->values[0], 2.0);
  a.obsm.emplace("only there", Foreign{"/obsm/X_pca", "test"});
  EXPECT_THROW(write_h5ad(ctx, a, path("c.h5ad")), IoError);
}

TEST_F(H5adTest, BadFiles) {
  const auto ctx = Context::cpu(1);
  EXPECT_THROW(read_h5ad(ctx, path("missing.h5ad")), IoError);
  EXPECT_THROW(read_h5ad(ctx, folder_.path().string()), IoError);
  std::ofstream(path("text.h5ad")) << "cell,gene\n";
  EXPECT_THROW(read_h5ad(ctx, path("text.h5ad")), FormatError);
  std::ofstream(path("empty.h5ad")) << "";
  EXPECT_THROW(read_h5ad(ctx, path("empty.h5ad")), FormatError);
  write_h5ad(ctx, example(ctx), path("a.h5ad"));
  const auto whole = bytes_of(path("a.h5ad"));
  for (const double part : {0.1, 0.5, 0.9, 0.999}) {
    const auto n = static_cast<std::size_t>(static_cast<double>(whole.size()) * part);
    std::ofstream(path("cut.h5ad"), std::ios::binary) << whole.substr(0, n);
    EXPECT_THROW(read_h5ad(ctx, path("cut.h5ad")), Error) << n;
  }
}

class Messages final : public LogSink {
 public:
  void log(LogLevel, std::string_view message) override { all.emplace_back(message); }
  std::vector<std::string> all;
};

TEST_F(H5adTest, IndicesAndCounts) {
  Messages messages;
  auto ctx = Context::cpu(2);
  ctx.log = &messages;
  const auto attempt = [&](auto&& change, const ReadH5adOptions& options = {}) {
    AnnData a = example(ctx);
    change(std::get<Csr<float>>(a.X->data));
    write_h5ad(ctx, a, path("a.h5ad"));
    return read_h5ad(ctx, path("a.h5ad"), options);
  };
  const auto message = [&](auto&& change, const ReadH5adOptions& options = {}) -> std::string {
    try {
      attempt(change, options);
    } catch (const DataError& e) {
      return e.what();
    }
    return "no DataError";
  };
  const auto sorted = attempt([](auto& x) { std::swap(x.indices[0], x.indices[1]); });
  EXPECT_EQ(std::get<Csr<float>>(sorted.X->data).values[0], 2.0F);
  ASSERT_EQ(messages.all.size(), 1U);
  EXPECT_NE(messages.all[0].find("sorted"), std::string::npos);
  ReadH5adOptions strict;
  strict.sort_indices = false;
  EXPECT_NE(message([](auto& x) { std::swap(x.indices[0], x.indices[1]); }, strict).find("unsorted index"),
            std::string::npos);
  EXPECT_NE(message([](auto& x) { x.indices[1] = x.indices[0]; }).find("duplicate index 0 in row 0"),
            std::string::npos);
  EXPECT_NE(message([](auto& x) { x.indices[0] = 200; }).find("index 200 at position 0 (row 0) is out of range"),
            std::string::npos);
  EXPECT_NE(message([](auto& x) { x.indices[0] = -1; }).find("object '/X'"), std::string::npos);
  ReadH5adOptions checked;
  checked.check_counts = true;
  EXPECT_NE(message([](auto& x) { x.values[3] = -1.0F; }, checked).find("cell 0, gene 15 is -1"), std::string::npos);
  EXPECT_NE(message([](auto& x) { x.values[0] = NAN; }, checked).find("nan"), std::string::npos);
  EXPECT_EQ(message([](auto& x) { x.values[0] = NAN; }), "no DataError");
}

TEST_F(H5adTest, EmptyData) {
  const auto ctx = Context::cpu(2);
  AnnData a = example(ctx);
  const std::vector<std::uint8_t> nothing(300, 0);
  a.subset_obs(ctx, nothing);
  write_h5ad(ctx, a, path("a.h5ad"));
  EXPECT_EQ(read_h5ad(ctx, path("a.h5ad")).n_obs(), 0);
  const AnnData none;
  write_h5ad(ctx, none, path("b.h5ad"));
  EXPECT_FALSE(read_h5ad(ctx, path("b.h5ad")).X.has_value());
}

TEST(Lzf, RoundTrips) {
  for (const std::size_t n : {0UL, 1UL, 2UL, 3UL, 31UL, 32UL, 33UL, 300UL, 70000UL}) {
    for (const unsigned spread : {1U, 3U, 256U}) {
      std::vector<std::uint8_t> in(n), packed(n * 2 + 64), out(n);
      std::uint32_t state = 12345;
      for (auto& b : in) {
        state = state * 1664525U + 1013904223U;
        b = static_cast<std::uint8_t>((state >> 24) % spread);
      }
      const auto size = lzf_compress(in.data(), n, packed.data(), packed.size());
      ASSERT_GE(size, 0);
      EXPECT_EQ(lzf_decompress(packed.data(), static_cast<std::size_t>(size), out.data(), n),
                static_cast<std::int64_t>(n));
      EXPECT_EQ(in, out);
      if (n > 0) {
        EXPECT_EQ(lzf_decompress(packed.data(), static_cast<std::size_t>(size), out.data(), n - 1), -1);
      }
    }
  }
}

}  // namespace
}  // namespace scw::io
