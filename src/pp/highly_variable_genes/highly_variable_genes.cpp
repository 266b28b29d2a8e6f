#include "scwarp/pp/highly_variable_genes.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>
#include <vector>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "pp/highly_variable_genes/kernel.hpp"
#include "pp/normalize_pearson_residuals/blocks.hpp"
#include "pp/normalize_total/kernel.hpp"
#include "prim/loess.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t>, MatrixView<const double>,
                      Span<const prim::FixedScale>, Span<ClippedSum>)>
    clipped_sums_kernel{"pp.highly_variable_genes: clipped_sums"};

constinit Kernel<void(const Context&, Span<const double>, Span<const std::int64_t>, Span<const double>, int,
                      Span<std::int64_t>)>
    expected_zeros_kernel{"pp.highly_variable_genes: expected_zeros"};

SCW_BUILT_ON("pp.highly_variable_genes", "pp.gene_moments");

namespace {

constexpr const char* kOp = "pp.highly_variable_genes";
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

using Index = std::vector<std::int64_t>;

Array<double> column(std::int64_t n, const char* tag) { return Array<double>(host_memory(), n, tag); }

/// numpy.percentile (linear) of ascending values at q in [0, 1].
double quantile(const std::vector<double>& sorted, double q) {
  const double at = static_cast<double>(sorted.size() - 1) * q;
  const auto below = static_cast<std::size_t>(std::floor(at));
  const double a = sorted[below], b = sorted[std::min(below + 1, sorted.size() - 1)];
  const double t = at - std::floor(at);
  return t >= 0.5 ? b - (b - a) * (1 - t) : a + (b - a) * t;
}

double median(std::vector<double> v) {
  if (v.empty()) return kNan;
  const auto mid = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), mid, v.end());
  return v.size() % 2 == 1 ? *mid : (*std::max_element(v.begin(), mid) + *mid) / 2;
}

/// Upper edges of right-closed bins, and the edge below them, as pandas.cut makes them.
std::vector<double> bin_edges(const std::vector<double>& means, const HighlyVariableGenesOptions& o) {
  std::vector<double> edges;
  if (o.flavor == HvgFlavor::cell_ranger) {
    std::vector<double> sorted = means;
    std::sort(sorted.begin(), sorted.end());
    edges.push_back(-std::numeric_limits<double>::infinity());
    for (int p = 10; p <= 100; p += 5) edges.push_back(quantile(sorted, static_cast<double>(p) / 100));
    edges.push_back(std::numeric_limits<double>::infinity());
    for (std::size_t k = 1; k < edges.size(); ++k)
      SCW_EXPECT_AS(
          DataError, edges[k] > edges[k - 1], kOp,
          "Bin edges must be unique: percentiles of the means coincide at {}; filter genes without counts first",
          edges[k]);
    return edges;
  }
  auto [low_it, high_it] = std::minmax_element(means.begin(), means.end());
  double low = *low_it, high = *high_it;
  const bool one_value = low == high;
  if (one_value) {
    low -= low != 0 ? 0.001 * std::abs(low) : 0.001;
    high += high != 0 ? 0.001 * std::abs(high) : 0.001;
  }
  const auto n = static_cast<double>(o.n_bins);
  const double step = (high - low) / n;
  for (std::int64_t k = 0; k < o.n_bins; ++k) edges.push_back(static_cast<double>(k) * step + low);
  edges.push_back(high);
  if (!one_value) edges[0] -= (high - low) * 0.001;
  return edges;
}

/// Centre and spread of the dispersions of one bin.
struct BinStats {
  double centre = kNan, spread = kNan;
};

/// Compensated sum and Welford's update, in the order of the genes: the operations that pandas uses, so that genes
/// whose normalised dispersion is exactly at a cutoff (small bins of equal genes) fall on the same side.
BinStats seurat_stats(const std::vector<double>& d) {
  double sum = 0, lost = 0, mean = 0, squares = 0, n = 0;
  for (const double v : d) {
    const double y = v - lost, t = sum + y;
    lost = t - sum - y;
    sum = t;
    const double before = mean;
    n += 1;
    mean += (v - before) / n;
    squares += (v - mean) * (v - before);
  }
  if (d.size() < 2) return {0.0, sum / n};  // one gene: its normalised dispersion is 1; none: NaN
  return {sum / n, std::sqrt(squares / (n - 1))};
}
BinStats cell_ranger_stats(const std::vector<double>& d) {
  const double centre = median(d);
  std::vector<double> deviations(d.size());
  std::transform(d.begin(), d.end(), deviations.begin(), [centre](double v) { return std::abs(v - centre); });
  return {centre, median(std::move(deviations)) / 0.6744897501960817};  // Phi^-1(3/4)
}

struct Dispersions {
  std::vector<double> means, dispersions, norm;
  std::vector<std::uint8_t> selected;
};

/// Infinities as the largest numbers, as numpy.nan_to_num has it.
double finite_or(double v, double if_nan) {
  constexpr double max = std::numeric_limits<double>::max();
  return std::isnan(v) ? if_nan : std::clamp(v, -max, max);
}

bool in_bounds(const HighlyVariableGenesOptions& o, double mean, double norm) {
  return mean > o.min_mean && mean < o.max_mean && norm > o.min_disp && norm < o.max_disp;
}

/// The genes `kept` of one batch, from the moments of all genes in it.
Dispersions dispersion_batch(const double* mean, const double* variance, const Index& kept, std::int64_t n_genes,
                             const HighlyVariableGenesOptions& o, bool& fewer) {
  const bool seurat = o.flavor == HvgFlavor::seurat;
  std::vector<double> means, disp;
  for (const std::int64_t j : kept) {
    const double m = mean[j] == 0 ? 1e-12 : mean[j];
    const double d = variance[j] / m;
    disp.push_back(!seurat ? d : d == 0 ? kNan : std::log(d));
    means.push_back(seurat ? std::log1p(m) : m);
    SCW_EXPECT_AS(
        DataError, std::isfinite(means.back()), kOp,
        "the mean of gene {} is not a finite number (got {}): check the matrix for NaN, infinity or negative values", j,
        mean[j]);
  }
  Dispersions out;
  out.means.assign(static_cast<std::size_t>(n_genes), 0.0);
  out.dispersions = out.means;
  out.norm = out.means;
  out.selected.assign(static_cast<std::size_t>(n_genes), 0);
  if (kept.empty()) return out;

  const std::vector<double> edges = bin_edges(means, o);
  std::vector<std::vector<double>> in_bin(edges.size() + 1);
  std::vector<std::size_t> bin(means.size());
  for (std::size_t k = 0; k < means.size(); ++k) {
    bin[k] = static_cast<std::size_t>(std::lower_bound(edges.begin(), edges.end(), means[k]) - edges.begin());
    if (!std::isnan(disp[k])) in_bin[bin[k]].push_back(disp[k]);
  }
  std::vector<BinStats> stats(in_bin.size());
  for (std::size_t b = 0; b < in_bin.size(); ++b)
    stats[b] = seurat ? seurat_stats(in_bin[b]) : cell_ranger_stats(in_bin[b]);

  std::vector<double> norm(means.size());
  for (std::size_t k = 0; k < means.size(); ++k) norm[k] = (disp[k] - stats[bin[k]].centre) / stats[bin[k]].spread;

  double cutoff = 0;
  if (o.n_top_genes) {
    std::vector<double> defined;
    std::copy_if(norm.begin(), norm.end(), std::back_inserter(defined), [](double v) { return !std::isnan(v); });
    const auto asked =
        static_cast<std::size_t>(std::min<std::int64_t>(*o.n_top_genes, static_cast<std::int64_t>(kept.size())));
    const std::size_t n = std::min(asked, defined.size());
    fewer = fewer || n < asked || n < static_cast<std::size_t>(*o.n_top_genes);
    cutoff = std::numeric_limits<double>::infinity();
    if (n > 0) {
      std::nth_element(defined.begin(), defined.begin() + static_cast<std::ptrdiff_t>(n - 1), defined.end(),
                       std::greater<>());
      cutoff = defined[n - 1];
    }
  }
  for (std::size_t k = 0; k < kept.size(); ++k) {
    const auto j = static_cast<std::size_t>(kept[k]);
    out.means[j] = means[k];
    out.dispersions[j] = disp[k];
    out.norm[j] = norm[k];
    const bool yes = o.n_top_genes ? finite_or(norm[k], -std::numeric_limits<double>::infinity()) >= cutoff
                                   : in_bounds(o, means[k], finite_or(norm[k], 0.0));
    out.selected[j] = yes ? 1 : 0;
  }
  return out;
}

/// Genes sorted by `before`, ties by order[gene] (or index).
template <class Before>
Index sorted_genes(std::int64_t n, Span<const std::int32_t> order, const Before& before) {
  Index genes(static_cast<std::size_t>(n));
  std::iota(genes.begin(), genes.end(), std::int64_t{0});
  if (!order.empty()) std::stable_sort(genes.begin(), genes.end(), [&](auto a, auto b) { return order[a] < order[b]; });
  std::stable_sort(genes.begin(), genes.end(), before);
  return genes;
}

/// body(b) for every batch, in parallel. The error of the first batch that has one is thrown.
template <class Body>
void for_each_batch(const Context& host, std::int64_t n, const Body& body) {
  if (n == 1) return body(0);  // what it calls may then use the threads
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(n));
  parallel_for(host, n, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) try {
        body(b);
      } catch (...) {
        errors[static_cast<std::size_t>(b)] = std::current_exception();
      }
  });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

/// -1, 0, 1 for descending order with NaN last.
int compare_descending(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return static_cast<int>(std::isnan(a)) - static_cast<int>(std::isnan(b));
  return a > b ? -1 : a < b ? 1 : 0;
}

void select_dispersions(HighlyVariableGenes& out, const Context& ctx, const RowBlocks& x,
                        const HighlyVariableGenesOptions& o) {
  const std::int64_t genes = x.n_cols();
  const bool batched = o.n_batches > 0;
  GeneMomentsOptions g;
  g.expm1 = o.flavor == HvgFlavor::seurat;
  if (o.log_base) g.expm1_scale = std::log(*o.log_base);
  if (batched) {
    g.groups = o.batches;
    g.n_groups = o.n_batches;
  }
  const GeneMoments m = host_gene_moments(ctx, x, g, kOp);
  out.counts = m.counts;
  const Array<double>&mean = m.mean.data, &variance = m.variance.data;

  out.means = column(genes, "means");
  out.dispersions = column(genes, "dispersions");
  out.dispersions_norm = column(genes, "dispersions_norm");
  const std::int64_t groups = m.mean.n_rows;
  std::vector<Dispersions> batch(static_cast<std::size_t>(groups));
  std::vector<std::uint8_t> fewer(static_cast<std::size_t>(groups), 0);
  for_each_batch(ctx.host(), groups, [&](std::int64_t b) {
    Index kept;
    for (std::int64_t j = 0; j < genes; ++j) {
      // Without a value that is not zero both moments are zero (or NaN, without cells).
      const double a = mean[b * genes + j], v = variance[b * genes + j];
      const bool expressed = a != 0 || v != 0;
      if ((!batched && !o.filter_unexpressed_genes) || (expressed && m.n_rows[b] > 0)) kept.push_back(j);
    }
    bool too_few = false;
    batch[static_cast<std::size_t>(b)] =
        dispersion_batch(mean.data() + b * genes, variance.data() + b * genes, kept, genes, o, too_few);
    fewer[static_cast<std::size_t>(b)] = too_few ? 1 : 0;
  });
  for (const std::uint8_t f : fewer) out.fewer_than_asked = out.fewer_than_asked || f != 0;
  if (!batched) {
    std::copy(batch[0].means.begin(), batch[0].means.end(), out.means.begin());
    std::copy(batch[0].dispersions.begin(), batch[0].dispersions.end(), out.dispersions.begin());
    std::copy(batch[0].norm.begin(), batch[0].norm.end(), out.dispersions_norm.begin());
    std::copy(batch[0].selected.begin(), batch[0].selected.end(), out.highly_variable.begin());
    return;
  }

  out.n_batches = Array<std::int32_t>(host_memory(), genes, "batches");
  out.intersection = Array<std::uint8_t>(host_memory(), genes, "intersection");
  const auto average = [&](std::vector<double> Dispersions::*field, std::size_t j) {
    double sum = 0, n = 0;
    for (const Dispersions& d : batch)
      if (!std::isnan((d.*field)[j])) sum += (d.*field)[j], n += 1;
    return sum / n;
  };
  for (std::int64_t j = 0; j < genes; ++j) {
    const auto k = static_cast<std::size_t>(j);
    out.means[j] = average(&Dispersions::means, k);
    out.dispersions[j] = average(&Dispersions::dispersions, k);
    out.dispersions_norm[j] = average(&Dispersions::norm, k);
    out.n_batches[j] = 0;
    for (const Dispersions& d : batch) out.n_batches[j] += d.selected[k];
    out.intersection[j] = out.n_batches[j] == o.n_batches ? 1 : 0;
  }
  if (!o.n_top_genes) {
    for (std::int64_t j = 0; j < genes; ++j) {
      if (std::isnan(out.dispersions_norm[j])) out.dispersions_norm[j] = 0;
      out.highly_variable[j] = in_bounds(o, out.means[j], out.dispersions_norm[j]) ? 1 : 0;
    }
    return;
  }
  const Index order = sorted_genes(genes, o.tie_order, [&](std::int64_t a, std::int64_t b) {
    if (out.n_batches[a] != out.n_batches[b]) return out.n_batches[a] > out.n_batches[b];
    return compare_descending(out.dispersions_norm[a], out.dispersions_norm[b]) < 0;
  });
  for (std::int64_t k = 0; k < std::min(genes, *o.n_top_genes); ++k)
    out.highly_variable[order[static_cast<std::size_t>(k)]] = 1;
}

/// Ranks in each batch by descending norm [batches x genes], and the median over the batches in which a gene is among
/// the first n_top; then rank before number of batches, or the reverse.
void select_by_rank(HighlyVariableGenes& out, const Context& host, MatrixView<const double> norm, std::int64_t n_top,
                    bool rank_first) {
  const std::int64_t groups = norm.n_rows, genes = norm.n_cols;
  out.variances_norm = column(genes, "variances_norm");
  out.rank = column(genes, "rank");
  out.n_batches = Array<std::int32_t>(host_memory(), genes, "batches");
  std::fill(out.n_batches.begin(), out.n_batches.end(), 0);
  std::vector<std::vector<double>> ranks(static_cast<std::size_t>(genes));
  std::vector<Index> orders(static_cast<std::size_t>(groups));
  for_each_batch(host, groups, [&](std::int64_t b) {
    const double* const row = norm.row(b);
    orders[static_cast<std::size_t>(b)] = sorted_genes(
        genes, {}, [row](std::int64_t i, std::int64_t j) { return compare_descending(row[i], row[j]) < 0; });
  });
  for (const Index& order : orders)
    for (std::int64_t k = 0; k < std::min(genes, n_top); ++k) {
      const std::int64_t j = order[static_cast<std::size_t>(k)];
      ranks[static_cast<std::size_t>(j)].push_back(static_cast<double>(k));
      ++out.n_batches[j];
    }
  out.intersection = Array<std::uint8_t>(host_memory(), genes, "intersection");
  for (std::int64_t j = 0; j < genes; ++j) {
    out.intersection[j] = out.n_batches[j] == groups ? 1 : 0;
    out.rank[j] = median(ranks[static_cast<std::size_t>(j)]);
    double sum = 0;
    for (std::int64_t b = 0; b < groups; ++b) sum += norm(b, j);
    out.variances_norm[j] = sum / static_cast<double>(groups);
  }
  const Index order = sorted_genes(genes, {}, [&](std::int64_t a, std::int64_t b) {
    const int by_rank = std::isnan(out.rank[a]) || std::isnan(out.rank[b])
                            ? static_cast<int>(std::isnan(out.rank[a])) - static_cast<int>(std::isnan(out.rank[b]))
                            : compare_descending(out.rank[b], out.rank[a]);
    const int by_batches = out.n_batches[a] > out.n_batches[b] ? -1 : out.n_batches[a] < out.n_batches[b] ? 1 : 0;
    return rank_first ? (by_rank != 0 ? by_rank < 0 : by_batches < 0)
                      : (by_batches != 0 ? by_batches < 0 : by_rank < 0);
  });
  for (std::int64_t k = 0; k < std::min(genes, n_top); ++k) out.highly_variable[order[static_cast<std::size_t>(k)]] = 1;
}

void select_standardised(HighlyVariableGenes& out, const Context& ctx, const RowBlocks& x,
                         const HighlyVariableGenesOptions& o) {
  const std::int64_t genes = x.n_cols();
  const std::int64_t n_top = o.n_top_genes.value_or(2000);
  const bool batched = o.n_batches > 0;
  GeneMomentsOptions g;
  if (batched) {
    g.groups = o.batches;
    g.n_groups = o.n_batches;
  }
  const GeneSums sums = gene_sums(ctx, x, g, kOp);
  out.counts = sums.counts;
  const Context host = ctx.host();
  const std::int64_t groups = g.n_groups;

  out.means = column(genes, "means");
  out.variances = column(genes, "variances");
  std::int64_t n_all = 0;
  for (const std::int64_t n : sums.n_rows) n_all += n;
  Matrix<double> mean(host.workspace, groups, genes, "batch means");
  Matrix<double> spread(host.workspace, groups, genes, "predicted standard deviations");
  Matrix<double> clip(host.workspace, groups, genes, "clip values");
  const auto variance_of = [&](const prim::FixedMoments& v, std::int64_t n, std::int64_t j) {
    if (sums.finite[static_cast<std::size_t>(j)] == 0 || n == 0) return kNan;
    return n == 1 ? 0.0 : prim::fixed_variance(v, n, 1, sums.scale[static_cast<std::size_t>(j)]);
  };
  for (std::int64_t j = 0; j < genes; ++j)
    SCW_EXPECT_AS(DataError, sums.finite[static_cast<std::size_t>(j)] != 0, kOp,
                  "gene {} has a value that is not finite", j);
  parallel_for(host, genes, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      prim::FixedMoments all;
      for (std::int64_t b = 0; b < groups; ++b) all += sums.sums[b * genes + j];
      out.means[j] = prim::fixed_mean(all.sum, n_all, sums.scale[static_cast<std::size_t>(j)]);
      out.variances[j] = variance_of(all, n_all, j);
    }
  });
  for_each_batch(host, groups, [&](std::int64_t b) {
    const std::int64_t n = sums.n_rows[static_cast<std::size_t>(b)];
    std::vector<double> log_mean, log_variance;
    Index varying;
    for (std::int64_t j = 0; j < genes; ++j) {
      const prim::FixedMoments& v = sums.sums[b * genes + j];
      mean.view()(b, j) = prim::fixed_mean(v.sum, n, sums.scale[static_cast<std::size_t>(j)]);
      spread.view()(b, j) = 1;
      const double variance = variance_of(v, n, j);
      if (!(variance > 0)) continue;
      varying.push_back(j);
      log_mean.push_back(std::log10(mean.view()(b, j)));
      log_variance.push_back(std::log10(variance));
    }
    const Array<double> fit = prim::loess_fit(host, Span<const double>(log_mean), Span<const double>(log_variance),
                                              {.span = o.span, .cell = 0.2}, kOp);
    for (std::size_t k = 0; k < varying.size(); ++k)
      spread.view()(b, varying[k]) = std::sqrt(std::pow(10.0, fit[static_cast<std::int64_t>(k)]));
    for (std::int64_t j = 0; j < genes; ++j)
      clip.view()(b, j) = spread.view()(b, j) * std::sqrt(static_cast<double>(n)) + mean.view()(b, j);
  });

  Array<ClippedSum> clipped(host.workspace, groups * genes, "clipped sums");
  std::fill(clipped.begin(), clipped.end(), ClippedSum{});
  const Array<double> device_clip =
      ctx.device.type == DeviceType::cpu ? Array<double>() : to_device<double>(ctx, std::as_const(clip.data).view());
  const double* const clip_data = device_clip.empty() ? clip.data.data() : device_clip.data();
  clipped_sums_kernel(ctx, x, g.groups, MatrixView<const double>(clip_data, groups, genes),
                      Span<const prim::FixedScale>(sums.scale), clipped.view());

  // sum (min(x, clip) - mean)^2 = sum over the rest around its own mean, shifted to the mean, + count (clip - mean)^2.
  Matrix<double> norm(host.workspace, groups, genes, "normalised variances");
  for_each_batch(host, groups, [&](std::int64_t b) {
    const std::int64_t n = sums.n_rows[static_cast<std::size_t>(b)];
    for (std::int64_t j = 0; j < genes; ++j) {
      const ClippedSum& c = clipped[b * genes + j];
      const prim::FixedScale& scale = sums.scale[static_cast<std::size_t>(j)];
      const prim::FixedMoments rest = sums.sums[b * genes + j] - c.sums;
      const std::int64_t n_rest = n - c.count;
      const double m = mean.view()(b, j), s = spread.view()(b, j), top = clip.view()(b, j) - m;
      double squares = prim::fixed_centred_sum_sq(rest, n_rest, scale);
      if (c.count > 0) {
        const double shift = n_rest > 0 ? prim::fixed_mean(rest.sum, n_rest, scale) - m : 0.0;
        squares += static_cast<double>(n_rest) * shift * shift + static_cast<double>(c.count) * top * top;
      }
      norm.view()(b, j) = squares / (static_cast<double>(n - 1) * (s * s));
    }
  });

  select_by_rank(out, host, norm.view(), n_top, o.flavor == HvgFlavor::seurat_v3);
}

void select_residuals(HighlyVariableGenes& out, const Context& ctx, const RowBlocks& x,
                      const HighlyVariableGenesOptions& o) {
  const std::int64_t genes = x.n_cols();
  const std::int32_t groups = std::max(1, o.n_batches);
  const PearsonSums sums = pearson_sums(ctx, x, o.batches, groups, {.theta = o.theta, .clip = o.clip}, kOp);
  out.counts = sums.counts;
  GeneMomentsOptions g;
  g.groups = o.batches;
  g.n_groups = groups;
  g.ddof = 0;
  const GeneMoments residuals = host_gene_moments(ctx, PearsonBlocks(x, sums, o.batches, o.theta), g, kOp);
  const Array<double>& norm = residuals.variance.data;

  g = {};
  Array<std::int32_t> one_group;
  if (!o.batches.empty()) {
    Array<std::int32_t> codes = to_host<std::int32_t>(ctx, o.batches);
    for (std::int32_t& code : codes) code = code >= 0 && code < groups ? 0 : -1;
    one_group = to_device<std::int32_t>(ctx, std::as_const(codes).view());
    g.groups = std::as_const(one_group).view();
  }
  GeneMoments all = host_gene_moments(ctx, x, g, kOp);
  out.means = std::move(all.mean.data);
  out.variances = std::move(all.variance.data);
  select_by_rank(out, ctx.host(), MatrixView<const double>(norm.data(), groups, genes), o.n_top_genes.value_or(2000),
                 false);
}

/// Mean over cells of exp(-share * total), for the shares of all genes. Cells of one total, and genes of one share, are
/// worked out once: counts have few distinct ones.
std::vector<double> expected_zeros(const Context& ctx, std::vector<double> totals, const std::vector<double>& shares) {
  const auto n = static_cast<std::int64_t>(totals.size());
  std::sort(totals.begin(), totals.end());
  std::vector<std::int64_t> weights;
  std::size_t distinct = 0;
  for (const double total : totals) {
    if (distinct == 0 || totals[distinct - 1] != total) {
      totals[distinct++] = total;
      weights.push_back(0);
    }
    ++weights.back();
  }
  totals.resize(distinct);
  std::vector<double> distinct_shares = shares;
  std::sort(distinct_shares.begin(), distinct_shares.end());
  distinct_shares.erase(std::unique(distinct_shares.begin(), distinct_shares.end()), distinct_shares.end());

  int shift = prim::kFixedBits;  // n terms of at most 2^shift stay below 2^62
  while (shift > 62 - 31 && (n >> (62 - shift)) > 0) --shift;
  std::vector<std::int64_t> sums(distinct_shares.size(), 0);
  expected_zeros_kernel(ctx, Span<const double>(totals), Span<const std::int64_t>(weights),
                        Span<const double>(distinct_shares), shift, Span<std::int64_t>(sums));
  std::vector<double> out(shares.size());
  for (std::size_t j = 0; j < shares.size(); ++j) {
    const auto at = std::lower_bound(distinct_shares.begin(), distinct_shares.end(), shares[j]);
    out[j] = prim::fixed_mean(sums[static_cast<std::size_t>(at - distinct_shares.begin())], n, prim::FixedScale(shift));
  }
  return out;
}

void select_zeros(HighlyVariableGenes& out, const Context& ctx, const RowBlocks& x,
                  const HighlyVariableGenesOptions& o) {
  const std::int64_t genes = x.n_cols();
  const std::int64_t n_top = std::min(genes, o.n_top_genes.value_or(2000));
  const std::int64_t groups = std::max(1, o.n_batches);
  GeneMomentsOptions g;
  g.groups = o.batches;
  g.n_groups = static_cast<std::int32_t>(groups);
  const GeneSums sums = gene_sums(ctx, x, g, kOp);
  out.counts = sums.counts;
  Matrix<double> gene_total(ctx.host().workspace, groups, genes, "gene totals");
  for (std::int64_t b = 0; b < groups; ++b)
    for (std::int64_t j = 0; j < genes; ++j) {
      const auto k = static_cast<std::size_t>(j);
      SCW_EXPECT_AS(DataError, sums.finite[k] != 0, kOp, "gene {} has a value that is not finite", j);
      const double total = prim::fixed_sum(sums.sums[b * genes + j].sum, sums.scale[k]);
      SCW_EXPECT_AS(DataError, total >= 0, kOp, "the total of gene {} must not be negative (got {})", j, total);
      gene_total.view()(b, j) = total;
    }

  Array<double> device_totals(ctx.workspace, x.n_rows(), "cell totals", ctx.stream);
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    row_totals_kernel(ctx, block, {}, device_totals.view().subspan(first, scw::n_rows(block)));
  });
  const Array<double> totals = to_host<double>(ctx, std::as_const(device_totals).view());
  const Array<std::int32_t> codes = to_host<std::int32_t>(ctx, o.batches);
  std::vector<std::vector<double>> batch_totals(static_cast<std::size_t>(groups));
  for (std::int64_t i = 0; i < totals.size(); ++i) {
    const std::int32_t b = codes.empty() ? 0 : codes[i];
    if (b < 0 || b >= groups) continue;
    SCW_EXPECT_AS(DataError, totals[i] >= 0, kOp, "the total of cell {} must not be negative (got {})", i, totals[i]);
    batch_totals[static_cast<std::size_t>(b)].push_back(totals[i]);
  }

  // Cells with a count: the entries above a clip value of 0.
  Array<ClippedSum> above(ctx.host().workspace, checked_mul(groups, genes), "cells with counts");
  std::fill(above.begin(), above.end(), ClippedSum{});
  Array<double> zero(ctx.host().workspace, above.size(), "zeros");
  std::fill(zero.begin(), zero.end(), 0.0);
  const Array<double> device_zero =
      ctx.device.type == DeviceType::cpu ? Array<double>() : to_device<double>(ctx, std::as_const(zero).view());
  clipped_sums_kernel(ctx, x, g.groups,
                      MatrixView<const double>(device_zero.empty() ? zero.data() : device_zero.data(), groups, genes),
                      Span<const prim::FixedScale>(sums.scale), above.view());

  std::vector<std::vector<double>> observed, expected, enrichment, ranks;  // of the batches that have cells
  out.n_batches = Array<std::int32_t>(host_memory(), genes, "batches");
  std::fill(out.n_batches.begin(), out.n_batches.end(), 0);
  for (std::int64_t b = 0; b < groups; ++b) {
    auto& cells = batch_totals[static_cast<std::size_t>(b)];
    if (cells.empty()) continue;
    const auto n = static_cast<double>(cells.size());
    double all = 0;
    for (std::int64_t j = 0; j < genes; ++j) all += gene_total.view()(b, j);
    std::vector<double> share(static_cast<std::size_t>(genes), 0.0), zeros(share), enriched(share), rank(share);
    for (std::int64_t j = 0; j < genes; ++j) {
      if (all > 0) share[static_cast<std::size_t>(j)] = gene_total.view()(b, j) / all;
      zeros[static_cast<std::size_t>(j)] = 1 - static_cast<double>(above[b * genes + j].count) / n;
    }
    expected.push_back(expected_zeros(ctx, std::move(cells), share));
    for (std::size_t j = 0; j < enriched.size(); ++j) enriched[j] = zeros[j] * (1 - expected.back()[j]);
    const Index order = sorted_genes(genes, {}, [&](std::int64_t i, std::int64_t j) {
      return enriched[static_cast<std::size_t>(i)] < enriched[static_cast<std::size_t>(j)];
    });
    for (std::int64_t k = 0; k < genes; ++k) {
      const std::int64_t j = order[static_cast<std::size_t>(k)];
      rank[static_cast<std::size_t>(j)] = static_cast<double>(k);
      if (k >= genes - n_top) ++out.n_batches[j];
    }
    observed.push_back(std::move(zeros));
    enrichment.push_back(std::move(enriched));
    ranks.push_back(std::move(rank));
  }

  const auto medians = [&](const std::vector<std::vector<double>>& batches, const char* tag) {
    Array<double> to = column(genes, tag);
    std::vector<double> values(batches.size());
    for (std::int64_t j = 0; j < genes; ++j) {
      for (std::size_t b = 0; b < batches.size(); ++b) values[b] = batches[b][static_cast<std::size_t>(j)];
      to[j] = median(values);
    }
    return to;
  };
  out.observed_zeros = medians(observed, "observed zeros");
  out.expected_zeros = medians(expected, "expected zeros");
  out.zero_enrichment = medians(enrichment, "zero enrichment");
  out.rank = medians(ranks, "rank");
  const Index order = sorted_genes(genes, {}, [&](std::int64_t i, std::int64_t j) {
    if (out.n_batches[i] != out.n_batches[j]) return out.n_batches[i] > out.n_batches[j];
    return compare_descending(out.rank[i], out.rank[j]) < 0;
  });
  for (std::int64_t k = 0; k < n_top; ++k) out.highly_variable[order[static_cast<std::size_t>(k)]] = 1;
}

}  // namespace

HighlyVariableGenes highly_variable_genes(const Context& ctx, const RowBlocks& x, const HighlyVariableGenesOptions& o) {
  const std::int64_t genes = x.n_cols();
  SCW_EXPECT(!o.n_top_genes || *o.n_top_genes > 0, kOp, "n_top_genes must be positive (got {})",
             o.n_top_genes.value_or(0));
  SCW_EXPECT(o.n_bins >= 1, kOp, "n_bins must be positive (got {})", o.n_bins);
  SCW_EXPECT(o.span > 0 && o.span <= 1, kOp, "span must be in (0, 1] (got {})", o.span);
  SCW_EXPECT(!o.log_base || (*o.log_base > 0 && *o.log_base != 1 && std::isfinite(*o.log_base)), kOp,
             "log_base must be positive, finite and not 1 (got {})", o.log_base.value_or(0));
  SCW_EXPECT(o.n_batches >= 0, kOp, "n_batches must not be negative (got {})", o.n_batches);
  SCW_EXPECT_AS(ShapeMismatch, o.batches.size == (o.n_batches > 0 ? x.n_rows() : 0), kOp,
                "batches must have one code per cell (got {} codes for {} cells and {} batches)", o.batches.size,
                x.n_rows(), o.n_batches);
  SCW_EXPECT_AS(ShapeMismatch, o.tie_order.empty() || o.tie_order.size == genes, kOp,
                "tie_order must have one entry per gene (got {}, expected {})", o.tie_order.size, genes);
  SCW_EXPECT(x.n_rows() > 0 && genes > 0, kOp, "needs cells and genes (got {} x {})", x.n_rows(), genes);
  HighlyVariableGenes out;
  out.highly_variable = Array<std::uint8_t>(host_memory(), genes, "highly variable");
  std::fill(out.highly_variable.begin(), out.highly_variable.end(), std::uint8_t{0});
  if (o.flavor == HvgFlavor::seurat || o.flavor == HvgFlavor::cell_ranger)
    select_dispersions(out, ctx, x, o);
  else if (o.flavor == HvgFlavor::pearson_residuals)
    select_residuals(out, ctx, x, o);
  else if (o.flavor == HvgFlavor::poisson_gene_selection)
    select_zeros(out, ctx, x, o);
  else
    select_standardised(out, ctx, x, o);
  for (const std::uint8_t h : out.highly_variable) out.n_selected += h;
  return out;
}

HighlyVariableGenes highly_variable_genes(const Context& ctx, const AnyMatrixView& x,
                                          const HighlyVariableGenesOptions& o) {
  return highly_variable_genes(ctx, ResidentBlocks(x), o);
}

}  // namespace scw::pp
