// What can be known to be wrong before a step of the main job runs.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>

#include "core/check.hpp"
#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pp/knn/kernel.hpp"
#include "scwarp/pp/neighbors.hpp"

namespace scw::pipeline {
namespace {

/// What a column can be used for.
struct Use {
  bool groups = false, numbers = false;
};

Use use_of(const Column& c) {
  const bool real =
      std::holds_alternative<std::vector<float>>(c.data) || std::holds_alternative<std::vector<double>>(c.data);
  const bool known = !std::holds_alternative<OpaqueRows>(c.data) && !std::holds_alternative<Foreign>(c.data);
  return {known && !real, c.is_numeric()};
}

/// The columns of obs that there are once the cells are filtered: those of the input, and what QC and filters make.
std::map<std::string, Use> columns_of_obs(const RunOptions& o, const AnnData& data) {
  constexpr Use kWhole{true, true}, kReal{false, true};
  std::map<std::string, Use> out;
  for (const auto& [name, column] : data.obs.columns()) out[name] = use_of(column);
  const Use sum = data.X && sum_type(*data.X) == SumType::i64 ? kWhole : kReal;
  out["n_genes_by_counts"] = kWhole;
  out["total_counts"] = out["total_counts_mt"] = sum;
  for (const char* name : {"log1p_n_genes_by_counts", "log1p_total_counts", "log1p_total_counts_mt", "pct_counts_mt"})
    out[name] = kReal;
  for (const std::int64_t n : o.percent_top)
    if (n > 0 && n <= data.n_vars()) out[fmt::format("pct_counts_in_top_{}_genes", n)] = kReal;
  if (o.min_genes || o.max_genes) out["n_genes"] = kWhole;
  if (o.min_counts || o.max_counts) out["n_counts"] = sum;
  return out;
}

}  // namespace

void check_options(const RunOptions& o) {
  constexpr const char* op = "options";
  const auto one_of = [](const char* name, const std::string& value, std::initializer_list<const char*> allowed) {
    std::string list;
    for (const char* a : allowed) {
      if (value == a) return;
      list += std::string(list.empty() ? "" : ", ") + a;
    }
    detail::fail<InvalidArgument>(op, "{} is '{}' (expected one of {})", name, value, list);
  };
  one_of("flavor", o.flavor, {"seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"});
  one_of("scaling", o.scaling, {"implicit", "explicit", "none"});
  one_of("umap_init", o.umap_init, {"spectral", "pca", "random"});
  one_of("markers", o.markers, {"wilcoxon", "t-test", "t-test_overestim_var", "logreg", "none"});
  const pp::Metric metric = pp::parse_metric(o.metric);
  pp::parse_connectivity_method(o.connectivities);
  SCW_EXPECT(!o.min_cells || *o.min_cells >= 0, op, "min_cells must not be negative (got {})", *o.min_cells);
  SCW_EXPECT(!o.target_sum || *o.target_sum > 0, op, "target_sum must be positive (got {})", *o.target_sum);
  SCW_EXPECT(o.n_top_genes >= 0, op, "n_top_genes must not be negative (got {})", o.n_top_genes);
  SCW_EXPECT(o.n_top_genes > 0 || !on_counts(o.flavor), op, "flavor {} needs n_top_genes", o.flavor);
  SCW_EXPECT(!o.max_value || *o.max_value > 0, op, "max_value must be positive (got {})", *o.max_value);
  SCW_EXPECT(o.n_comps >= 0, op, "n_comps must not be negative (got {})", o.n_comps);
  SCW_EXPECT(o.n_neighbors >= 2, op, "n_neighbors must be at least 2 (got {})", o.n_neighbors);
  const std::int64_t components = o.n_comps == 0 ? 50 : o.n_comps;
  SCW_EXPECT(!o.n_pcs || (*o.n_pcs >= 1 && *o.n_pcs <= components), op,
             "n_pcs must be from 1 to the {} components of the PCA (got {})", components, *o.n_pcs);
  const std::int64_t used = o.n_pcs.value_or(components);
  SCW_EXPECT(metric != pp::Metric::haversine || used == 2, op,
             "metric 'haversine' needs 2 components, latitude and longitude (got {}; see n_pcs)", used);
  SCW_EXPECT(pp::parse_knn_algorithm(o.knn_algorithm) != pp::KnnAlgorithm::nn_descent || pp::is_tile_metric(metric), op,
             "knn_algorithm 'nn_descent' does not take metric '{}'; use 'brute'", o.metric);
  SCW_EXPECT(metric != pp::Metric::jensenshannon && metric != pp::Metric::hellinger, op,
             "metric '{}' takes no negative values, which principal components have", o.metric);
  SCW_EXPECT(o.min_dist >= 0 && std::isfinite(o.min_dist), op, "min_dist must not be negative (got {})", o.min_dist);
  SCW_EXPECT(o.spread > 0 && std::isfinite(o.spread), op, "spread must be positive (got {})", o.spread);
  SCW_EXPECT(o.umap_components >= 1, op, "umap_components must be positive (got {})", o.umap_components);
  SCW_EXPECT(!o.umap || o.umap_init != "pca" || o.umap_components <= components, op,
             "umap_init 'pca' needs umap_components of at most the {} components of the PCA (got {})", components,
             o.umap_components);
  SCW_EXPECT(!o.umap_epochs || *o.umap_epochs >= 0, op, "umap_epochs must not be negative (got {})", *o.umap_epochs);
  SCW_EXPECT(!o.resolution.empty(), op, "at least one resolution is needed");
  for (std::size_t i = 0; i < o.resolution.size(); ++i) {
    SCW_EXPECT(o.resolution[i] >= 0 && o.resolution[i] <= 1e6, op, "resolution must be in [0, 1e6] (got {})",
               o.resolution[i]);
    for (std::size_t j = 0; j < i; ++j)
      SCW_EXPECT(o.resolution[i] != o.resolution[j], op, "resolution {} is given twice", o.resolution[i]);
  }
  SCW_EXPECT(o.leiden_iterations == -1 || o.leiden_iterations > 0, op,
             "leiden_iterations must be positive or -1 (got {})", o.leiden_iterations);
  SCW_EXPECT(!o.n_marker_genes || *o.n_marker_genes >= 1, op, "n_marker_genes must be positive (got {})",
             *o.n_marker_genes);
}

void check_data(const RunOptions& o, const AnnData& data) {
  constexpr const char* op = "options";
  auto columns = columns_of_obs(o, data);
  const auto at = [&](const char* option, const std::string& name) {
    const auto found = columns.find(name);
    if (found != columns.end()) return found->second;
    std::string list;
    for (const auto& column : columns) list += (list.empty() ? "" : ", ") + column.first;
    detail::fail<InvalidArgument>(op, "{}: obs has no column '{}' (columns: {})", option, name, list);
  };
  const auto expect_groups = [&](const char* option, const std::string& name) {
    SCW_EXPECT(at(option, name).groups, op,
               "{}: obs['{}'] has no groups (expected categories, text, integers or booleans)", option, name);
  };
  if (o.batch_key) expect_groups("batch_key", *o.batch_key);
  for (const auto& name : o.regress_out) {
    const Use use = at("regress_out", name);
    SCW_EXPECT(use.numbers || (use.groups && o.regress_out.size() == 1), op,
               "regress_out: obs['{}'] is not numeric (expected numbers, or one column of categories)", name);
  }
  if (o.markers_groupby) {
    for (const double r : o.resolution)
      columns[o.resolution.size() == 1 ? "leiden" : "leiden_" + python_float(r)] = {true, false};
    expect_groups("groupby", *o.markers_groupby);
  }
  std::int64_t most = std::min(data.n_obs(), data.n_vars());
  if (o.n_top_genes > 0) most = std::min(most, o.n_top_genes);
  SCW_EXPECT(!o.n_pcs || most < 2 || *o.n_pcs < most, op,
             "n_pcs must be below {}, the smaller number of cells and variable genes (got {})", most, *o.n_pcs);
}

}  // namespace scw::pipeline
