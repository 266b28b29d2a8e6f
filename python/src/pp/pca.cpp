#include "scwarp/pp/pca.hpp"

#include "bind.hpp"

namespace scw::python {
SCW_PYTHON(pp, pca) {
  m.def(
      "pca",
      [](PyContext& py, nb::handle x, std::int64_t n_comps, bool zero_center, nb::handle gene_mask, bool scale,
         std::optional<double> max_value, bool whole, bool double_scores) {
        pp::PcaOptions o;
        o.n_comps = n_comps;
        o.zero_center = zero_center;
        const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
        o.gene_mask = optional_vector_arg<std::uint8_t>(host, gene_mask, "gene_mask");
        o.scale = scale;
        o.max_value = max_value;
        o.solver = whole ? pp::PcaSolver::covariance : pp::PcaSolver::automatic;
        o.double_scores = double_scores;
        const auto blocks = blocks_arg(py, x);
        auto r = run(py, [&](const Context& ctx) { return pp::pca(ctx, *blocks, o); });
        nb::dict out;
        out["scores"] = std::visit([](auto& s) { return to_array(std::move(s)); }, r.scores);
        out["components"] = to_array(std::move(r.components));
        out["variance"] = to_array(std::move(r.variance));
        out["variance_ratio"] = to_array(std::move(r.variance_ratio));
        return out;
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("n_comps"), nb::arg("zero_center"), nb::arg("gene_mask").none(),
      nb::arg("scale"), nb::arg("max_value").none(), nb::arg("whole"), nb::arg("double_scores"),
      "Scores [n x k], components [genes in use x k], variance, variance_ratio.");
}

}  // namespace scw::python
