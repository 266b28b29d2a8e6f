#include "scwarp/pp/gene_moments.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, gene_moments) {
  m.def(
      "gene_moments",
      [](PyContext& py, nb::handle x, nb::handle groups, std::int32_t n_groups, int ddof, bool expm1,
         double expm1_scale, bool with_total) {
        const auto blocks = blocks_arg(py, x);
        pp::GeneMomentsOptions o;
        o.groups = optional_vector_arg<std::int32_t>(py, groups, "groups");
        o.n_groups = n_groups;
        o.ddof = ddof;
        o.expm1 = expm1;
        o.expm1_scale = expm1_scale;
        o.with_total = with_total;
        auto r = run(py, [&](const Context& ctx) { return pp::gene_moments(ctx, *blocks, o); });
        return nb::make_tuple(to_array(std::move(r.mean)), to_array(std::move(r.variance)),
                              to_array(std::move(r.n_rows)), r.counts);
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("groups").none() = nb::none(), nb::arg("n_groups") = 1, nb::arg("ddof") = 1,
      nb::arg("expm1") = false, nb::arg("expm1_scale") = 1.0, nb::arg("with_total") = false,
      "(mean, variance, n_rows, counts): moments of every column, by group of rows.");
}

}  // namespace scw::python
