#include "scwarp/tl/rank_genes_groups.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/parallel.hpp"
#include "tl/rank_genes_groups/kernel.hpp"
#include "tl/rank_genes_groups/p_values.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t>, const RankSpec&,
                      const prim::ValueMap&, prim::GroupMoments&, RankSums&)>
    rank_sums_kernel{"tl.rank_genes_groups: rank_sums"};
constinit Kernel<void(const Context&, const AnyMatrixView&, double&, double&)> value_range_kernel{
    "tl.rank_genes_groups: value_range"};

SCW_BUILT_ON("tl.rank_genes_groups", "prim.group_moments");

namespace {

constexpr const char* kOp = "tl.rank_genes_groups";
constexpr std::int64_t kGeneGrain = 256;

bool is_t_test(RankTest t) { return t == RankTest::t_test || t == RankTest::t_test_overestim_var; }

struct Side {
  double mean = 0, variance = 0, n = 0;
};
struct Score {
  double value = 0, p = 1;
};

/// Of n values; as: the number that the test takes them for. NaN where there are too few.
Side side(const prim::FixedMoments& v, std::int64_t n, double as, prim::FixedScale scale, bool with_variance) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  if (n <= 0) return {kNan, kNan, as};
  const prim::FixedCentre centre(v.sum, n);
  const double variance =
      n > 1 && with_variance ? centre.centred_sum_sq(v, n, scale) / static_cast<double>(n - 1) : kNan;
  return {centre.mean(n, scale), variance, as};
}

/// scipy.stats.ttest_ind_from_stats(equal_var=False): Welch's t with the Welch-Satterthwaite degrees of freedom.
Score welch(const Side& a, const Side& b) {
  const double va = a.variance / a.n;
  const double vb = b.variance / b.n;
  const double t = (a.mean - b.mean) / std::sqrt(va + vb);
  double df = (va + vb) * (va + vb) / (va * va / (a.n - 1) + vb * vb / (b.n - 1));
  if (std::isnan(df)) df = 1;  // both variances are 0
  if (std::isnan(t)) return {};
  return {t, student_t_two_sided(t, df)};
}

/// n1, n2: cells on the two sides; twice_r: twice the rank sum of the first.
Score rank_sum(std::int64_t twice_r, std::int64_t n1, std::int64_t n2, double ties, const RankGenesGroupsOptions& o) {
  const std::int64_t n = n1 + n2;
  double difference = static_cast<double>(twice_r - n1 * (n + 1)) / 2;  // R - E(R), exact
  if (o.use_continuity) difference = std::copysign(std::max(std::abs(difference) - 0.5, 0.0), difference);
  const double nd = static_cast<double>(n);
  const double correction = o.tie_correct ? 1.0 - ties / (nd * nd * nd - nd) : 1.0;
  const double sd = std::sqrt(correction * static_cast<double>(n1) * static_cast<double>(n2) * (nd + 1) / 12.0);
  double z = difference / sd;
  if (std::isnan(z)) z = 0;
  const double u = static_cast<double>(twice_r - n1 * (n1 + 1)) / 2;
  return {o.return_u_values ? u : z, normal_two_sided(z)};
}

void check(const RowBlocks& x, Span<const std::int32_t> codes, std::int32_t n_groups, const RankGenesGroupsOptions& o) {
  SCW_EXPECT_AS(ShapeMismatch, codes.size == x.n_rows(), kOp,
                "codes must have one entry per cell (got {}, expected {})", codes.size, x.n_rows());
  SCW_EXPECT(x.n_rows() < prim::kFixedMaxTerms, kOp, "at most 2^31 - 1 cells (got {})", x.n_rows());
  SCW_EXPECT(n_groups >= 1, kOp, "at least one group is needed (got {})", n_groups);
  SCW_EXPECT(!o.reference || (*o.reference >= 0 && *o.reference < n_groups), kOp,
             "reference must be a group in [0, {}) (got {})", n_groups, o.reference.value_or(0));
  SCW_EXPECT(!o.log_base || (*o.log_base > 0 && *o.log_base != 1 && std::isfinite(*o.log_base)), kOp,
             "log_base must be positive, finite and not 1 (got {})", o.log_base.value_or(0));
  SCW_EXPECT(o.n_bins >= 1 && o.n_bins <= (1 << 24), kOp, "n_bins must be in [1, 2^24] (got {})", o.n_bins);
  SCW_EXPECT(!o.bin_range || (o.bin_range->first < o.bin_range->second && std::isfinite(o.bin_range->first) &&
                              std::isfinite(o.bin_range->second)),
             kOp, "bin_range must be finite and increasing (got {}, {})", o.bin_range ? o.bin_range->first : 0,
             o.bin_range ? o.bin_range->second : 0);
}

/// Cells of each group, and of none at the end.
std::vector<std::int64_t> count_codes(const Context& host, Span<const std::int32_t> codes, std::int32_t n_groups) {
  constexpr std::int64_t kGrain = 1 << 16;
  const auto size = static_cast<std::size_t>(n_groups) + 1;
  auto counts =
      make_for_workers(host, chunk_count(codes.size, kGrain), [&] { return std::vector<std::int64_t>(size, 0); });
  parallel_chunks(host, codes.size, kGrain, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    std::int64_t* const mine = counts[static_cast<std::size_t>(worker)].data();
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int32_t c = codes[i];
      SCW_EXPECT(c < n_groups, kOp, "group codes must be below n_groups (got {}, expected < {})", c, n_groups);
      ++mine[c < 0 ? n_groups : c];
    }
  });
  std::vector<std::int64_t> sizes(size, 0);
  for (const auto& one : counts)
    for (std::size_t g = 0; g < size; ++g) sizes[g] += one[g];
  return sizes;
}

RankSpec make_spec(const Context& ctx, const RowBlocks& x, std::int32_t n_groups, const RankGenesGroupsOptions& o) {
  RankSpec spec;
  spec.n_groups = n_groups;
  spec.reference = o.reference.value_or(-1);
  if (o.test != RankTest::wilcoxon_binned) return spec;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  x.for_each(ctx, [&](std::int64_t, const AnyMatrixView& rows) {
    double least = 0, greatest = 0;
    value_range_kernel(ctx, rows, least, greatest);
    low = std::min(low, least);
    high = std::max(high, greatest);
  });
  spec.n_bins = o.n_bins;
  spec.low = o.bin_range ? o.bin_range->first : low;
  spec.high = o.bin_range ? o.bin_range->second : high;
  if (!(spec.low < spec.high)) spec.high = spec.low + 1;  // a constant matrix: one bin
  spec.zeros_apart = x.is_sparse() && low >= 0;
  return spec;
}

template <class T>
void gather(const Context& ctx, MatrixView<const double> values, MatrixView<const std::int32_t> order,
            MatrixView<T> out) {
  SCW_EXPECT_AS(ShapeMismatch,
                order.n_rows == values.n_rows && order.n_cols == values.n_cols && out.n_cols == values.n_rows &&
                    out.n_rows <= values.n_cols,
                kOp, "a table of {} x {} from values of {} x {} in an order of {} x {}", out.n_rows, out.n_cols,
                values.n_rows, values.n_cols, order.n_rows, order.n_cols);
  parallel_for(ctx.host(), out.n_rows, kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < out.n_cols; ++t) {
      const double* const from = values.row(t);
      const std::int32_t* const place = order.row(t);
      for (std::int64_t k = begin; k < end; ++k) out(k, t) = static_cast<T>(from[place[k]]);
    }
  });
}

}  // namespace

void gather_ranked(const Context& ctx, MatrixView<const double> values, MatrixView<const std::int32_t> order,
                   MatrixView<float> out) {
  gather(ctx, values, order, out);
}
void gather_ranked(const Context& ctx, MatrixView<const double> values, MatrixView<const std::int32_t> order,
                   MatrixView<double> out) {
  gather(ctx, values, order, out);
}

RankGenesGroups rank_genes_groups(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes_in,
                                  std::int32_t n_groups, const RankGenesGroupsOptions& o) {
  check(x, codes_in, n_groups, o);
  const std::int64_t n_genes = x.n_cols();
  const std::int64_t n_cells = x.n_rows();

  // Cells in no group are group n_groups: part of the rest, nothing of their own.
  RankGenesGroups out;
  std::vector<std::int64_t> sizes = count_codes(ctx.host(), codes_in, n_groups);
  Span<const std::int32_t> codes = codes_in;
  std::vector<std::int32_t> moved;
  if (sizes.back() > 0) {
    moved.assign(codes_in.begin(), codes_in.end());
    for (std::int32_t& c : moved)
      if (c < 0) c = n_groups;
    codes = moved;
  }
  for (std::int32_t g = 0; g < n_groups; ++g)
    SCW_EXPECT(sizes[static_cast<std::size_t>(g)] >= 2, kOp, "group {} needs at least two cells (got {})", g,
               sizes[static_cast<std::size_t>(g)]);
  out.group_sizes.assign(sizes.begin(), sizes.end() - 1);
  for (std::int32_t g = 0; g < n_groups; ++g)
    if (!o.reference || g != *o.reference) out.tested.push_back(g);

  const double expm1_scale = o.log_base ? std::log(*o.log_base) : 1.0;
  prim::ValueMap map;
  if (!o.mean_in_log_space) map.expm1_scale = expm1_scale;
  const auto n_tested = static_cast<std::int64_t>(out.tested.size());
  prim::GroupMoments moments;
  RankSums ranks;
  std::int64_t bad_gene = -1;
  if (is_t_test(o.test)) {
    const prim::GeneScales scales = prim::gene_scales(ctx, x, map);
    if (scales.has_non_finite)
      bad_gene = std::find(scales.non_finite.begin(), scales.non_finite.end(), 1) - scales.non_finite.begin();
    else
      moments = prim::group_moments(ctx, x, codes, 0, std::int64_t{n_groups} + 1, map, scales);
  } else {
    moments.n_groups = std::int64_t{n_groups} + 1;
    moments.n_genes = n_genes;
    const std::int64_t size = checked_mul(moments.n_groups, n_genes);
    const auto& held = ctx.host().workspace;
    moments.moments = Array<prim::FixedMoments>(held, size, "group moments");
    moments.nonzero = Array<std::int32_t>(held, size, "group non-zeros");
    moments.scale = Array<prim::FixedScale>(held, n_genes, "gene scales");
    ranks.twice_rank_sum = Array<std::int64_t>(held, checked_mul(n_groups, n_genes), "rank sums");
    ranks.ties = Array<double>(held, o.reference ? checked_mul(n_groups, n_genes) : n_genes, "ties");
    rank_sums_kernel(ctx, x, codes, make_spec(ctx, x, n_groups, o), map, moments, ranks);
    bad_gene = ranks.bad_gene;
  }
  if (bad_gene >= 0) detail::fail<DataError>(kOp, "gene {} has NaN, infinite or too large values", bad_gene);

  const auto& memory = host_memory();
  out.scores = Matrix<double>(memory, n_tested, n_genes, "marker scores");
  out.pvals = Matrix<double>(memory, n_tested, n_genes, "marker p-values");
  out.pvals_adj = Matrix<double>(memory, n_tested, n_genes, "adjusted p-values");
  out.logfoldchanges = Matrix<double>(memory, n_tested, n_genes, "fold changes");
  out.order = Matrix<std::int32_t>(memory, n_tested, n_genes, "marker order");
  if (o.pts) {
    out.pts = Matrix<double>(memory, n_groups, n_genes, "fractions");
    if (!o.reference) out.pts_rest = Matrix<double>(memory, n_groups, n_genes, "fractions of the rest");
  }
  const Context host = ctx.host();
  const auto expm1_mean = [&](double m) { return o.mean_in_log_space ? std::expm1(m * expm1_scale) : m; };

  parallel_for(host, n_genes, kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      const prim::FixedScale scale = moments.scale[j];
      prim::FixedMoments total;
      std::int64_t total_nonzero = 0;
      for (std::int64_t g = 0; g <= n_groups; ++g) {
        total.sum += moments.at(g, j).sum;
        if (is_t_test(o.test)) total.sum_sq += moments.at(g, j).sum_sq;
        total_nonzero += moments.nonzero_at(g, j);
      }
      for (std::int64_t t = 0; t < n_tested; ++t) {
        const std::int32_t g = out.tested[static_cast<std::size_t>(t)];
        const std::int64_t n1 = sizes[static_cast<std::size_t>(g)];
        const std::int64_t n2 = o.reference ? sizes[static_cast<std::size_t>(*o.reference)] : n_cells - n1;
        const prim::FixedMoments& mine = moments.at(g, j);
        const prim::FixedMoments other = o.reference ? moments.at(*o.reference, j) : total - mine;
        const auto n_other = static_cast<double>(o.test == RankTest::t_test_overestim_var ? n1 : n2);
        const Side own = side(mine, n1, static_cast<double>(n1), scale, is_t_test(o.test));
        const Side rest = side(other, n2, n_other, scale, is_t_test(o.test));
        Score s;
        if (is_t_test(o.test)) {
          s = welch(own, rest);
        } else {
          s = rank_sum(ranks.twice_rank_sum[g * n_genes + j], n1, n2, ranks.ties[o.reference ? g * n_genes + j : j], o);
        }
        const std::int64_t at = t * n_genes + j;
        out.scores.data[at] = s.value;
        out.pvals.data[at] = std::isnan(s.p) ? 1.0 : s.p;
        out.logfoldchanges.data[at] = std::log2((expm1_mean(own.mean) + 1e-9) / (expm1_mean(rest.mean) + 1e-9));
      }
      if (!o.pts) continue;
      for (std::int64_t g = 0; g < n_groups; ++g) {
        const std::int64_t n1 = sizes[static_cast<std::size_t>(g)];
        const std::int64_t nonzero = moments.nonzero_at(g, j);
        out.pts.data[g * n_genes + j] = static_cast<double>(nonzero) / static_cast<double>(n1);
        if (!o.reference)
          out.pts_rest.data[g * n_genes + j] =
              static_cast<double>(total_nonzero - nonzero) / static_cast<double>(n_cells - n1);
      }
    }
  });

  // Two lists to sort for each test: adjusted p-values, and the order of the genes.
  auto scratches = make_for_workers(host, 2 * n_tested, [] { return SortScratch{}; });
  parallel_chunks(host, 2 * n_tested, 1, [&](std::int64_t chunk, std::int64_t, std::int64_t, int worker) {
    SortScratch& scratch = scratches[static_cast<std::size_t>(worker)];
    const std::int64_t t = chunk / 2;
    if (chunk % 2 == 0) {
      const Span<const double> p(out.pvals.data.data() + t * n_genes, n_genes);
      const Span<double> adjusted(out.pvals_adj.data.data() + t * n_genes, n_genes);
      if (o.p_adjust == PAdjust::benjamini_hochberg)
        benjamini_hochberg(p, adjusted, scratch);
      else
        for (std::int64_t j = 0; j < n_genes; ++j) adjusted[j] = std::min(p[j] * static_cast<double>(n_genes), 1.0);
      return;
    }
    std::int32_t* const order = out.order.data.data() + t * n_genes;
    const double* const scores = out.scores.data.data() + t * n_genes;
    sort_by_key(
        n_genes,
        [&](std::int64_t j) {
          const double v = o.rank_by_abs ? std::abs(scores[j]) : scores[j];
          return ~prim::sortable_bits(v == 0 ? 0.0 : v);  // one zero; descending
        },
        scratch);
    for (std::int64_t k = 0; k < n_genes; ++k) order[k] = scratch.sorted[k].index;
  });
  return out;
}

RankGenesGroups rank_genes_groups(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                                  std::int32_t n_groups, const RankGenesGroupsOptions& options) {
  return rank_genes_groups(ctx, ResidentBlocks(x), codes, n_groups, options);
}

}  // namespace scw::tl
