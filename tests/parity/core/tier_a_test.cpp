// Tier A: one list of seeded cases whose results have the same bits on every device, for any number of threads, any
// block size, streamed or resident. The digests of the results are stored in tests/parity/core/digests.list, so that
// the CPU's answers are pinned without a GPU, and a GPU's answers without a CPU run beside it.
//
// TierACpu checks the CPU against the file (1 and 3 threads, several block sizes), TierACuda a device: 20 reruns, each
// way of feeding the data in turn. TierASmall is one resident and one streamed run of the smallest shape, for
// compute-sanitizer. SCWARP_WRITE_DIGESTS=FILE test_parity --gtest_filter='*TierACpu*' writes the file anew.
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "core/parallel.hpp"
#include "parity/parity.hpp"
#include "scwarp/core/csr_defects.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/get/aggregate.hpp"
#include "scwarp/pp/calculate_qc_metrics.hpp"
#include "scwarp/pp/gene_moments.hpp"
#include "scwarp/pp/highly_variable_genes.hpp"
#include "scwarp/pp/log1p.hpp"
#include "scwarp/pp/neighbors.hpp"
#include "scwarp/pp/normalize_pearson_residuals.hpp"
#include "scwarp/pp/normalize_total.hpp"
#include "scwarp/pp/regress_out.hpp"
#include "scwarp/pp/scale.hpp"
#include "scwarp/pp/sqrt.hpp"
#include "scwarp/pp/subset.hpp"
#include "scwarp/tl/leiden.hpp"
#include "scwarp/tl/rank_genes_groups.hpp"
#include "scwarp/tl/score_genes.hpp"

namespace scw {
namespace {

using parity::Guarded;
using parity::HostCsr;

const std::map<std::string, std::uint64_t> kDigests{
#include "parity/core/digests.list"
};

/// A 64-bit digest of everything that is added, in order. All NaN count as one.
class Digest {
 public:
  explicit Digest(const Context& ctx) : ctx_(ctx) {}

  void number(std::uint64_t v) { state_ = (std::rotl(state_, 27) ^ v) * 0x9E3779B97F4A7C15ull + 0x165667B19E3779F9ull; }
  template <class T>
  void value(T v) {
    if constexpr (std::is_floating_point_v<T>) {
      number(std::isnan(v) ? 0x7FF8000000000000ull : std::bit_cast<std::uint64_t>(static_cast<double>(v)));
    } else {
      number(static_cast<std::uint64_t>(v));
    }
  }
  template <class T>
  void add(const std::vector<T>& values) {
    number(values.size());
    for (const T v : values) value(v);
  }
  template <class T>
  void add(const Array<T>& a) {
    if (a.empty()) return number(0);
    add_span(a.device().type == DeviceType::cpu ? Span<const T>(a.data(), a.size()) : fetched(a).view());
  }
  template <class T>
  void add(const Matrix<T>& m) {
    number(static_cast<std::uint64_t>(m.n_rows));
    add(m.data);
  }
  template <class T>
  void add(const Csr<T>& m) {
    add(m.indptr);
    add(m.indices);
    add(m.values);
  }
  /// Values that went through the C library (logarithms on the host), whose last bits differ between its versions.
  void add_rounded(const Array<double>& a) {
    number(static_cast<std::uint64_t>(a.size()));
    for (const double v : a) value(std::isfinite(v) ? static_cast<double>(static_cast<float>(v)) : v);
  }
  std::uint64_t finish() const { return state_ ^ (state_ >> 31); }

 private:
  template <class T>
  Array<T> fetched(const Array<T>& a) {
    return to_host<T>(ctx_, {a.data(), a.size()});
  }
  template <class T>
  void add_span(Span<const T> s) {
    number(static_cast<std::uint64_t>(s.size));
    for (std::int64_t i = 0; i < s.size; ++i) value(s.data[i]);
  }
  const Context& ctx_;
  std::uint64_t state_ = 0x27220A95FE1D0000ull;
};

/// How the data reach an operation.
struct Feeding {
  bool streamed = false;         // the matrix is on the host, the context on a device
  std::int64_t block_bytes = 0;  // of streamed blocks
  std::int64_t block_rows = 0;   // of RowBlocks
};

template <class V>
struct Run {
  const Context& ctx;  // with block_bytes
  const Feeding& feeding;
  const HostCsr<V>& x;
  bool sparse;
  Digest& digest;

  /// The matrix where the feeding wants it.
  struct Held {
    Context ctx;
    parity::DeviceMatrix<V> matrix;
    bool sparse;
    Held(const Context& where, const HostCsr<V>& x, bool s) : ctx(where), matrix(ctx, x), sparse(s) {}
    AnyMutableMatrixView view() { return matrix.view(sparse); }
    AnyMatrixView cview() { return scw::as_const(matrix.view(sparse)); }
  };
  std::unique_ptr<Held> held(const HostCsr<V>& values, bool may_stream = true) const {
    return std::make_unique<Held>(may_stream && feeding.streamed ? Context::cpu(2) : ctx, values, sparse);
  }
  std::unique_ptr<Held> held(bool may_stream = true) const { return held(x, may_stream); }
  /// Codes -1 (none), 0, 1, 2 of the rows.
  std::vector<std::int32_t> codes() const {
    std::vector<std::int32_t> out;
    for (std::int64_t i = 0; i < x.n_rows; ++i) out.push_back(i % 9 == 0 ? -1 : static_cast<std::int32_t>(i * 7 % 3));
    return out;
  }
};

/// Fractions with an exact, order-free sum as well as counts: x / 3 rounded, some of them negative.
template <class V>
HostCsr<V> fractions(HostCsr<V> x) {
  for (std::size_t k = 0; k < x.values.size(); ++k) {
    x.values[k] = x.values[k] / V{3};
    if (k % 11 == 4) x.values[k] = -x.values[k];
  }
  return x;
}

// --- the operations
// -------------------------------------------------------------------------------------------------

template <class V>
void qc(const Run<V>& r) {
  std::vector<std::uint8_t> family;
  for (std::int32_t j = 0; j < r.x.n_cols; ++j) family.push_back(j % 5 == 1);
  const Guarded<std::uint8_t> flags(r.ctx, family);
  for (const bool whole : {true, false}) {
    // A streamed matrix must hold counts: sums of other blocks could differ from those of the whole.
    const auto m = r.held(whole ? r.x : fractions(r.x), whole);
    const auto q = pp::calculate_qc_metrics(r.ctx, m->cview(), {.families = {flags.cview()}, .percent_top = {5, 50}});
    r.digest.add(q.n_genes);
    r.digest.add(q.total);
    r.digest.add(q.family_total[0]);
    for (const auto& t : q.pct_top) r.digest.add(t);
    r.digest.add(q.n_cells);
    r.digest.add(q.gene_total);
  }
}
template <class V>
void counts(const Run<V>& r) {
  const auto m = r.held();
  for (const bool genes : {false, true}) {
    const pp::AxisCounts a = genes ? pp::gene_counts(r.ctx, m->cview()) : pp::cell_counts(r.ctx, m->cview());
    r.digest.add(a.total);
    r.digest.add(a.n_positive);
  }
}
template <class V>
void normalize_total(const Run<V>& r) {
  for (const auto& o : {pp::NormalizeTotalOptions{}, pp::NormalizeTotalOptions{1e4, false, 0.05},
                        pp::NormalizeTotalOptions{{}, true, 0.1}}) {
    const auto m = r.held();
    const auto n = pp::normalize_total(r.ctx, m->view(), o);
    r.ctx.synchronize();
    r.digest.add(n.counts);
    r.digest.value(n.target_sum);
    r.digest.add(m->matrix.result(r.sparse));
  }
}
template <class V>
void log1p(const Run<V>& r) {
  for (const auto& o : {pp::Log1pOptions{}, pp::Log1pOptions{2.0}}) {
    const auto m = r.held();
    pp::log1p(r.ctx, m->view(), o);
    r.ctx.synchronize();
    r.digest.add(m->matrix.result(r.sparse));
  }
}
template <class V>
void sqrt(const Run<V>& r) {
  const auto m = r.held();
  pp::sqrt(r.ctx, m->view());
  r.ctx.synchronize();
  r.digest.add(m->matrix.result(r.sparse));
}
template <class V>
void gene_moments(const Run<V>& r) {
  const Guarded<std::int32_t> codes(r.ctx, r.codes());
  for (const auto& values : {r.x, fractions(r.x)}) {
    const auto m = r.held(values);
    const ResidentBlocks blocks(m->cview(), r.feeding.block_rows);
    for (const auto& o : {pp::GeneMomentsOptions{}, pp::GeneMomentsOptions{.expm1 = true, .expm1_scale = 0.1},
                          pp::GeneMomentsOptions{.groups = codes.cview(), .n_groups = 3, .with_total = true}}) {
      const auto g = pp::gene_moments(r.ctx, blocks, o);
      r.digest.add(g.mean);
      r.digest.add(g.variance);
      r.digest.add(g.n_rows);
    }
  }
}
template <class V>
void highly_variable_genes(const Run<V>& r) {
  const Guarded<std::int32_t> batches(r.ctx, r.codes());
  const auto m = r.held();
  const auto small = r.held(fractions(fractions(r.x)));
  for (const auto flavor :
       {pp::HvgFlavor::seurat, pp::HvgFlavor::cell_ranger, pp::HvgFlavor::seurat_v3, pp::HvgFlavor::seurat_v3_paper,
        pp::HvgFlavor::pearson_residuals, pp::HvgFlavor::poisson_gene_selection})
    for (const bool batched : {false, true}) {
      pp::HighlyVariableGenesOptions o{.flavor = flavor, .n_top_genes = 20};
      if (batched) {
        o.batches = batches.cview();
        o.n_batches = 3;
      }
      const bool logs = flavor == pp::HvgFlavor::seurat;
      const auto h =
          pp::highly_variable_genes(r.ctx, ResidentBlocks((logs ? small : m)->cview(), r.feeding.block_rows), o);
      r.digest.add(h.highly_variable);
      r.digest.add_rounded(h.means);
      r.digest.add_rounded(h.dispersions);
      r.digest.add_rounded(h.dispersions_norm);
      r.digest.add(h.variances);
      r.digest.add_rounded(h.variances_norm);
      r.digest.add_rounded(h.zero_enrichment);
      r.digest.add(h.rank);
    }
}
template <class V>
void scale(const Run<V>& r) {
  for (const bool centre : {false, true}) {
    if (centre && r.sparse) continue;
    const auto m = r.held();
    const auto s = pp::scale(r.ctx, m->view(), {.zero_center = centre, .max_value = 2.0});
    r.ctx.synchronize();
    r.digest.add(s.mean);
    r.digest.add(s.std);
    r.digest.add(m->matrix.result(r.sparse));
  }
}
template <class V>
void scale_to_dense(const Run<V>& r) {
  const auto m = r.held();
  AnyDenseMatrix out;
  pp::scale_to_dense(r.ctx, CsrView<const V>(std::get<CsrView<V>>(m->matrix.view(true))), out, {.max_value = 3.0});
  r.digest.add(std::get<Matrix<V>>(out));
}
template <class V>
void normalize_pearson_residuals(const Run<V>& r) {
  const auto m = r.held(false);
  AnyDenseMatrix out;
  pp::normalize_pearson_residuals(r.ctx, m->cview(), out);
  r.digest.add(std::get<Matrix<V>>(out));
}
template <class V>
void regress_out_categories(const Run<V>& r) {
  std::vector<std::int32_t> code = r.codes();
  for (auto& c : code) c = std::max(c, 0);
  const Guarded<std::int32_t> codes(r.ctx, code);
  const auto m = r.held(false);
  AnyDenseMatrix out;
  pp::regress_out_categories_to_dense(r.ctx, CsrView<const V>(std::get<CsrView<V>>(m->matrix.view(true))), out,
                                      codes.cview(), 3);
  r.digest.add(std::get<Matrix<V>>(out));
}
template <class V>
void subset(const Run<V>& r) {
  std::vector<std::uint8_t> cells, genes;
  for (std::int64_t i = 0; i < r.x.n_rows; ++i) cells.push_back(i % 7 != 2);
  for (std::int64_t j = 0; j < r.x.n_cols; ++j) genes.push_back(j % 3 != 1);
  const auto m = r.held(false);
  const AnyMatrix s = pp::subset(r.ctx, m->cview(), cells, genes);
  std::visit([&](const auto& x) { r.digest.add(x); }, s);
  if (const auto* csr = std::get_if<Csr<V>>(&s))
    r.digest.value(csr_defects(r.ctx, csr->n_cols, csr->indptr.view(), csr->indices.view()));
}
template <class V>
void aggregate(const Run<V>& r) {
  const auto codes = r.codes();
  for (const auto& values : {r.x, fractions(r.x)}) {
    const auto m = r.held(values, false);
    const auto a = get::aggregate(r.ctx, m->cview(), codes, 3,
                                  {.sum = true, .mean = true, .var = true, .sq_sum = true, .count_nonzero = true});
    r.digest.add(a.sum);
    r.digest.add(a.mean);
    r.digest.add(a.var);
    r.digest.add(a.sq_sum);
    r.digest.add(a.count_nonzero);
  }
}
/// Medians on the device: of the cells' totals (odd and even numbers of them, with empty cells), and of the genes of a
/// group, with negative values, stored zeros and values that are not finite.
template <class V>
void medians(const Run<V>& r) {
  const auto codes = r.codes();
  for (const std::int64_t leave_out : {0, 1}) {
    HostCsr<V> x = r.x;
    for (std::int64_t i = 0; i < x.n_rows; ++i) {
      const bool empties = i % 6 == 1 || i < leave_out;
      for (auto k = x.indptr[static_cast<std::size_t>(i)]; empties && k < x.indptr[static_cast<std::size_t>(i) + 1];
           ++k)
        x.values[static_cast<std::size_t>(k)] = 0;
    }
    const auto m = r.held(x);
    const auto f = pp::size_factors(r.ctx, ResidentBlocks(m->cview(), r.feeding.block_rows), {});
    r.digest.add(f.counts);
    r.digest.value(f.target_sum);
    HostCsr<V> values = fractions(x);
    const std::size_t n = values.values.size();
    if (leave_out == 1 && n > 5) {
      values.values[n / 3] = std::numeric_limits<V>::quiet_NaN();
      values.values[n / 2] = std::numeric_limits<V>::infinity();
      values.values[n / 2 + 1] = -std::numeric_limits<V>::infinity();
    }
    const auto y = r.held(values);
    const auto a = get::aggregate(r.ctx, ResidentBlocks(y->cview(), r.feeding.block_rows), codes, 3,
                                  {.count_nonzero = true, .median = true});
    r.digest.add(a.median);
    r.digest.add(a.count_nonzero);
  }
}
template <class V>
void score_genes(const Run<V>& r) {
  const auto m = r.held(fractions(r.x), false);
  std::vector<std::int32_t> genes, control;
  for (std::int32_t j = 0; j < r.x.n_cols; ++j) (j % 5 == 0 ? genes : control).push_back(j);
  r.digest.add(tl::score_genes(r.ctx, m->cview(), genes, control));
  r.digest.add(tl::nan_mean_of_genes(r.ctx, m->cview()));
}
template <class V>
void rank_genes_groups(const Run<V>& r) {
  const auto codes = r.codes();
  const auto m = r.held(false);
  for (const auto test : {tl::RankTest::t_test, tl::RankTest::t_test_overestim_var, tl::RankTest::wilcoxon,
                          tl::RankTest::wilcoxon_binned})
    for (const bool reference : {false, true}) {
      tl::RankGenesGroupsOptions o;
      o.test = test;
      o.pts = o.tie_correct = true;
      if (reference) o.reference = 1;
      const auto g = tl::rank_genes_groups(r.ctx, m->cview(), codes, 3, o);
      r.digest.add(g.order);
      r.digest.add(g.scores);
      r.digest.add_rounded(g.pvals.data);
      r.digest.add_rounded(g.logfoldchanges.data);
      r.digest.add(g.pts);
    }
}
/// Exact neighbours of 13 coordinates, their graph, and its communities.
template <class V>
void neighbors_and_leiden(const Run<V>& r) {
  const std::int64_t n = r.x.n_rows, d = 13;
  std::vector<V> points;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < d; ++k) {
      const auto item = static_cast<std::uint64_t>(i * d + k), cluster = static_cast<std::uint64_t>(i % 5);
      const double centre = std::floor(math::random_uniform({5, 1}, cluster, static_cast<std::uint64_t>(k)) * 8);
      points.push_back(static_cast<V>(centre + std::floor(math::random_uniform({5, 2}, item) * 4096) / 1024));
    }
  const Guarded<V> on(r.ctx, points);
  const MatrixView<const V> view(on.cview().data, n, d);
  for (const auto metric : {pp::Metric::euclidean, pp::Metric::manhattan, pp::Metric::cosine})
    for (const auto method : {pp::ConnectivityMethod::umap, pp::ConnectivityMethod::gauss}) {
      pp::NeighborsOptions o;
      o.knn.n_neighbors = 10;
      o.knn.metric = metric;
      o.knn.algorithm = pp::KnnAlgorithm::brute;
      o.method = method;
      const auto graph = pp::neighbors(r.ctx, view, o);
      r.digest.add(graph.knn.indices);
      r.digest.add(graph.knn.distances);
      r.digest.add(graph.connectivities);
      const auto& c = graph.connectivities;
      const CsrView<const float> edges(n, static_cast<std::int32_t>(n), c.indptr.view(), c.indices.view(),
                                       c.values.view());
      for (const double resolution : {0.5, 2.0}) {
        const auto l = tl::leiden(r.ctx, edges, {.resolution = resolution});
        r.digest.add(l.labels);
        r.digest.value(l.modularity);
        r.digest.value(l.n_iterations);
      }
    }
}

// --- the list
// -------------------------------------------------------------------------------------------------------

struct Case {
  std::string name;
  std::int64_t n_rows;
  std::int32_t n_cols;
  bool streams;  // takes a matrix on the host with a context on a device, and row blocks
  std::function<std::uint64_t(const Context&, const Feeding&)> run;
};

template <class V>
void append(std::vector<Case>& out, const std::string& operation, bool streams, bool dense_too,
            void (*body)(const Run<V>&)) {
  for (const auto& [shape, rows, cols] :
       {std::tuple{"small", 45, 70}, {"medium", 700, 300}, {"wide", 90, 15000}, {"few", 2, 60}, {"tall", 20011, 9}}) {
    if (rows > 10000 && operation != "medians") continue;
    // Fewer cells than neighbours, percentiles or groups need.
    if (rows == 2 && (operation == "neighbors_and_leiden" || operation == "highly_variable_genes" ||
                      operation == "rank_genes_groups"))
      continue;
    if (cols > 1000 && operation == "highly_variable_genes") continue;  // most genes have no counts
    for (const bool sparse : {true, false}) {
      if (!sparse && !dense_too) continue;
      const std::string name =
          operation + (sizeof(V) == 4 ? "_float" : "_double") + (sparse ? "_sparse_" : "_dense_") + shape;
      out.push_back({name, rows, cols, streams, [=](const Context& given, const Feeding& feeding) {
                       static std::map<std::pair<int, int>, HostCsr<V>> tables;
                       auto& x = tables[{rows, cols}];
                       if (x.n_rows == 0) x = HostCsr<V>::random(rows, cols, cols > 1000 ? 0.02 : 0.25, 19, true);
                       Context ctx = given;
                       ctx.block_bytes = feeding.block_bytes;
                       Digest digest(ctx);
                       body({ctx, feeding, x, sparse, digest});
                       return digest.finish();
                     }});
    }
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
#define SCW_TIER_A(operation, streams, dense_too)                        \
  append<float>(all, #operation, streams, dense_too, &operation<float>); \
  append<double>(all, #operation, streams, dense_too, &operation<double>)
  SCW_TIER_A(qc, true, true);
  SCW_TIER_A(counts, true, true);
  SCW_TIER_A(normalize_total, true, true);
  SCW_TIER_A(log1p, true, true);
  SCW_TIER_A(sqrt, true, true);
  SCW_TIER_A(gene_moments, true, true);
  SCW_TIER_A(highly_variable_genes, true, true);
  SCW_TIER_A(scale, true, true);
  SCW_TIER_A(scale_to_dense, true, false);
  SCW_TIER_A(normalize_pearson_residuals, false, true);
  SCW_TIER_A(regress_out_categories, false, false);
  SCW_TIER_A(subset, false, true);
  SCW_TIER_A(aggregate, false, true);
  SCW_TIER_A(medians, true, true);
  SCW_TIER_A(score_genes, false, true);
  SCW_TIER_A(rank_genes_groups, false, true);
  SCW_TIER_A(neighbors_and_leiden, false, false);
#undef SCW_TIER_A
  return all;
}

class TierA : public testing::TestWithParam<Case> {
 protected:
  /// Every way of feeding the data that the case takes; the first is the plain one.
  static std::vector<Feeding> feedings(const Case& c, bool on_device) {
    std::vector<Feeding> all{{}};
    if (!c.streams) return all;
    const bool small = c.n_rows < 100;
    for (const std::int64_t rows : {small ? 1 : 190, small ? 17 : 500}) all.push_back({.block_rows = rows});
    if (on_device)
      for (const std::int64_t bytes : {0, small ? 3000 : 60000, 300000})
        all.push_back({.streamed = true, .block_bytes = bytes});
    return all;
  }
  static void expect_stored(const Case& c, std::uint64_t got) {
    const auto stored = kDigests.find(c.name);
    ASSERT_NE(stored, kDigests.end()) << "no digest for " << c.name << ": write tests/parity/core/digests.list anew";
    EXPECT_EQ(got, stored->second) << c.name;
  }
};
class TierACpu : public TierA {};
class TierACuda : public TierA {};
class TierASmall : public TierA {};

TEST_P(TierACpu, HasTheStoredDigest) {
  const Case& c = GetParam();
  const std::uint64_t got = c.run(Context::cpu(1), {});
  if (const char* const path = std::getenv("SCWARP_WRITE_DIGESTS"); path != nullptr) {
    static std::map<std::string, std::uint64_t> written;
    written[c.name] = got;
    std::ofstream file(path);
    for (const auto& [name, digest] : written) file << "{\"" << name << "\", " << digest << "ull},\n";
    return;
  }
  expect_stored(c, got);
  for (const Feeding& f : feedings(c, false)) EXPECT_EQ(c.run(Context::cpu(3), f), got) << "blocks of " << f.block_rows;
}

TEST_P(TierACuda, HasTheStoredDigestTwentyTimes) {
  SCW_CUDA_CONTEXT(cuda);
  const Case& c = GetParam();
  const auto ways = feedings(c, true);
  for (std::size_t rerun = 0; rerun < 20 && !HasFailure(); ++rerun) {
    const Feeding& f = ways[rerun % ways.size()];
    SCOPED_TRACE(testing::Message() << "rerun " << rerun << (f.streamed ? " streamed" : " resident") << " block bytes "
                                    << f.block_bytes << " rows " << f.block_rows);
    expect_stored(c, c.run(cuda, f));
  }
}

TEST_P(TierASmall, OnCuda) {
  SCW_CUDA_CONTEXT(cuda);
  const Case& c = GetParam();
  expect_stored(c, c.run(cuda, {}));
  if (c.streams) expect_stored(c, c.run(cuda, {.streamed = true, .block_bytes = 3000, .block_rows = 20}));
}

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
std::string name_of(const testing::TestParamInfo<Case>& info) { return info.param.name; }
std::vector<Case> small_cases() {
  auto all = cases();
  std::erase_if(all, [](const Case& c) { return c.n_rows != 45; });
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, TierACpu, testing::ValuesIn(cases()), name_of);
INSTANTIATE_TEST_SUITE_P(All, TierACuda, testing::ValuesIn(cases()), name_of);
INSTANTIATE_TEST_SUITE_P(All, TierASmall, testing::ValuesIn(small_cases()), name_of);

/// The list would be worth nothing if a digest did not see a change.
TEST(TierADigest, SeesEveryBit) {
  const Context ctx = Context::cpu(1);
  const auto of = [&](const std::vector<double>& v) {
    Digest d(ctx);
    d.add(v);
    return d.finish();
  };
  EXPECT_NE(of({1, 2}), of({2, 1}));
  EXPECT_NE(of({0.0}), of({-0.0}));
  EXPECT_NE(of({1.0}), of({std::nextafter(1.0, 2.0)}));
  EXPECT_NE(of({}), of({0.0}));
  EXPECT_EQ(of({std::nan("1")}), of({std::nan("2")}));
}

}  // namespace
}  // namespace scw
