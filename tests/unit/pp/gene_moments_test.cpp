#include "scwarp/pp/gene_moments.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "math/philox.hpp"
#include "scwarp/core/error.hpp"

namespace scw::pp {
namespace {

template <class V>
struct Sample {
  std::int64_t rows, cols;
  std::vector<V> dense;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<V> values;

  template <class Value>
  Sample(std::int64_t n, std::int64_t m, double density, const Value& value) : rows(n), cols(m) {
    dense.assign(static_cast<std::size_t>(n * m), V{0});
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < m; ++j) {
        const auto at = static_cast<std::uint64_t>(i * m + j);
        if (math::random_uniform({3, 0}, at) >= density) continue;
        dense[at] = static_cast<V>(value(math::random_uniform({4, 0}, at), i, j));
        indices.push_back(static_cast<std::int32_t>(j));
        values.push_back(dense[at]);
      }
      indptr.push_back(static_cast<std::int64_t>(values.size()));
    }
  }
  CsrView<const V> csr() const {
    return {rows, static_cast<std::int32_t>(cols), indptr, indices, Span<const V>(values)};
  }
  MatrixView<const V> matrix() const { return {dense.data(), rows, cols}; }
};

/// Two passes in long double over the dense matrix, rows with keep(i) only.
template <class V, class Keep, class Map>
void expect_moments(const Sample<V>& s, const GeneMoments& got, std::int64_t group, const Keep& keep, const Map& map,
                    double tolerance) {
  for (std::int64_t j = 0; j < s.cols; ++j) {
    long double sum = 0, squares = 0, n = 0;
    for (std::int64_t i = 0; i < s.rows; ++i)
      if (keep(i)) sum += map(s.matrix()(i, j)), n += 1;
    const long double mean = sum / n;
    for (std::int64_t i = 0; i < s.rows; ++i)
      if (keep(i)) squares += (map(s.matrix()(i, j)) - mean) * (map(s.matrix()(i, j)) - mean);
    const long double variance = squares / (n - 1);
    EXPECT_NEAR(got.mean.view()(group, j), static_cast<double>(mean), tolerance * std::abs(static_cast<double>(mean)))
        << j;
    EXPECT_NEAR(got.variance.view()(group, j), static_cast<double>(variance), tolerance * static_cast<double>(variance))
        << j;
  }
}
const auto all = [](std::int64_t) { return true; };
const auto same = [](auto v) { return static_cast<long double>(v); };

void expect_same_bits(const GeneMoments& a, const GeneMoments& b) {
  ASSERT_EQ(a.mean.data.size(), b.mean.data.size());
  for (std::int64_t k = 0; k < a.mean.data.size(); ++k) {
    EXPECT_EQ(std::bit_cast<std::uint64_t>(a.mean.data[k]), std::bit_cast<std::uint64_t>(b.mean.data[k])) << k;
    EXPECT_EQ(std::bit_cast<std::uint64_t>(a.variance.data[k]), std::bit_cast<std::uint64_t>(b.variance.data[k])) << k;
  }
}

const auto count = [](double u, std::int64_t, std::int64_t j) {
  return std::floor(1 + u * u * static_cast<double>(5 + j * j));
};
const auto real = [](double u, std::int64_t, std::int64_t j) {
  return (u - 0.3) * std::pow(10.0, static_cast<double>(j % 13) - 6);
};

TEST(GeneMoments, CountsAgainstLongDouble) {
  const Sample<float> s(700, 90, 0.2, count);
  const auto m = gene_moments(Context::cpu(2), s.csr());
  EXPECT_TRUE(m.counts);
  EXPECT_EQ(m.n_rows[0], 700);
  expect_moments(s, m, 0, all, same, 1e-15);
  expect_same_bits(m, gene_moments(Context::cpu(1), s.matrix()));
}

TEST(GeneMoments, WideRangeOfScalesAgainstLongDouble) {
  const Sample<double> s(700, 90, 0.4, real);  // columns from 1e-6 to 1e6: the per-column scale
  const auto m = gene_moments(Context::cpu(2), s.csr());
  EXPECT_FALSE(m.counts);
  expect_moments(s, m, 0, all, same, 1e-12);
  const Sample<float> f(500, 60, 0.4, real);
  expect_moments(f, gene_moments(Context::cpu(2), f.csr()), 0, all, same, 1e-12);
}

TEST(GeneMoments, LargeMeanSmallSpread) {
  const Sample<double> s(1000, 7, 1.0, [](double u, std::int64_t, std::int64_t) { return 1e6 + 1e-3 * u; });
  expect_moments(s, gene_moments(Context::cpu(2), s.matrix()), 0, all, same, 1e-4);  // 48 bits below 2^20: 4e-9 a value
}

TEST(GeneMoments, Expm1) {
  const Sample<float> s(400, 50, 0.3, [](double u, std::int64_t, std::int64_t) { return std::log1p(1e4 * u * u); });
  GeneMomentsOptions o;
  o.expm1 = true;
  expect_moments(
      s, gene_moments(Context::cpu(2), s.csr(), o), 0, all,
      [](float v) { return std::expm1(static_cast<long double>(v)); }, 1e-7);
  o.expm1_scale = std::log(2.0);
  const Sample<double> d(400, 50, 0.3, [](double u, std::int64_t, std::int64_t) { return std::log2(1 + 1e4 * u * u); });
  expect_moments(
      d, gene_moments(Context::cpu(2), d.csr(), o), 0, all,
      [](double v) { return std::exp2(static_cast<long double>(v)) - 1; }, 1e-12);
}

TEST(GeneMoments, GroupsMaskAndTotal) {
  const Sample<float> s(600, 40, 0.3, count);
  std::vector<std::int32_t> codes;
  for (int i = 0; i < 600; ++i) codes.push_back(i % 7 == 0 ? -1 : (i / 50) % 3);
  GeneMomentsOptions o;
  o.groups = codes;
  o.n_groups = 4;  // the last one has no rows
  o.with_total = true;
  for (const AnyMatrixView& x : {AnyMatrixView(s.csr()), AnyMatrixView(s.matrix())}) {
    const auto m = gene_moments(Context::cpu(3), x, o);
    ASSERT_EQ(m.mean.n_rows, 5);
    for (std::int32_t g = 0; g < 3; ++g)
      expect_moments(s, m, g, [&](std::int64_t i) { return codes[static_cast<std::size_t>(i)] == g; }, same, 1e-15);
    EXPECT_TRUE(std::isnan(m.mean.view()(3, 0)));
    EXPECT_TRUE(std::isnan(m.variance.view()(3, 0)));
    expect_moments(s, m, 4, [&](std::int64_t i) { return codes[static_cast<std::size_t>(i)] >= 0; }, same, 1e-15);
    EXPECT_EQ(m.n_rows[4], m.n_rows[0] + m.n_rows[1] + m.n_rows[2]);
  }
}

TEST(GeneMoments, SameBitsForThreadsBlocksAndOrder) {
  for (const bool counts : {true, false}) {
    const Sample<float> s = counts ? Sample<float>(2100, 60, 0.3, count) : Sample<float>(2100, 60, 0.3, real);
    const auto reference = gene_moments(Context::cpu(1), s.csr());
    for (const int threads : {1, 2, 3})
      for (const std::int64_t block : {0, 1, 7, 256, 1000})
        expect_same_bits(reference, gene_moments(Context::cpu(threads), ResidentBlocks(s.csr(), block)));
    Sample<float> reversed = s;
    for (std::int64_t i = 0; i < s.rows; ++i)
      for (std::int64_t j = 0; j < s.cols; ++j)
        reversed.dense[static_cast<std::size_t>(i * s.cols + j)] = s.matrix()(s.rows - 1 - i, j);
    expect_same_bits(reference, gene_moments(Context::cpu(2), reversed.matrix()));
  }
}

TEST(GeneMoments, NotFiniteStaysInItsColumn) {
  Sample<float> s(50, 4, 1.0, count);
  s.dense[4 * 10 + 1] = std::numeric_limits<float>::quiet_NaN();
  s.dense[4 * 20 + 2] = std::numeric_limits<float>::infinity();
  const auto m = gene_moments(Context::cpu(1), s.matrix());
  EXPECT_FALSE(m.counts);
  for (const std::int64_t j : {1, 2}) {
    EXPECT_TRUE(std::isnan(m.mean.data[j]));
    EXPECT_TRUE(std::isnan(m.variance.data[j]));
  }
  const auto clean = gene_moments(Context::cpu(1), Sample<float>(50, 4, 1.0, count).matrix());
  for (const std::int64_t j : {0, 3}) {
    EXPECT_EQ(m.mean.data[j], clean.mean.data[j]);
    EXPECT_EQ(m.variance.data[j], clean.variance.data[j]);
  }
}

TEST(GeneMoments, SmallShapes) {
  const Sample<float> one(1, 3, 1.0, count);
  const auto m = gene_moments(Context::cpu(1), one.matrix());
  for (std::int64_t j = 0; j < 3; ++j) {
    EXPECT_EQ(m.mean.data[j], static_cast<double>(one.matrix()(0, j)));
    EXPECT_EQ(m.variance.data[j], 0.0);
  }
  const Sample<float> none(0, 3, 1.0, count);
  EXPECT_TRUE(std::isnan(gene_moments(Context::cpu(1), none.csr()).mean.data[2]));
  const Sample<float> no_genes(5, 0, 1.0, count);
  EXPECT_EQ(gene_moments(Context::cpu(1), no_genes.csr()).mean.data.size(), 0);
  const Sample<float> zeros(9, 2, 0.0, count);
  const auto z = gene_moments(Context::cpu(2), zeros.csr());
  EXPECT_EQ(z.mean.data[0], 0.0);
  EXPECT_EQ(z.variance.data[1], 0.0);
}

TEST(GeneMoments, CountsFlag) {
  Sample<float> s(50, 4, 1.0, count);
  EXPECT_TRUE(gene_moments(Context::cpu(1), s.matrix()).counts);
  s.dense[7] = 3e9f;  // beyond the first scale
  EXPECT_TRUE(gene_moments(Context::cpu(1), s.matrix()).counts);
  s.dense[7] = -1;
  EXPECT_FALSE(gene_moments(Context::cpu(1), s.matrix()).counts);
  s.dense[7] = 0.5;
  EXPECT_FALSE(gene_moments(Context::cpu(1), s.matrix()).counts);
}

TEST(GeneMoments, Errors) {
  const Sample<float> s(5, 4, 1.0, count);
  const std::vector<std::int32_t> codes(4, 0);
  GeneMomentsOptions o;
  o.groups = codes;
  EXPECT_THROW(gene_moments(Context::cpu(1), s.csr(), o), ShapeMismatch);
  o = {};
  o.ddof = 2;
  EXPECT_THROW(gene_moments(Context::cpu(1), s.csr(), o), InvalidArgument);
  o = {};
  o.n_groups = 0;
  EXPECT_THROW(gene_moments(Context::cpu(1), s.csr(), o), InvalidArgument);
}

}  // namespace
}  // namespace scw::pp
