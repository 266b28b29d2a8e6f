// Marker genes of groups of cells: a test, or one regression.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/tl/logistic_regression.hpp"
#include "scwarp/tl/rank_genes_groups.hpp"

namespace scw::pipeline {
namespace {

constexpr std::int64_t kGroupsGuess = 30;  // clusters, for memory estimates

class MarkersStep final : public Step {
 public:
  explicit MarkersStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "markers"; }
  std::vector<std::string> operations() const override {
    if (o_.markers == "logreg") return {"tl.logistic_regression"};
    if (o_.markers == "wilcoxon") return {"tl.rank_genes_groups"};
    return {"prim.group_moments"};
  }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto test = o_.markers == "wilcoxon" ? estimate::Test::wilcoxon
                      : o_.markers == "logreg" ? estimate::Test::logreg
                                               : estimate::Test::t_test;
    return kept_bytes(s) + estimate::rank_genes_groups(shape_for(s, n_threads), test, kGroupsGuess).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return on_host(s) ? kGroupsGuess * (o_.n_marker_genes ? *o_.n_marker_genes : s.n_vars) * (24 + 32) : 0;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    constexpr const char* op = "markers";
    const std::string groupby = marker_groups(o_);
    Categorical labels = data.obs.at(groupby).to_categorical();
    const auto categories = labels.category_names();
    // Groups of one cell cannot be tested.
    std::vector<std::int64_t> size(categories.size());
    for (const auto c : labels.codes)
      if (c >= 0) ++size[static_cast<std::size_t>(c)];
    std::vector<std::int32_t> group(categories.size(), -1);
    std::vector<std::string> names;
    for (std::size_t c = 0; c < categories.size(); ++c)
      if (size[c] >= 2) {
        group[c] = static_cast<std::int32_t>(names.size());
        names.push_back(categories[c]);
      }
    SCW_EXPECT_AS(DataError, !names.empty(), op, "no group of obs['{}'] has two cells", groupby);
    if (names.size() < categories.size())
      ctx.warn(fmt::format("{}: {} groups of obs['{}'] have fewer than two cells and are left out", op,
                           categories.size() - names.size(), groupby));
    std::vector<std::int32_t> codes(labels.codes.size());
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = labels.codes[i] < 0 ? -1 : group[static_cast<std::size_t>(labels.codes[i])];

    tl::RankGenesGroupsOptions options;
    options.test = o_.markers == "wilcoxon" ? tl::RankTest::wilcoxon
                   : o_.markers == "t-test" ? tl::RankTest::t_test
                                            : tl::RankTest::t_test_overestim_var;
    options.tie_correct = o_.tie_correct;
    options.pts = o_.pts;
    const bool use_raw = data.raw.has_value();
    const MatrixElement& x = use_raw ? data.raw->X : *data.X;
    const auto& genes = use_raw ? data.raw->var.index() : data.var.index();
    Dict params{{"groupby", Value(groupby)},
                {"reference", Value("rest")},
                {"method", Value(o_.markers)},
                {"use_raw", Value(use_raw)},
                {"corr_method", Value("benjamini-hochberg")},
                {"mean_in_log_space", Value(true)}};
    if (o_.markers == "logreg") {
      data.uns["rank_genes_groups"] = Value(logreg(ctx, x.view(), codes, names, genes, std::move(params)));
      return fmt::format("{} genes in one regression on {} groups of '{}'",
                         format_count(static_cast<std::int64_t>(genes.size())), names.size(), groupby);
    }
    const auto r = tl::rank_genes_groups(ctx, x.view(), Span<const std::int32_t>(codes),
                                         static_cast<std::int32_t>(names.size()), options);

    const auto m = static_cast<std::int64_t>(genes.size());
    const std::int64_t n = o_.n_marker_genes ? std::min(*o_.n_marker_genes, m) : m;
    StructArray top_names, scores, folds, pvals, adjusted;
    for (auto* table : {&top_names, &scores, &folds, &pvals, &adjusted}) table->n_rows = n;
    for (std::int64_t g = 0; g < static_cast<std::int64_t>(names.size()); ++g) {
      const std::string& name = names[static_cast<std::size_t>(g)];
      const std::int32_t* order = r.order.view().row(g);
      std::vector<std::string> gene_names;
      std::vector<float> score, fold;
      std::vector<double> p, q;
      for (std::int64_t k = 0; k < n; ++k) {
        const std::int32_t j = order[k];
        gene_names.push_back(genes[static_cast<std::size_t>(j)]);
        score.push_back(static_cast<float>(r.scores.view()(g, j)));
        fold.push_back(static_cast<float>(r.logfoldchanges.view()(g, j)));
        p.push_back(r.pvals.view()(g, j));
        q.push_back(r.pvals_adj.view()(g, j));
      }
      top_names.fields.emplace_back(name, std::move(gene_names));
      scores.fields.emplace_back(name, std::move(score));
      folds.fields.emplace_back(name, std::move(fold));
      pvals.fields.emplace_back(name, std::move(p));
      adjusted.fields.emplace_back(name, std::move(q));
    }
    if (o_.markers == "wilcoxon") {
      params["tie_correct"] = Value(o_.tie_correct);
      params["return_u_values"] = Value(false);
    }
    Dict out{{"params", Value(std::move(params))}, {"names", Value(std::move(top_names))},
             {"scores", Value(std::move(scores))}, {"logfoldchanges", Value(std::move(folds))},
             {"pvals", Value(std::move(pvals))},   {"pvals_adj", Value(std::move(adjusted))}};
    if (o_.pts) {
      const auto frame = [&](const Matrix<double>& values) {
        DataFrame df(genes, use_raw ? data.raw->var.index_name : data.var.index_name);
        for (std::size_t g = 0; g < names.size(); ++g) {
          const double* row = values.view().row(static_cast<std::int64_t>(g));
          df.set(names[g], Column(std::vector<double>(row, row + m)));
        }
        return df;
      };
      out["pts"] = Value(frame(r.pts));
      out["pts_rest"] = Value(frame(r.pts_rest));
    }
    data.uns["rank_genes_groups"] = Value(std::move(out));
    return fmt::format("{} genes tested in {} groups of '{}' ({})", format_count(m), names.size(), groupby, o_.markers);
  }

 private:
  /// Names and scores only: the coefficients of every group, or with two groups those of the second, under the first.
  Dict logreg(const Context& ctx, const AnyMatrixView& x, const std::vector<std::int32_t>& codes,
              const std::vector<std::string>& names, const std::vector<std::string>& genes, Dict params) const {
    SCW_EXPECT_AS(DataError, names.size() > 1, "markers", "logreg needs at least two groups");
    const auto r =
        tl::logistic_regression(ctx, x, Span<const std::int32_t>(codes), static_cast<std::int32_t>(names.size()));
    if (!r.converged)
      ctx.warn(fmt::format("markers: the logistic regression stopped after {} iterations", r.n_iterations));
    const auto m = static_cast<std::int64_t>(genes.size());
    const std::int64_t n = o_.n_marker_genes ? std::min(*o_.n_marker_genes, m) : m;
    StructArray top, scores;
    top.n_rows = scores.n_rows = n;
    for (std::int64_t g = 0; g < r.coefficients.n_rows; ++g) {
      const double* w = r.coefficients.view().row(g);
      std::vector<std::int32_t> order(static_cast<std::size_t>(m));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return w[a] > w[b]; });
      std::vector<std::string> gene_names;
      std::vector<float> score;
      for (std::int64_t k = 0; k < n; ++k) {
        gene_names.push_back(genes[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])]);
        score.push_back(static_cast<float>(w[order[static_cast<std::size_t>(k)]]));
      }
      top.fields.emplace_back(names[static_cast<std::size_t>(g)], std::move(gene_names));
      scores.fields.emplace_back(names[static_cast<std::size_t>(g)], std::move(score));
    }
    return Dict{
        {"params", Value(std::move(params))}, {"names", Value(std::move(top))}, {"scores", Value(std::move(scores))}};
  }

  RunOptions o_;
};

}  // namespace

StepPtr markers_step(const RunOptions& o) { return std::make_unique<MarkersStep>(o); }

}  // namespace scw::pipeline
