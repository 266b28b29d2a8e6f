#include "scwarp/pp/subset.hpp"

#include "bind.hpp"

namespace scw::python {

namespace {

template <class V>
nb::object wrap_matrix(Csr<V>&& x) {
  return to_csr_parts(std::move(x));
}
template <class V>
nb::object wrap_matrix(Matrix<V>&& x) {
  return to_array(std::move(x));
}

}  // namespace

SCW_PYTHON(pp, subset) {
  m.def(
      "subset",
      [](PyContext& py, nb::handle x, nb::handle cells, nb::handle genes) {
        const auto view = matrix_arg(py, x);
        using Mask = Span<const std::uint8_t>;
        const auto c = cells.is_none() ? Mask{} : host_vector_arg<std::uint8_t>(cells, "cells");
        const auto g = genes.is_none() ? Mask{} : host_vector_arg<std::uint8_t>(genes, "genes");
        auto r = run(py, [&](const Context& ctx) { return pp::subset(ctx, view, c, g); });
        return std::visit([](auto& m) { return wrap_matrix(std::move(m)); }, r);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("cells").none(), nb::arg("genes").none(),
      "Rows and columns by mask: (indptr, indices, data) or a dense array.");
}

}  // namespace scw::python
