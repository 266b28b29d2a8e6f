#include "scwarp/tl/rank_genes_groups.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "scwarp/core/error.hpp"
#include "tl/rank_genes_groups/p_values.hpp"

namespace scw::tl {
namespace {

template <class V>
struct Data {
  std::int64_t n = 0;
  std::int32_t m = 0;
  std::vector<V> dense;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<V> values;
  std::vector<std::int32_t> codes;

  V at(std::int64_t i, std::int64_t j) const { return dense[static_cast<std::size_t>(i * m + j)]; }
  MatrixView<const V> matrix() const { return {dense.data(), n, m}; }
  CsrView<const V> csr() const { return {n, m, indptr, indices, values}; }
  void make_csr() {
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int32_t j = 0; j < m; ++j)
        if (at(i, j) != 0 || (i + j) % 13 == 0) {  // some zeros are stored
          indices.push_back(j);
          values.push_back(at(i, j));
        }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }
};

/// Sparse, with ties, one all-zero and one constant gene, one dense gene; group -1 = none.
template <class V>
Data<V> make_data(std::int64_t n, std::int32_t m, std::int32_t groups, bool negative, unsigned seed) {
  Data<V> d;
  d.n = n;
  d.m = m;
  std::mt19937 gen(seed);
  std::uniform_real_distribution<double> u(0, 1);
  d.dense.assign(static_cast<std::size_t>(n * m), V{0});
  for (std::int64_t i = 0; i < n; ++i) {
    d.codes.push_back(static_cast<std::int32_t>(gen() % static_cast<unsigned>(groups + 1)) - 1);
    for (std::int32_t j = 0; j < m; ++j) {
      V& v = d.dense[static_cast<std::size_t>(i * m + j)];
      if (j == 1) continue;
      if (j == 2) {
        v = static_cast<V>(0.7);
        continue;
      }
      if (j != 3 && u(gen) > 0.3) continue;
      v = static_cast<V>(j % 2 == 0 ? std::floor(u(gen) * 5) / 4 : std::log1p(u(gen) * 9 + 0.1 * d.codes.back()));
      if (negative && u(gen) < 0.3) v = -v;
    }
  }
  d.make_csr();
  return d;
}

struct Expected {
  double t, z, u, p_z, lfc;
};

/// Slow and obvious, in long double.
template <class V>
Expected expected(const Data<V>& d, std::int64_t j, std::int32_t g, std::int32_t reference, bool tie_correct) {
  std::vector<std::pair<V, bool>> cells;
  long double s1 = 0, s2 = 0, n1 = 0, n2 = 0;
  for (std::int64_t i = 0; i < d.n; ++i) {
    const bool in = d.codes[static_cast<std::size_t>(i)] == g;
    if (!in && reference >= 0 && d.codes[static_cast<std::size_t>(i)] != reference) continue;
    cells.emplace_back(d.at(i, j), in);
    (in ? s1 : s2) += d.at(i, j);
    (in ? n1 : n2) += 1;
  }
  const long double m1 = s1 / n1, m2 = s2 / n2;
  long double v1 = 0, v2 = 0, r = 0, ties = 0;
  for (const auto& [v, in] : cells) (in ? v1 : v2) += (v - (in ? m1 : m2)) * (v - (in ? m1 : m2));
  v1 /= n1 - 1;
  v2 /= n2 - 1;
  std::sort(cells.begin(), cells.end());
  for (std::size_t a = 0; a < cells.size();) {
    std::size_t b = a;
    while (b < cells.size() && cells[b].first == cells[a].first) ++b;
    const long double t = static_cast<long double>(b - a);
    ties += t * t * t - t;
    for (std::size_t k = a; k < b; ++k) r += cells[k].second ? static_cast<long double>(a + b + 1) / 2 : 0;
    a = b;
  }
  const long double n = n1 + n2;
  const long double tc = tie_correct ? 1 - ties / (n * n * n - n) : 1;
  Expected e{};
  e.t = static_cast<double>((m1 - m2) / std::sqrt(v1 / n1 + v2 / n2));
  e.z = static_cast<double>((r - n1 * (n + 1) / 2) / std::sqrt(tc * n1 * n2 * (n + 1) / 12));
  if (std::isnan(e.z)) e.z = 0;
  if (std::isnan(e.t)) e.t = 0;
  e.u = static_cast<double>(r - n1 * (n1 + 1) / 2);
  e.p_z = std::erfc(std::abs(e.z) / std::sqrt(2.0));
  e.lfc = static_cast<double>(std::log2((std::expm1(m1) + 1e-9L) / (std::expm1(m2) + 1e-9L)));
  return e;
}

void expect_close(double got, double want) { EXPECT_LE(std::abs(got - want), 1e-10 * (1 + std::abs(want))) << want; }

bool same_bits(const Matrix<double>& a, const Matrix<double>& b) {
  if (a.data.size() != b.data.size()) return false;
  return a.data.size() == 0 ||
         std::memcmp(a.data.data(), b.data.data(), static_cast<std::size_t>(a.data.size()) * 8) == 0;
}
bool same(const RankGenesGroups& a, const RankGenesGroups& b) {
  return same_bits(a.scores, b.scores) && same_bits(a.pvals, b.pvals) && same_bits(a.pvals_adj, b.pvals_adj) &&
         same_bits(a.logfoldchanges, b.logfoldchanges) && same_bits(a.pts, b.pts) &&
         same_bits(a.pts_rest, b.pts_rest) &&
         std::equal(a.order.data.begin(), a.order.data.end(), b.order.data.begin());
}

template <class V>
void compare_with_formulas(bool negative) {
  const auto d = make_data<V>(311, 40, 4, negative, 3);
  const Context ctx = Context::cpu(2);
  for (const std::int32_t reference : {-1, 2})
    for (const bool tie_correct : {false, true}) {
      RankGenesGroupsOptions o;
      if (reference >= 0) o.reference = reference;
      o.tie_correct = tie_correct;
      const auto t = rank_genes_groups(ctx, d.csr(), d.codes, 4, o);
      o.test = RankTest::wilcoxon;
      const auto w = rank_genes_groups(ctx, d.csr(), d.codes, 4, o);
      o.return_u_values = true;
      const auto u = rank_genes_groups(ctx, d.matrix(), d.codes, 4, o);
      ASSERT_EQ(t.tested.size(), reference < 0 ? 4u : 3u);
      for (std::size_t r = 0; r < t.tested.size(); ++r)
        for (std::int64_t j = 0; j < d.m; ++j) {
          const auto e = expected(d, j, t.tested[r], reference, tie_correct);
          const std::int64_t at = static_cast<std::int64_t>(r) * d.m + j;
          expect_close(t.scores.data[at], e.t);
          expect_close(w.scores.data[at], e.z);
          expect_close(w.pvals.data[at], e.p_z);
          expect_close(u.scores.data[at], e.u);
          if (!negative) {
            expect_close(t.logfoldchanges.data[at], e.lfc);
            EXPECT_EQ(t.logfoldchanges.data[at], w.logfoldchanges.data[at]);
          }
        }
    }
}

TEST(RankGenesGroups, FloatMatchesFormulas) { compare_with_formulas<float>(false); }
TEST(RankGenesGroups, DoubleMatchesFormulas) { compare_with_formulas<double>(false); }
TEST(RankGenesGroups, NegativeValuesMatchFormulas) {
  compare_with_formulas<float>(true);
  compare_with_formulas<double>(true);
}

TEST(RankGenesGroups, SameBitsForThreadsAndLayouts) {
  const auto d = make_data<float>(1500, 300, 5, false, 8);
  for (const RankTest test : {RankTest::t_test, RankTest::t_test_overestim_var, RankTest::wilcoxon})
    for (const bool reference : {false, true}) {
      RankGenesGroupsOptions o;
      o.test = test;
      o.pts = true;
      o.tie_correct = true;
      o.mean_in_log_space = !reference;
      if (reference) o.reference = 1;
      const auto want = rank_genes_groups(Context::cpu(1), d.csr(), d.codes, 5, o);
      for (const int threads : {2, 3, 2}) {
        EXPECT_TRUE(same(want, rank_genes_groups(Context::cpu(threads), d.csr(), d.codes, 5, o)));
        EXPECT_TRUE(same(want, rank_genes_groups(Context::cpu(threads), d.matrix(), d.codes, 5, o)));
      }
    }
}

TEST(RankGenesGroups, OrderAndFractions) {
  const auto d = make_data<float>(200, 50, 2, false, 4);
  RankGenesGroupsOptions o;
  o.pts = true;
  o.rank_by_abs = true;
  const auto r = rank_genes_groups(Context::cpu(2), d.csr(), d.codes, 2, o);
  for (std::int64_t t = 0; t < 2; ++t)
    for (std::int64_t k = 1; k < d.m; ++k) {
      const std::int32_t a = r.order.data[t * d.m + k - 1], b = r.order.data[t * d.m + k];
      const double sa = std::abs(r.scores.data[t * d.m + a]), sb = std::abs(r.scores.data[t * d.m + b]);
      EXPECT_TRUE(sa > sb || (sa == sb && a < b));
    }
  for (std::int64_t j = 0; j < d.m; ++j) {
    double in = 0, nonzero = 0, rest = 0;
    for (std::int64_t i = 0; i < d.n; ++i) {
      const bool mine = d.codes[static_cast<std::size_t>(i)] == 0;
      in += mine;
      (mine ? nonzero : rest) += d.at(i, j) != 0;
    }
    EXPECT_DOUBLE_EQ(r.pts.data[j], nonzero / in);
    EXPECT_DOUBLE_EQ(r.pts_rest.data[j], rest / (static_cast<double>(d.n) - in));
  }
}

TEST(RankGenesGroups, ConstantGenesHaveNoScore) {
  const auto d = make_data<float>(60, 5, 2, false, 4);
  for (const RankTest test : {RankTest::t_test, RankTest::wilcoxon}) {
    RankGenesGroupsOptions o;
    o.test = test;
    o.tie_correct = true;
    const auto r = rank_genes_groups(Context::cpu(1), d.csr(), d.codes, 2, o);
    for (const std::int64_t j : {1, 2}) {
      EXPECT_EQ(r.scores.data[j], 0.0);
      EXPECT_EQ(r.pvals.data[j], 1.0);
      EXPECT_EQ(r.logfoldchanges.data[j], 0.0);
    }
  }
}

TEST(RankGenesGroups, BinnedEqualsExactOnBinnedValues) {
  auto d = make_data<float>(300, 20, 3, false, 12);
  for (auto* v : {&d.dense, &d.values})
    for (float& x : *v) x = std::abs(x);  // no negative values: zeros have their own bin
  auto rounded = d;
  for (float& v : rounded.dense) v = v == 0 ? 0.0f : static_cast<float>(std::min(49.0, std::floor(v * 50.0 / 5.0)) + 1);
  rounded.indptr = {0};
  rounded.indices.clear();
  rounded.values.clear();
  rounded.make_csr();
  for (const bool reference : {false, true}) {
    RankGenesGroupsOptions o;
    o.tie_correct = true;
    if (reference) o.reference = 0;
    o.test = RankTest::wilcoxon;
    const auto want = rank_genes_groups(Context::cpu(2), rounded.csr(), d.codes, 3, o);
    o.test = RankTest::wilcoxon_binned;
    o.n_bins = 50;
    o.bin_range = {{0.0, 5.0}};
    const auto got = rank_genes_groups(Context::cpu(2), d.csr(), d.codes, 3, o);
    EXPECT_TRUE(same_bits(want.scores, got.scores));
  }
}

TEST(RankGenesGroups, Errors) {
  auto d = make_data<float>(30, 4, 2, false, 4);
  const Context ctx = Context::cpu(1);
  std::vector<std::int32_t> short_codes(29, 0), lonely(30, 0), wrong(30, 7);
  lonely[3] = 1;
  EXPECT_THROW(rank_genes_groups(ctx, d.csr(), short_codes, 1), ShapeMismatch);
  EXPECT_THROW(rank_genes_groups(ctx, d.csr(), lonely, 2), InvalidArgument);
  EXPECT_THROW(rank_genes_groups(ctx, d.csr(), wrong, 2), InvalidArgument);
  EXPECT_THROW(rank_genes_groups(ctx, d.csr(), d.codes, 0), InvalidArgument);
  RankGenesGroupsOptions o;
  o.reference = 2;
  EXPECT_THROW(rank_genes_groups(ctx, d.csr(), d.codes, 2, o), InvalidArgument);
  d.values[5] = NAN;
  EXPECT_THROW(rank_genes_groups(ctx, d.csr(), d.codes, 2), DataError);
}

TEST(RankGenesGroups, NoGenes) {
  const Data<float> d = make_data<float>(30, 0, 2, false, 4);
  for (const RankTest test : {RankTest::t_test, RankTest::wilcoxon}) {
    RankGenesGroupsOptions o;
    o.test = test;
    EXPECT_EQ(rank_genes_groups(Context::cpu(2), d.csr(), d.codes, 2, o).scores.data.size(), 0);
  }
}

// mpmath 1.3, 50 digits: 2 * (1 - cdf).
TEST(PValues, StudentT) {
  const auto close = [](double got, double want) { EXPECT_NEAR(got / want, 1.0, 1e-10) << want; };
  close(student_t_two_sided(0.5, 1), 0.70483276469913345);
  close(student_t_two_sided(2.0, 3.7), 0.12181720190523401);
  close(student_t_two_sided(1e-06, 1000), 0.99999920231488537);
  close(student_t_two_sided(5, 30.25), 2.2820081184578368e-5);
  close(student_t_two_sided(12, 250.5), 1.6359985527115617e-26);
  close(student_t_two_sided(35, 4000), 2.3062027503882899e-234);
  close(student_t_two_sided(37, 19998.3), 6.4054872756606805e-290);
  close(student_t_two_sided(100, 150), 3.4534410512513415e-139);
  close(student_t_two_sided(3, 10000000.0), 0.0026998027110371613);
  close(student_t_two_sided(25, 1000000.0), 6.7423581675436745e-138);
  close(student_t_two_sided(900, 2.5), 5.9204737496047939e-8);
  close(student_t_two_sided(1.5, 99999), 0.1336175595544007);
  EXPECT_EQ(student_t_two_sided(60, 1200), 0.0);  // 1.5e-363
  EXPECT_EQ(student_t_two_sided(0, 5), 1.0);
  EXPECT_EQ(student_t_two_sided(INFINITY, 1), 0.0);
  EXPECT_TRUE(std::isnan(student_t_two_sided(NAN, 3)));
}

TEST(PValues, SortByKeyIsStable) {
  for (const std::int64_t n : {0, 1, 30, 5000}) {
    std::vector<double> v;
    for (std::int64_t j = 0; j < n; ++j) v.push_back(std::floor(100 * std::sin(static_cast<double>(j))) / 7);
    std::vector<std::int32_t> want(static_cast<std::size_t>(n));
    std::iota(want.begin(), want.end(), 0);
    std::stable_sort(want.begin(), want.end(), [&](std::int32_t a, std::int32_t b) {
      return v[static_cast<std::size_t>(a)] < v[static_cast<std::size_t>(b)];
    });
    SortScratch s;
    sort_by_key(
        n,
        [&](std::int64_t j) {
          const double x = v[static_cast<std::size_t>(j)];
          return prim::sortable_bits(x == 0 ? 0.0 : x);
        },
        s);
    for (std::int64_t j = 0; j < n; ++j) ASSERT_EQ(s.sorted[j].index, want[static_cast<std::size_t>(j)]) << j;
  }
}

TEST(PValues, BenjaminiHochberg) {
  const std::vector<double> p = {0.01, 0.04, 0.03, 0.005, 1.0};
  std::vector<double> q(5);
  SortScratch scratch;
  benjamini_hochberg(p, q, scratch);
  const std::vector<double> want = {0.025, 0.05, 0.05, 0.025, 1.0};
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(q[i], want[i], 1e-15);
}

}  // namespace
}  // namespace scw::tl
