// Operations on row blocks: the bits that the whole matrix in memory gives, for any blocks, on every backend. Blocks on
// the CPU are slices, on CUDA pieces of a host matrix that are uploaded one after another.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>

#include "parity/parity.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/get/aggregate.hpp"
#include "scwarp/pp/calculate_qc_metrics.hpp"
#include "scwarp/pp/normalize_pearson_residuals.hpp"
#include "scwarp/pp/normalize_total.hpp"
#include "scwarp/pp/pca.hpp"
#include "scwarp/pp/regress_out.hpp"
#include "scwarp/pp/scale.hpp"
#include "scwarp/tl/logistic_regression.hpp"
#include "scwarp/tl/rank_genes_groups.hpp"
#include "scwarp/tl/score_genes.hpp"

namespace scw {
namespace {

using parity::HostCsr;

/// Results as bytes, wherever they are.
class Bytes {
 public:
  explicit Bytes(const Context& ctx) : ctx_(ctx) {}
  template <class T>
  Bytes& operator<<(const Array<T>& a) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + static_cast<std::size_t>(a.size()) * sizeof(T));
    copy_bytes(ctx_, bytes_.data() + at, Device{}, a.data(), a.device(), bytes_.size() - at);
    return *this;
  }
  template <class T>
  Bytes& operator<<(const std::vector<Array<T>>& list) {
    for (const auto& a : list) *this << a;
    return *this;
  }
  template <class T>
  Bytes& operator<<(const Matrix<T>& m) {
    return *this << m.data;
  }
  Bytes& operator<<(const AnyDenseMatrix& m) {
    std::visit([&](const auto& d) { *this << d; }, m);
    return *this;
  }
  Bytes& operator<<(double v) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(v));
    std::memcpy(bytes_.data() + at, &v, sizeof(v));
    return *this;
  }
  const std::vector<unsigned char>& all() const { return bytes_; }

 private:
  const Context& ctx_;
  std::vector<unsigned char> bytes_;
};

constexpr std::int32_t kCols = 83;

std::vector<std::int32_t> codes_of(std::int64_t rows) {  // -1: in no group
  std::vector<std::int32_t> codes;
  for (std::int64_t i = 0; i < rows; ++i) codes.push_back(static_cast<std::int32_t>((i + i / 3) % 5) - 1);
  return codes;
}

using Operation = std::function<void(const Context&, const RowBlocks&, Bytes&)>;

Operation rank_genes(tl::RankTest test, std::optional<std::int32_t> reference) {
  return [=](const Context& ctx, const RowBlocks& x, Bytes& out) {
    tl::RankGenesGroupsOptions o;
    o.test = test;
    o.reference = reference;
    o.tie_correct = o.pts = true;
    o.n_bins = 50;
    const auto codes = codes_of(x.n_rows());
    const auto r = tl::rank_genes_groups(ctx, x, codes, 4, o);
    out << r.scores << r.pvals << r.logfoldchanges << r.order << r.pts;
  };
}

const std::map<std::string, Operation>& operations() {
  static const std::map<std::string, Operation> all{
      {"calculate_qc_metrics",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         std::vector<std::uint8_t> flags(kCols);
         for (std::size_t j = 0; j < flags.size(); ++j) flags[j] = j % 7 == 0 ? 1 : 0;
         const auto family = to_device<std::uint8_t>(ctx, flags);
         const auto r = pp::calculate_qc_metrics(ctx, x, {{family.view()}, {5, 20}});
         out << r.n_genes << r.total << r.family_total << r.pct_top << r.n_cells << r.gene_total
             << (r.whole_numbers ? 1.0 : 0.0);
       }},
      {"cell_counts",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         const auto r = pp::cell_counts(ctx, x);
         out << r.total << r.n_positive;
       }},
      {"gene_counts",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         const auto r = pp::gene_counts(ctx, x);
         out << r.total << r.n_positive;
       }},
      {"size_factors",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         pp::NormalizeTotalOptions o;
         out << pp::size_factors(ctx, x, o).counts;
         o.exclude_highly_expressed = true;
         const auto r = pp::size_factors(ctx, x, o);
         out << r.counts << r.gene_excluded << r.target_sum;
       }},
      {"scale_to_dense",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         pp::ScaleOptions o;
         o.max_value = 2.5;
         AnyDenseMatrix dense;
         const auto r = pp::scale_to_dense(ctx, x, dense, o);
         out << r.mean << r.std << dense;
       }},
      {"regress_out_categories_to_dense",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         AnyDenseMatrix dense;
         const auto host = codes_of(x.n_rows());
         const auto codes = to_device<std::int32_t>(ctx, host);
         pp::regress_out_categories_to_dense(ctx, x, dense, codes.view(), 4);
         out << dense;
       }},
      {"normalize_pearson_residuals",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         AnyDenseMatrix dense;
         pp::normalize_pearson_residuals(ctx, x, dense);
         out << dense;
       }},
      {"score_genes",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         const std::vector<std::int32_t> set{1, 4, 60, 61}, control{0, 7, 9, 30, 31, 82};
         out << tl::nan_mean_of_genes(ctx, x) << tl::score_genes(ctx, x, set, control);
       }},
      {"aggregate",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         get::AggregateOptions o;
         o.sum = o.mean = o.var = o.sq_sum = o.count_nonzero = o.median = true;
         const auto codes = codes_of(x.n_rows());
         const auto r = get::aggregate(ctx, x, codes, 4, o);
         out << r.sum << r.mean << r.var << r.sq_sum << r.count_nonzero << r.median;
       }},
      {"t-test", rank_genes(tl::RankTest::t_test, {})},
      {"wilcoxon", rank_genes(tl::RankTest::wilcoxon, {})},
      {"wilcoxon with a reference", rank_genes(tl::RankTest::wilcoxon, 2)},
      {"wilcoxon_binned", rank_genes(tl::RankTest::wilcoxon_binned, {})},
  };
  return all;
}

std::vector<double> keys_of(std::int64_t rows) {
  std::vector<double> keys;
  for (std::int64_t i = 0; i < rows; ++i) {
    keys.push_back(static_cast<double>(1000 + i * i % 777));
    keys.push_back(static_cast<double>(i % 13) / 7);
  }
  return keys;
}

/// Tier B: the same bits on one device, for any blocks.
const std::map<std::string, Operation>& own_operations() {
  static const std::map<std::string, Operation> all{
      {"regress_out_to_dense",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         AnyDenseMatrix dense;
         const auto keys = keys_of(x.n_rows());
         pp::regress_out_to_dense(ctx, x, dense, {keys.data(), x.n_rows(), 2});
         out << dense;
       }},
      {"logistic_regression",
       [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         auto codes = codes_of(x.n_rows());
         tl::LogisticRegressionOptions o;
         o.max_iter = 5;
         out << tl::logistic_regression(ctx, x, codes, 4, o).coefficients;
       }},
      {"pca of residuals", [](const Context& ctx, const RowBlocks& x, Bytes& out) {
         const auto keys = keys_of(x.n_rows());
         const MatrixView<const double> view(keys.data(), x.n_rows(), 2);
         const pp::RegressOut fit = pp::fit_regression(ctx, x, view);
         std::vector<std::uint8_t> mask(kCols, 1);
         mask[3] = mask[40] = 0;
         pp::PcaOptions o;
         o.n_comps = 5;
         o.scale = true;
         o.max_value = 3;
         const auto r = pp::pca(ctx, pp::ResidualBlocks(x, view, fit.coefficients.view(), mask), o);
         out << fit.coefficients << r.components << r.variance << std::get<Matrix<float>>(r.scores);
       }}};
  return all;
}

template <class V>
AnyMatrixView view_of(const HostCsr<V>& x, const std::vector<V>& dense, bool sparse) {
  if (sparse) return CsrView<const V>(x.n_rows, x.n_cols, x.indptr, x.indices, x.values);
  return MatrixView<const V>(dense.data(), x.n_rows, x.n_cols);
}

std::vector<unsigned char> run(const Operation& f, const Context& ctx, const RowBlocks& x) {
  Bytes out(ctx);
  f(ctx, x, out);
  return out.all();
}

/// check(name, operation, view, result of the whole matrix on the CPU)
template <class V, class Check>
void for_each_case(const std::map<std::string, Operation>& list, const Check& check) {
  for (const bool whole_numbers : {true, false}) {
    HostCsr<V> x = HostCsr<V>::random(1300, kCols, 0.15, 3, whole_numbers);
    for (std::size_t k = 0; k < x.values.size(); k += 37) x.values[k] = 0;  // stored zeros
    const std::vector<V> dense = x.dense();
    for (const bool sparse : {true, false})
      for (const auto& [name, f] : list) {
        SCOPED_TRACE(name + (sparse ? ", sparse" : ", dense") + (whole_numbers ? ", counts" : ", fractions"));
        const AnyMatrixView view = view_of(x, dense, sparse);
        const auto want = run(f, Context::cpu(2), ResidentBlocks(view));
        ASSERT_FALSE(want.empty());
        check(f, view, want);
      }
  }
}

template <class V>
void check_cpu() {
  auto list = operations();
  list.insert(own_operations().begin(), own_operations().end());
  for_each_case<V>(list, [](const Operation& f, const AnyMatrixView& view, const std::vector<unsigned char>& want) {
    for (const std::int64_t rows : {1, 97, 1024, 1300}) {
      Context ctx = Context::cpu(rows % 2 == 1 ? 1 : 3);
      ctx.block_bytes = 3000 + rows * 16;  // of tiles of genes
      EXPECT_TRUE(run(f, ctx, ResidentBlocks(view, rows)) == want) << rows << " rows";
    }
  });
}

TEST(RowBlocks, HaveTheBitsOfTheWholeMatrixFloat) { check_cpu<float>(); }
TEST(RowBlocks, HaveTheBitsOfTheWholeMatrixDouble) { check_cpu<double>(); }

template <class V>
void check_cuda(const Context& cuda) {
  for_each_case<V>(operations(),
                   [&](const Operation& f, const AnyMatrixView& view, const std::vector<unsigned char>& want) {
                     for (const std::int64_t bytes : {std::int64_t{0}, std::int64_t{20000}, std::int64_t{100000}}) {
                       Context ctx = cuda;
                       ctx.block_bytes = bytes;
                       EXPECT_TRUE(run(f, ctx, ResidentBlocks(view)) == want) << "block of " << bytes << " bytes";
                     }
                   });
}

TEST(RowBlocks, CudaStreamedHasTheResidentBits) {
  SCW_CUDA_CONTEXT(cuda);
  for (const bool sparse : {true, false}) {
    const auto x = HostCsr<float>::random(9000, kCols, 0.15, 4, false);
    parity::DeviceMatrix<float> resident(cuda, x);
    const std::vector<float> dense = x.dense();
    for (const auto& [name, f] : own_operations()) {
      const auto want = run(f, cuda, ResidentBlocks(scw::as_const(resident.view(sparse))));
      for (const std::int64_t bytes : {0, 50000, 700000}) {
        Context ctx = cuda;
        ctx.block_bytes = bytes;
        EXPECT_TRUE(run(f, ctx, ResidentBlocks(view_of(x, dense, sparse))) == want)
            << name << ", sparse " << sparse << ", block of " << bytes << " bytes";
      }
    }
  }
}

TEST(RowBlocks, CudaStreamedHasTheCpusBitsFloat) {
  SCW_CUDA_CONTEXT(cuda);
  check_cuda<float>(cuda);
}
TEST(RowBlocks, CudaStreamedHasTheCpusBitsDouble) {
  SCW_CUDA_CONTEXT(cuda);
  check_cuda<double>(cuda);
}

TEST(RowBlocks, ValuesThatAreNotFinite) {
  HostCsr<float> x = HostCsr<float>::random(400, kCols, 0.2, 5, false);
  x.values[100] = std::numeric_limits<float>::quiet_NaN();
  x.values[901] = std::numeric_limits<float>::infinity();
  const AnyMatrixView view = view_of(x, {}, true);
  for (const char* name : {"calculate_qc_metrics", "gene_counts", "score_genes", "aggregate"}) {
    const Operation& f = operations().at(name);
    const auto want = run(f, Context::cpu(2), ResidentBlocks(view));
    for (const std::int64_t rows : {1, 50, 399})
      EXPECT_TRUE(run(f, Context::cpu(2), ResidentBlocks(view, rows)) == want) << name << ", " << rows << " rows";
  }
  EXPECT_THROW(run(operations().at("wilcoxon"), Context::cpu(2), ResidentBlocks(view, 50)), DataError);
}

/// Residuals that are made block by block are those of regress_out, and so are their components.
TEST(RowBlocks, ResidualsAreThoseOfRegressOut) {
  const HostCsr<double> x = HostCsr<double>::random(700, kCols, 0.3, 6, false);
  const auto keys = keys_of(700);
  const MatrixView<const double> view(keys.data(), 700, 2);
  const Context ctx = Context::cpu(2);
  const ResidentBlocks blocks(view_of(x, {}, true));
  AnyDenseMatrix dense;
  pp::regress_out_to_dense(ctx, blocks, dense, view);
  const auto& want = std::get<Matrix<double>>(dense);
  const auto fit = pp::fit_regression(ctx, blocks, view);
  EXPECT_EQ(fit.n_independent, 2);
  std::vector<std::uint8_t> mask(kCols, 1);
  mask[0] = mask[70] = 0;
  std::int64_t rows = 0;
  double apart = 0, largest = 0;
  const pp::ResidualBlocks residuals(blocks, view, fit.coefficients.view(), mask);
  EXPECT_EQ(residuals.n_cols(), kCols - 2);
  residuals.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    EXPECT_EQ(first, rows);
    const auto& y = std::get<MatrixView<const double>>(block);
    rows += y.n_rows;
    for (std::int64_t i = 0; i < y.n_rows; ++i)
      for (std::int64_t j = 0, at = 0; j < kCols; ++j) {
        if (mask[static_cast<std::size_t>(j)] == 0) continue;
        apart = std::max(apart, std::abs(y(i, at++) - want.view()(first + i, j)));
        largest = std::max(largest, std::abs(want.view()(first + i, j)));
      }
  });
  EXPECT_EQ(rows, 700);
  EXPECT_GT(largest, 1);
  EXPECT_LT(apart, 1e-11);
  EXPECT_THROW(pp::ResidualBlocks(blocks, MatrixView<const double>(keys.data(), 699, 2), fit.coefficients.view()),
               ShapeMismatch);
}

TEST(RowBlocks, NoRows) {
  const HostCsr<float> x = HostCsr<float>::random(0, kCols, 0.2, 5, false);
  const AnyMatrixView view = view_of(x, {}, true);
  for (const char* name : {"calculate_qc_metrics", "gene_counts", "cell_counts", "aggregate"}) {
    const Operation& f = operations().at(name);
    EXPECT_TRUE(run(f, Context::cpu(1), ResidentBlocks(view, 7)) == run(f, Context::cpu(1), ResidentBlocks(view)))
        << name;
  }
}

}  // namespace
}  // namespace scw
