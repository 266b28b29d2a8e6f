// Which steps the main job has, and in what order.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "core/check.hpp"
#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/pp/neighbors.hpp"

namespace scw::pipeline {

std::string marker_groups(const RunOptions& o) {
  if (o.markers_groupby) return *o.markers_groupby;
  if (o.resolution.size() == 1) return "leiden";
  const auto nearest = std::min_element(o.resolution.begin(), o.resolution.end(),
                                        [](double a, double b) { return std::abs(a - 1) < std::abs(b - 1); });
  return "leiden_" + python_float(*nearest);
}

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
  pp::parse_metric(o.metric);
  pp::parse_knn_algorithm(o.knn_algorithm);
  pp::parse_connectivity_method(o.connectivities);
  SCW_EXPECT(!o.min_cells || *o.min_cells >= 0, op, "min_cells must not be negative (got {})", *o.min_cells);
  SCW_EXPECT(!o.target_sum || *o.target_sum > 0, op, "target_sum must be positive (got {})", *o.target_sum);
  SCW_EXPECT(o.n_top_genes >= 0, op, "n_top_genes must not be negative (got {})", o.n_top_genes);
  SCW_EXPECT(o.n_top_genes > 0 || !on_counts(o.flavor), op, "flavor {} needs n_top_genes", o.flavor);
  SCW_EXPECT(!o.max_value || *o.max_value > 0, op, "max_value must be positive (got {})", *o.max_value);
  SCW_EXPECT(o.n_comps >= 0, op, "n_comps must not be negative (got {})", o.n_comps);
  SCW_EXPECT(o.n_neighbors >= 2, op, "n_neighbors must be at least 2 (got {})", o.n_neighbors);
  SCW_EXPECT(!o.n_pcs || *o.n_pcs >= 1, op, "n_pcs must be positive (got {})", *o.n_pcs);
  SCW_EXPECT(o.min_dist >= 0 && o.spread > 0, op, "min_dist must not be negative, spread positive (got {}, {})",
             o.min_dist, o.spread);
  SCW_EXPECT(o.umap_components >= 1, op, "umap_components must be positive (got {})", o.umap_components);
  SCW_EXPECT(!o.umap_epochs || *o.umap_epochs >= 0, op, "umap_epochs must not be negative (got {})", *o.umap_epochs);
  SCW_EXPECT(!o.resolution.empty(), op, "at least one resolution is needed");
  for (std::size_t i = 0; i < o.resolution.size(); ++i) {
    SCW_EXPECT(o.resolution[i] >= 0 && std::isfinite(o.resolution[i]), op, "resolution must not be negative (got {})",
               o.resolution[i]);
    for (std::size_t j = 0; j < i; ++j)
      SCW_EXPECT(o.resolution[i] != o.resolution[j], op, "resolution {} is given twice", o.resolution[i]);
  }
  SCW_EXPECT(!o.n_marker_genes || *o.n_marker_genes >= 1, op, "n_marker_genes must be positive (got {})",
             *o.n_marker_genes);
}

Steps main_job(const RunOptions& o, ReportData* report) {
  check_options(o);
  Steps steps;
  steps.push_back(qc_step(o, report));
  if (o.min_genes || o.max_genes || o.min_counts || o.max_counts || o.max_pct_mt) steps.push_back(filter_cells_step(o));
  if (o.min_cells) steps.push_back(filter_genes_step(o));
  if (on_counts(o.flavor)) steps.push_back(variable_genes_step(o));
  steps.push_back(normalize_step(o));
  steps.push_back(log1p_step());
  if (!on_counts(o.flavor)) steps.push_back(variable_genes_step(o));
  if (makes_dense(o)) steps.push_back(select_genes_step(o));
  if (!o.regress_out.empty()) steps.push_back(regress_out_step(o));
  if (o.scaling == "explicit") steps.push_back(scale_step(o));
  steps.push_back(pca_step(o));
  steps.push_back(neighbors_step(o));
  if (o.umap) steps.push_back(umap_step(o));
  steps.push_back(leiden_step(o));
  if (o.markers != "none") steps.push_back(markers_step(o));
  return steps;
}

}  // namespace scw::pipeline
