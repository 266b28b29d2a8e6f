// The steps of the main job, each made from the options of the run. Slots, dtypes and the order of columns are those of
// the Python functions in python/scwarp/.
#pragma once

#include <memory>

#include "scwarp/pipeline/pipeline.hpp"

namespace scw::pipeline {

using StepPtr = std::unique_ptr<Step>;

/// `report`, if there is one, gets the histograms.
StepPtr qc_step(const RunOptions& o, ReportData* report);
StepPtr filter_cells_step(const RunOptions& o);
StepPtr filter_genes_step(const RunOptions& o);
StepPtr normalize_step(const RunOptions& o);
StepPtr log1p_step();
StepPtr variable_genes_step(const RunOptions& o);
StepPtr select_genes_step(const RunOptions& o);
StepPtr regress_out_step(const RunOptions& o);
StepPtr scale_step(const RunOptions& o);
StepPtr pca_step(const RunOptions& o);
StepPtr neighbors_step(const RunOptions& o);
StepPtr umap_step(const RunOptions& o);
StepPtr leiden_step(const RunOptions& o);
StepPtr markers_step(const RunOptions& o);

}  // namespace scw::pipeline
