#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "io/hdf5.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/io/convert.hpp"
#include "scwarp/io/tenx.hpp"
#include "test_folder.hpp"

namespace scw::io {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class TenxH5Write : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  TestFolder folder_;
};

/// Cells x genes, mostly zero; cells 0 and 7, and gene 3 are empty.
template <class T>
std::vector<T> values(std::int64_t n, std::int64_t m) {
  std::vector<T> x(static_cast<std::size_t>(n * m));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < m; ++j) {
      const std::int64_t k = i * m + j;
      const bool zero = (k * 7919) % 11 < 8 || i == 0 || i == 7 || j == 3;
      x[static_cast<std::size_t>(k)] = static_cast<T>(zero ? 0 : 1 + k % 101);
    }
  return x;
}

template <class T>
const char* numpy_name() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return "uint8";
  if constexpr (std::is_same_v<T, std::int16_t>) return "int16";
  if constexpr (std::is_same_v<T, std::int32_t>) return "int32";
  if constexpr (std::is_same_v<T, std::int64_t>) return "int64";
  if constexpr (std::is_same_v<T, std::uint64_t>) return "uint64";
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, double>) return "float64";
}

template <class T>
FillRange range(std::vector<T> all, std::int64_t width = 1) {
  return [all = std::move(all), width](std::int64_t first, std::int64_t n, std::byte* out) {
    ASSERT_LE(static_cast<std::size_t>((first + n) * width), all.size());
    std::memcpy(out, all.data() + first * width, static_cast<std::size_t>(n * width) * sizeof(T));
  };
}

template <class T>
MatrixElement stream(const std::vector<T>& x, std::int64_t n, std::int64_t m, StoredLayout layout) {
  auto s = std::make_shared<MatrixStream>();
  s->layout = layout;
  s->n_rows = n;
  s->n_cols = m;
  s->dtype = numpy_name<T>();
  if (layout == StoredLayout::dense) {
    s->values = range(x, m);
    return MatrixElement(std::shared_ptr<const MatrixStream>(s));
  }
  const bool by_gene = layout == StoredLayout::csc;
  std::vector<T> kept;
  std::vector<std::int32_t> indices;
  std::vector<std::int64_t> indptr{0};
  for (std::int64_t a = 0; a < (by_gene ? m : n); ++a) {
    for (std::int64_t b = 0; b < (by_gene ? n : m); ++b)
      if (const T v = x[static_cast<std::size_t>(by_gene ? b * m + a : a * m + b)]; v != T{0}) {
        kept.push_back(v);
        indices.push_back(static_cast<std::int32_t>(b));
      }
    indptr.push_back(static_cast<std::int64_t>(kept.size()));
  }
  s->nnz = static_cast<std::int64_t>(kept.size());
  s->values = range(kept);
  s->indices = range(indices);
  s->indptr = range(indptr);
  return MatrixElement(std::shared_ptr<const MatrixStream>(s));
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
  a.X = std::move(x);
  return a;
}

AnnData read_all(const Context& ctx, const std::string& path) {
  Read10xH5Options all;
  all.gex_only = false;
  return read_10x_h5(ctx, path, all);
}

/// What was read, as a dense matrix.
std::vector<double> dense(const AnnData& a) {
  std::vector<double> out(static_cast<std::size_t>(a.n_obs() * a.n_vars()));
  std::visit(
      [&]<class M>(const M& x) {
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>)
          for (std::int64_t i = 0; i < x.n_rows; ++i)
            for (std::int64_t p = x.indptr[i]; p < x.indptr[i + 1]; ++p)
              out[static_cast<std::size_t>(i * x.n_cols + x.indices[p])] = static_cast<double>(x.values[p]);
        else
          FAIL() << "not CSR";
      },
      a.X->data);
  return out;
}

template <class T>
std::vector<double> wide(const std::vector<T>& x) {
  std::vector<double> out;
  for (const T v : x) out.push_back(static_cast<double>(v));
  return out;
}

std::string stored_type(const std::string& path, const char* object) {
  const h5::Session session;
  const auto source = Source::open("test", path);
  return h5::dataset(h5::child(h5::root(*source), object)).type.name;
}

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Warnings final : LogSink {
  void log(LogLevel level, std::string_view text) override {
    if (level == LogLevel::warning) told.emplace_back(text);
  }
  std::vector<std::string> told;
};

TEST_F(TenxH5Write, WhatIsWrittenIsReadInEveryLayout) {
  const std::int64_t n = 2000, m = 500;  // several chunks
  const auto x = values<float>(n, m);
  Write10xH5Options small;
  small.chunk_bytes = 64 << 10;
  std::string first;
  for (const auto layout : {StoredLayout::csr, StoredLayout::csc, StoredLayout::dense}) {
    const AnnData a = with_names(stream(x, n, m, layout));
    write_10x_h5(Context::cpu(3), a, path("x.h5"), small);
    write_10x_h5(Context::cpu(1), a, path("one.h5"), small);
    EXPECT_EQ(bytes_of(path("x.h5")), bytes_of(path("one.h5")));
    if (first.empty()) first = bytes_of(path("x.h5"));
    EXPECT_EQ(bytes_of(path("x.h5")), first);  // whatever the layout was
    const AnnData b = read_all(Context::cpu(2), path("x.h5"));
    EXPECT_EQ(b.obs.index(), a.obs.index());
    EXPECT_EQ(b.var.index(), a.var.index());
    EXPECT_EQ(b.var.at("gene_ids").to_strings(), a.var.at("gene_ids").to_strings());
    EXPECT_EQ(b.var.at("feature_types").to_strings(), a.var.at("feature_types").to_strings());
    EXPECT_THAT(b.var.at("genome").to_strings(), testing::Each(""));
    EXPECT_EQ(dense(b), wide(x));
  }
  EXPECT_EQ(stored_type(path("x.h5"), "matrix/data"), "int32");
  EXPECT_EQ(stored_type(path("x.h5"), "matrix/indices"), "int64");
  EXPECT_EQ(stored_type(path("x.h5"), "matrix/indptr"), "int64");
  EXPECT_EQ(stored_type(path("x.h5"), "matrix/shape"), "int32");
  Write10xH5Options plain;
  plain.compression_level = 0;
  write_10x_h5(Context::cpu(2), with_names(stream(x, n, m, StoredLayout::csr)), path("plain.h5"), plain);
  EXPECT_EQ(dense(read_all(Context::cpu(2), path("plain.h5"))), wide(x));
}

TEST_F(TenxH5Write, MatricesInMemory) {
  const auto ctx = Context::cpu(2);
  const auto x = values<double>(30, 20);
  Matrix<double> d(ctx.memory, 30, 20);
  std::copy(x.begin(), x.end(), d.data.begin());
  AnnData a = with_names(MatrixElement(std::move(d)));
  write_10x_h5(ctx, a, path("dense.h5"));
  const AnnData b = read_all(ctx, path("dense.h5"));
  EXPECT_EQ(dense(b), x);
  write_10x_h5(ctx, b, path("csr.h5"));
  EXPECT_EQ(dense(read_all(ctx, path("csr.h5"))), x);
}

template <class T>
void expect_stored(const std::string& path, const std::vector<T>& odd, const char* type) {
  const auto ctx = Context::cpu(2);
  auto x = values<T>(40, 30);
  std::copy(odd.begin(), odd.end(), x.begin() + 35 * 30 + 5);
  for (const auto layout : {StoredLayout::csr, StoredLayout::csc, StoredLayout::dense}) {
    write_10x_h5(ctx, with_names(stream(x, 40, 30, layout)), path);
    EXPECT_EQ(stored_type(path, "matrix/data"), type) << numpy_name<T>();
    EXPECT_EQ(dense(read_all(ctx, path)), wide(x)) << numpy_name<T>();
  }
}

TEST_F(TenxH5Write, TheTypeIsWhatTheValuesNeed) {
  const auto p = path("x.h5");
  constexpr std::int64_t kExact = 1 << 24;
  expect_stored<std::uint8_t>(p, {255}, "int32");
  expect_stored<std::int16_t>(p, {-32768}, "int32");
  expect_stored<std::int32_t>(p, {kExact, -kExact}, "int32");
  expect_stored<std::int32_t>(p, {kExact + 1}, "int64");
  expect_stored<std::int32_t>(p, {std::numeric_limits<std::int32_t>::min()}, "int64");
  expect_stored<std::int64_t>(p, {-7}, "int32");
  expect_stored<std::int64_t>(p, {INT64_C(1) << 53}, "int64");
  expect_stored<std::uint64_t>(p, {UINT64_C(1) << 40}, "int64");
  expect_stored<float>(p, {-3.0F}, "int32");
  expect_stored<float>(p, {0x1p24F}, "int32");
  expect_stored<float>(p, {0x1p25F}, "int64");
  expect_stored<float>(p, {0.1F}, "float32");
  expect_stored<float>(p, {1e30F, -std::numeric_limits<float>::infinity()}, "float32");
  expect_stored<double>(p, {16777217.0}, "int64");
  expect_stored<double>(p, {0.1, 1e300}, "float64");
  const auto bad = values<std::uint64_t>(40, 30);
  auto over = bad;
  over.back() = std::numeric_limits<std::uint64_t>::max();
  EXPECT_THROW(write_10x_h5(Context::cpu(1), with_names(stream(over, 40, 30, StoredLayout::csr)), path("over.h5")),
               NotSupported);
  EXPECT_FALSE(fs::exists(path("over.h5")));
}

TEST_F(TenxH5Write, NaNIsKept) {
  auto x = values<float>(4, 5);
  x[8] = std::numeric_limits<float>::quiet_NaN();
  for (const auto layout : {StoredLayout::csr, StoredLayout::csc, StoredLayout::dense}) {
    write_10x_h5(Context::cpu(1), with_names(stream(x, 4, 5, layout)), path("x.h5"));
    const auto back = dense(read_all(Context::cpu(1), path("x.h5")));
    EXPECT_TRUE(std::isnan(back[8]));
    EXPECT_EQ(back[9], static_cast<double>(x[9]));
  }
}

TEST_F(TenxH5Write, EmptyMatrices) {
  const auto ctx = Context::cpu(2);
  for (const auto& [n, m] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {0, 5}, {5, 0}, {1, 1}})
    for (const auto layout : {StoredLayout::csr, StoredLayout::csc, StoredLayout::dense}) {
      write_10x_h5(ctx, with_names(stream(values<float>(n, m), n, m, layout)), path("x.h5"));
      const AnnData a = read_all(ctx, path("x.h5"));
      EXPECT_EQ(a.n_obs(), n);
      EXPECT_EQ(a.n_vars(), m);
    }
}

TEST_F(TenxH5Write, TagsAndFlagsComeBack) {
  auto ctx = Context::cpu(2);
  Warnings sink;
  ctx.log = &sink;
  AnnData a = with_names(stream(values<float>(3, 5), 3, 5, StoredLayout::csr));
  const std::vector<std::string> genomes{"GRCh38", "", "mm10", "GRCh38", "GRCh38"}, reads{"R2", "", "R2", "R2", "R1"};
  a.var.set("genome", Categorical::from_labels(genomes));
  a.var.set("read", reads);
  a.var.set("probe_ids", std::vector<std::string>{"p0", "p1", "p2", "p3", "p4"});
  a.var.set("filtered_probes", Bools{{1, 0, 1, 1, 0}});
  a.var.set("shape", reads);  // would be taken for the matrix's
  a.var.set("a/b", reads);
  a.var.set("n", std::vector<std::int64_t>{1, 2, 3, 4, 5});
  a.obs.set("filtered_barcodes", Bools{{0, 1, 1}});
  a.obs.set("batch", std::vector<std::string>{"x", "y", "x"});
  write_10x_h5(ctx, a, path("x.h5"));
  EXPECT_THAT(sink.told, ElementsAre("write_10x_h5: left out, because 10x HDF5 has no place for it: obs['batch'], "
                                     "var['shape'], var['a/b'], var['n']"));
  const AnnData b = read_all(ctx, path("x.h5"));
  EXPECT_EQ(b.var.at("genome").to_strings(), genomes);
  EXPECT_EQ(b.var.at("read").to_strings(), reads);
  for (const char* same : {"gene_ids", "probe_ids", "filtered_probes"})
    EXPECT_EQ(b.var.at(same).to_strings(), a.var.at(same).to_strings()) << same;
  EXPECT_EQ(b.obs.at("filtered_barcodes").to_strings(), a.obs.at("filtered_barcodes").to_strings());
  EXPECT_FALSE(b.var.contains("shape"));
}

TEST_F(TenxH5Write, NamesOfAllKinds) {
  auto ctx = Context::cpu(1);
  Warnings sink;
  ctx.log = &sink;
  AnnData a;
  a.obs = DataFrame({"Zelle-ä", "", "x\ty"});
  a.var = DataFrame({"α-Tubulin", "CD3"});
  a.X = stream(values<float>(3, 2), 3, 2, StoredLayout::dense);
  write_10x_h5(ctx, a, path("x.h5"));
  EXPECT_THAT(sink.told, ElementsAre(HasSubstr("not ASCII")));
  const AnnData b = read_all(ctx, path("x.h5"));
  EXPECT_EQ(b.obs.index(), a.obs.index());
  EXPECT_EQ(b.var.index(), a.var.index());
  a.obs = DataFrame({std::string("a\0b", 3), "b", "c"});
  EXPECT_THROW(write_10x_h5(ctx, a, path("y.h5")), InvalidArgument);
  a.obs = DataFrame({"a", std::string(70000, 'b'), "c"});
  EXPECT_THROW(write_10x_h5(ctx, a, path("y.h5")), InvalidArgument);
  EXPECT_FALSE(fs::exists(path("y.h5")));
}

TEST_F(TenxH5Write, WhatFailsLeavesTheOldFile) {
  const auto ctx = Context::cpu(2);
  std::ofstream(path("x.h5")) << "old";
  AnnData a = with_names(stream(values<float>(30, 20), 30, 20, StoredLayout::csr));
  auto broken = std::make_shared<MatrixStream>(*a.X->stream);
  int reads = 0;
  broken->indices = [&](std::int64_t, std::int64_t, std::byte*) {
    ++reads;
    throw IoError("the disk is gone");
  };
  a.X = MatrixElement(std::shared_ptr<const MatrixStream>(broken));
  EXPECT_THROW(write_10x_h5(ctx, a, path("x.h5")), IoError);
  EXPECT_EQ(reads, 1);
  EXPECT_EQ(bytes_of(path("x.h5")), "old");
  auto falling = std::make_shared<MatrixStream>(*broken);
  falling->nnz -= 1;
  a.X = MatrixElement(std::shared_ptr<const MatrixStream>(falling));
  EXPECT_THROW(write_10x_h5(ctx, a, path("x.h5")), DataError);
  EXPECT_EQ(bytes_of(path("x.h5")), "old");
  std::size_t left = 0;
  for ([[maybe_unused]] const auto& e : fs::directory_iterator(folder_.path())) ++left;
  EXPECT_EQ(left, 1U);
  a = with_names(stream(values<float>(30, 20), 30, 20, StoredLayout::csr));
  try {
    write_10x_h5(ctx, a, path("absent/x.h5"));
    FAIL();
  } catch (const IoError& e) {
    EXPECT_THAT(e.what(), HasSubstr("write_10x_h5: "));
  }
  Write10xH5Options bad;
  bad.compression_level = 13;
  EXPECT_THROW(write_10x_h5(ctx, a, path("x.h5"), bad), InvalidArgument);
  bad = {};
  bad.chunk_bytes = 1;
  EXPECT_THROW(write_10x_h5(ctx, a, path("x.h5"), bad), InvalidArgument);
  a.X.reset();
  EXPECT_THROW(write_10x_h5(ctx, a, path("x.h5")), InvalidArgument);
}

TEST_F(TenxH5Write, TheEndingSaysSo) {
  EXPECT_EQ(format_of("test", "a/x.h5"), FileFormat::tenx_h5);
  EXPECT_THROW(format_of("test", "x.h5/"), InvalidArgument);
  const auto options = write_options("test", "x.h5", "auto", 7, 1 << 20);
  EXPECT_EQ(options.tenx_h5.compression_level, 7);
  EXPECT_EQ(options.tenx_h5.chunk_bytes, 1 << 20);
  EXPECT_EQ(write_options("test", "x.h5", "none").tenx_h5.compression_level, 0);
  EXPECT_EQ(write_options("test", "x.h5", "auto").tenx_h5.compression_level, 4);
  EXPECT_THROW(write_options("test", "x.h5", "zstd"), InvalidArgument);
  EXPECT_THROW(write_options("test", "x.h5", "auto", -1, 0, 3), InvalidArgument);

  const auto ctx = Context::cpu(2);
  const auto x = values<float>(60, 40);
  write_h5ad(ctx, with_names(stream(x, 60, 40, StoredLayout::csc)), path("a.h5ad"));
  convert(ctx, path("a.h5ad"), path("b.h5"));
  EXPECT_THROW(convert(ctx, path("a.h5ad"), path("b.h5")), InvalidArgument);
  ConvertOptions all;
  all.read.gex_only = false;
  convert(ctx, path("b.h5"), path("c/"), all);
  convert(ctx, path("c/"), path("d.h5"), all);
  convert(ctx, path("d.h5"), path("e.zarr"), all);
  EXPECT_EQ(dense(read_all(ctx, path("b.h5"))), wide(x));
  EXPECT_EQ(dense(read(ctx, path("e.zarr"))), wide(x));
}

}  // namespace
}  // namespace scw::io
