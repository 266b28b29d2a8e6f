// QC metrics into obs and var, their histograms into the report.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/pp/calculate_qc_metrics.hpp"

namespace scw::pipeline {
namespace {

ReportHistogram histogram(const std::string& name, const std::vector<double>& values,
                          std::vector<ReportThreshold> thresholds) {
  ReportHistogram h;
  h.name = name;
  h.thresholds = std::move(thresholds);
  std::vector<double> finite;
  for (const double v : values)
    if (std::isfinite(v)) finite.push_back(v);
  if (finite.empty()) return h;
  // The last thousandth may be far out: it is counted in the last bin.
  auto at = finite.begin() + static_cast<std::ptrdiff_t>(0.999 * static_cast<double>(finite.size() - 1));
  std::nth_element(finite.begin(), at, finite.end());
  h.high = *at * 1.02;
  for (const auto& t : h.thresholds)
    if (t.value < 4 * h.high) h.high = std::max(h.high, t.value * 1.05);
  if (!(h.high > 0)) h.high = 1;
  h.counts.assign(80, 0);
  const double per_bin = h.high / static_cast<double>(h.counts.size());
  for (const double v : finite) {
    const auto bin = static_cast<std::size_t>(std::clamp(v / per_bin, 0.0, static_cast<double>(h.counts.size()) - 1));
    ++h.counts[bin];
  }
  std::int64_t outside = 0;
  for (const double v : values) {
    bool out = false;
    for (const auto& t : h.thresholds) out = out || !(t.minimum ? v >= t.value : v <= t.value);
    outside += out ? 1 : 0;
  }
  h.note = h.thresholds.empty() ? "no threshold"
                                : fmt::format("{} of {} cells are outside", format_count(outside),
                                              format_count(static_cast<std::int64_t>(values.size())));
  return h;
}

class QcStep final : public Step {
 public:
  QcStep(const RunOptions& o, ReportData* report) : o_(o), report_(report) {}
  std::string name() const override { return "QC"; }
  std::vector<std::string> operations() const override { return {"pp.calculate_qc_metrics"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto tops = static_cast<int>(o_.percent_top.size());
    const std::int64_t largest = tops > 0 ? *std::max_element(o_.percent_top.begin(), o_.percent_top.end()) : 0;
    return kept_bytes(s) + estimate::calculate_qc_metrics(shape_for(s, n_threads), 1, tops, largest).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {  // columns of obs and var are on the host
    return on_host(s) ? 8 * 12 * (s.n_obs + s.n_vars) : 0;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    const MatrixElement& x = require_X(data, "QC");
    SCW_EXPECT_AS(DataError, data.n_obs() > 0 && data.n_vars() > 0, "QC", "the input is empty ({} cells x {} genes)",
                  data.n_obs(), data.n_vars());
    SCW_EXPECT_AS(DataError, data.n_obs() > 1, "QC", "the input has one cell (expected at least 2)");
    Bools mt{std::vector<std::uint8_t>(static_cast<std::size_t>(data.n_vars()), 0)};
    for (std::size_t j = 0; j < mt.values.size(); ++j)
      for (const auto& prefix : o_.mt_prefix)
        if (data.var.index()[j].starts_with(prefix)) mt.values[j] = 1;
    const auto n_mt = std::accumulate(mt.values.begin(), mt.values.end(), std::int64_t{0});
    pp::QcOptions options;
    const OnDevice mt_here(ctx, mt.values);
    options.families = {mt_here.view()};
    for (const auto n : o_.percent_top)
      if (n > 0 && n <= data.n_vars()) options.percent_top.push_back(n);
    std::sort(options.percent_top.begin(), options.percent_top.end());
    const pp::QcMetrics m = pp::calculate_qc_metrics(ctx, x.view(), options);

    std::vector<std::pair<std::string, Column>> obs, var;
    const auto add = [](auto& list, std::string name, auto values) {
      list.emplace_back(std::move(name), Column(std::move(values)));
    };
    // NumPy's sums of unsigned numbers are unsigned.
    const auto add_sum = [&](auto& list, std::string name, auto values) {
      add(list, std::move(name), std::move(values));
      if (x.stored_dtype.starts_with("uint")) list.back().second.stored_dtype = "uint64";
    };
    const auto n_genes = to_vector(ctx, m.n_genes);
    const auto total_counts = to_vector(ctx, m.total);
    std::vector<double> pct_mt;
    add(obs, "n_genes_by_counts", n_genes);
    add(obs, "log1p_n_genes_by_counts", log1p_of(n_genes));
    with_sum_type(sum_type(x), [&](auto zero) {
      using T = decltype(zero);
      const auto total = cast<T>(total_counts), total_mt = cast<T>(to_vector(ctx, m.family_total[0]));
      add_sum(obs, "total_counts", total);
      add(obs, "log1p_total_counts", log1p_of(total));
      for (std::size_t k = 0; k < options.percent_top.size(); ++k)
        add(obs, fmt::format("pct_counts_in_top_{}_genes", options.percent_top[k]), to_vector(ctx, m.pct_top[k]));
      add_sum(obs, "total_counts_mt", total_mt);
      add(obs, "log1p_total_counts_mt", log1p_of(total_mt));
      using P = std::conditional_t<std::is_same_v<T, float>, float, double>;
      std::vector<P> pct(total.size());
      for (std::size_t i = 0; i < pct.size(); ++i)
        pct[i] = static_cast<P>(total_mt[i]) / static_cast<P>(total[i]) * static_cast<P>(100);
      pct_mt = cast<double>(pct);
      add(obs, "pct_counts_mt", std::move(pct));

      const auto n_cells = to_vector(ctx, m.n_cells);
      const auto sums = to_vector(ctx, m.gene_total);
      const auto n = static_cast<double>(data.n_obs());
      add(var, "n_cells_by_counts", cast<std::int64_t>(n_cells));
      std::vector<double> mean, dropout;
      for (std::size_t j = 0; j < n_cells.size(); ++j) {
        mean.push_back(sums[j] / n);
        dropout.push_back((1 - n_cells[j] / n) * 100);
      }
      add(var, "mean_counts", mean);
      add(var, "log1p_mean_counts", log1p_of(mean));
      add(var, "pct_dropout_by_counts", std::move(dropout));
      const auto gene_total = cast<T>(sums);
      add_sum(var, "total_counts", gene_total);
      add(var, "log1p_total_counts", log1p_of(gene_total));
    });

    std::vector<double> total = total_counts;
    if (report_ != nullptr) {
      const auto limits = [](const auto& low, const auto& high) {
        std::vector<ReportThreshold> t;
        if (low) t.push_back({static_cast<double>(*low), true});
        if (high) t.push_back({static_cast<double>(*high), false});
        return t;
      };
      report_->qc = {histogram("genes per cell", cast<double>(n_genes), limits(o_.min_genes, o_.max_genes)),
                     histogram("counts per cell", total, limits(o_.min_counts, o_.max_counts))};
      if (n_mt > 0)
        report_->qc.push_back(
            histogram("% mitochondrial counts", pct_mt, limits(std::optional<double>(), o_.max_pct_mt)));
    }
    const auto median = [](std::vector<double> v) {
      if (v.empty()) return 0.0;
      std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
      return v[v.size() / 2];
    };
    const std::string summary = fmt::format("median {} genes and {} counts per cell, {} mitochondrial genes",
                                            format_count(std::llround(median(cast<double>(n_genes)))),
                                            format_count(std::llround(median(std::move(total)))), n_mt);
    data.var.set("mt", Column(std::move(mt)));
    for (auto& [key, column] : obs) data.obs.set(key, std::move(column));
    for (auto& [key, column] : var) data.var.set(key, std::move(column));
    return summary;
  }

 private:
  RunOptions o_;
  ReportData* report_;
};

}  // namespace

StepPtr qc_step(const RunOptions& o, ReportData* report) { return std::make_unique<QcStep>(o, report); }

}  // namespace scw::pipeline
