#include "scwarp/pipeline/pipeline.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "pipeline/format.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/kernel.hpp"

namespace scw::pipeline {
namespace {

AnnData data(int n_cells = 240) {
  Context ctx = Context::cpu(2);
  return simulated_anndata(ctx, {.n_cells = n_cells, .n_genes = 400, .n_clusters = 3, .mean_counts = 800});
}

RunOptions options() {
  RunOptions o;
  o.min_genes = 20;
  o.n_top_genes = 100;
  o.n_comps = 10;
  o.umap_epochs = 20;
  return o;
}

std::vector<float> embedding(const AnnData& a) {
  const auto v = std::get<MatrixView<const float>>(a.obsm_matrix("X_umap").view());
  return {v.data, v.data + v.n_rows * v.n_cols};
}

TEST(Pipeline, RunsFromCppWithTheSameBitsForAnyThreads) {
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    AnnData a = data();
    const auto steps = run_steps(Context::cpu(threads), a, main_job(options()));
    EXPECT_EQ(steps.front().name, "QC");
    EXPECT_EQ(steps.back().name, "markers");
    EXPECT_GE(a.obs.at("leiden").to_categorical().n_categories(), 3);
    EXPECT_NO_THROW(a.validate());
    if (first.empty()) first = embedding(a);
    EXPECT_EQ(embedding(a), first);
  }
}

TEST(Pipeline, EveryOperationOfAStepIsRegistered) {
  for (const char* markers : {"wilcoxon", "t-test", "logreg"}) {
    auto o = options();
    o.scaling = "explicit";
    o.regress_out = {"total_counts"};
    o.markers = markers;
    EXPECT_TRUE(missing_operations(o, DeviceType::cpu).empty());
    const auto kernels = registered_kernels();
    for (const auto& step : main_job(o)) {
      EXPECT_FALSE(step->operations().empty()) << step->name();
      for (const auto& operation : step->operations())
        EXPECT_TRUE(std::any_of(kernels.begin(), kernels.end(), [&](const KernelInfo& k) {
          return k.name == operation || k.name.starts_with(operation + ":");
        })) << operation;
    }
  }
}

TEST(Pipeline, ObserverSeesEveryStep) {
  struct Observer final : StepObserver {
    std::vector<std::string> begun, ended;
    void started(const std::string& name) override { begun.push_back(name); }
    void finished(const ReportStep& s) override {
      ended.push_back(s.name);
      EXPECT_FALSE(s.summary.empty());
      EXPECT_GT(s.peak_bytes, 0);
    }
  } observer;
  AnnData a = data();
  auto o = options();
  o.umap = false;
  o.scaling = "explicit";
  o.regress_out = {"total_counts"};
  run_steps(Context::cpu(2), a, main_job(o), &observer);
  EXPECT_EQ(observer.begun, observer.ended);
  EXPECT_EQ(observer.ended, (std::vector<std::string>{"QC", "filter cells", "filter genes", "normalise", "log1p",
                                                      "variable genes", "select genes", "regress out", "scale", "PCA",
                                                      "neighbours", "Leiden", "markers"}));
  EXPECT_EQ(a.n_vars(), 100);
  EXPECT_TRUE(a.raw.has_value());
}

TEST(Pipeline, RefusesBadOptionsBeforeAnythingRuns) {
  const auto refused = [](auto change) {
    auto o = options();
    change(o);
    EXPECT_THROW(main_job(o), InvalidArgument);
  };
  refused([](RunOptions& o) { o.flavor = "nonsense"; });
  refused([](RunOptions& o) { o.n_neighbors = 1; });
  refused([](RunOptions& o) { o.resolution = {}; });
  refused([](RunOptions& o) { o.resolution = {0.5, 0.5}; });
  refused([](RunOptions& o) { o.resolution = {-1}; });
  refused([](RunOptions& o) { o.metric = "nonsense"; });
  refused([](RunOptions& o) { o.markers = "nonsense"; });
  refused([](RunOptions& o) { o.target_sum = 0; });
  refused([](RunOptions& o) { o.max_value = 0; });
  refused([](RunOptions& o) { o.leiden_iterations = 0; });
  refused([](RunOptions& o) { o.n_pcs = o.n_comps + 1; });
  refused([](RunOptions& o) {
    o.n_comps = 0;  // 50
    o.n_pcs = 51;
  });
  refused([](RunOptions& o) { o.metric = "haversine"; });
  refused([](RunOptions& o) { o.metric = "hellinger"; });
  refused([](RunOptions& o) {
    o.knn_algorithm = "nn_descent";
    o.metric = "chebyshev";
  });
  refused([](RunOptions& o) {
    o.umap_init = "pca";
    o.umap_components = 11;
  });
  refused([](RunOptions& o) {
    o.flavor = "seurat_v3";
    o.n_top_genes = 0;
  });
}

TEST(Pipeline, ChecksColumnsOfObsBeforeAnythingRuns) {
  const AnnData a = data();
  const auto check = [&](auto change) {
    auto o = options();
    change(o);
    check_data(o, a);
  };
  for (const char* bad : {"nonsense", "log1p_total_counts", "total_counts", "leiden_0.5"}) {
    EXPECT_THROW(check([&](RunOptions& o) { o.markers_groupby = bad; }), InvalidArgument) << bad;
    EXPECT_THROW(check([&](RunOptions& o) { o.batch_key = bad; }), InvalidArgument) << bad;
  }
  EXPECT_THROW(check([](RunOptions& o) { o.batch_key = "leiden"; }), InvalidArgument);  // not there yet
  EXPECT_THROW(check([](RunOptions& o) { o.regress_out = {"total_counts", "nonsense"}; }), InvalidArgument);
  EXPECT_THROW(check([](RunOptions& o) { o.regress_out = {"total_counts", "batch"}; }), InvalidArgument);
  EXPECT_THROW(check([](RunOptions& o) {
                 o.n_comps = 300;
                 o.n_pcs = 240;
                 o.n_top_genes = 300;
               }),
               InvalidArgument);
  for (const char* good : {"leiden", "cluster", "is_doublet", "n_genes", "n_genes_by_counts"})
    EXPECT_NO_THROW(check([&](RunOptions& o) { o.markers_groupby = good; })) << good;
  EXPECT_NO_THROW(check([](RunOptions& o) { o.regress_out = {"total_counts", "pct_counts_mt"}; }));
  EXPECT_NO_THROW(check([](RunOptions& o) { o.regress_out = {"batch"}; }));
  EXPECT_NO_THROW(check([](RunOptions& o) {
    o.resolution = {0.5, 1};
    o.markers_groupby = "leiden_0.5";
  }));
}

TEST(Pipeline, KnowsTheColumnsThatItMakes) {
  auto o = options();
  o.min_counts = 1;
  o.umap = false;
  o.markers = "none";
  const AnnData before = data();
  AnnData after = data();
  run_steps(Context::cpu(2), after, main_job(o));
  for (const auto& [name, column] : after.obs.columns()) {
    auto changed = o;
    changed.markers_groupby = name;
    bool has_groups = true;
    try {
      static_cast<void>(column.to_categorical());
    } catch (const DTypeMismatch&) {
      has_groups = false;
    }
    if (has_groups)
      EXPECT_NO_THROW(check_data(changed, before)) << name;
    else
      EXPECT_THROW(check_data(changed, before), InvalidArgument) << name;
    if (!column.is_numeric()) continue;
    changed.markers_groupby.reset();
    changed.regress_out = {"total_counts", name};
    EXPECT_NO_THROW(check_data(changed, before)) << name;
  }
}

TEST(Pipeline, SaysWhenFiltersLeaveNothing) {
  AnnData a = data();
  auto o = options();
  o.min_genes = 100000;
  EXPECT_THROW(run_steps(Context::cpu(1), a, main_job(o)), DataError);
  EXPECT_EQ(a.n_obs(), 240);
}

TEST(Pipeline, StopsWhenCancelled) {
  AnnData a = data();
  std::atomic<bool> cancelled{true};
  Context ctx = Context::cpu(2);
  ctx.cancelled = &cancelled;
  EXPECT_THROW(run_steps(ctx, a, main_job(options())), Cancelled);
}

TEST(Pipeline, PlanGrowsWithTheData) {
  const Shape small{1000, 2000, 100000, 4, true}, large{1000000, 20000, 1500000000, 4, true};
  const auto a = plan(RunOptions{}, small, 2), b = plan(RunOptions{}, large, 2);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t k = 0; k < a.size(); ++k) {
    EXPECT_GE(a[k].peak_bytes, a[k].held_bytes);
    EXPECT_GT(b[k].peak_bytes, a[k].peak_bytes);
  }
  EXPECT_GT(b[0].peak_bytes, std::int64_t{12} << 30);
}

TEST(Pipeline, CollectsTheReport) {
  AnnData a = data();
  ReportData report;
  auto o = options();
  o.resolution = {0.5, 1.5};
  run_steps(Context::cpu(2), a, main_job(o, &report));
  collect_report(Context::cpu(2), a, o, report);
  EXPECT_EQ(report.n_cells, a.n_obs());
  EXPECT_EQ(report.cluster_key, "leiden_0.5");
  EXPECT_EQ(report.qc.size(), 3u);
  std::int64_t cells = 0;
  for (const auto c : report.qc[0].counts) cells += c;
  EXPECT_EQ(cells, 240);
  EXPECT_EQ(report.variable_genes.names.size(), static_cast<std::size_t>(a.n_vars()));
  EXPECT_EQ(report.pca_variance_ratio.size(), 10u);
  ASSERT_FALSE(report.markers.empty());
  EXPECT_GE(report.markers[0].second[0].fraction_in, 0.0);
  ASSERT_FALSE(report.genes.empty());
  // The genes shown are those of X.
  const auto x = std::get<CsrView<const float>>(a.X->view());
  const auto& names = a.var.index();
  for (const auto& g : report.genes) {
    const auto j = static_cast<std::int32_t>(std::find(names.begin(), names.end(), g.name) - names.begin());
    double sum = 0, expected = 0;
    for (const float v : g.values) sum += static_cast<double>(v);
    for (std::int64_t k = 0; k < x.nnz(); ++k)
      if (x.indices[k] == j) expected += static_cast<double>(x.values[k]);
    EXPECT_NEAR(sum, expected, 1e-3) << g.name;
  }
}

TEST(PipelineFormat, Numbers) {
  EXPECT_EQ(format_count(-1234567), "-1 234 567");
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_number(0.12345), "0.1235");
  EXPECT_EQ(format_number(2213.5), "2 214");
  EXPECT_EQ(python_float(1), "1.0");
  EXPECT_EQ(python_float(0.4), "0.4");
  EXPECT_EQ(python_float(1e-5), "1e-05");
}

}  // namespace
}  // namespace scw::pipeline
