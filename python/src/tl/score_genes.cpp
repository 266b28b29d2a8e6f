#include "scwarp/tl/score_genes.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(tl, score_genes) {
  m.def(
      "nan_mean_of_genes",
      [](PyContext& py, nb::handle x) {
        const auto blocks = blocks_arg(py, x);
        return to_array(run(py, [&](const Context& ctx) { return tl::nan_mean_of_genes(ctx, *blocks); }));
      },
      nb::arg("ctx"), nb::arg("x"), "Mean of each column over the rows where it is not NaN.");
  m.def(
      "score_genes",
      [](PyContext& py, nb::handle x, const std::vector<std::int32_t>& genes,
         const std::vector<std::int32_t>& control) {
        const auto blocks = blocks_arg(py, x);
        return to_array(run(py, [&](const Context& ctx) { return tl::score_genes(ctx, *blocks, genes, control); }));
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("genes"), nb::arg("control"),
      "Mean over the columns `genes` minus mean over the columns `control`, per row.");
}

}  // namespace scw::python
