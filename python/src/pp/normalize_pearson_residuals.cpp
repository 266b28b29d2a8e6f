#include "scwarp/pp/normalize_pearson_residuals.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, normalize_pearson_residuals) {
  m.def(
      "normalize_pearson_residuals",
      [](PyContext& py, nb::handle x, double theta, std::optional<double> clip) {
        const auto blocks = blocks_arg(py, x, Passes::one);  // the result is many times as large
        AnyDenseMatrix out;
        const auto r = run(
            py, [&](const Context& ctx) { return pp::normalize_pearson_residuals(ctx, *blocks, out, {theta, clip}); });
        const nb::object dense = std::visit([](auto& d) { return to_array(std::move(d)); }, out);
        return nb::make_tuple(dense, r.counts);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("theta"), nb::arg("clip").none(), "(residuals, whether x holds counts).");
}

}  // namespace scw::python
