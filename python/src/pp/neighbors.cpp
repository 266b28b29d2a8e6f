#include "scwarp/pp/neighbors.hpp"

#include "bind.hpp"

namespace scw::python {

namespace {

std::vector<std::size_t> shape_of(const pp::KnnResult& r) {
  return {static_cast<std::size_t>(r.n), static_cast<std::size_t>(r.k)};
}

nb::tuple knn_tuple(pp::KnnResult&& r) {
  nb::dict info;
  info["algorithm"] = std::string(pp::to_string(r.algorithm));
  info["recall"] = r.recall;
  info["recall_cells"] = r.recall_cells;
  info["rounds"] = r.rounds;
  info["n_rescanned"] = r.n_rescanned;
  const auto shape = shape_of(r);
  return nb::make_tuple(to_array(std::move(r.indices), shape), to_array(std::move(r.distances), shape), info);
}

}  // namespace

SCW_PYTHON(pp, neighbors) {
  m.def(
      "knn",
      [](PyContext& py, nb::handle x, int n_neighbors, const std::string& metric, double p,
         const std::string& algorithm, std::optional<double> min_recall, std::optional<std::int64_t> recall_sample,
         std::optional<int> n_trees, std::optional<int> max_rounds) {
        const auto view = matrix_arg(py, x);
        pp::KnnOptions options;
        options.n_neighbors = n_neighbors;
        options.metric = pp::parse_metric(metric);
        options.p = p;
        options.algorithm = pp::parse_knn_algorithm(algorithm);
        options.min_recall = min_recall.value_or(options.min_recall);
        options.recall_sample = recall_sample.value_or(options.recall_sample);
        options.n_trees = n_trees.value_or(options.n_trees);
        options.max_rounds = max_rounds.value_or(options.max_rounds);
        return knn_tuple(run(py, [&](const Context& ctx) { return pp::knn(ctx, view, options); }));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("n_neighbors"), nb::arg("metric"), nb::arg("p"), nb::arg("algorithm"),
      nb::arg("min_recall") = nb::none(), nb::arg("recall_sample") = nb::none(), nb::arg("n_trees") = nb::none(),
      nb::arg("max_rounds") = nb::none(), "(indices, distances, info), each list starting with the cell itself");
  m.def(
      "knows_metric",
      [](const std::string& name) {
        try {
          pp::parse_metric(name);
          return true;
        } catch (const InvalidArgument&) {
          return false;
        }
      },
      nb::arg("name"));
  m.def(
      "connectivities",
      [](PyContext& py, nb::handle indices, nb::handle distances, std::int64_t n, int k, const std::string& method,
         const std::string& metric) {
        const pp::KnnView lists(n, k, vector_arg<std::int32_t>(py, indices, "indices"),
                                vector_arg<float>(py, distances, "distances"));
        pp::ConnectivityOptions options;
        options.method = pp::parse_connectivity_method(method);
        options.metric = pp::parse_metric(metric);
        return to_csr_parts(run(py, [&](const Context& ctx) { return pp::connectivities(ctx, lists, options); }));
      },
      nb::arg("ctx"), nb::arg("indices"), nb::arg("distances"), nb::arg("n"), nb::arg("k"), nb::arg("method"),
      nb::arg("metric"), "(indptr, indices, data) of the symmetric weights of n x k lists");
  m.def(
      "pairwise_distances",
      [](PyContext& py, nb::handle x, const std::string& metric, double p) {
        const auto view = matrix_arg(py, x);
        const auto kind = pp::parse_metric(metric);
        return to_array(run(py, [&](const Context& ctx) { return pp::pairwise_distances(ctx, view, kind, p); }));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("metric"), nb::arg("p"), "All distances, n x n.");
  m.def(
      "gauss_kernel",
      [](PyContext& py, nb::handle distances, int n_neighbors) {
        const auto view = matrix2d_arg<float>(py, distances, "distances");
        return to_array(run(py, [&](const Context& ctx) { return pp::gauss_kernel(ctx, view, n_neighbors); }));
      },
      nb::arg("ctx"), nb::arg("distances"), nb::arg("n_neighbors"), "Dense Gauss kernel of all distances.");
}

}  // namespace scw::python
