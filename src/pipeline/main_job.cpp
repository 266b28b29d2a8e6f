// Which steps the main job has, and in what order.
#include <algorithm>
#include <cmath>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/steps.hpp"

namespace scw::pipeline {

std::string marker_groups(const RunOptions& o) {
  if (o.markers_groupby) return *o.markers_groupby;
  if (o.resolution.size() == 1) return "leiden";
  const auto nearest = std::min_element(o.resolution.begin(), o.resolution.end(),
                                        [](double a, double b) { return std::abs(a - 1) < std::abs(b - 1); });
  return "leiden_" + python_float(*nearest);
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
