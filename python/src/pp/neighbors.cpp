#include "scwarp/pp/neighbors.hpp"

#include <limits>

#include "bind.hpp"

namespace scw::python {

namespace {

/// A graph for SciPy: offsets in 32 bits where they fit. Arrays may still be on the device.
struct SciPyGraph {
  Array<std::int64_t> wide;
  Array<std::int32_t> indptr, indices;
  Array<float> values;
};

template <class T>
Array<T> bring_to_host(const Context& ctx, Array<T>&& a) {
  if (a.device().type == DeviceType::cpu) return std::move(a);
  Array<T> out(host_memory(), a.size(), "neighbour graph");
  copy_bytes(ctx, out.data(), Device{}, a.data(), a.device(), static_cast<std::size_t>(a.size()) * sizeof(T));
  return out;
}

SciPyGraph to_scipy_graph(const Context& ctx, Csr<float>&& a) {
  SciPyGraph out;
  out.wide = bring_to_host(ctx, std::move(a.indptr));
  out.indices = std::move(a.indices);
  out.values = std::move(a.values);
  if (out.values.size() <= std::numeric_limits<std::int32_t>::max()) {
    out.indptr = Array<std::int32_t>(host_memory(), out.wide.size(), "neighbour graph");
    for (std::int64_t i = 0; i < out.wide.size(); ++i) out.indptr[i] = static_cast<std::int32_t>(out.wide[i]);
    out.wide = {};
  }
  return out;
}

nb::tuple graph_tuple(const PyContext& py, SciPyGraph&& g) {
  nb::object indptr = g.wide.empty() ? to_array(std::move(g.indptr)) : to_array(std::move(g.wide));
  return nb::make_tuple(std::move(indptr), to_host_array(py, std::move(g.indices)),
                        to_host_array(py, std::move(g.values)));
}

std::vector<std::size_t> shape_of(const pp::KnnResult& r) {
  return {static_cast<std::size_t>(r.n), static_cast<std::size_t>(r.k)};
}

nb::dict info_of(const pp::KnnResult& r) {
  nb::dict info;
  info["algorithm"] = std::string(pp::to_string(r.algorithm));
  info["recall"] = r.recall;
  info["recall_cells"] = r.recall_cells;
  info["rounds"] = r.rounds;
  info["n_rescanned"] = r.n_rescanned;
  return info;
}

nb::tuple knn_tuple(pp::KnnResult&& r) {
  const nb::dict info = info_of(r);
  const auto shape = shape_of(r);
  return nb::make_tuple(to_array(std::move(r.indices), shape), to_array(std::move(r.distances), shape), info);
}

pp::KnnOptions search_options(int n_neighbors, const std::string& metric, double p, const std::string& algorithm,
                              std::optional<double> min_recall, std::optional<std::int64_t> recall_sample,
                              std::optional<int> n_trees, std::optional<int> max_rounds) {
  pp::KnnOptions options;
  options.n_neighbors = n_neighbors;
  options.metric = pp::parse_metric(metric);
  options.p = p;
  options.algorithm = pp::parse_knn_algorithm(algorithm);
  options.min_recall = min_recall.value_or(options.min_recall);
  options.recall_sample = recall_sample.value_or(options.recall_sample);
  options.n_trees = n_trees.value_or(options.n_trees);
  options.max_rounds = max_rounds.value_or(options.max_rounds);
  return options;
}

}  // namespace

SCW_PYTHON(pp, neighbors) {
  m.def(
      "knn",
      [](PyContext& py, nb::handle x, int n_neighbors, const std::string& metric, double p,
         const std::string& algorithm, std::optional<double> min_recall, std::optional<std::int64_t> recall_sample,
         std::optional<int> n_trees, std::optional<int> max_rounds) {
        const auto view = matrix_arg(py, x);
        const pp::KnnOptions options =
            search_options(n_neighbors, metric, p, algorithm, min_recall, recall_sample, n_trees, max_rounds);
        return knn_tuple(run(py, [&](const Context& ctx) { return pp::knn(ctx, view, options); }));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("n_neighbors"), nb::arg("metric"), nb::arg("p"), nb::arg("algorithm"),
      nb::arg("min_recall") = nb::none(), nb::arg("recall_sample") = nb::none(), nb::arg("n_trees") = nb::none(),
      nb::arg("max_rounds") = nb::none(), "(indices, distances, info), each list starting with the cell itself");
  m.def(
      "neighbor_graphs",
      [](PyContext& py, nb::handle x, int n_neighbors, const std::string& metric, double p,
         const std::string& algorithm, const std::string& method, std::optional<double> min_recall,
         std::optional<std::int64_t> recall_sample, std::optional<int> n_trees, std::optional<int> max_rounds) {
        const auto view = matrix_arg(py, x);
        const pp::KnnOptions options =
            search_options(n_neighbors, metric, p, algorithm, min_recall, recall_sample, n_trees, max_rounds);
        SciPyGraph distances, weights;
        pp::KnnResult lists = run(py, [&](const Context& ctx) {
          auto r = pp::knn(ctx, view, options);
          if (!method.empty())
            weights = to_scipy_graph(
                ctx, pp::connectivities(ctx, r, {pp::parse_connectivity_method(method), options.metric}));
          distances = to_scipy_graph(ctx, pp::distance_graph(ctx, r));
          distances.indices = bring_to_host(ctx, std::move(distances.indices));  // no step reads them again
          distances.values = bring_to_host(ctx, std::move(distances.values));
          return r;
        });
        return nb::make_tuple(graph_tuple(py, std::move(distances)), graph_tuple(py, std::move(weights)),
                              info_of(lists));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("n_neighbors"), nb::arg("metric"), nb::arg("p"), nb::arg("algorithm"),
      nb::arg("method"), nb::arg("min_recall") = nb::none(), nb::arg("recall_sample") = nb::none(),
      nb::arg("n_trees") = nb::none(), nb::arg("max_rounds") = nb::none(),
      "(distances, weights, info): (indptr, indices, data) of both graphs as NumPy arrays; method '': no weights");
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
      "distance_graph",
      [](PyContext& py, nb::handle indices, nb::handle distances, std::int64_t n, int k) {
        const pp::KnnView lists(n, k, vector_arg<std::int32_t>(py, indices, "indices"),
                                vector_arg<float>(py, distances, "distances"));
        return to_csr_parts(run(py, [&](const Context& ctx) { return pp::distance_graph(ctx, lists); }));
      },
      nb::arg("ctx"), nb::arg("indices"), nb::arg("distances"), nb::arg("n"), nb::arg("k"),
      "(indptr, indices, data) of the distances of n x k lists, each to the others.");
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
