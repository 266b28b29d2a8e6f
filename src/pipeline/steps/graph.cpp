// Neighbours, and on their graph UMAP and Leiden.
#include <algorithm>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/pp/neighbors.hpp"
#include "scwarp/tl/leiden.hpp"
#include "scwarp/tl/umap.hpp"

namespace scw::pipeline {
namespace {

/// The first columns of the scores in single precision, beside them.
Matrix<float> representation(const Context& ctx, const MatrixElement& scores, std::int64_t used) {
  if (const auto* all = std::get_if<Matrix<float>>(&scores.data); all != nullptr && all->n_cols == used)
    return std::get<Matrix<float>>(scores.clone(ctx).data);
  const MatrixElement here = scores.copy_to(ctx, Device{});
  Matrix<float> part(ctx.host().memory, scores.n_rows(), used, "representation");
  std::visit(
      [&](const auto& v) {
        if constexpr (requires { v.ld; })
          for (std::int64_t i = 0; i < v.n_rows; ++i)
            for (std::int64_t j = 0; j < used; ++j) part.view()(i, j) = static_cast<float>(v(i, j));
      },
      here.view());
  if (scores.device() == Device{}) return part;
  return std::get<Matrix<float>>(MatrixElement(std::move(part)).copy_to(ctx, scores.device()).data);
}

class NeighborsStep final : public Step {
 public:
  explicit NeighborsStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "neighbours"; }
  std::vector<std::string> operations() const override {
    return {o_.knn_algorithm == "nn_descent" ? "pp.neighbors: nn_descent" : "pp.neighbors: brute",
            "pp.neighbors: connectivities", "pp.neighbors: distance graph"};
  }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const std::int64_t k = std::min<std::int64_t>(o_.n_neighbors, s.n_obs);
    const std::int64_t width = o_.n_pcs.value_or(o_.n_comps);
    const estimate::Need lists = estimate::knn(dense_shape(s, n_threads, width, 4), k);
    const std::int64_t copied = o_.n_pcs ? 4 * s.n_obs * width : 0;  // the first columns of the scores
    return copied + std::max(lists.peak,
                             lists.kept + std::max(estimate::connectivities(s.device, s.n_obs, k).peak, kept_bytes(s)));
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    const std::int64_t k = std::min<std::int64_t>(o_.n_neighbors, s.n_obs);
    return 8 * (s.n_obs + 1) + 8 * s.n_obs * (k - 1) + estimate::connectivities(s.device, s.n_obs, k).kept;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    const std::int64_t width = data.obsm_matrix("X_pca").n_cols();
    const std::int64_t used = o_.n_pcs ? *o_.n_pcs : width;
    SCW_EXPECT(used >= 1 && used <= width, "neighbours", "n_pcs must be from 1 to the {} components there are (got {})",
               width, used);
    pp::NeighborsOptions options;
    options.knn.n_neighbors = o_.n_neighbors;
    options.knn.metric = pp::parse_metric(o_.metric);
    options.knn.algorithm = pp::parse_knn_algorithm(o_.knn_algorithm);
    options.method = pp::parse_connectivity_method(o_.connectivities);
    pp::Neighbors r = pp::neighbors(ctx, representation(ctx, data.obsm_matrix("X_pca"), used).view(), options);
    const std::int64_t edges = r.connectivities.indices.size();
    data.set_obsp("distances", MatrixElement(pp::distance_graph(ctx, r.knn)));
    data.set_obsp("connectivities", MatrixElement(std::move(r.connectivities)));
    Dict params{{"n_neighbors", Value(std::int64_t{r.knn.k})},
                {"method", Value(o_.connectivities)},
                {"random_state", Value(static_cast<std::int64_t>(o_.seed))},
                {"metric", Value(o_.metric)}};
    params["algorithm"] = Value(std::string(pp::to_string(r.knn.algorithm)));
    if (r.knn.algorithm == pp::KnnAlgorithm::nn_descent) {
      params["recall"] = Value(r.knn.recall);
      params["recall_cells"] = Value(r.knn.recall_cells);
    }
    if (o_.n_pcs) params["n_pcs"] = Value(*o_.n_pcs);
    data.uns["neighbors"] = Dict{{"connectivities_key", Value("connectivities")},
                                 {"distances_key", Value("distances")},
                                 {"params", Value(std::move(params))}};
    const bool exact = r.knn.algorithm == pp::KnnAlgorithm::brute;
    return fmt::format("{} neighbours on {} components, {}, {:.1f} edges a cell", r.knn.k, used,
                       exact ? std::string("exact") : fmt::format("recall {:.3f} on a sample", r.knn.recall),
                       static_cast<double>(edges) / static_cast<double>(std::max<std::int64_t>(1, data.n_obs())));
  }

 private:
  RunOptions o_;
};

const CsrView<const float> connectivities(const AnnData& data) {
  return std::get<CsrView<const float>>(data.obsp_matrix("connectivities").view());
}

/// The graph of the neighbours, with one and a half times the edges of the lists: cells that are near each other mostly
/// are so both ways.
estimate::Shape graph_shape(const RunOptions& o, const Shape& s, int n_threads) {
  const std::int64_t k = std::min<std::int64_t>(o.n_neighbors, s.n_obs);
  return {s.device, n_threads, s.n_obs, s.n_obs, s.n_obs * (k - 1) * 3 / 2, 4, true};
}

class UmapStep final : public Step {
 public:
  explicit UmapStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "UMAP"; }
  std::vector<std::string> operations() const override { return {"tl.umap"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return estimate::umap(graph_shape(o_, s, n_threads), o_.umap_components).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override { return s.n_obs * 4 * o_.umap_components; }

  std::string run(const Context& ctx, AnnData& data) override {
    tl::UmapOptions options;
    options.min_dist = o_.min_dist;
    options.spread = o_.spread;
    options.n_components = o_.umap_components;
    options.maxiter = o_.umap_epochs;
    Matrix<float> start;
    if (o_.umap_init == "random") options.init = tl::UmapInit::random;
    if (o_.umap_init == "pca") {
      const MatrixElement& scores = data.obsm_matrix("X_pca");
      SCW_EXPECT(scores.n_cols() >= o_.umap_components, "UMAP", "there are {} components, {} are needed",
                 scores.n_cols(), o_.umap_components);
      start = representation(ctx, scores, o_.umap_components);
      options.init = tl::UmapInit::array;
      options.init_positions = start.view();
    }
    tl::Umap r = tl::umap(ctx, connectivities(data), options);
    data.set_obsm("X_umap", MatrixElement(std::move(r.embedding)));
    Dict params{{"a", Value(r.a)}, {"b", Value(r.b)}};
    if (o_.seed != 0) params["random_state"] = Value(static_cast<std::int64_t>(o_.seed));
    data.uns["umap"] = Dict{{"params", Value(std::move(params))}};
    return fmt::format("{} dimensions, {} epochs", o_.umap_components, r.n_epochs);
  }

 private:
  RunOptions o_;
};

class LeidenStep final : public Step {
 public:
  explicit LeidenStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "Leiden"; }
  std::vector<std::string> operations() const override { return {"tl.leiden"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return estimate::leiden(graph_shape(o_, s, n_threads), static_cast<std::int64_t>(o_.resolution.size())).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return 4 * s.n_obs * static_cast<std::int64_t>(o_.resolution.size());
  }

  std::string run(const Context& ctx, AnnData& data) override {
    tl::LeidenOptions options;
    options.n_iterations = o_.leiden_iterations;
    const auto results = tl::leiden(ctx, connectivities(data), Span<const double>(o_.resolution), options);
    const bool one = results.size() == 1;
    std::vector<double> modularities;
    Dict sizes;
    std::string summary;
    for (std::size_t k = 0; k < results.size(); ++k) {
      const auto& r = results[k];
      const std::string column = one ? "leiden" : "leiden_" + python_float(o_.resolution[k]);
      Categorical labels;
      labels.codes = to_vector(ctx, r.labels);
      std::vector<std::string> names;
      for (std::int32_t c = 0; c < r.n_clusters; ++c) names.push_back(std::to_string(c));
      labels.categories = std::move(names);
      data.obs.set(column, Column(std::move(labels)));
      modularities.push_back(r.modularity);
      sizes[column] = Value(to_vector(ctx, r.cluster_sizes));
      summary += fmt::format("{}{}{} clusters, modularity {:.4f}{}", summary.empty() ? "" : "; ",
                             one ? "" : python_float(o_.resolution[k]) + ": ", r.n_clusters, r.modularity,
                             r.converged || o_.leiden_iterations >= 0 ? "" : " (not converged)");
    }
    Dict params{{"resolution", one ? Value(o_.resolution[0]) : Value(o_.resolution)},
                {"random_state", Value(static_cast<std::int64_t>(o_.seed))},
                {"n_iterations", Value(std::int64_t{o_.leiden_iterations})}};
    data.uns["leiden"] = Dict{{"params", Value(std::move(params))},
                              {"modularity", one ? Value(modularities[0]) : Value(modularities)},
                              {"cluster_sizes", one ? sizes.begin()->second : Value(sizes)}};
    return summary;
  }

 private:
  RunOptions o_;
};

}  // namespace

StepPtr neighbors_step(const RunOptions& o) { return std::make_unique<NeighborsStep>(o); }
StepPtr umap_step(const RunOptions& o) { return std::make_unique<UmapStep>(o); }
StepPtr leiden_step(const RunOptions& o) { return std::make_unique<LeidenStep>(o); }

}  // namespace scw::pipeline
