#include "scwarp/pp/scale.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, scale) {
  m.def(
      "scale",
      [](PyContext& py, nb::handle x, bool zero_center, std::optional<double> max_value, nb::handle mask) {
        const auto view = mutable_rows_arg(py, x);
        const pp::ScaleOptions o{zero_center, max_value, optional_vector_arg<std::uint8_t>(py, mask, "mask")};
        auto r = run(py, [&](const Context& ctx) { return pp::scale(ctx, view, o); });
        return nb::make_tuple(to_array(std::move(r.mean)), to_array(std::move(r.std)));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("zero_center"), nb::arg("max_value").none(), nb::arg("mask").none(),
      "Scales x in place; returns (mean, std).");
  m.def(
      "scale_to_dense",
      [](PyContext& py, nb::handle x, bool zero_center, std::optional<double> max_value, nb::handle mask) {
        const auto blocks = blocks_arg(py, x, Passes::one);
        const pp::ScaleOptions o{zero_center, max_value, optional_vector_arg<std::uint8_t>(py, mask, "mask")};
        AnyDenseMatrix out;
        auto r = run(py, [&](const Context& ctx) { return pp::scale_to_dense(ctx, *blocks, out, o); });
        const nb::object dense = std::visit([](auto& d) { return to_array(std::move(d)); }, out);
        return nb::make_tuple(dense, to_array(std::move(r.mean)), to_array(std::move(r.std)));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("zero_center"), nb::arg("max_value").none(), nb::arg("mask").none(),
      "(matrix, mean, std): scaled x as a new dense matrix.");
}

}  // namespace scw::python
