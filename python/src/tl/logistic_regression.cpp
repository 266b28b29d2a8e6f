#include "scwarp/tl/logistic_regression.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(tl, logistic_regression) {
  m.def(
      "logistic_regression",
      [](PyContext& py, nb::handle x, nb::handle codes, int n_classes, double c, double tol, int max_iter,
         bool fit_intercept) {
        const auto blocks = blocks_arg(py, x);
        const auto classes = host_vector_arg<std::int32_t>(codes, "codes");
        auto r = run(py, [&](const Context& ctx) {
          return tl::logistic_regression(ctx, *blocks, classes, n_classes, {c, tol, max_iter, fit_intercept});
        });
        return nb::make_tuple(to_array(std::move(r.coefficients)), r.intercepts, r.n_iterations, r.max_gradient,
                              r.converged);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("codes"), nb::arg("n_classes"), nb::arg("c"), nb::arg("tol"),
      nb::arg("max_iter"), nb::arg("fit_intercept"),
      "Returns (coefficients, intercepts, n_iterations, max_gradient, converged).");
}

}  // namespace scw::python
