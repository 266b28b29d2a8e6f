#include "scwarp/pp/calculate_qc_metrics.hpp"

#include <cmath>
#include <limits>

#include "parity/parity.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::expect_equal;
using parity::Guarded;
using parity::HostCsr;
using parity::sample;
using parity::Values;

template <class T>
void append(const Context& ctx, const Array<T>& a, std::vector<double>& to) {
  for (const T v : to_host<T>(ctx, a.view())) to.push_back(static_cast<double>(v));
}

/// Everything one after the other: cells, families, shares, genes, the two counts.
template <class V>
std::vector<double> run(const Context& ctx, const HostCsr<V>& host, bool sparse,
                        const std::vector<std::vector<std::uint8_t>>& families, const std::vector<std::int64_t>& tops) {
  DeviceMatrix<V> x(ctx, host);
  std::vector<Guarded<std::uint8_t>> flags;
  flags.reserve(families.size());
  QcOptions options{.families = {}, .percent_top = tops};
  for (const auto& f : families) {
    flags.emplace_back(ctx, f);
    options.families.push_back(flags.back().cview());
  }
  const QcMetrics m = calculate_qc_metrics(ctx, scw::as_const(x.view(sparse)), options);
  std::vector<double> out;
  append(ctx, m.n_genes, out);
  append(ctx, m.total, out);
  for (const auto& f : m.family_total) append(ctx, f, out);
  for (const auto& t : m.pct_top) append(ctx, t, out);
  append(ctx, m.n_cells, out);
  append(ctx, m.gene_total, out);
  const AxisCounts cells = cell_counts(ctx, scw::as_const(x.view(sparse)));
  append(ctx, cells.total, out);
  append(ctx, cells.n_positive, out);
  const AxisCounts genes = gene_counts(ctx, scw::as_const(x.view(sparse)));
  append(ctx, genes.total, out);
  append(ctx, genes.n_positive, out);
  return out;
}

template <class V>
void check(const Context& cuda, const HostCsr<V>& host, std::size_t n_families, const std::vector<std::int64_t>& tops) {
  std::vector<std::vector<std::uint8_t>> families(n_families);
  for (std::size_t f = 0; f < n_families; ++f)
    for (std::int32_t j = 0; j < host.n_cols; ++j)
      families[f].push_back(static_cast<std::uint8_t>(j % static_cast<std::int32_t>(f + 3) == 1));
  for (const bool sparse : {true, false}) {
    SCOPED_TRACE(sparse ? "sparse" : "dense");
    expect_equal(run(Context::cpu(2), host, sparse, families, tops), run(cuda, host, sparse, families, tops));
  }
}

template <class V>
void check_values(const Context& cuda) {
  for (const Values kind :
       {Values::counts, Values::large_counts, Values::negative, Values::fractions, Values::wide, Values::not_finite}) {
    SCOPED_TRACE(static_cast<int>(kind));
    const auto host = sample<V>(400, 130, kind, 11);
    check(cuda, host, 0, {});
    check(cuda, host, 1, {50});
    check(cuda, host, 6, {7, 1, 50, 20, 130});
  }
}

TEST(QcParity, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_values<float>(cuda);
  check_values<double>(cuda);
}

TEST(QcParity, ManyGenesInSeveralTiles) {
  SCW_CUDA_CONTEXT(cuda);
  for (const Values kind : {Values::counts, Values::negative, Values::wide}) {
    SCOPED_TRACE(static_cast<int>(kind));
    check(cuda, sample<float>(60, 70000, kind, 5), 2, {50, 500});
    check(cuda, sample<double>(60, 40000, kind, 5), 5, {300, 30000});  // sorted outside shared memory
  }
}

TEST(QcParity, ManyRowsFlushSeveralTimes) {
  SCW_CUDA_CONTEXT(cuda);
  for (const double value : {32767.0, -32767.0, 40000.0, 0.7}) {
    HostCsr<float> x;
    x.n_rows = 9000000;  // over 65535 rows in each slab
    x.n_cols = 1;
    x.indices.assign(9000000, 0);
    x.values.assign(9000000, static_cast<float>(value));
    for (std::int64_t i = 0; i < x.n_rows; ++i) x.indptr.push_back(i + 1);
    DeviceMatrix<float> on_gpu(cuda, x);
    const AxisCounts genes = gene_counts(cuda, scw::as_const(on_gpu.view(true)));
    EXPECT_EQ(to_host<double>(cuda, genes.total.view())[0], static_cast<double>(static_cast<float>(value)) * 9000000);
    EXPECT_EQ(to_host<std::int32_t>(cuda, genes.n_positive.view())[0], value > 0 ? 9000000 : 0);
  }
}

TEST(QcParity, DeepCounts) {
  SCW_CUDA_CONTEXT(cuda);
  auto x = sample<float>(300, 900, Values::counts, 12);  // from a few to all counts of a cell above 255
  for (std::int64_t i = 0; i < x.n_rows; ++i)
    for (auto k = x.indptr[static_cast<std::size_t>(i)]; k < x.indptr[static_cast<std::size_t>(i) + 1]; ++k)
      if (math::random_uniform({3, 3}, static_cast<std::uint64_t>(k)) * 300 < static_cast<double>(i))
        x.values[static_cast<std::size_t>(k)] *= static_cast<float>(200 + k % 100);
  check(cuda, x, 1, {20, 50, 100, 200, 255, 256, 257, 300, 500, 900});
}

/// Enough for every kernel, little enough for the sanitizers.
TEST(QcParity, Small) {
  SCW_CUDA_CONTEXT(cuda);
  for (const Values kind : {Values::counts, Values::wide, Values::not_finite})
    check(cuda, sample<float>(45, 70, kind, 13), 2, {5, 60});
  check(cuda, sample<double>(45, 70, Values::large_counts, 13), 1, {5, 60});
}

TEST(QcParity, FewRowsAndGenes) {
  SCW_CUDA_CONTEXT(cuda);
  for (const std::int64_t rows : {0, 1, 2, 6}) {  // row 5 is empty
    SCOPED_TRACE(rows);
    check(cuda, sample<float>(rows, 40, Values::counts, 3), 1, {5});
    check(cuda, sample<double>(rows, 1, Values::fractions, 3), 1, {1});
  }
}

}  // namespace
}  // namespace scw::pp
