#include "scwarp/pp/sqrt.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, sqrt) {
  m.def(
      "sqrt",
      [](PyContext& py, nb::handle x) {
        const auto view = mutable_rows_arg(py, x);
        run(py, [&](const Context& ctx) { pp::sqrt(ctx, view); });
      },
      nb::arg("ctx"), nb::arg("x"), "Square root of the stored values, in place.");
}

}  // namespace scw::python
