#include "scwarp/pp/pca.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "math/philox.hpp"
#include "scwarp/core/error.hpp"

namespace scw::pp {
namespace {

/// Cells x genes with planted groups, skewed gene frequencies and many zeros.
template <class V>
struct Data {
  std::int64_t n, m;
  std::vector<V> dense;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<V> values;

  Data(std::int64_t rows, std::int64_t cols, double density = 0.3, std::uint64_t seed = 1) : n(rows), m(cols) {
    const RngKey key{seed, 0};
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < m; ++j) {
        const auto item = static_cast<std::uint64_t>(i * m + j);
        const bool on =
            math::random_uniform(key, item) < 2 * density * static_cast<double>((j * 7) % m) / static_cast<double>(m);
        const double group = 1 + 0.5 * std::sin(static_cast<double>((i % 7) * (j % 11 + 1)));
        const V x = on ? static_cast<V>((0.2 + 2 * math::random_uniform(key, item, 1)) * group) : V{0};
        dense.push_back(x);
        if (x != 0) {
          indices.push_back(static_cast<std::int32_t>(j));
          values.push_back(x);
        }
      }
      indptr.push_back(static_cast<std::int64_t>(values.size()));
    }
  }
  CsrView<const V> csr() const { return {n, static_cast<std::int32_t>(m), indptr, indices, values}; }
  MatrixView<const V> matrix() const { return {dense.data(), n, m}; }
};

/// Eigenpairs of a small symmetric matrix by cyclic Jacobi rotations, values descending, vectors in columns.
void jacobi(std::int64_t m, std::vector<double>& a, std::vector<double>& v) {
  const auto at = [m](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * m + j); };
  v.assign(static_cast<std::size_t>(m * m), 0.0);
  for (std::int64_t i = 0; i < m; ++i) v[at(i, i)] = 1;
  for (int sweep = 0; sweep < 30; ++sweep)
    for (std::int64_t p = 0; p < m; ++p)
      for (std::int64_t q = p + 1; q < m; ++q) {
        if (std::abs(a[at(p, q)]) < 1e-300) continue;
        const double theta = (a[at(q, q)] - a[at(p, p)]) / (2 * a[at(p, q)]);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (std::int64_t i = 0; i < m; ++i) {
          const double x = a[at(i, p)], y = a[at(i, q)];
          a[at(i, p)] = c * x - s * y;
          a[at(i, q)] = s * x + c * y;
        }
        for (std::int64_t i = 0; i < m; ++i) {
          const double x = a[at(p, i)], y = a[at(q, i)];
          a[at(p, i)] = c * x - s * y;
          a[at(q, i)] = s * x + c * y;
        }
        for (std::int64_t i = 0; i < m; ++i) {
          const double x = v[at(i, p)], y = v[at(i, q)];
          v[at(i, p)] = c * x - s * y;
          v[at(i, q)] = s * x + c * y;
        }
      }
}

struct Reference {
  std::vector<double> variance, scores;  // k, n x k
  double total = 0;
};

/// The definition, in double: z, its mean, the covariance of z, Jacobi, projection, sign rule.
template <class V>
Reference reference(const Data<V>& d, const PcaOptions& o, std::int64_t k) {
  std::vector<std::int64_t> genes;
  for (std::int64_t j = 0; j < d.m; ++j)
    if (o.gene_mask.empty() || o.gene_mask[j] != 0) genes.push_back(j);
  const auto m = static_cast<std::int64_t>(genes.size());
  std::vector<double> z(static_cast<std::size_t>(d.n * m));
  const auto at = [m](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * m + j); };
  const auto n = static_cast<double>(d.n);
  for (std::int64_t p = 0; p < m; ++p) {
    double mean = 0, variance = 0;
    for (std::int64_t i = 0; i < d.n; ++i)
      mean += (z[at(i, p)] = static_cast<double>(d.matrix()(i, genes[static_cast<std::size_t>(p)])));
    mean /= n;
    for (std::int64_t i = 0; i < d.n; ++i) variance += (z[at(i, p)] - mean) * (z[at(i, p)] - mean) / (n - 1);
    if (o.scale) {
      const double s = variance > 0 ? std::sqrt(variance) : 1, limit = o.max_value.value_or(1e300);
      for (std::int64_t i = 0; i < d.n; ++i) z[at(i, p)] = std::clamp((z[at(i, p)] - mean) / s, -limit, limit);
    }
    if (o.zero_center) {
      mean = 0;
      for (std::int64_t i = 0; i < d.n; ++i) mean += z[at(i, p)] / n;
      for (std::int64_t i = 0; i < d.n; ++i) z[at(i, p)] -= mean;
    }
  }
  std::vector<double> c(static_cast<std::size_t>(m * m)), v;
  for (std::int64_t i = 0; i < d.n; ++i)
    for (std::int64_t p = 0; p < m; ++p)
      for (std::int64_t q = 0; q < m; ++q) c[at(p, q)] += z[at(i, p)] * z[at(i, q)] / (n - 1);
  jacobi(m, c, v);
  std::vector<std::int64_t> order(static_cast<std::size_t>(m));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return c[at(a, a)] > c[at(b, b)]; });
  Reference out;
  out.scores.assign(static_cast<std::size_t>(d.n * k), 0.0);
  for (std::int64_t p = 0; p < m; ++p) {
    double mean = 0, variance = 0;
    for (std::int64_t i = 0; i < d.n; ++i) mean += z[at(i, p)] / n;
    for (std::int64_t i = 0; i < d.n; ++i) variance += (z[at(i, p)] - mean) * (z[at(i, p)] - mean);
    out.total += variance / (o.zero_center ? n - 1 : n);
  }
  for (std::int64_t s = 0; s < k; ++s) {
    const std::int64_t e = order[static_cast<std::size_t>(s)];
    double largest = 0;
    for (std::int64_t p = 0; p < m; ++p)
      if (std::abs(v[at(p, e)]) > std::abs(largest)) largest = v[at(p, e)];
    double mean = 0, variance = 0;
    for (std::int64_t i = 0; i < d.n; ++i) {
      double& y = out.scores[static_cast<std::size_t>(i * k + s)];
      for (std::int64_t p = 0; p < m; ++p) y += z[at(i, p)] * v[at(p, e)] * (largest < 0 ? -1 : 1);
      mean += y / n;
    }
    for (std::int64_t i = 0; i < d.n; ++i) {
      const double y = out.scores[static_cast<std::size_t>(i * k + s)] - mean;
      variance += y * y / (o.zero_center ? n - 1 : n);
    }
    out.variance.push_back(variance);
  }
  return out;
}

template <class T>
const Matrix<T>& scores(const Pca& p) {
  return std::get<Matrix<T>>(p.scores);
}

void expect_close(const Pca& got, const Reference& want, double tolerance) {
  ASSERT_EQ(got.variance.size(), static_cast<std::int64_t>(want.variance.size()));
  const std::int64_t k = got.variance.size();
  for (std::int64_t s = 0; s < k; ++s) {
    const auto c = static_cast<std::size_t>(s);
    EXPECT_NEAR(got.variance[s], want.variance[c], tolerance * want.variance[0]) << s;
    EXPECT_NEAR(got.variance_ratio[s], want.variance[c] / want.total, tolerance) << s;
    const bool separate = (s == 0 || want.variance[c - 1] > 1.02 * want.variance[c]) &&
                          (s + 1 == k || want.variance[c] > 1.02 * want.variance[c + 1]);
    if (!separate || s + 1 == k) continue;
    const std::int64_t n = scores<float>(got).n_rows;
    for (std::int64_t i = 0; i < n; ++i)
      ASSERT_NEAR(scores<float>(got).view()(i, s), want.scores[static_cast<std::size_t>(i * k + s)],
                  100 * tolerance * std::sqrt(want.variance[0]))
          << "cell " << i << " component " << s;
  }
}

bool same_bits(const Pca& a, const Pca& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.size() == y.size() &&
           std::memcmp(x.data(), y.data(), static_cast<std::size_t>(x.size()) * sizeof(*x.data())) == 0;
  };
  return same(scores<float>(a).data, scores<float>(b).data) && same(a.components.data, b.components.data) &&
         same(a.variance, b.variance) && same(a.variance_ratio, b.variance_ratio) && same(a.mean, b.mean);
}

TEST(Pca, MatchesTheDefinition) {
  const Data<float> f(300, 40);
  const Data<double> d(300, 40);
  std::vector<std::uint8_t> mask(40);
  for (std::size_t j = 0; j < 40; ++j) mask[j] = j % 3 != 1;
  for (const bool centre : {true, false})
    for (const int scale : {0, 1, 2})
      for (const bool masked : {false, true}) {
        PcaOptions o;
        o.n_comps = 8;
        o.zero_center = centre;
        o.scale = scale > 0;
        if (scale == 2) o.max_value = 1.5;
        if (masked) o.gene_mask = mask;
        SCOPED_TRACE(testing::Message() << "centre " << centre << " scale " << scale << " masked " << masked);
        const Reference want = reference(f, o, 8), want_double = reference(d, o, 8);
        const Context ctx = Context::cpu(2);
        expect_close(pca(ctx, f.csr(), o), want, 1e-6);
        expect_close(pca(ctx, f.matrix(), o), want, 1e-6);
        expect_close(pca(ctx, d.csr(), o), want_double, 1e-6);
        expect_close(pca(ctx, d.matrix(), o), want_double, 1e-6);
      }
}

TEST(Pca, ResultHasShapesAndGenes) {
  const Data<double> d(50, 20);
  std::vector<std::uint8_t> mask(20, 0);
  for (const std::size_t j : {2u, 5u, 7u, 11u, 13u, 19u}) mask[j] = 1;
  PcaOptions o;
  o.gene_mask = mask;
  o.double_scores = true;
  const Pca p = pca(Context::cpu(1), d.csr(), o);
  EXPECT_EQ(scores<double>(p).n_rows, 50);
  EXPECT_EQ(scores<double>(p).n_cols, 5);  // min(50, 6) - 1
  EXPECT_EQ(p.components.n_rows, 6);
  EXPECT_EQ(std::vector<std::int64_t>(p.genes.begin(), p.genes.end()),
            (std::vector<std::int64_t>{2, 5, 7, 11, 13, 19}));
  for (int c = 0; c < 5; ++c) {
    double norm = 0, largest = 0, variance = 0;
    for (int g = 0; g < 6; ++g) {
      const double v = p.components.view()(g, c);
      norm += v * v;
      if (std::abs(v) > std::abs(largest)) largest = v;
    }
    for (int i = 0; i < 50; ++i) variance += std::pow(scores<double>(p).view()(i, c), 2) / 49;
    EXPECT_NEAR(norm, 1, 1e-12);
    EXPECT_GT(largest, 0);
    EXPECT_NEAR(variance, p.variance[c], 1e-12);
  }
}

/// More genes than LAPACK decomposes whole: the iteration, and both solvers.
TEST(Pca, SolversAgreeOnManyGenes) {
  const Data<float> d(600, 530, 0.15);
  for (const bool scale : {false, true}) {
    PcaOptions o;
    o.n_comps = 12;
    o.scale = scale;
    if (scale) o.max_value = 3;
    const Context ctx = Context::cpu(2);
    o.solver = PcaSolver::covariance;
    const Pca sparse = pca(ctx, d.csr(), o), dense = pca(ctx, d.matrix(), o);
    o.solver = PcaSolver::krylov;
    const Pca sparse_products = pca(ctx, d.csr(), o), dense_products = pca(ctx, d.matrix(), o);
    for (const Pca* p : {&dense, &sparse_products, &dense_products}) {
      EXPECT_TRUE(p->converged);
      for (int c = 0; c < 12; ++c) {
        EXPECT_NEAR(p->variance[c], sparse.variance[c], 2e-6 * sparse.variance[c]);
        EXPECT_NEAR(p->variance_ratio[c], sparse.variance_ratio[c], 2e-6 * sparse.variance_ratio[c]);
        // Scores are uncorrelated and have the variances: with the trace, a check of the eigenpairs themselves.
        for (int e = 0; e <= c; ++e) {
          double product = 0;
          for (int i = 0; i < 600; ++i)
            product += static_cast<double>(scores<float>(*p).view()(i, c)) *
                       static_cast<double>(scores<float>(*p).view()(i, e)) / 599;
          EXPECT_NEAR(product, c == e ? p->variance[c] : 0.0, 2e-6 * p->variance[0]);
        }
      }
    }
  }
}

/// Row blocks of any size, in pieces that do not line up with the tiles.
TEST(Pca, BitsDoNotDependOnThreadsOrBlocks) {
  const Data<float> d(9001, 40, 0.2);
  for (const bool sparse : {true, false})
    for (const PcaSolver solver : {PcaSolver::covariance, PcaSolver::krylov})
      for (const bool scale : {false, true}) {
        const AnyMatrixView x = sparse ? AnyMatrixView(d.csr()) : AnyMatrixView(d.matrix());
        PcaOptions o;
        o.n_comps = 6;
        o.solver = solver;
        o.scale = scale;
        const Pca one = pca(Context::cpu(1), x, o);
        for (const int threads : {1, 2, 3}) EXPECT_TRUE(same_bits(one, pca(Context::cpu(threads), x, o)));
        for (const std::int64_t rows : {37, 1000, 4096, 5000, 8192})
          EXPECT_TRUE(same_bits(one, pca(Context::cpu(2), ResidentBlocks(x, rows), o))) << rows;
      }
}
TEST(Pca, IterationBitsDoNotDependOnThreads) {
  const Data<float> d(4200, 530, 0.1);
  for (const PcaSolver solver : {PcaSolver::covariance, PcaSolver::krylov})
    for (const AnyMatrixView& x : {AnyMatrixView(d.csr()), AnyMatrixView(d.matrix())}) {
      PcaOptions o;
      o.n_comps = 5;
      o.solver = solver;
      const Pca one = pca(Context::cpu(1), x, o);
      EXPECT_TRUE(same_bits(one, pca(Context::cpu(2), x, o)));
      EXPECT_TRUE(same_bits(one, pca(Context::cpu(3), ResidentBlocks(x, 700), o)));
    }
}

/// Fewer cells than components of the Krylov basis: the space is exhausted and filled up.
TEST(Pca, FewCellsManyGenes) {
  const Data<float> d(20, 800, 0.3);
  PcaOptions o;
  o.n_comps = 19;
  for (const PcaSolver solver : {PcaSolver::covariance, PcaSolver::krylov}) {
    o.solver = solver;
    const Pca p = pca(Context::cpu(2), d.csr(), o);
    double total = 0;
    for (int c = 0; c < 19; ++c) total += p.variance_ratio[c];
    EXPECT_NEAR(total, 1, 1e-6);
    EXPECT_TRUE(p.converged);
  }
}

TEST(Pca, ConstantGenes) {
  Data<float> d(40, 10);
  for (std::int64_t i = 0; i < d.n; ++i) d.dense[static_cast<std::size_t>(i * d.m + 3)] = 5;
  PcaOptions o;
  o.n_comps = 9;
  o.scale = true;
  const Pca p = pca(Context::cpu(1), d.matrix(), o);
  EXPECT_EQ(p.std[3], 1);
  EXPECT_NEAR(p.variance[8], 0, 1);
  for (int c = 0; c < 8; ++c) EXPECT_NEAR(p.components.view()(3, c), 0, 1e-6);
  std::fill(d.dense.begin(), d.dense.end(), 2.0f);
  const Pca flat = pca(Context::cpu(1), d.matrix(), o);
  for (int c = 0; c < 9; ++c) {
    EXPECT_EQ(flat.variance[c], 0);
    EXPECT_EQ(flat.variance_ratio[c], 0);
    EXPECT_EQ(scores<float>(flat).view()(7, c), 0);
  }
}

TEST(Pca, LargeOffsetsDoNotCancel) {
  Data<double> small(200, 12);
  Data<float> shifted(200, 12);
  for (std::size_t e = 0; e < small.dense.size(); ++e) {
    small.dense[e] = std::round(small.dense[e] * 64) / 64;
    shifted.dense[e] = static_cast<float>(small.dense[e] + 4096);
  }
  PcaOptions o;
  o.n_comps = 5;
  const Pca a = pca(Context::cpu(1), small.matrix(), o), b = pca(Context::cpu(1), shifted.matrix(), o);
  for (int c = 0; c < 5; ++c) EXPECT_NEAR(a.variance[c], b.variance[c], 1e-5 * a.variance[c]);
}

TEST(Pca, Refuses) {
  Data<float> d(30, 8);
  const Context ctx = Context::cpu(1);
  PcaOptions o;
  for (const std::int64_t k : {-1, 8, 9}) {
    o.n_comps = k;
    EXPECT_THROW(pca(ctx, d.csr(), o), InvalidArgument) << k;
  }
  o.n_comps = 8;
  o.solver = PcaSolver::covariance;
  EXPECT_NO_THROW(pca(ctx, d.csr(), o));
  EXPECT_THROW(pca(ctx, Data<float>(1, 8).csr()), InvalidArgument);
  EXPECT_THROW(pca(ctx, Data<float>(0, 8).csr()), InvalidArgument);
  EXPECT_THROW(pca(ctx, Data<float>(8, 1).csr()), InvalidArgument);
  o = {};
  o.max_value = 2;
  EXPECT_THROW(pca(ctx, d.csr(), o), InvalidArgument);
  o.scale = true;
  o.max_value = 0;
  EXPECT_THROW(pca(ctx, d.csr(), o), InvalidArgument);
  o = {};
  const std::vector<std::uint8_t> mask(7, 1);
  o.gene_mask = mask;
  EXPECT_THROW(pca(ctx, d.csr(), o), ShapeMismatch);
  d.values[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(pca(ctx, d.csr()), DataError);
  const std::atomic<bool> stop{true};
  Context cancelled = ctx;
  cancelled.cancelled = &stop;
  EXPECT_THROW(pca(cancelled, Data<float>(30, 8).csr()), Cancelled);
}

}  // namespace
}  // namespace scw::pp
