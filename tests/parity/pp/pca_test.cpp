#include "scwarp/pp/pca.hpp"

#include <cmath>
#include <memory>

#include "parity/parity.hpp"
#include "pp/pca/kernel.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::HostCsr;

struct Case {
  std::int64_t rows;
  std::int32_t cols;
  bool sparse;
  std::int64_t n_comps;
  bool zero_center;
  int scale;  // 0 no, 1 yes, 2 with clipping
  bool masked;
  PcaSolver solver;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.rows << " x " << c.cols << (c.sparse ? " sparse" : " dense") << " k " << c.n_comps << " centre "
             << c.zero_center << " scale " << c.scale << " masked " << c.masked << " solver "
             << static_cast<int>(c.solver);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool sparse : {true, false}) {
    for (const bool centre : {true, false})
      for (const int scale : {0, 1, 2})
        for (const bool masked : {false, true})
          all.push_back({300, 40, sparse, 6, centre, scale, masked, PcaSolver::covariance});
    all.push_back({2, 3, sparse, 1, true, 0, false, PcaSolver::covariance});
    all.push_back({9000, 130, sparse, 8, true, 2, false, PcaSolver::covariance});  // three tiles of rows
    all.push_back({300, 1100, sparse, 6, true, 0, false, PcaSolver::covariance});  // two panels of genes, iteration
    all.push_back({4200, 530, sparse, 4, true, 2, true, PcaSolver::krylov});
    all.push_back({300, 520, sparse, 4, false, 0, false, PcaSolver::krylov});
  }
  return all;
}

/// Few enough products for compute-sanitizer, each a test of its own: tiles, panels and the iteration at their
/// smallest.
std::vector<Case> small_cases() {
  std::vector<Case> all;
  for (const bool sparse : {true, false}) {
    all.push_back({40, 13, sparse, 3, true, 2, true, PcaSolver::covariance});
    all.push_back({90, 270, sparse, 2, true, 0, false, PcaSolver::covariance});
    all.push_back({60, 270, sparse, 2, false, 0, true, PcaSolver::krylov});
  }
  return all;
}

/// Fractions in planted groups of cells, so that the leading components are well apart.
template <class V>
HostCsr<V> grouped(std::int64_t rows, std::int32_t cols) {
  auto x = HostCsr<V>::random(rows, cols, 0.3, 11, false);
  for (std::int64_t i = 0; i < rows; ++i)
    for (auto e = x.indptr[static_cast<std::size_t>(i)]; e < x.indptr[static_cast<std::size_t>(i) + 1]; ++e) {
      auto& v = x.values[static_cast<std::size_t>(e)];
      const auto gene = x.indices[static_cast<std::size_t>(e)];
      v = static_cast<V>(static_cast<double>(v) *
                         (1 + std::pow(0.6, gene % 9) * std::sin(static_cast<double>((i % 9) * (gene % 9 + 1)))));
    }
  return x;
}

struct Result {
  std::vector<float> scores;
  std::vector<double> components, variance, ratio;
  bool converged = false;
};

template <class V>
Result run(const Context& ctx, const Case& c, const HostCsr<V>& host, std::int64_t block_rows = 0) {
  DeviceMatrix<V> x(ctx, host);
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(c.cols));
  for (std::size_t j = 0; j < mask.size(); ++j) mask[j] = j % 50 != 7;
  PcaOptions o;
  o.n_comps = c.n_comps;
  o.zero_center = c.zero_center;
  o.scale = c.scale > 0;
  if (c.scale == 2) o.max_value = 1.5;
  if (c.masked) o.gene_mask = mask;
  o.solver = c.solver;
  const Pca p = pca(ctx, ResidentBlocks(scw::as_const(x.view(c.sparse)), block_rows), o);
  const auto& scores = std::get<Matrix<float>>(p.scores);
  const auto host_scores = to_host<float>(ctx, scores.data.view());
  x.result(c.sparse);  // checks the guards
  return {{host_scores.begin(), host_scores.end()},
          {p.components.data.begin(), p.components.data.end()},
          {p.variance.begin(), p.variance.end()},
          {p.variance_ratio.begin(), p.variance_ratio.end()},
          p.converged};
}

void expect_same_bits(const Result& a, const Result& b) {
  parity::expect_same_bits(a.scores, b.scores);
  parity::expect_same_bits(a.components, b.components);
  parity::expect_same_bits(a.variance, b.variance);
  parity::expect_same_bits(a.ratio, b.ratio);
}

/// Variances within 1e-5, scores (of the first one's spread) and components within 1e-4 where the variance is 2 % or
/// more from its neighbours'.
void expect_close(const Result& a, const Result& b, std::int64_t rows) {
  EXPECT_TRUE(a.converged && b.converged);
  const std::size_t k = a.variance.size(), m = a.components.size() / k;
  ASSERT_EQ(b.variance.size(), k);
  ASSERT_EQ(b.scores.size(), a.scores.size());
  const double spread = std::sqrt(a.variance[0]);
  EXPECT_GT(spread, 0.01);
  for (std::size_t c = 0; c < k; ++c) {
    EXPECT_NEAR(a.variance[c], b.variance[c], 1e-5 * a.variance[c] + 1e-7 * a.variance[0]) << c;
    EXPECT_NEAR(a.ratio[c], b.ratio[c], 1e-5) << c;
    if (c + 1 == k || a.variance[c] < 1.02 * a.variance[c + 1] || (c > 0 && a.variance[c - 1] < 1.02 * a.variance[c]))
      continue;
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i)
      ASSERT_NEAR(a.scores[i * k + c], b.scores[i * k + c], 1e-4 * spread) << "cell " << i << " component " << c;
    for (std::size_t p = 0; p < m; ++p)
      ASSERT_NEAR(a.components[p * k + c], b.components[p * k + c], 1e-4) << "gene " << p << " component " << c;
  }
}

template <class V>
void check_on_cuda(const Context& cuda, const std::vector<Case>& list, bool bits = true) {
  const Context cpu = Context::cpu(2);
  for (const Case& c : list) {
    SCOPED_TRACE(testing::Message() << c);
    const auto x = grouped<V>(c.rows, c.cols);
    const Result got = run(cuda, c, x);
    expect_close(run(cpu, c, x), got, c.rows);
    if (!bits) continue;
    for (int repeat = 0; repeat < 2; ++repeat) expect_same_bits(got, run(cuda, c, x));
    for (const std::int64_t rows : {100, 1000, 4096}) expect_same_bits(got, run(cuda, c, x, rows));
  }
}

TEST(PcaParity, CudaAgreesWithTheCpuFloat) {
  SCW_CUDA_CONTEXT(cuda);
  check_on_cuda<float>(cuda, cases());
}
TEST(PcaParity, CudaAgreesWithTheCpuDouble) {
  SCW_CUDA_CONTEXT(cuda);
  check_on_cuda<double>(cuda, cases());
}
class PcaSmall : public testing::TestWithParam<Case> {};
TEST_P(PcaSmall, Float) {
  SCW_CUDA_CONTEXT(cuda);
  check_on_cuda<float>(cuda, {GetParam()}, false);
}
TEST_P(PcaSmall, Double) {
  SCW_CUDA_CONTEXT(cuda);
  check_on_cuda<double>(cuda, {GetParam()}, false);
}
INSTANTIATE_TEST_SUITE_P(Pca, PcaSmall, testing::ValuesIn(small_cases()), [](const auto& info) {
  const Case& c = info.param;
  return std::string(c.solver == PcaSolver::krylov ? "krylov"
                     : c.cols < 100                ? "few_genes"
                                                   : "covariance") +
         (c.sparse ? "_sparse" : "_dense");
});

template <class V, class U>
HostCsr<V> converted(const HostCsr<U>& x) {
  return {x.n_rows, x.n_cols, x.indptr, x.indices, {x.values.begin(), x.values.end()}};
}

/// Float values on the device (products of digits, sums in integers) against the same values decomposed in double.
TEST(PcaParity, FloatAgreesWithDouble) {
  SCW_CUDA_CONTEXT(cuda);
  static_assert(kPcaFlushRows < 70000);  // two sums in integers
  auto x = grouped<float>(70000, 120);
  // Genes of very different sizes, and rare large values.
  for (std::size_t e = 0; e < x.values.size(); ++e)
    x.values[e] *= (e % 1999 == 0 ? 50.0f : 1.0f) * (x.indices[e] % 7 == 3 ? 1e-3f : 1.0f);
  const auto in_double = converted<double>(x);
  for (const bool sparse : {true, false})
    for (const int scale : {0, 2}) {
      const Case c{70000, 120, sparse, 10, true, scale, false, PcaSolver::covariance};
      SCOPED_TRACE(testing::Message() << c);
      const Result got = run(cuda, c, x);
      expect_close(run(Context::cpu(2), c, in_double), got, c.rows);
      expect_same_bits(got, run(cuda, c, x, 20000));
    }
}

/// Means a hundred times the spread must not cost digits.
TEST(PcaParity, LargeMeans) {
  SCW_CUDA_CONTEXT(cuda);
  const Case c{3000, 40, false, 5, true, 0, false, PcaSolver::covariance};
  HostCsr<float> full{c.rows, c.cols, {0}, {}, {}};
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int32_t j = 0; j < c.cols; ++j) {
      const double u = math::random_uniform({3, 1}, static_cast<std::uint64_t>(i * c.cols + j));
      full.indices.push_back(j);
      full.values.push_back(
          static_cast<float>(100 + u + 2 * std::pow(0.7, j % 9) * std::sin(static_cast<double>(i % 9) * (j % 9 + 1))));
    }
    full.indptr.push_back(static_cast<std::int64_t>(full.indices.size()));
  }
  const Result want = run(Context::cpu(2), c, converted<double>(full));
  expect_close(want, run(cuda, c, full), c.rows);
}

/// Fewer cells than vectors in the basis of the iteration: its blocks run out of directions. And many genes.
TEST(PcaParity, FewerCellsThanTheBasis) {
  SCW_CUDA_CONTEXT(cuda);
  for (const auto& [genes, solver] : {std::pair{600, PcaSolver::covariance},
                                      {600, PcaSolver::krylov},
                                      {2100, PcaSolver::covariance}})  // symmetric products in two parts
    for (const bool sparse : {true, false}) {
      const Case c{60, genes, sparse, 5, true, 0, false, solver};
      SCOPED_TRACE(testing::Message() << c);
      const auto x = grouped<float>(c.rows, c.cols);
      const Result got = run(cuda, c, x);
      expect_close(run(Context::cpu(2), c, converted<double>(x)), got, c.rows);
      expect_same_bits(got, run(cuda, c, x, 50));
    }
}

/// The same list on the CPU: sparse rows against dense ones, which take other kernels.
TEST(PcaParity, SparseAgreesWithDenseOnTheCpu) {
  for (const Case& c : cases()) {
    if (!c.sparse) continue;
    SCOPED_TRACE(testing::Message() << c);
    const auto x = grouped<float>(c.rows, c.cols);
    Case dense = c;
    dense.sparse = false;
    const Result want = run(Context::cpu(1), c, x);
    expect_close(want, run(Context::cpu(2), dense, x), c.rows);
    expect_same_bits(want, run(Context::cpu(2), c, x, 1000));
  }
}

}  // namespace
}  // namespace scw::pp
