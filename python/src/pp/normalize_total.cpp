#include "scwarp/pp/normalize_total.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, normalize_total) {
  m.def(
      "normalize_total",
      [](PyContext& py, nb::handle x, std::optional<double> target_sum, bool exclude_highly_expressed,
         double max_fraction, bool with_counts) {
        const auto view = mutable_rows_arg(py, x);
        auto r = run(py, [&](const Context& ctx) {
          return pp::normalize_total(ctx, view, {target_sum, exclude_highly_expressed, max_fraction});
        });
        nb::object counts = with_counts ? to_array(std::move(r.counts)) : nb::none();
        return nb::make_tuple(std::move(counts), r.target_sum, r.n_empty);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("target_sum").none(), nb::arg("exclude_highly_expressed"),
      nb::arg("max_fraction"), nb::arg("with_counts") = true,
      "Scales the rows of x in place; returns (counts or None, target_sum, n_empty).");
  m.def(
      "size_factors",
      [](PyContext& py, nb::handle x, std::optional<double> target_sum, bool exclude_highly_expressed,
         double max_fraction) {
        const auto blocks = blocks_arg(py, x);
        auto r = run(py, [&](const Context& ctx) {
          return pp::size_factors(ctx, *blocks, {target_sum, exclude_highly_expressed, max_fraction});
        });
        return nb::make_tuple(to_array(std::move(r.counts)), r.target_sum, r.n_empty);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("target_sum").none(), nb::arg("exclude_highly_expressed"),
      nb::arg("max_fraction"), "What normalize_total returns; x stays as it is.");
}

}  // namespace scw::python
