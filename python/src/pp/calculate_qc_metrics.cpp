#include "scwarp/pp/calculate_qc_metrics.hpp"

#include "bind.hpp"

namespace scw::python {

namespace {

nb::tuple counts_tuple(pp::AxisCounts&& c) {
  return nb::make_tuple(to_array(std::move(c.total)), to_array(std::move(c.n_positive)));
}

}  // namespace

SCW_PYTHON(pp, calculate_qc_metrics) {
  m.def(
      "calculate_qc_metrics",
      [](PyContext& py, nb::handle x, const std::vector<nb::object>& families,
         const std::vector<std::int64_t>& percent_top) {
        const auto blocks = blocks_arg(py, x);
        pp::QcOptions options;
        for (const auto& f : families) options.families.push_back(vector_arg<std::uint8_t>(py, f, "family"));
        options.percent_top = percent_top;
        auto r = run(py, [&](const Context& ctx) { return pp::calculate_qc_metrics(ctx, *blocks, options); });
        nb::list family_total, pct_top;
        for (auto& f : r.family_total) family_total.append(to_array(std::move(f)));
        for (auto& t : r.pct_top) pct_top.append(to_array(std::move(t)));
        return nb::make_tuple(to_array(std::move(r.n_genes)), to_array(std::move(r.total)), family_total, pct_top,
                              to_array(std::move(r.n_cells)), to_array(std::move(r.gene_total)));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("families"), nb::arg("percent_top"),
      "(n_genes, total, [family totals], [pct_top], n_cells, gene_total)");
  m.def(
      "cell_counts",
      [](PyContext& py, nb::handle x) {
        const auto blocks = blocks_arg(py, x);
        return counts_tuple(run(py, [&](const Context& ctx) { return pp::cell_counts(ctx, *blocks); }));
      },
      nb::arg("ctx"), nb::arg("x"), "(total, n_positive) per cell");
  m.def(
      "gene_counts",
      [](PyContext& py, nb::handle x) {
        const auto blocks = blocks_arg(py, x);
        return counts_tuple(run(py, [&](const Context& ctx) { return pp::gene_counts(ctx, *blocks); }));
      },
      nb::arg("ctx"), nb::arg("x"), "(total, n_positive) per gene");
}

}  // namespace scw::python
