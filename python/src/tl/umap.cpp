#include "scwarp/tl/umap.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(tl, umap) {
  m.def(
      "umap",
      [](PyContext& py, nb::handle graph, double min_dist, double spread, int n_components, std::optional<int> maxiter,
         double alpha, double gamma, int negative_sample_rate, nb::handle init, std::optional<double> a,
         std::optional<double> b) {
        const AnyMatrixView packed = matrix_arg(py, graph);
        const auto* const view = std::get_if<CsrView<const float>>(&packed);
        if (view == nullptr) throw nb::type_error("graph: expected a CSR matrix of float32");
        tl::UmapOptions options;
        options.min_dist = min_dist;
        options.spread = spread;
        options.n_components = n_components;
        options.maxiter = maxiter;
        options.alpha = alpha;
        options.gamma = gamma;
        options.negative_sample_rate = negative_sample_rate;
        options.a = a;
        options.b = b;
        if (nb::isinstance<nb::str>(init)) {
          const auto name = nb::cast<std::string>(init);
          if (name != "spectral" && name != "random")
            throw nb::value_error("init: expected spectral, random or an array");
          options.init = name == "spectral" ? tl::UmapInit::spectral : tl::UmapInit::random;
        } else {
          options.init = tl::UmapInit::array;
          options.init_positions = matrix2d_arg<float>(py, init, "init_pos");
        }
        tl::Umap result = run(py, [&](const Context& ctx) { return tl::umap(ctx, *view, options); });
        return nb::make_tuple(to_array(std::move(result.embedding)), result.a, result.b, result.n_epochs,
                              result.symmetric);
      },
      nb::arg("ctx"), nb::arg("graph"), nb::arg("min_dist"), nb::arg("spread"), nb::arg("n_components"),
      nb::arg("maxiter").none(), nb::arg("alpha"), nb::arg("gamma"), nb::arg("negative_sample_rate"), nb::arg("init"),
      nb::arg("a").none(), nb::arg("b").none(), "(embedding, a, b, n_epochs, symmetric)");
}

}  // namespace scw::python
