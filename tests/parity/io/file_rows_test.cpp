// Rows of a file, and operations on them as they come: the values of whole matrices, on every backend, for any blocks.
#include "scwarp/io/file_rows.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "parity/parity.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/io/h5ad.hpp"
#include "scwarp/pp/log1p.hpp"
#include "scwarp/pp/normalize_total.hpp"
#include "scwarp/pp/sqrt.hpp"
#include "scwarp/pp/subset.hpp"
#include "scwarp/pp/transformed_rows.hpp"
#include "test_folder.hpp"

namespace scw {
namespace {

namespace fs = std::filesystem;
using parity::expect_same_bits;
using parity::HostCsr;

template <class T>
Array<T> array_of(const std::vector<T>& v) {
  Array<T> a(host_memory(), static_cast<std::int64_t>(v.size()));
  std::copy(v.begin(), v.end(), a.begin());
  return a;
}
template <class T>
std::vector<T> vector_of(const Array<T>& a) {
  return {a.begin(), a.end()};
}

template <class V>
Csr<V> owned(const HostCsr<V>& x) {
  Csr<V> out;
  out.n_rows = x.n_rows;
  out.n_cols = x.n_cols;
  out.indptr = array_of(x.indptr);
  out.indices = array_of(x.indices);
  out.values = array_of(x.values);
  return out;
}
template <class V>
Matrix<V> owned_dense(const HostCsr<V>& x) {
  Matrix<V> out;
  out.n_rows = x.n_rows;
  out.n_cols = x.n_cols;
  out.data = array_of(x.dense());
  return out;
}

/// All blocks of a source, one after another.
template <class V>
struct Gathered {
  std::vector<std::int64_t> lengths;  // entries of each row; sparse
  std::vector<std::int32_t> indices;
  std::vector<V> values;
  std::int64_t rows = 0;
  int blocks = 0;
};

template <class V>
Gathered<V> gather(const Context& ctx, const RowBlocks& x) {
  Gathered<V> out;
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    EXPECT_EQ(first, out.rows);
    ++out.blocks;
    out.rows += n_rows(block);
    const auto append = [&]<class T>(std::vector<T>& to, const T* from, std::int64_t n) {
      const Array<T> host = to_host<T>(ctx, {from, n});
      to.insert(to.end(), host.begin(), host.end());
    };
    if (const auto* const s = std::get_if<CsrView<const V>>(&block)) {
      const Array<std::int64_t> indptr = to_host<std::int64_t>(ctx, {s->indptr.data, s->n_rows + 1});
      for (std::int64_t i = 0; i < s->n_rows; ++i) out.lengths.push_back(indptr[i + 1] - indptr[i]);
      append(out.indices, s->indices.data + indptr[0], indptr[s->n_rows] - indptr[0]);
      append(out.values, s->values.data + indptr[0], indptr[s->n_rows] - indptr[0]);
    } else {
      const auto& d = std::get<MatrixView<const V>>(block);
      append(out.values, d.data, d.n_rows * d.n_cols);
    }
  });
  EXPECT_EQ(out.rows, x.n_rows());
  return out;
}

template <class V>
void expect_equal(const Gathered<V>& a, const Gathered<V>& b) {
  EXPECT_EQ(a.lengths, b.lengths);
  EXPECT_EQ(a.indices, b.indices);
  expect_same_bits(a.values, b.values);
}

class FileRowsTest : public ::testing::TestWithParam<DeviceType> {
 protected:
  void SetUp() override {
    if (GetParam() == DeviceType::cuda && !unavailable_reason(DeviceType::cuda).empty())
      GTEST_SKIP() << "no CUDA device: " << unavailable_reason(DeviceType::cuda);
    ctx_ = Context::on({GetParam(), 0}, 2);
  }

  std::string write(const char* name, MatrixElement x) {
    const std::string path = (folder_ / name).string();
    std::vector<std::string> cells(static_cast<std::size_t>(x.n_rows())), genes(static_cast<std::size_t>(x.n_cols()));
    for (std::size_t i = 0; i < cells.size(); ++i) cells[i] = "c" + std::to_string(i);
    for (std::size_t j = 0; j < genes.size(); ++j) genes[j] = "g" + std::to_string(j);
    AnnData a;
    a.obs = DataFrame(cells);
    a.var = DataFrame(genes);
    a.X = std::move(x);
    io::write_h5ad(Context::cpu(2), a, path);
    return path;
  }
  std::shared_ptr<const io::FileMatrix> open(const std::string& path) { return io::FileMatrix::open(ctx_, path); }

  Context ctx_ = Context::cpu(2);
  TestFolder folder_;
};

const std::vector<std::int64_t> kBlockBytes{0, 1, 3000, 100000};

TEST_P(FileRowsTest, BlocksHaveTheValuesOfTheWhole) {
  const auto x = HostCsr<float>::random(403, 120, 0.2, 1, true);
  const auto sparse = open(write("sparse.h5ad", owned(x))), dense = open(write("dense.h5ad", owned_dense(x)));
  EXPECT_TRUE(sparse->is_sparse());
  EXPECT_FALSE(dense->is_sparse());
  EXPECT_EQ(sparse->dtype(), "float32");
  EXPECT_EQ(sparse->n_entries(), static_cast<std::int64_t>(x.values.size()));
  int most = 0;
  for (const std::int64_t bytes : kBlockBytes) {
    ctx_.block_bytes = bytes;
    const auto a = gather<float>(ctx_, io::FileRows(sparse));
    expect_same_bits(a.values, x.values);
    EXPECT_EQ(a.indices, x.indices);
    expect_same_bits(gather<float>(ctx_, io::FileRows(dense)).values, x.dense());
    most = std::max(most, a.blocks);
    EXPECT_EQ(a.blocks == 1, bytes == 0 || bytes == 100000);
  }
  EXPECT_EQ(most, 403);
  io::FileRowsOptions o;
  o.block_rows = 100;
  EXPECT_EQ(gather<float>(ctx_, io::FileRows(sparse, o)).blocks, 5);
}

TEST_P(FileRowsTest, PickedRows) {
  const auto x = HostCsr<double>::random(300, 50, 0.3, 2, false);
  const std::string path = write("x.h5ad", owned(x)), dense_path = write("dense.h5ad", owned_dense(x));
  const std::vector<std::vector<std::int64_t>> picks{{}, {0}, {299}, {5, 6, 7, 100, 102, 250}, [] {
                                                       std::vector<std::int64_t> all;
                                                       for (int i = 0; i < 300; ++i)
                                                         if (i % 3 != 1) all.push_back(i);
                                                       return all;
                                                     }()};
  for (const auto& rows : picks)
    for (const std::int64_t bytes : kBlockBytes) {
      ctx_.block_bytes = bytes;
      io::FileRowsOptions o;
      o.all_rows = false;
      o.rows = rows;
      std::vector<double> want, want_dense;
      std::vector<std::int32_t> want_indices;
      const auto dense = x.dense();
      for (const std::int64_t i : rows) {
        for (auto p = x.indptr[static_cast<std::size_t>(i)]; p < x.indptr[static_cast<std::size_t>(i + 1)]; ++p) {
          want.push_back(x.values[static_cast<std::size_t>(p)]);
          want_indices.push_back(x.indices[static_cast<std::size_t>(p)]);
        }
        want_dense.insert(want_dense.end(), dense.begin() + i * 50, dense.begin() + (i + 1) * 50);
      }
      const auto got = gather<double>(ctx_, io::FileRows(open(path), o));
      expect_same_bits(got.values, want);
      EXPECT_EQ(got.indices, want_indices);
      expect_same_bits(gather<double>(ctx_, io::FileRows(open(dense_path), o)).values, want_dense);
    }
  io::FileRowsOptions o;
  o.all_rows = false;
  for (const std::vector<std::int64_t>& bad : {std::vector<std::int64_t>{3, 3}, {-1}, {300}}) {
    o.rows = bad;
    EXPECT_THROW(io::FileRows(open(path), o), InvalidArgument);
  }
}

TEST_P(FileRowsTest, IntegersBecomeFloatIfTheyFit) {
  auto x = HostCsr<double>::random(100, 40, 0.3, 3, true);
  for (const bool large : {false, true}) {
    if (large) x.values[7] = 16777217;
    MatrixElement m(owned(x));
    m.stored_dtype = "int64";
    const auto file = open(write("x.h5ad", std::move(m)));
    EXPECT_EQ(file->dtype(), "int64");
    EXPECT_EQ(file->fits_float(ctx_), !large);
    if (large) {
      expect_same_bits(gather<double>(ctx_, io::FileRows(file)).values, x.values);
    } else {
      expect_same_bits(gather<float>(ctx_, io::FileRows(file)).values,
                       std::vector<float>(x.values.begin(), x.values.end()));
      io::FileRowsOptions o;
      o.as_double = true;
      expect_same_bits(gather<double>(ctx_, io::FileRows(file, o)).values, x.values);
    }
  }
}

TEST_P(FileRowsTest, UnsortedRowsAreSortedAndBadOnesRefused) {
  auto x = HostCsr<float>::random(50, 30, 0.4, 4, false);
  const auto sorted = x;
  std::swap(x.indices[0], x.indices[2]);
  std::swap(x.values[0], x.values[2]);
  const auto file = open(write("x.h5ad", owned(x)));
  for (const RowParts parts : {RowParts::values, RowParts::all, RowParts::values}) {
    std::vector<float> values;
    io::FileRows(file).for_each_owned(ctx_, parts, [&](std::int64_t, const AnyMutableMatrixView& block) {
      const auto& v = std::get<CsrView<float>>(block);
      const auto host = to_host<float>(ctx_, Span<const float>(v.values));
      values.insert(values.end(), host.begin(), host.end());
    });
    expect_same_bits(values, sorted.values);
  }
  EXPECT_EQ(gather<float>(ctx_, io::FileRows(file)).indices, sorted.indices);

  auto twice = sorted;
  twice.indices[1] = twice.indices[0];
  EXPECT_THROW(gather<float>(ctx_, io::FileRows(open(write("twice.h5ad", owned(twice))))), DataError);
  auto outside = sorted;
  outside.indices[1] = 30;
  EXPECT_THROW(gather<float>(ctx_, io::FileRows(open(write("outside.h5ad", owned(outside))))), DataError);
}

TEST_P(FileRowsTest, BlocksOfManyPieces) {
  auto x = HostCsr<float>::random(3000, 2000, 0.3, 9, true);
  const auto sorted = x;
  const auto check = [&](const std::string& path, std::int64_t block_rows) {
    io::FileRowsOptions o;
    o.block_rows = block_rows;
    const auto all = gather<float>(ctx_, io::FileRows(open(path), o));
    expect_same_bits(all.values, sorted.values);
    EXPECT_EQ(all.indices, sorted.indices);
  };
  const auto path = write("x.h5ad", owned(x));
  for (const std::int64_t block_rows : {0, 700, 1024}) check(path, block_rows);
  // Out of order in a late block alone.
  const auto first = static_cast<std::size_t>(x.indptr[2500]);
  std::swap(x.indices[first], x.indices[first + 1]);
  std::swap(x.values[first], x.values[first + 1]);
  check(write("late.h5ad", owned(x)), 700);
}

TEST_P(FileRowsTest, ColumnIndicesAreNotReadTwiceForValues) {
  const auto x = HostCsr<float>::random(80, 30, 0.4, 5, false);
  const auto file = open(write("x.h5ad", owned(x)));
  const io::FileRows rows(file);
  const auto has_indices = [&](RowParts parts) {
    bool has = false;
    rows.for_each_owned(ctx_, parts, [&](std::int64_t, const AnyMutableMatrixView& block) {
      has = std::get<CsrView<float>>(block).indices.data != nullptr;
    });
    return has;
  };
  EXPECT_TRUE(has_indices(RowParts::values));  // it is not known yet that they are sorted
  EXPECT_FALSE(has_indices(RowParts::values));
  EXPECT_TRUE(has_indices(RowParts::all));
  EXPECT_EQ(file->n_passes(RowParts::all), 2);
  EXPECT_EQ(file->n_passes(RowParts::values), 1);
}

TEST_P(FileRowsTest, WhatCannotBeRead) {
  const auto x = HostCsr<float>::random(20, 10, 0.4, 6, true);
  MatrixElement csc(owned(x));
  csc.stored_layout = StoredLayout::csc;
  const std::string path = write("csc.h5ad", std::move(csc));
  try {
    open(path);
    FAIL() << "a CSC matrix was opened by rows";
  } catch (const NotSupported& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("convert"));
  }
  EXPECT_THROW(io::FileMatrix::open(ctx_, path, "layers/none"), InvalidArgument);
  EXPECT_THROW(io::FileMatrix::open(ctx_, path, "obs"), FormatError);
  EXPECT_THROW(io::FileMatrix::open(ctx_, (folder_ / "none").string()), IoError);
}

TEST_P(FileRowsTest, StopsWhenItIsToldTo) {
  const auto x = HostCsr<float>::random(200, 30, 0.4, 7, true);
  const io::FileRows rows(open(write("x.h5ad", owned(x))));
  std::atomic<bool> cancelled{false};
  ctx_.cancelled = &cancelled;
  ctx_.block_bytes = 1000;
  int blocks = 0;
  EXPECT_THROW(rows.for_each(ctx_,
                             [&](std::int64_t, const AnyMatrixView&) {
                               ++blocks;
                               cancelled = true;
                             }),
               Cancelled);
  EXPECT_EQ(blocks, 1);
  cancelled = false;
  struct Mine {};
  EXPECT_THROW(rows.for_each(ctx_, [&](std::int64_t, const AnyMatrixView&) { throw Mine(); }), Mine);
}

TEST_P(FileRowsTest, AnEmptyMatrix) {
  for (const auto& [rows, cols] : {std::pair{0, 5}, std::pair{4, 0}}) {
    const auto x = HostCsr<float>::random(rows, cols, 0.4, 8, true);
    const auto got = gather<float>(ctx_, io::FileRows(open(write("x.h5ad", owned(x)))));
    EXPECT_TRUE(got.values.empty());
    EXPECT_EQ(got.lengths.size(), static_cast<std::size_t>(rows));
  }
}

/// What the operations make of the whole matrix in host memory.
template <class V>
Gathered<V> in_memory(const HostCsr<V>& x, bool sparse, bool by_counts) {
  const Context ctx = Context::cpu(2);
  auto s = owned(x);
  auto d = owned_dense(x);
  const AnyMutableMatrixView view = sparse ? AnyMutableMatrixView(s.view()) : AnyMutableMatrixView(d.view());
  pp::NormalizeTotalOptions o;
  if (!by_counts) o.target_sum = 1e4;
  pp::normalize_total(ctx, view, o);
  pp::log1p(ctx, view, {2.0});
  std::vector<std::uint8_t> keep(static_cast<std::size_t>(x.n_cols));
  for (std::size_t j = 0; j < keep.size(); ++j) keep[j] = j % 3 == 0;
  AnyMatrix kept = pp::subset(ctx, as_const(view), {}, keep);
  return std::visit(
      [&](auto& k) {
        pp::sqrt(ctx, k.view());
        return gather<V>(ctx, ResidentBlocks(as_const(k.view())));
      },
      kept);
}

TEST_P(FileRowsTest, TransformedAsInMemory) {
  const auto run = [&]<class V>(V) {
    const auto x = HostCsr<V>::random(403, 120, 0.2, 9, false);
    for (const bool sparse : {true, false})
      for (const bool by_counts : {false, true}) {
        const auto want = in_memory(x, sparse, by_counts);
        const auto file = open(sparse ? write("x.h5ad", owned(x)) : write("x.h5ad", owned_dense(x)));
        std::vector<std::uint8_t> keep(120);
        for (std::size_t j = 0; j < keep.size(); ++j) keep[j] = j % 3 == 0;
        pp::RowStep normalise = pp::NormalizeRows{1e4};
        if (by_counts) {
          auto s = owned(x);
          auto d = owned_dense(x);
          const auto f = pp::size_factors(Context::cpu(2), sparse ? as_const(s.view()) : as_const(d.view()));
          normalise = pp::ScaleRows{vector_of(f.counts), f.target_sum};
        }
        const std::vector<pp::RowStep> steps{normalise, pp::Log1pRows{2.0}, pp::KeepColumns{keep}, pp::SqrtRows{}};
        for (const std::int64_t bytes : kBlockBytes) {
          ctx_.block_bytes = bytes;
          const auto rows = std::make_shared<io::FileRows>(file);
          expect_equal(gather<V>(ctx_, pp::TransformedRows(rows, steps)), want);
        }
        // the same on blocks that are not its own
        auto s = owned(x);
        auto d = owned_dense(x);
        const AnyMatrixView view = sparse ? as_const(s.view()) : as_const(d.view());
        const auto resident = std::make_shared<ResidentBlocks>(view, 100);
        const auto got = gather<V>(ctx_, pp::TransformedRows(resident, steps));
        EXPECT_EQ(got.blocks, 5);
        expect_equal(got, want);
        expect_same_bits(vector_of(s.values), x.values);
      }
  };
  run(float{});
  run(double{});
}

TEST_P(FileRowsTest, StepsThatDoNotFit) {
  const auto x = HostCsr<float>::random(20, 10, 0.4, 10, true);
  const auto rows = std::make_shared<io::FileRows>(open(write("x.h5ad", owned(x))));
  const auto make = [&](pp::RowStep step) { pp::TransformedRows(rows, {std::move(step)}); };
  EXPECT_THROW(make(pp::NormalizeRows{0}), InvalidArgument);
  EXPECT_THROW(make(pp::ScaleRows{std::vector<double>(19, 1.0), 1}), ShapeMismatch);
  EXPECT_THROW(make(pp::Log1pRows{1.0}), InvalidArgument);
  EXPECT_THROW(make(pp::KeepColumns{std::vector<std::uint8_t>(9)}), ShapeMismatch);
  EXPECT_EQ(pp::TransformedRows(rows, {pp::KeepColumns{std::vector<std::uint8_t>(10)}}).n_cols(), 0);
}

INSTANTIATE_TEST_SUITE_P(Devices, FileRowsTest, ::testing::Values(DeviceType::cpu, DeviceType::cuda),
                         [](const auto& info) { return info.param == DeviceType::cpu ? "cpu" : "cuda"; });

}  // namespace
}  // namespace scw
