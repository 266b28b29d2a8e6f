#include "scwarp/datasets/simulate.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(datasets, simulate) {
  m.def(
      "simulate",
      [](PyContext& py, std::int64_t n_cells, std::int32_t n_genes, int n_clusters, int n_batches, double doublet_rate,
         double damaged_rate, double mean_counts) {
        auto r = run(py, [&](const Context& ctx) {
          return datasets::simulate(ctx,
                                    {n_cells, n_genes, n_clusters, n_batches, doublet_rate, damaged_rate, mean_counts});
        });
        std::vector<std::string> genes, cells;
        for (std::int64_t j = 0; j < r.counts.n_cols; ++j) genes.push_back(datasets::simulated_gene_name(r, j));
        for (std::int64_t i = 0; i < r.counts.n_rows; ++i) cells.push_back(datasets::simulated_cell_name(i));
        return nb::make_tuple(to_csr_parts(std::move(r.counts)), cells, genes, to_array(std::move(r.cluster)),
                              to_array(std::move(r.batch)), to_array(std::move(r.is_doublet)),
                              to_array(std::move(r.is_damaged)), to_array(std::move(r.marker_of)));
      },
      nb::arg("ctx"), nb::arg("n_cells"), nb::arg("n_genes"), nb::arg("n_clusters"), nb::arg("n_batches"),
      nb::arg("doublet_rate"), nb::arg("damaged_rate"), nb::arg("mean_counts"));
}

}  // namespace scw::python
