#include "scwarp/pp/log1p.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, log1p) {
  m.def(
      "log1p",
      [](PyContext& py, nb::handle x, std::optional<double> base) {
        const auto view = mutable_rows_arg(py, x);
        run(py, [&](const Context& ctx) { pp::log1p(ctx, view, {base}); });
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("base").none(), "ln(1 + x) of the stored values, in place.");
}

}  // namespace scw::python
