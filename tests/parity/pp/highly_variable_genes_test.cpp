#include "scwarp/pp/highly_variable_genes.hpp"

#include <cmath>

#include "parity/parity.hpp"
#include "scwarp/core/csr_defects.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::expect_equal;
using parity::Guarded;
using parity::HostCsr;

/// Counts of genes of different means and spreads, with a few far above the clip value of seurat_v3.
template <class V>
HostCsr<V> sample(std::int64_t rows, std::int32_t cols, double density, std::uint64_t seed) {
  auto x = HostCsr<V>::random(rows, cols, density, seed, true);
  for (std::size_t k = 0; k < x.values.size(); ++k) {
    const double u = math::random_uniform({seed, 7}, k);
    x.values[k] = static_cast<V>(1 + std::floor(u * u * (2 + x.indices[k] % 37)));
    if (u > 0.999) x.values[k] *= 1000;
  }
  return x;
}

template <class T>
void append(const Array<T>& a, std::vector<double>& to) {
  for (const T v : a) to.push_back(static_cast<double>(v));
}

template <class V>
std::vector<double> run(const Context& ctx, const HostCsr<V>& host, bool sparse, HighlyVariableGenesOptions options,
                        const std::vector<std::int32_t>& codes, std::int64_t block) {
  DeviceMatrix<V> x(ctx, host);
  const Guarded<std::int32_t> batches(ctx, codes);
  if (!codes.empty()) options.batches = batches.cview();
  const auto h = highly_variable_genes(ctx, ResidentBlocks(scw::as_const(x.view(sparse)), block), options);
  std::vector<double> out;
  append(h.highly_variable, out);
  append(h.means, out);
  append(h.dispersions, out);
  append(h.dispersions_norm, out);
  append(h.variances, out);
  append(h.variances_norm, out);
  append(h.observed_zeros, out);
  append(h.expected_zeros, out);
  append(h.zero_enrichment, out);
  append(h.rank, out);
  append(h.n_batches, out);
  append(h.intersection, out);
  return out;
}

template <class V>
void check(const Context& cuda, const HostCsr<V>& host, const std::vector<std::int32_t>& codes, std::int64_t block) {
  for (const HvgFlavor flavor :
       {HvgFlavor::seurat, HvgFlavor::cell_ranger, HvgFlavor::seurat_v3, HvgFlavor::seurat_v3_paper,
        HvgFlavor::pearson_residuals, HvgFlavor::poisson_gene_selection})
    for (const bool sparse : {true, false}) {
      SCOPED_TRACE(static_cast<int>(flavor));
      HighlyVariableGenesOptions o{.flavor = flavor, .n_top_genes = 30};
      o.n_batches = codes.empty() ? 0 : 3;
      HostCsr<V> x = host;
      if (flavor == HvgFlavor::seurat)
        for (V& v : x.values) v = static_cast<V>(std::log1p(static_cast<double>(v)));
      expect_equal(run(Context::cpu(2), x, sparse, o, codes, block), run(cuda, x, sparse, o, codes, block));
    }
}

TEST(HighlyVariableGenesParity, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  std::vector<std::int32_t> codes;
  for (std::int32_t i = 0; i < 500; ++i) codes.push_back(i % 19 == 0 ? -1 : i * 7 % 11 % 3);
  check(cuda, sample<float>(500, 180, 0.4, 3), {}, 0);
  check(cuda, sample<float>(500, 180, 0.4, 4), codes, 0);
  check(cuda, sample<double>(500, 180, 0.4, 5), codes, 120);
}

TEST(HighlyVariableGenesParity, ManyGenesInSeveralTiles) {
  SCW_CUDA_CONTEXT(cuda);
  const auto host = sample<float>(300, 70000, 0.02, 6);
  for (const HvgFlavor flavor : {HvgFlavor::cell_ranger, HvgFlavor::seurat_v3}) {
    const HighlyVariableGenesOptions o{.flavor = flavor, .n_top_genes = 500};
    expect_equal(run(Context::cpu(2), host, true, o, {}, 0), run(cuda, host, true, o, {}, 0));
  }
}

TEST(CsrDefectsParity, FindsWhatIsWrong) {
  std::vector<Context> contexts{Context::cpu(2)};
  if (unavailable_reason(DeviceType::cuda).empty()) contexts.push_back(Context::on({DeviceType::cuda, 0}));
  const auto host = HostCsr<float>::random(3000, 90, 0.3, 8, true);
  const auto last = static_cast<std::size_t>(host.indptr[2990]);
  for (const Context& ctx : contexts) {
    const auto defects = [&](const std::vector<std::int32_t>& columns, std::int32_t n_cols) {
      const Guarded<std::int64_t> indptr(ctx, host.indptr);
      const Guarded<std::int32_t> indices(ctx, columns);
      return csr_defects(ctx, n_cols, indptr.cview(), indices.cview());
    };
    EXPECT_EQ(defects(host.indices, 90), 0);
    EXPECT_EQ(defects(host.indices, 89), kColumnOutOfRange);
    auto changed = host.indices;
    std::swap(changed[last], changed[last + 1]);
    EXPECT_EQ(defects(changed, 90), kUnsortedColumns);
    changed = host.indices;
    changed[last + 1] = changed[last];
    EXPECT_EQ(defects(changed, 90), kUnsortedColumns);
    changed = host.indices;
    changed[last] = -1;
    EXPECT_EQ(defects(changed, 90), kColumnOutOfRange);
  }
}

}  // namespace
}  // namespace scw::pp
