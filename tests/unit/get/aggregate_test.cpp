#include "scwarp/get/aggregate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "scwarp/core/error.hpp"

namespace scw::get {
namespace {

struct Data {
  std::int64_t n = 500;
  std::int32_t m = 33;
  std::vector<double> dense;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<double> values;
  std::vector<std::int32_t> codes;
  CsrView<const double> csr() const { return {n, m, indptr, indices, values}; }
  MatrixView<const double> matrix() const { return {dense.data(), n, m}; }
};

Data make_data(std::int32_t groups) {
  Data d;
  std::mt19937 gen(2);
  std::normal_distribution<double> normal;
  for (std::int64_t i = 0; i < d.n; ++i) {
    d.codes.push_back(static_cast<std::int32_t>(gen() % static_cast<unsigned>(groups + 1)) - 1);
    for (std::int32_t j = 0; j < d.m; ++j) {
      const double v = gen() % 3 != 0 ? 0.0 : (j % 3 == 0 ? std::round(normal(gen)) : normal(gen) + 10 * (j % 2));
      d.dense.push_back(v);
      if (v != 0 || gen() % 20 == 0) {
        d.indices.push_back(j);
        d.values.push_back(v);
      }
    }
    d.indptr.push_back(static_cast<std::int64_t>(d.indices.size()));
  }
  return d;
}

AggregateOptions everything() {
  AggregateOptions o;
  o.sum = o.mean = o.var = o.sq_sum = o.count_nonzero = o.median = true;
  return o;
}

TEST(Aggregate, MatchesFormulas) {
  const Data d = make_data(4);
  const auto got = aggregate(Context::cpu(2), d.csr(), d.codes, 4, everything());
  for (std::int32_t g = 0; g < 4; ++g)
    for (std::int32_t j = 0; j < d.m; ++j) {
      std::vector<double> x;
      for (std::int64_t i = 0; i < d.n; ++i)
        if (d.codes[static_cast<std::size_t>(i)] == g) x.push_back(d.dense[static_cast<std::size_t>(i * d.m + j)]);
      const auto n = static_cast<long double>(x.size());
      long double sum = 0, sq = 0, centred = 0, nonzero = 0;
      for (const double v : x) sum += v, sq += static_cast<long double>(v) * v, nonzero += v != 0;
      for (const double v : x) centred += (v - sum / n) * (v - sum / n);
      std::sort(x.begin(), x.end());
      const std::int64_t at = std::int64_t{g} * d.m + j;
      EXPECT_NEAR(got.sum.data[at], static_cast<double>(sum), 1e-10);
      EXPECT_NEAR(got.mean.data[at], static_cast<double>(sum / n), 1e-12);
      EXPECT_NEAR(got.sq_sum.data[at], static_cast<double>(sq), 1e-8);
      EXPECT_NEAR(got.var.data[at], static_cast<double>(centred / (n - 1)), 1e-10);
      EXPECT_EQ(got.count_nonzero.data[at], static_cast<std::int32_t>(nonzero));
      EXPECT_DOUBLE_EQ(got.median.data[at], (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2);
      EXPECT_EQ(got.group_sizes[static_cast<std::size_t>(g)], static_cast<std::int64_t>(x.size()));
    }
}

TEST(Aggregate, SameBitsForThreadsAndLayouts) {
  const Data d = make_data(7);
  const auto want = aggregate(Context::cpu(1), d.csr(), d.codes, 7, everything());
  const auto same = [](const Matrix<double>& a, const Matrix<double>& b) {
    return std::memcmp(a.data.data(), b.data.data(), static_cast<std::size_t>(a.data.size()) * 8) == 0;
  };
  for (const int threads : {1, 2, 3})
    for (const AnyMatrixView& x : {AnyMatrixView(d.csr()), AnyMatrixView(d.matrix())}) {
      const auto got = aggregate(Context::cpu(threads), x, d.codes, 7, everything());
      EXPECT_TRUE(same(got.sum, want.sum) && same(got.mean, want.mean) && same(got.var, want.var) &&
                  same(got.sq_sum, want.sq_sum) && same(got.median, want.median));
    }
}

TEST(Aggregate, EmptyAndSmallGroups) {
  const Data d = make_data(1);
  std::vector<std::int32_t> codes(static_cast<std::size_t>(d.n), -1);
  codes[4] = 1;
  const auto got = aggregate(Context::cpu(1), d.csr(), codes, 2, everything());
  EXPECT_EQ(got.sum.data[0], 0.0);
  EXPECT_TRUE(std::isnan(got.mean.data[0]));
  EXPECT_TRUE(std::isnan(got.median.data[0]));
  EXPECT_TRUE(std::isnan(got.var.data[d.m]));
  for (std::int32_t j = 0; j < d.m; ++j)
    EXPECT_EQ(got.median.data[d.m + j], d.dense[static_cast<std::size_t>(4 * d.m + j)]);
}

TEST(Aggregate, Errors) {
  const Data d = make_data(3);
  AggregateOptions o = everything();
  EXPECT_THROW(aggregate(Context::cpu(1), d.csr(), d.codes, 2, o), InvalidArgument);
  std::vector<std::int32_t> wrong(3, 0);
  EXPECT_THROW(aggregate(Context::cpu(1), d.csr(), wrong, 2, o), ShapeMismatch);
  o.dof = -1;
  EXPECT_THROW(aggregate(Context::cpu(1), d.csr(), d.codes, 3, o), InvalidArgument);
}

}  // namespace
}  // namespace scw::get
