// Cells and genes below or above thresholds go.
#include <numeric>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/pp/calculate_qc_metrics.hpp"

namespace scw::pipeline {
namespace {

class FilterCellsStep final : public Step {
 public:
  explicit FilterCellsStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "filter cells"; }
  std::vector<std::string> operations() const override { return {"pp.filter_cells", "pp.subset"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto e = shape_for(s, n_threads);
    return kept_bytes(s) + estimate::cell_counts(e).peak + subset_of(s, n_threads, s.n_vars, s.nnz).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override { return on_host(s) ? 16 * s.n_obs : 0; }

  std::string run(const Context& ctx, AnnData& data) override {
    const MatrixElement& x = require_X(data, "filter cells");
    const auto n = static_cast<std::size_t>(data.n_obs());
    const pp::AxisCounts counted = pp::cell_counts(ctx, x.view());
    const auto n_positive = to_vector(ctx, counted.n_positive);
    const auto total = to_vector(ctx, counted.total);
    std::vector<std::uint8_t> keep(n, 1);
    std::string reasons;
    const auto drop = [&](const char* what, auto&& fails) {
      std::int64_t dropped = 0;
      for (std::size_t i = 0; i < n; ++i)
        if (keep[i] != 0 && fails(i)) {
          keep[i] = 0;
          ++dropped;
        }
      if (dropped > 0) reasons += fmt::format("{}{} by {}", reasons.empty() ? "" : ", ", format_count(dropped), what);
    };
    if (o_.min_genes) drop("few genes", [&](std::size_t i) { return n_positive[i] < *o_.min_genes; });
    if (o_.max_genes) drop("many genes", [&](std::size_t i) { return n_positive[i] > *o_.max_genes; });
    if (o_.min_counts) drop("few counts", [&](std::size_t i) { return total[i] < *o_.min_counts; });
    if (o_.max_counts) drop("many counts", [&](std::size_t i) { return total[i] > *o_.max_counts; });
    if (o_.max_pct_mt) {
      const auto pct = data.obs.at("pct_counts_mt").to_double();
      drop("mitochondrial share", [&](std::size_t i) { return !(pct[i] <= *o_.max_pct_mt); });
    }
    const auto kept = std::accumulate(keep.begin(), keep.end(), std::int64_t{0});
    SCW_EXPECT_AS(DataError, kept > 1, "filter cells", "{} left (dropped {}); loosen the thresholds",
                  kept == 0 ? "no cell is" : "only one cell is", reasons);
    if (o_.min_genes || o_.max_genes) data.obs.set("n_genes", Column(cast<std::int64_t>(n_positive)));
    if (o_.min_counts || o_.max_counts)
      with_sum_type(sum_type(x), [&](auto zero) { data.obs.set("n_counts", Column(cast<decltype(zero)>(total))); });
    data.subset_obs(ctx, Span<const std::uint8_t>(keep));
    const auto dropped = static_cast<std::int64_t>(n) - kept;
    return fmt::format("{} cells dropped{}, {} left", format_count(dropped),
                       reasons.empty() ? "" : " (" + reasons + ")", format_count(kept));
  }

 private:
  RunOptions o_;
};

class FilterGenesStep final : public Step {
 public:
  explicit FilterGenesStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "filter genes"; }
  std::vector<std::string> operations() const override { return {"pp.filter_genes", "pp.subset"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto e = shape_for(s, n_threads);
    return kept_bytes(s) + std::max(estimate::gene_counts(e).peak, subset_of(s, n_threads, s.n_vars, s.nnz).peak);
  }
  std::int64_t kept_bytes(const Shape& s) const override { return on_host(s) ? 8 * s.n_vars : 0; }

  std::string run(const Context& ctx, AnnData& data) override {
    const auto n_positive = to_vector(ctx, pp::gene_counts(ctx, require_X(data, "filter genes").view()).n_positive);
    std::vector<std::uint8_t> keep(n_positive.size());
    for (std::size_t j = 0; j < keep.size(); ++j) keep[j] = n_positive[j] >= *o_.min_cells ? 1 : 0;
    const auto kept = std::accumulate(keep.begin(), keep.end(), std::int64_t{0});
    SCW_EXPECT_AS(DataError, kept > 0, "filter genes", "no gene is found in {} cells; lower min_cells", *o_.min_cells);
    const std::int64_t dropped = data.n_vars() - kept;
    data.var.set("n_cells", Column(cast<std::int64_t>(n_positive)));
    data.subset_var(ctx, Span<const std::uint8_t>(keep));
    return fmt::format("{} genes dropped, {} left", format_count(dropped), format_count(kept));
  }

 private:
  RunOptions o_;
};

}  // namespace

StepPtr filter_cells_step(const RunOptions& o) { return std::make_unique<FilterCellsStep>(o); }
StepPtr filter_genes_step(const RunOptions& o) { return std::make_unique<FilterGenesStep>(o); }

}  // namespace scw::pipeline
