#include "scwarp/datasets/simulate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "scwarp/core/error.hpp"

namespace scw::datasets {
namespace {

Simulated make(int threads, SimulateOptions o, std::uint64_t seed = 0) {
  Context ctx = Context::cpu(threads);
  ctx.rng.seed = seed;
  return simulate(ctx, o);
}

template <class A>
std::vector<typename A::value_type> values(const A& a) {
  return {a.begin(), a.end()};
}

TEST(Simulate, SameBitsForAnyNumberOfThreads) {
  const SimulateOptions o{.n_cells = 300, .n_genes = 500, .n_batches = 2};
  const auto one = make(1, o);
  for (const int threads : {2, 3}) {
    const auto many = make(threads, o);
    EXPECT_EQ(values(one.counts.indptr), values(many.counts.indptr));
    EXPECT_EQ(values(one.counts.indices), values(many.counts.indices));
    EXPECT_EQ(values(one.counts.values), values(many.counts.values));
    EXPECT_EQ(values(one.cluster), values(many.cluster));
  }
  EXPECT_NE(values(one.counts.values), values(make(1, o, 1).counts.values));
}

TEST(Simulate, MoreCellsExtendTheSameData) {
  const auto small = make(1, {.n_cells = 50, .n_genes = 200});
  const auto large = make(1, {.n_cells = 80, .n_genes = 200});
  const auto nnz = small.counts.indices.size();
  EXPECT_TRUE(std::equal(small.counts.values.begin(), small.counts.values.end(), large.counts.values.begin()));
  EXPECT_EQ(nnz, large.counts.indptr[50]);
}

TEST(Simulate, IsValidCsrOfWholeCounts) {
  const auto d = make(2, {.n_cells = 200, .n_genes = 1000});
  for (std::int64_t i = 0; i < 200; ++i) {
    ASSERT_LT(d.counts.indptr[i], d.counts.indptr[i + 1]);
    for (auto k = d.counts.indptr[i]; k < d.counts.indptr[i + 1]; ++k) {
      ASSERT_GE(d.counts.values[k], 1.0f);
      ASSERT_EQ(d.counts.values[k], std::floor(d.counts.values[k]));
      ASSERT_LT(d.counts.indices[k], 1000);
      if (k > d.counts.indptr[i]) {
        ASSERT_LT(d.counts.indices[k - 1], d.counts.indices[k]);
      }
    }
  }
}

TEST(Simulate, HasThePromisedStructure) {
  const auto d = make(2, {.n_cells = 2000, .n_genes = 20000, .n_clusters = 5});
  double total = 0, intact = 0, doublets = 0, damaged = 0;
  std::vector<double> mt(2000), in(5), out(5), n(5);
  for (std::int64_t i = 0; i < 2000; ++i) {
    double cell = 0;
    for (auto k = d.counts.indptr[i]; k < d.counts.indptr[i + 1]; ++k) {
      cell += d.counts.values[k];
      const std::int32_t g = d.counts.indices[k];
      if (g < d.n_mitochondrial) mt[static_cast<std::size_t>(i)] += d.counts.values[k];
      if (d.marker_of[g] >= 0)
        (d.marker_of[g] == d.cluster[i] ? in : out)[static_cast<std::size_t>(d.marker_of[g])] += d.counts.values[k];
    }
    mt[static_cast<std::size_t>(i)] /= cell;
    n[static_cast<std::size_t>(d.cluster[i])] += 1;
    doublets += d.is_doublet[i];
    damaged += d.is_damaged[i];
    if (d.is_doublet[i] == 0 && d.is_damaged[i] == 0) {
      total += cell;
      intact += 1;
      EXPECT_LT(mt[static_cast<std::size_t>(i)], 0.13);
    }
    if (d.is_damaged[i] != 0) {
      EXPECT_GT(mt[static_cast<std::size_t>(i)], 0.13);
    }
  }
  EXPECT_NEAR(total / intact, 3000, 100);
  EXPECT_NEAR(static_cast<double>(d.counts.indices.size()) / 2000, 1450, 150);
  EXPECT_NEAR(doublets / 2000, 0.05, 0.02);
  EXPECT_NEAR(damaged / 2000, 0.04, 0.02);
  for (std::size_t c = 0; c < 5; ++c) EXPECT_GT(in[c] / n[c], 5 * out[c] / (2000 - n[c]));
  EXPECT_GT(n[0], n[4]);
}

TEST(Simulate, NamesAreUnique) {
  const auto d = make(1, {.n_cells = 0, .n_genes = 1000});
  std::set<std::string> names;
  for (std::int64_t j = 0; j < 1000; ++j) names.insert(simulated_gene_name(d, j));
  EXPECT_EQ(names.size(), 1000u);
  EXPECT_EQ(simulated_gene_name(d, 0), "MT-ND1");
  EXPECT_EQ(simulated_cell_name(0), "CELL0000001");
}

TEST(Simulate, RefusesBadOptions) {
  EXPECT_THROW(make(1, {.n_cells = -1}), InvalidArgument);
  EXPECT_THROW(make(1, {.n_genes = 10}), InvalidArgument);
  EXPECT_THROW(make(1, {.n_clusters = 0}), InvalidArgument);
  EXPECT_THROW(make(1, {.n_batches = 0}), InvalidArgument);
  EXPECT_THROW(make(1, {.doublet_rate = 1}), InvalidArgument);
  EXPECT_THROW(make(1, {.mean_counts = 0}), InvalidArgument);
}

}  // namespace
}  // namespace scw::datasets
