#include "scwarp/core/csr_defects.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, csr_defects) {
  m.def(
      "csr_defects",
      [](PyContext& py, nb::handle indptr, nb::handle indices, std::int32_t n_cols) {
        const auto p = vector_arg<std::int64_t>(py, indptr, "indptr");
        const auto j = vector_arg<std::int32_t>(py, indices, "indices");
        return run(py, [&](const Context& ctx) { return csr_defects(ctx, n_cols, p, j); });
      },
      nb::arg("ctx"), nb::arg("indptr"), nb::arg("indices"), nb::arg("n_cols"),
      "0, or bits: 1 = columns of a row not ascending or not unique, 2 = column out of range.");
}

}  // namespace scw::python
