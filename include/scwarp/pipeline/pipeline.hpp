// The main job: a list of steps on an AnnData, each of which writes the slots that the Python function of its name
// writes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scwarp/anndata.hpp"
#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/datasets/simulate.hpp"
#include "scwarp/pipeline/options.hpp"
#include "scwarp/pipeline/report.hpp"

namespace scw::pipeline {

/// What memory estimates depend on.
struct SCW_API Shape {
  std::int64_t n_obs = 0, n_vars = 0;
  std::int64_t nnz = 0;  ///< stored values of X; n_obs * n_vars if it is dense
  int value_bytes = 4;
  bool sparse = true;
  DeviceType device = DeviceType::cpu;  ///< where the steps after reading work
  std::int64_t limit_bytes = 0;         ///< a device's memory for the job; 0: as much as it needs
  bool streamed = false;                ///< X stays on the host and goes through the device in blocks
  std::int64_t matrix_bytes() const;
};
SCW_API Shape shape_of(const AnnData& data);

class SCW_API Step {
 public:
  virtual ~Step() = default;
  virtual std::string name() const = 0;
  /// Bytes that the step allocates at its peak, beyond what exists before it; an upper estimate.
  virtual std::int64_t peak_bytes(const Shape& shape, int n_threads) const = 0;
  /// Of these, what stays.
  virtual std::int64_t kept_bytes(const Shape& shape) const = 0;
  /// The operations that it calls, as registered kernels name them: "pp.pca" stands for all its parts.
  virtual std::vector<std::string> operations() const = 0;
  /// Returns what it did, in a line. An error leaves the data of earlier steps in place.
  virtual std::string run(const Context& ctx, AnnData& data) = 0;
};

using Steps = std::vector<std::unique_ptr<Step>>;

/// QC, filters, normalise, log1p, variable genes, (regress out, scale), PCA, neighbours, UMAP, Leiden, markers. If
/// `report` is given, the QC step leaves the distributions before filtering in it; it must outlive the steps.
SCW_API Steps main_job(const RunOptions& options, ReportData* report = nullptr);

/// Throws InvalidArgument if an option is out of range: before the input is read.
SCW_API void check_options(const RunOptions& options);
/// Throws InvalidArgument if options do not fit the data: a column of obs that they name is neither there nor made by
/// the job, or of another kind; more n_pcs than the data can have. Before any step.
SCW_API void check_data(const RunOptions& options, const AnnData& data);

class SCW_API StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void started(const std::string& name) = 0;
  virtual void finished(const ReportStep& step) = 0;
};

/// Runs the steps in order. ctx.rng.seed must be options.seed. With a CUDA context X goes to the device first if it
/// has room for the whole job (by the estimates of the steps); else X stays on the host and every step streams it, with
/// the same result. What the steps make stays on the device, and everything comes back to the host at the end.
SCW_API std::vector<ReportStep> run_steps(const Context& ctx, AnnData& data, const Steps& steps,
                                          StepObserver* observer = nullptr);

/// Kernels that the job needs and that a device type does not have; the backend must have been loaded (Context::on).
SCW_API std::vector<std::string> missing_operations(const RunOptions& options, DeviceType device);

struct PlannedStep {
  std::string name;
  std::int64_t held_bytes = 0;  ///< before the step
  std::int64_t peak_bytes = 0;  ///< held_bytes included
};
/// Estimates for an input of this shape, which is taken to lose nothing to the filters. Reading is the first entry;
/// with a device, the others are of its memory: of a job with X there if Shape::limit_bytes has room for it, else of
/// one that streams X.
SCW_API std::vector<PlannedStep> plan(const RunOptions& options, const Shape& shape, int n_threads);

/// The obs column that markers are computed for.
SCW_API std::string marker_groups(const RunOptions& options);

/// Fills everything in `report` that can be read from finished data.
SCW_API void collect_report(const Context& ctx, const AnnData& data, const RunOptions& options, ReportData& report);

/// X = counts, obs = cluster, batch, is_doublet, is_damaged; var = marker_of, as scw.datasets.simulate. ctx.rng gives
/// the seed.
SCW_API AnnData simulated_anndata(const Context& ctx, const datasets::SimulateOptions& options);

}  // namespace scw::pipeline
