#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "io/streams.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/io/tenx.hpp"
#include "scwarp/io/write.hpp"
#include "test_folder.hpp"

namespace scw::io {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class TenxWrite : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  TestFolder folder_;
};

template <class V>
Matrix<V> values(const Context& ctx, std::int64_t n, std::int64_t m) {
  Matrix<V> x(ctx.memory, n, m);
  for (std::int64_t i = 0; i < n * m; ++i) x.data[i] = static_cast<V>((i * 7919) % 11 < 8 ? 0 : i % 1009);
  return x;
}

template <class V>
Csr<V> sparse(const Context& ctx, const Matrix<V>& d) {
  Csr<V> x;
  x.n_rows = d.n_rows;
  x.n_cols = static_cast<std::int32_t>(d.n_cols);
  x.indptr = Array<std::int64_t>(ctx.memory, d.n_rows + 1);
  x.indices = Array<std::int32_t>(ctx.memory, d.n_rows * d.n_cols);
  x.values = Array<V>(ctx.memory, d.n_rows * d.n_cols);
  std::int64_t p = 0;
  x.indptr[0] = 0;
  for (std::int64_t i = 0; i < d.n_rows; ++i) {
    for (std::int64_t j = 0; j < d.n_cols; ++j)
      if (const V v = d.data[i * d.n_cols + j]; v != 0) {
        x.indices[p] = static_cast<std::int32_t>(j);
        x.values[p++] = v;
      }
    x.indptr[i + 1] = p;
  }
  Array<std::int32_t> indices(ctx.memory, p);
  Array<V> kept(ctx.memory, p);
  std::copy_n(x.indices.data(), p, indices.data());
  std::copy_n(x.values.data(), p, kept.data());
  x.indices = std::move(indices);
  x.values = std::move(kept);
  return x;
}

AnnData with_names(MatrixElement x) {
  AnnData a;
  std::vector<std::string> cells, genes, ids, types;
  for (std::int64_t i = 0; i < x.n_rows(); ++i) cells.push_back("CELL-" + std::to_string(i));
  for (std::int64_t j = 0; j < x.n_cols(); ++j) {
    genes.push_back("gene" + std::to_string(j));
    ids.push_back("ENSG" + std::to_string(j));
    types.push_back(j % 5 == 4 ? "Antibody Capture" : "Gene Expression");
  }
  a.obs = DataFrame(cells);
  a.var = DataFrame(genes);
  a.var.set("gene_ids", ids);
  a.var.set("feature_types", Categorical::from_labels(types));
  a.set_X(std::move(x));
  return a;
}

AnnData read_all(const Context& ctx, const std::string& folder) {
  Read10xMtxOptions all;
  all.gex_only = false;
  return read_10x_mtx(ctx, folder, all);
}

template <class V>
void expect_same(const AnnData& a, const Csr<V>& expected) {
  ASSERT_TRUE(std::holds_alternative<Csr<V>>(a.X->data));
  const auto& x = std::get<Csr<V>>(a.X->data);
  ASSERT_EQ(x.n_rows, expected.n_rows);
  ASSERT_EQ(x.n_cols, expected.n_cols);
  ASSERT_EQ(x.values.size(), expected.values.size());
  EXPECT_TRUE(std::equal(x.indptr.begin(), x.indptr.end(), expected.indptr.begin()));
  EXPECT_TRUE(std::equal(x.indices.begin(), x.indices.end(), expected.indices.begin()));
  EXPECT_TRUE(std::equal(x.values.begin(), x.values.end(), expected.values.begin()));
}

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_F(TenxWrite, WhatIsWrittenIsReadInBothVersionsAndLayouts) {
  const auto ctx = Context::cpu(3);
  const auto d = values<float>(ctx, 3000, 700);
  const auto expected = sparse(ctx, d);
  for (const int version : {2, 3}) {
    Write10xMtxOptions options;
    options.version = version;
    const AnnData a = with_names(sparse(ctx, d));
    write_10x_mtx(ctx, a, path("csr"), options);
    write_10x_mtx(Context::cpu(1), a, path("one"), options);
    write_10x_mtx(ctx, with_names(values<float>(ctx, 3000, 700)), path("dense"), options);
    const std::string matrix = version == 3 ? "/matrix.mtx.gz" : "/matrix.mtx";
    EXPECT_EQ(bytes_of(path("csr") + matrix), bytes_of(path("one") + matrix));
    for (const auto* folder : {"csr", "dense"}) {
      const AnnData b = read_all(ctx, path(folder));
      EXPECT_EQ(b.obs.index(), a.obs.index());
      EXPECT_EQ(b.var.index(), a.var.index());
      EXPECT_EQ(b.var.at("gene_ids").to_strings(), a.var.at("gene_ids").to_strings());
      EXPECT_EQ(b.var.contains("feature_types"), version == 3);
      if (version == 3) {
        EXPECT_EQ(b.var.at("feature_types").to_strings(), a.var.at("feature_types").to_strings());
      }
      expect_same(b, expected);
    }
    EXPECT_EQ(fs::exists(path("csr/genes.tsv")), version == 2);
    EXPECT_EQ(fs::exists(path("csr/features.tsv.gz")), version == 3);
  }
}

TEST_F(TenxWrite, StreamsAndValuesOfAllKinds) {
  const auto ctx = Context::cpu(2);
  const auto d = values<double>(ctx, 50, 40);
  // By gene, as CSC is.
  MatrixStream m;
  Matrix<double> t(ctx.memory, 40, 50);
  for (std::int64_t i = 0; i < 50; ++i)
    for (std::int64_t j = 0; j < 40; ++j) t.data[j * 50 + i] = d.data[i * 40 + j];
  const auto by_gene = std::make_shared<Csr<double>>(sparse(ctx, t));
  m.layout = StoredLayout::csc;
  m.n_rows = 50;
  m.n_cols = 40;
  m.nnz = by_gene->values.size();
  m.dtype = "float64";
  const auto range = [by_gene](auto get) {
    return [by_gene, get](std::int64_t first, std::int64_t n, std::byte* out) {
      const auto* from = get(*by_gene) + first;
      std::memcpy(out, from, static_cast<std::size_t>(n) * sizeof *from);
    };
  };
  m.values = range([](const Csr<double>& x) { return x.values.data(); });
  m.indices = range([](const Csr<double>& x) { return x.indices.data(); });
  m.indptr = range([](const Csr<double>& x) { return x.indptr.data(); });
  write_10x_mtx(ctx, with_names(MatrixElement(std::make_shared<const MatrixStream>(m))), path("csc"));
  Csr<float> expected;
  {
    const auto x = sparse(ctx, d);
    Matrix<float> narrow(ctx.memory, 50, 40);
    std::transform(d.data.begin(), d.data.end(), narrow.data.begin(), [](double v) { return static_cast<float>(v); });
    expected = sparse(ctx, narrow);
  }
  expect_same(read_all(ctx, path("csc")), expected);

  auto odd = sparse(ctx, d);
  odd.values[0] = 0.1;
  odd.values[1] = -3;
  odd.values[2] = 0x1p60;
  odd.values[3] = std::numeric_limits<double>::denorm_min() * 1e20;
  odd.values[4] = std::numeric_limits<double>::infinity();
  odd.values[5] = 123456789.0;
  odd.values[6] = 0;
  odd.values[7] = std::numeric_limits<double>::lowest();
  AnnData a = with_names(std::move(odd));
  Write10xMtxOptions plain;
  plain.version = 2;
  write_10x_mtx(ctx, a, path("odd"), plain);
  EXPECT_THAT(bytes_of(path("odd/matrix.mtx")), HasSubstr("%%MatrixMarket matrix coordinate real general\n"));
  expect_same(read_all(ctx, path("odd")), std::get<Csr<double>>(a.X->data));
  write_10x_mtx(ctx, with_names(values<float>(ctx, 3, 4)), path("odd"), plain);
  EXPECT_THAT(bytes_of(path("odd/matrix.mtx")), HasSubstr("%%MatrixMarket matrix coordinate integer general\n"));
}

TEST_F(TenxWrite, EmptyMatrices) {
  const auto ctx = Context::cpu(2);
  for (const auto& [n, m] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {0, 5}, {5, 0}, {1, 1}}) {
    write_10x_mtx(ctx, with_names(sparse(ctx, values<float>(ctx, n, m))), path("x"));
    const AnnData a = read_all(ctx, path("x"));
    EXPECT_EQ(a.n_obs(), n);
    EXPECT_EQ(a.n_vars(), m);
  }
}

TEST_F(TenxWrite, NamesBySymbolOrId) {
  const auto ctx = Context::cpu(1);
  AnnData a;
  a.obs = DataFrame({"c"});
  a.var = DataFrame({"ENSG1", "ENSG2"});
  a.var.set("gene_symbols", std::vector<std::string>{"ACTB", "CD3"});
  a.set_X(values<float>(ctx, 1, 2));
  write_10x_mtx(ctx, a, path("x"));
  const AnnData b = read_10x_mtx(ctx, path("x"));
  EXPECT_THAT(b.var.index(), ElementsAre("ACTB", "CD3"));
  EXPECT_THAT(b.var.at("gene_ids").to_strings(), ElementsAre("ENSG1", "ENSG2"));
  a.var.set_index({"a\tb", "c"});
  EXPECT_THROW(write_10x_mtx(ctx, a, path("y")), InvalidArgument);
  EXPECT_FALSE(fs::exists(path("y")));
}

TEST_F(TenxWrite, AFolderOfOtherThingsStays) {
  const auto ctx = Context::cpu(1);
  const AnnData a = with_names(values<float>(ctx, 3, 4));
  fs::create_directories(path("mine"));
  std::ofstream(path("mine/thesis.tex")) << "x";
  EXPECT_THROW(write_10x_mtx(ctx, a, path("mine")), IoError);
  EXPECT_TRUE(fs::exists(path("mine/thesis.tex")));
  std::ofstream(path("file")) << "x";
  EXPECT_THROW(write_10x_mtx(ctx, a, path("file")), IoError);
  write_10x_mtx(ctx, a, path("x/"));
  write_10x_mtx(ctx, a, path("x"));  // over its own kind
  std::size_t left = 0;
  for (const auto& e : fs::directory_iterator(folder_.path())) left += e.path().filename() != "mine" ? 1 : 0;
  EXPECT_EQ(left, 2U);
}

TEST_F(TenxWrite, DamagedMembersAreTold) {
  const auto ctx = Context::cpu(3);
  write_10x_mtx(ctx, with_names(values<float>(ctx, 3000, 700)), path("x"));
  const auto matrix = path("x/matrix.mtx.gz");
  const auto good = bytes_of(matrix);
  const auto write = [&](const std::string& bytes) { std::ofstream(matrix, std::ios::binary) << bytes; };
  for (std::size_t place = good.size() / 7; place < good.size() - 40; place += good.size() / 7) {
    auto bad = good;
    bad[place] = static_cast<char>(bad[place] ^ 0x10);
    write(bad);
    EXPECT_THROW(read_all(ctx, path("x")), Error);
    write(good.substr(0, place));
    EXPECT_THROW(read_all(ctx, path("x")), Error);
  }
  write(good);
  EXPECT_EQ(read_all(ctx, path("x")).n_obs(), 3000);
}

}  // namespace
}  // namespace scw::io
