#include "scwarp/tl/logistic_regression.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "parity/parity.hpp"
#include "scwarp/core/error.hpp"

namespace scw::tl {
namespace {

using parity::DeviceMatrix;
using parity::expect_same_bits;
using parity::HostCsr;

struct Case {
  const char* name;
  std::int64_t rows;
  std::int32_t cols;
  std::int32_t classes;
  double density = 0.2;
  int max_iter = 1000;
};

void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

/// Classes with genes of their own; some cells in none.
template <class V>
HostCsr<V> make(const Case& c, std::vector<std::int32_t>& codes) {
  HostCsr<V> x = HostCsr<V>::random(c.rows, c.cols, c.density, 5, false);
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const auto u = math::random_uniform({8, 1}, static_cast<std::uint64_t>(i));
    const std::int64_t label = i < c.classes ? i : static_cast<std::int64_t>(u * c.classes);
    codes.push_back(i >= c.classes && i % 23 == 7 ? -1 : static_cast<std::int32_t>(label));
    for (auto k = x.indptr[static_cast<std::size_t>(i)]; k < x.indptr[static_cast<std::size_t>(i) + 1]; ++k) {
      V& v = x.values[static_cast<std::size_t>(k)];
      v = static_cast<V>(std::log1p(static_cast<double>(v)));
      if (x.indices[static_cast<std::size_t>(k)] % c.classes == label) v += V{1};
    }
  }
  return x;
}

std::vector<double> flat(const LogisticRegression& r) {
  std::vector<double> v(r.coefficients.data.begin(), r.coefficients.data.end());
  v.insert(v.end(), r.intercepts.begin(), r.intercepts.end());
  v.push_back(r.max_gradient);
  v.push_back(r.n_iterations);
  return v;
}

template <class V>
void compare(const Context& cuda, const Case& c) {
  const Context cpu = Context::cpu(2);
  std::vector<std::int32_t> codes;
  const HostCsr<V> x = make<V>(c, codes);
  DeviceMatrix<V> a(cpu, x), b(cuda, x);
  // A strong penalty: the distance to the optimum is at most gradient / penalty.
  const LogisticRegressionOptions o{.c = 0.02, .tol = 2e-6, .max_iter = c.max_iter};
  const auto want = logistic_regression(cpu, scw::as_const(a.view(true)), codes, c.classes, o);
  double largest = 0;
  for (const double v : want.coefficients.data) largest = std::max(largest, std::abs(v));
  EXPECT_GT(largest, 1e-3);
  for (const bool sparse : {true, false}) {
    SCOPED_TRACE(sparse ? "csr" : "dense");
    const auto got = logistic_regression(cuda, scw::as_const(b.view(sparse)), codes, c.classes, o);
    EXPECT_EQ(got.converged, want.converged);
    ASSERT_EQ(got.coefficients.data.size(), want.coefficients.data.size());
    for (std::int64_t i = 0; i < got.coefficients.data.size(); ++i)
      ASSERT_NEAR(got.coefficients.data[i], want.coefficients.data[i], 1e-3 * largest) << "coefficient " << i;
    const auto again = logistic_regression(cuda, scw::as_const(b.view(sparse)), codes, c.classes, o);
    expect_same_bits(flat(again), flat(got));
    static_cast<void>(b.result(sparse));  // guards
  }
}

class LogisticRegressionOnCuda : public ::testing::TestWithParam<Case> {};

TEST_P(LogisticRegressionOnCuda, FloatAgreesWithTheCpuAndRepeats) {
  SCW_CUDA_CONTEXT(cuda);
  compare<float>(cuda, GetParam());
}
TEST_P(LogisticRegressionOnCuda, DoubleAgreesWithTheCpuAndRepeats) {
  SCW_CUDA_CONTEXT(cuda);
  compare<double>(cuda, GetParam());
}

INSTANTIATE_TEST_SUITE_P(LogisticRegression, LogisticRegressionOnCuda,
                         ::testing::Values(Case{"two_classes", 900, 70, 2}, Case{"three_classes", 900, 70, 3},
                                           Case{"twenty_classes", 1500, 130, 20},
                                           Case{"chunks_of_classes", 1500, 90, 41},
                                           Case{"ranges_of_genes", 400, 3500, 40, 0.05},
                                           Case{"tiles_of_cells", 230000, 6, 18, 0.5, 3}, Case{"small", 7, 5, 2, 0.9}),
                         [](const auto& param) { return std::string(param.param.name); });

/// In double the two backends take the same way.
TEST(LogisticRegression, CudaTakesTheStepsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  const Context cpu = Context::cpu(2);
  std::vector<std::int32_t> codes;
  const HostCsr<double> x = make<double>({"", 800, 60, 5}, codes);
  DeviceMatrix<double> a(cpu, x), b(cuda, x);
  const LogisticRegressionOptions o{.tol = 1e-8, .max_iter = 15};
  const auto want = logistic_regression(cpu, scw::as_const(a.view(true)), codes, 5, o);
  for (const bool sparse : {true, false}) {
    const auto got = logistic_regression(cuda, scw::as_const(b.view(sparse)), codes, 5, o);
    EXPECT_EQ(got.n_iterations, want.n_iterations);
    EXPECT_NEAR(got.max_gradient, want.max_gradient, 1e-6 * want.max_gradient);
    for (std::int64_t i = 0; i < got.coefficients.data.size(); ++i)
      ASSERT_NEAR(got.coefficients.data[i], want.coefficients.data[i], 1e-8) << i;
  }
}

TEST(LogisticRegression, CudaNamesTheGeneThatIsNotFinite) {
  SCW_CUDA_CONTEXT(cuda);
  std::vector<std::int32_t> codes;
  HostCsr<float> x = make<float>({"", 200, 30, 3}, codes);
  x.values[40] = std::numeric_limits<float>::quiet_NaN();
  DeviceMatrix<float> b(cuda, x);
  for (const bool sparse : {true, false}) {
    try {
      static_cast<void>(logistic_regression(cuda, scw::as_const(b.view(sparse)), codes, 3));
      FAIL() << "no exception";
    } catch (const DataError& e) {
      EXPECT_NE(std::string(e.what()).find("gene " + std::to_string(x.indices[40]) + " has NaN"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace scw::tl
