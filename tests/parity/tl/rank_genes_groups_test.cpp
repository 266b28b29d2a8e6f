#include "scwarp/tl/rank_genes_groups.hpp"

#include <algorithm>
#include <string>

#include "parity/parity.hpp"
#include "prim/group_moments/group_moments.hpp"
#include "tl/rank_genes_groups/kernel.hpp"

namespace scw::tl {
namespace {

using parity::DeviceMatrix;
using parity::expect_same_bits;
using parity::HostCsr;

struct Case {
  const char* name;
  std::int64_t rows = 700;
  std::int32_t cols = 61;
  std::int32_t groups = 5;
  double density = 0.3;
  bool whole = false;     // many ties
  bool negative = false;  // a third of the values
  bool stored_zeros = false;
  std::size_t limit = 0;  // of the workspace
};

void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

/// Gene 1 is empty, gene 2 constant, gene 3 dense; the last group has one cell, and some cells have none.
template <class V>
struct Data {
  HostCsr<V> x;
  std::vector<std::int32_t> codes;  // n_groups: none

  explicit Data(const Case& c) {
    const RngKey key{17, 4};
    const HostCsr<V> base = HostCsr<V>::random(c.rows, c.cols, c.density, 3, c.whole);
    x.n_rows = base.n_rows;
    x.n_cols = base.n_cols;
    for (std::int64_t i = 0; i < base.n_rows; ++i) {
      auto k = base.indptr[static_cast<std::size_t>(i)];
      for (std::int32_t j = 0; j < c.cols; ++j) {
        const bool here =
            k < base.indptr[static_cast<std::size_t>(i) + 1] && base.indices[static_cast<std::size_t>(k)] == j;
        V v = here ? base.values[static_cast<std::size_t>(k++)] : V{0};
        const auto item = static_cast<std::uint64_t>(i * c.cols + j);
        if (here && c.negative && math::random_uniform(key, item) < 0.3) v = -v;
        bool stored = here;
        if (here && c.stored_zeros && math::random_uniform(key, item, 1) < 0.2)
          v = math::random_uniform(key, item, 2) < 0.5 ? V{0} : -V{0};
        if (j == 1) stored = c.stored_zeros && i % 3 == 0, v = V{0};
        if (j == 2) stored = true, v = static_cast<V>(0.7);
        if (j == 3) stored = true, v = static_cast<V>(1 + math::random_uniform(key, item, 3));
        if (!stored) continue;
        x.indices.push_back(j);
        x.values.push_back(v);
      }
      x.indptr.push_back(static_cast<std::int64_t>(x.indices.size()));
      const double u = math::random_uniform(key, static_cast<std::uint64_t>(i), 4);
      codes.push_back(static_cast<std::int32_t>(u * u * (c.groups + 1)));
      if (codes.back() == c.groups - 1) codes.back() = 0;
    }
    codes[static_cast<std::size_t>(c.rows / 2)] = c.groups - 1;
  }
};

struct Result {
  std::vector<std::int64_t> twice;
  std::vector<double> ties;
  std::vector<std::int32_t> nonzero;
  std::vector<std::uint64_t> sums;
};

template <class V>
Result rank_sums(const Context& ctx, const Data<V>& d, bool sparse, const RankSpec& spec, const prim::ValueMap& map) {
  const Context host = Context::cpu(1);
  DeviceMatrix<V> matrix(ctx, d.x);
  const std::int64_t all = (spec.n_groups + 1) * std::int64_t{d.x.n_cols};
  const std::int64_t tested = spec.n_groups * std::int64_t{d.x.n_cols};
  prim::GroupMoments m;
  m.n_groups = spec.n_groups + 1;
  m.n_genes = d.x.n_cols;
  m.moments = Array<prim::FixedMoments>(host.memory, all);
  m.nonzero = Array<std::int32_t>(host.memory, all);
  m.scale = Array<prim::FixedScale>(host.memory, m.n_genes);
  RankSums r;
  r.twice_rank_sum = Array<std::int64_t>(host.memory, tested);
  r.ties = Array<double>(host.memory, spec.reference < 0 ? m.n_genes : tested);
  std::fill(r.twice_rank_sum.begin(), r.twice_rank_sum.end(), -1);
  std::fill(r.ties.begin(), r.ties.end(), -1.0);
  std::fill(m.nonzero.begin(), m.nonzero.end(), -1);
  rank_sums_kernel(ctx, ResidentBlocks(scw::as_const(matrix.view(sparse))), d.codes, spec, map, m, r);
  static_cast<void>(matrix.result(sparse));  // guards
  Result out;
  const std::int64_t reference = spec.reference;
  for (std::int64_t k = 0; k < tested; ++k) {
    const bool of_reference = k / m.n_genes == reference;
    out.twice.push_back(of_reference ? 0 : r.twice_rank_sum[k]);
    if (reference >= 0) out.ties.push_back(of_reference ? 0 : r.ties[k]);
  }
  if (reference < 0) out.ties.assign(r.ties.begin(), r.ties.end());
  out.nonzero.assign(m.nonzero.begin(), m.nonzero.end());
  for (const auto& v : m.moments) {
    out.sums.push_back(static_cast<std::uint64_t>(v.sum));
    out.sums.push_back(static_cast<std::uint64_t>(v.sum >> 64));
  }
  return out;
}

template <class V>
void compare(const Context& cuda, const Case& c) {
  const Data<V> d(c);
  const Context cpu = Context::cpu(2);
  for (const bool sparse : {true, false})
    for (const std::int32_t reference : {-1, 1})
      for (const int bins : {0, 7, 1000}) {
        RankSpec spec;
        spec.n_groups = c.groups;
        spec.reference = reference;
        spec.n_bins = bins;
        spec.low = c.negative ? -9 : 0.5;  // some values lie outside
        spec.high = 9;
        spec.zeros_apart = bins > 0 && !c.negative;
        prim::ValueMap map;
        if (bins == 7) map.expm1_scale = 0.5;
        SCOPED_TRACE(std::string(c.name) + (sparse ? " csr" : " dense") + " reference " + std::to_string(reference) +
                     " bins " + std::to_string(bins));
        const Result want = rank_sums(cpu, d, sparse, spec, map);
        const Result got = rank_sums(cuda, d, sparse, spec, map);
        expect_same_bits(got.twice, want.twice);
        expect_same_bits(got.ties, want.ties);
        expect_same_bits(got.nonzero, want.nonzero);
        expect_same_bits(got.sums, want.sums);
        EXPECT_GT(*std::max_element(want.twice.begin(), want.twice.end()), 0);
        if (::testing::Test::HasFatalFailure()) return;
      }
}

class RankSumsOnCuda : public ::testing::TestWithParam<Case> {};

TEST_P(RankSumsOnCuda, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(base);
  Context cuda = base;
  if (GetParam().limit > 0) {
    cuda.workspace = std::make_shared<TrackedMemory>(base.workspace, GetParam().limit);
  }
  compare<float>(cuda, GetParam());
  compare<double>(cuda, GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    RankGenesGroups, RankSumsOnCuda,
    ::testing::Values(Case{.name = "fractions"}, Case{.name = "ties", .whole = true},
                      Case{.name = "negative", .whole = true, .negative = true, .stored_zeros = true},
                      Case{.name = "negative_fractions", .density = 0.9, .negative = true},
                      Case{.name = "stored_zeros", .stored_zeros = true},
                      Case{.name = "many_groups", .rows = 900, .cols = 20, .groups = 300, .whole = true},
                      Case{.name = "as_many_groups_as_fit", .rows = 400, .cols = 7, .groups = 3999, .whole = true},
                      Case{.name = "sums_do_not_fit", .rows = 400, .cols = 7, .groups = 4000, .whole = true},
                      Case{.name = "neither_fits", .rows = 400, .cols = 7, .groups = 5000, .whole = true},
                      Case{.name = "more_groups_than_fit", .rows = 400, .cols = 7, .groups = 9000, .whole = true},
                      Case{.name = "long_genes", .rows = 90000, .cols = 5, .groups = 40, .density = 0.9},
                      Case{.name = "long_runs", .rows = 90000, .cols = 5, .groups = 3, .density = 0.9, .whole = true},
                      Case{.name = "small_blocks", .rows = 500, .cols = 300, .groups = 4, .limit = 1 << 20},
                      Case{.name = "small_cells", .rows = 9, .cols = 11, .groups = 3}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(RankGenesGroups, CudaFindsTheRangeOfTheValues) {
  SCW_CUDA_CONTEXT(cuda);
  const Context cpu = Context::cpu(1);
  for (const bool negative : {false, true})
    for (const bool sparse : {true, false}) {
      const Data<float> d(Case{.name = "range", .density = 0.9, .negative = negative});
      DeviceMatrix<float> a(cpu, d.x), b(cuda, d.x);
      double want[2] = {7, 7}, got[2] = {8, 8};
      value_range_kernel(cpu, scw::as_const(a.view(sparse)), want[0], want[1]);
      value_range_kernel(cuda, scw::as_const(b.view(sparse)), got[0], got[1]);
      EXPECT_EQ(got[0], want[0]);
      EXPECT_EQ(got[1], want[1]);
      EXPECT_EQ(want[0] < 0, negative);
    }
}

/// The whole operation, every array of the result.
TEST(RankGenesGroups, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  const Context cpu = Context::cpu(2);
  Data<float> d(Case{.name = "whole", .rows = 3000, .groups = 4, .stored_zeros = true});
  for (std::size_t i = 0; i < d.codes.size(); ++i) d.codes[i] = i % 7 == 0 ? -1 : static_cast<std::int32_t>(i % 4);
  DeviceMatrix<float> a(cpu, d.x), b(cuda, d.x);
  for (const bool sparse : {true, false})
    for (const RankTest test : {RankTest::wilcoxon, RankTest::wilcoxon_binned})
      for (const bool with_reference : {false, true}) {
        RankGenesGroupsOptions o;
        o.test = test;
        o.tie_correct = sparse;
        o.pts = true;
        o.mean_in_log_space = !with_reference;
        if (with_reference) o.reference = 2;
        const auto want = rank_genes_groups(cpu, scw::as_const(a.view(sparse)), d.codes, 4, o);
        const auto got = rank_genes_groups(cuda, scw::as_const(b.view(sparse)), d.codes, 4, o);
        const auto same = [](const auto& x, const auto& y) {
          using T = typename std::decay_t<decltype(x.data)>::value_type;
          expect_same_bits(std::vector<T>(x.data.begin(), x.data.end()), std::vector<T>(y.data.begin(), y.data.end()));
        };
        same(got.scores, want.scores);
        same(got.pvals, want.pvals);
        same(got.pvals_adj, want.pvals_adj);
        same(got.logfoldchanges, want.logfoldchanges);
        same(got.order, want.order);
        same(got.pts, want.pts);
        same(got.pts_rest, want.pts_rest);
      }
}

}  // namespace
}  // namespace scw::tl
