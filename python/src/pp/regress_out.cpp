#include "scwarp/pp/regress_out.hpp"

#include "bind.hpp"

namespace scw::python {
namespace {

pp::AnyMutableDenseView dense_of(const AnyMutableMatrixView& x) {
  if (const auto* f = std::get_if<MatrixView<float>>(&x)) return *f;
  if (const auto* d = std::get_if<MatrixView<double>>(&x)) return *d;
  throw nb::type_error("x: expected a dense matrix");
}
nb::object to_python(AnyDenseMatrix&& m) {
  return std::visit([](auto& d) { return to_array(std::move(d)); }, m);
}

}  // namespace

SCW_PYTHON(pp, regress_out) {
  m.def(
      "regress_out",
      [](PyContext& py, nb::handle x, nb::handle keys) {
        const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
        const auto view = dense_of(mutable_rows_arg(py, x));
        const auto k = matrix2d_arg<double>(host, keys, "keys");
        return run(py, [&](const Context& ctx) { return pp::regress_out(ctx, view, k); }).n_independent;
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("keys"), "Residuals of dense x, in place; returns the keys that counted.");
  m.def(
      "regress_out_to_dense",
      [](PyContext& py, nb::handle x, nb::handle keys) {
        const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
        const auto blocks = blocks_arg(py, x, Passes::one);  // the result is many times as large
        const auto k = matrix2d_arg<double>(host, keys, "keys");
        AnyDenseMatrix out;
        const auto r = run(py, [&](const Context& ctx) { return pp::regress_out_to_dense(ctx, *blocks, out, k); });
        return nb::make_tuple(to_python(std::move(out)), r.n_independent);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("keys"), "(residuals of x as a dense matrix, keys that counted).");
  m.def(
      "fit_regression",
      [](PyContext& py, nb::handle x, nb::handle keys) {
        const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
        const auto blocks = blocks_arg(py, x);
        const auto k = matrix2d_arg<double>(host, keys, "keys");
        auto r = run(py, [&](const Context& ctx) { return pp::fit_regression(ctx, *blocks, k); });
        return nb::make_tuple(to_array(std::move(r.coefficients)), r.n_independent);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("keys"), "(coefficients [1 + keys x genes], keys that counted).");
  m.def(
      "regress_out_categories",
      [](PyContext& py, nb::handle x, nb::handle codes, std::int32_t n_categories) {
        const auto view = dense_of(mutable_rows_arg(py, x));
        const auto c = vector_arg<std::int32_t>(py, codes, "codes");
        run(py, [&](const Context& ctx) { pp::regress_out_categories(ctx, view, c, n_categories); });
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("codes"), nb::arg("n_categories"),
      "Subtracts category means of dense x, in place.");
  m.def(
      "regress_out_categories_to_dense",
      [](PyContext& py, nb::handle x, nb::handle codes, std::int32_t n_categories) {
        const auto blocks = blocks_arg(py, x, Passes::one);
        const auto c = vector_arg<std::int32_t>(py, codes, "codes");
        AnyDenseMatrix out;
        run(py, [&](const Context& ctx) { pp::regress_out_categories_to_dense(ctx, *blocks, out, c, n_categories); });
        return to_python(std::move(out));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("codes"), nb::arg("n_categories"),
      "x minus category means, as a dense matrix.");
}

}  // namespace scw::python
