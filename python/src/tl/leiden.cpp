#include "scwarp/tl/leiden.hpp"

#include "bind.hpp"

namespace scw::python {
namespace {

AnyCsrView graph_arg(const PyContext& py, nb::handle packed) {
  return std::visit(
      [](const auto& x) -> AnyCsrView {
        if constexpr (std::is_constructible_v<AnyCsrView, decltype(x)>)
          return x;
        else
          throw nb::type_error("graph: expected a CSR matrix");
      },
      matrix_arg(py, packed));
}

}  // namespace

SCW_PYTHON(tl, leiden) {
  m.def(
      "leiden",
      [](PyContext& py, nb::handle graph, const std::vector<double>& resolutions, int n_iterations, bool use_weights,
         double theta, int n_starts) {
        const AnyCsrView view = graph_arg(py, graph);
        tl::LeidenOptions options;
        options.n_iterations = n_iterations;
        options.use_weights = use_weights;
        options.theta = theta;
        options.n_starts = n_starts;
        auto results = run(
            py, [&](const Context& ctx) { return tl::leiden(ctx, view, Span<const double>(resolutions), options); });
        nb::list out;
        for (tl::Leiden& r : results)
          out.append(nb::make_tuple(to_array(std::move(r.labels)), r.modularity, to_array(std::move(r.cluster_sizes)),
                                    r.n_iterations, r.converged));
        return out;
      },
      nb::arg("ctx"), nb::arg("graph"), nb::arg("resolutions"), nb::arg("n_iterations"), nb::arg("use_weights"),
      nb::arg("theta"), nb::arg("n_starts"),
      "One (labels, modularity, cluster_sizes, n_iterations, converged) per resolution.");
  m.def(
      "modularity",
      [](PyContext& py, nb::handle graph, nb::handle labels, double resolution, bool use_weights) {
        const AnyCsrView view = graph_arg(py, graph);
        const auto l = vector_arg<std::int32_t>(py, labels, "labels");
        return run(py, [&](const Context& ctx) { return tl::modularity(ctx, view, l, resolution, use_weights); });
      },
      nb::arg("ctx"), nb::arg("graph"), nb::arg("labels"), nb::arg("resolution"), nb::arg("use_weights"),
      "Modularity of a clustering.");
}

}  // namespace scw::python
