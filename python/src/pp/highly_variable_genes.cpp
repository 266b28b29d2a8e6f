#include "scwarp/pp/highly_variable_genes.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(pp, highly_variable_genes) {
  m.def(
      "highly_variable_genes",
      [](PyContext& py, nb::handle x, const std::string& flavor, std::optional<std::int64_t> n_top_genes,
         double min_mean, double max_mean, double min_disp, double max_disp, std::int64_t n_bins, double span,
         std::optional<double> log_base, nb::handle batches, std::int32_t n_batches, bool filter_unexpressed_genes,
         nb::handle tie_order, double theta, std::optional<double> clip) {
        const auto blocks = blocks_arg(py, x);
        pp::HighlyVariableGenesOptions o;
        o.flavor = flavor == "seurat"              ? pp::HvgFlavor::seurat
                   : flavor == "cell_ranger"       ? pp::HvgFlavor::cell_ranger
                   : flavor == "seurat_v3"         ? pp::HvgFlavor::seurat_v3
                   : flavor == "seurat_v3_paper"   ? pp::HvgFlavor::seurat_v3_paper
                   : flavor == "pearson_residuals" ? pp::HvgFlavor::pearson_residuals
                                                   : pp::HvgFlavor::poisson_gene_selection;
        o.n_top_genes = n_top_genes;
        o.min_mean = min_mean;
        o.max_mean = max_mean;
        o.min_disp = min_disp;
        o.max_disp = max_disp;
        o.n_bins = n_bins;
        o.span = span;
        o.log_base = log_base;
        o.batches = optional_vector_arg<std::int32_t>(py, batches, "batches");
        o.n_batches = n_batches;
        o.filter_unexpressed_genes = filter_unexpressed_genes;
        const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
        o.theta = theta;
        o.clip = clip;
        o.tie_order = optional_vector_arg<std::int32_t>(host, tie_order, "tie_order");
        auto r = run(py, [&](const Context& ctx) { return pp::highly_variable_genes(ctx, *blocks, o); });
        nb::dict out;
        out["highly_variable"] = to_array(std::move(r.highly_variable));
        out["means"] = to_array(std::move(r.means));
        out["dispersions"] = to_array(std::move(r.dispersions));
        out["dispersions_norm"] = to_array(std::move(r.dispersions_norm));
        out["variances"] = to_array(std::move(r.variances));
        out["variances_norm"] = to_array(std::move(r.variances_norm));
        out["observed_zeros"] = to_array(std::move(r.observed_zeros));
        out["expected_zeros"] = to_array(std::move(r.expected_zeros));
        out["zero_enrichment"] = to_array(std::move(r.zero_enrichment));
        out["rank"] = to_array(std::move(r.rank));
        out["n_batches"] = to_array(std::move(r.n_batches));
        out["intersection"] = to_array(std::move(r.intersection));
        out["counts"] = r.counts;
        out["fewer_than_asked"] = r.fewer_than_asked;
        return out;
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("flavor"), nb::arg("n_top_genes").none(), nb::arg("min_mean"),
      nb::arg("max_mean"), nb::arg("min_disp"), nb::arg("max_disp"), nb::arg("n_bins"), nb::arg("span"),
      nb::arg("log_base").none(), nb::arg("batches").none(), nb::arg("n_batches"), nb::arg("filter_unexpressed_genes"),
      nb::arg("tie_order").none(), nb::arg("theta"), nb::arg("clip").none(),
      "Columns of var by name; those that the flavor does not have are empty.");
}

}  // namespace scw::python
