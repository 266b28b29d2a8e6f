#include "scwarp/pp/highly_variable_genes.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "scwarp/core/error.hpp"
#include "scwarp/datasets/simulate.hpp"
#include "scwarp/pp/log1p.hpp"
#include "scwarp/pp/normalize_total.hpp"

namespace scw::pp {
namespace {

const datasets::Simulated& counts() {
  static const datasets::Simulated data = datasets::simulate(
      Context::cpu(2), {.n_cells = 700, .n_genes = 900, .n_clusters = 4, .n_batches = 2, .mean_counts = 1500});
  return data;
}
CsrView<const float> counts_view() { return counts().counts.view(); }

/// counts(), normalised and logarithmised.
struct Logarithms {
  std::vector<float> values;
  Logarithms() : values(counts().counts.values.begin(), counts().counts.values.end()) {
    normalize_total(Context::cpu(1), view(), {.target_sum = 1e4});
    log1p(Context::cpu(1), view());
  }
  CsrView<float> view() {
    const auto c = counts_view();
    return {c.n_rows, c.n_cols, c.indptr, c.indices, Span<float>(values)};
  }
};

void expect_same(const Array<double>& a, const Array<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::int64_t k = 0; k < a.size(); ++k)
    EXPECT_EQ(std::bit_cast<std::uint64_t>(a[k]), std::bit_cast<std::uint64_t>(b[k])) << k;
}
void expect_same(const HighlyVariableGenes& a, const HighlyVariableGenes& b) {
  for (const auto field :
       {&HighlyVariableGenes::means, &HighlyVariableGenes::dispersions, &HighlyVariableGenes::dispersions_norm,
        &HighlyVariableGenes::variances, &HighlyVariableGenes::variances_norm, &HighlyVariableGenes::rank,
        &HighlyVariableGenes::observed_zeros, &HighlyVariableGenes::expected_zeros,
        &HighlyVariableGenes::zero_enrichment})
    expect_same(a.*field, b.*field);
  EXPECT_TRUE(std::equal(a.highly_variable.begin(), a.highly_variable.end(), b.highly_variable.begin()));
}

TEST(HighlyVariableGenes, SameBitsForThreadsAndBlocks) {
  Logarithms log;
  for (const HvgFlavor flavor : {HvgFlavor::seurat, HvgFlavor::seurat_v3, HvgFlavor::poisson_gene_selection}) {
    for (const bool batched : {false, true}) {
      HighlyVariableGenesOptions o;
      o.flavor = flavor;
      o.n_top_genes = 120;
      if (batched) {
        o.batches = counts().batch.view();
        o.n_batches = 2;
      }
      const auto view = flavor == HvgFlavor::seurat ? CsrView<const float>(log.view()) : counts_view();
      const auto want = highly_variable_genes(Context::cpu(1), view, o);
      EXPECT_EQ(want.n_selected, 120);
      for (const int threads : {1, 2, 3})
        for (const std::int64_t block : {1, 77, 256})
          expect_same(want, highly_variable_genes(Context::cpu(threads), ResidentBlocks(view, block), o));
    }
  }
}

TEST(HighlyVariableGenes, FindsPlantedMarkers) {
  Logarithms log;
  std::int64_t markers = 0;
  for (const std::int32_t m : counts().marker_of) markers += m >= 0 ? 1 : 0;
  ASSERT_GT(markers, 20);
  for (const HvgFlavor flavor : {HvgFlavor::seurat, HvgFlavor::cell_ranger, HvgFlavor::seurat_v3}) {
    HighlyVariableGenesOptions o;
    o.flavor = flavor;
    o.n_top_genes = 2 * markers;
    o.filter_unexpressed_genes = true;
    const auto view = flavor == HvgFlavor::seurat ? CsrView<const float>(log.view()) : counts_view();
    const auto h = highly_variable_genes(Context::cpu(2), view, o);
    std::int64_t found = 0;
    for (std::int64_t j = 0; j < 900; ++j) found += counts().marker_of[j] >= 0 && h.highly_variable[j] != 0 ? 1 : 0;
    const double share = static_cast<double>(found) / static_cast<double>(markers);
    EXPECT_GT(share, 1.5 * static_cast<double>(2 * markers) / 900) << static_cast<int>(flavor);
  }
}

TEST(HighlyVariableGenes, OneBatchIsNoBatch) {
  const std::vector<std::int32_t> zeros(700, 0);
  HighlyVariableGenesOptions o;
  o.flavor = HvgFlavor::seurat_v3;
  o.n_top_genes = 50;
  const auto plain = highly_variable_genes(Context::cpu(2), counts_view(), o);
  o.batches = zeros;
  o.n_batches = 1;
  expect_same(plain, highly_variable_genes(Context::cpu(2), counts_view(), o));
}

TEST(HighlyVariableGenes, StandardisedVarianceByHand) {
  // Without values beyond the clip, variances_norm is variance / predicted variance, and its mean over genes is near 1.
  HighlyVariableGenesOptions o;
  o.flavor = HvgFlavor::seurat_v3;
  o.n_top_genes = 10;
  const auto h = highly_variable_genes(Context::cpu(1), counts_view(), o);
  EXPECT_TRUE(h.counts);
  double sum = 0;
  for (std::int64_t j = 0; j < 900; ++j) {
    sum += h.variances_norm[j];
    EXPECT_GE(h.variances_norm[j], 0);
    EXPECT_EQ(h.variances_norm[j] == 0, h.variances[j] == 0) << j;
    EXPECT_EQ(h.highly_variable[j] != 0, h.rank[j] < 10) << j;
  }
  EXPECT_NEAR(sum / 900, 1, 0.25);
}

TEST(HighlyVariableGenes, PoissonZerosByHand) {
  // Totals of the cells 3, 0, 5 and of the genes 4, 4, 0; the last cell is in no batch.
  const std::vector<double> values{0, 3, 0, 0, 0, 0, 4, 1, 0, 9, 9, 9};
  const MatrixView<const double> x(values.data(), 4, 3);
  const std::vector<std::int32_t> codes{0, 0, 0, -1};
  HighlyVariableGenesOptions o{.flavor = HvgFlavor::poisson_gene_selection, .n_top_genes = 1};
  o.batches = Span<const std::int32_t>(codes);
  o.n_batches = 1;
  const auto h = highly_variable_genes(Context::cpu(2), x, o);
  const double expected = (std::exp(-1.5) + 1 + std::exp(-2.5)) / 3;
  const double observed[] = {2.0 / 3, 1.0 / 3, 1.0};
  for (std::int64_t j = 0; j < 3; ++j) {
    const double e = j < 2 ? expected : 1.0;
    EXPECT_NEAR(h.observed_zeros[j], observed[j], 1e-15);
    EXPECT_NEAR(h.expected_zeros[j], e, 1e-13);
    EXPECT_NEAR(h.zero_enrichment[j], observed[j] * (1 - e), 1e-13);
    EXPECT_EQ(h.rank[j], (std::vector<double>{2, 1, 0})[static_cast<std::size_t>(j)]);
    EXPECT_EQ(h.n_batches[j], j == 0 ? 1 : 0);
    EXPECT_EQ(h.highly_variable[j], j == 0 ? 1 : 0);
  }
  EXPECT_EQ(h.expected_zeros[2], 1.0);
  EXPECT_EQ(h.n_selected, 1);
  const std::vector<double> negative{1, -3, 2, 1};
  EXPECT_THROW(highly_variable_genes(Context::cpu(1), MatrixView<const double>(negative.data(), 2, 2),
                                     {.flavor = HvgFlavor::poisson_gene_selection}),
               DataError);
}

TEST(HighlyVariableGenes, Errors) {
  const Context ctx = Context::cpu(1);
  const auto run = [&](const auto& change) {
    HighlyVariableGenesOptions o;
    change(o);
    return highly_variable_genes(ctx, counts_view(), o);
  };
  EXPECT_THROW(run([](auto& o) { o.n_top_genes = 0; }), InvalidArgument);
  EXPECT_THROW(run([](auto& o) { o.n_bins = 0; }), InvalidArgument);
  EXPECT_THROW(run([](auto& o) { o.span = 0; }), InvalidArgument);
  EXPECT_THROW(run([](auto& o) { o.log_base = 1.0; }), InvalidArgument);
  EXPECT_THROW(run([](auto& o) { o.n_batches = 2; }), ShapeMismatch);
  const std::vector<float> nan(12, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW(highly_variable_genes(ctx, MatrixView<const float>(nan.data(), 4, 3)), DataError);
  EXPECT_THROW(highly_variable_genes(ctx, MatrixView<const float>(nan.data(), 0, 3)), InvalidArgument);
}

}  // namespace
}  // namespace scw::pp
