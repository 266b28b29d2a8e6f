#include "scwarp/pp/pca.hpp"

#include "bind.hpp"

namespace scw::python {
namespace {

/// Row blocks that a Python callable yields, one pass a call, in the form that matrix_arg takes.
class PyRowBlocks final : public RowBlocks {
 public:
  PyRowBlocks(const PyContext& py, nb::tuple source)
      : py_(py),
        n_rows_(nb::cast<std::int64_t>(source[0])),
        n_cols_(nb::cast<std::int64_t>(source[1])),
        sparse_(nb::cast<bool>(source[2])),
        open_(source[3]) {}
  std::int64_t n_rows() const override { return n_rows_; }
  std::int64_t n_cols() const override { return n_cols_; }
  bool is_sparse() const override { return sparse_; }
  void for_each(const Context& ctx,
                const std::function<void(std::int64_t, const AnyMatrixView&)>& body) const override {
    const nb::gil_scoped_acquire gil;
    std::int64_t first = 0;
    for (const nb::handle packed : open_()) {
      ctx.check_cancelled("row blocks");
      const AnyMatrixView block = rows_arg(py_, packed, Passes::one);
      const nb::gil_scoped_release release;
      ResidentBlocks(block).for_each(ctx,
                                     [&](std::int64_t row, const AnyMatrixView& rows) { body(first + row, rows); });
      first += scw::n_rows(block);
    }
  }

 private:
  const PyContext& py_;
  std::int64_t n_rows_, n_cols_;
  bool sparse_;
  nb::object open_;
};

}  // namespace

SCW_PYTHON(pp, pca) {
  m.def(
      "pca",
      [](PyContext& py, nb::handle x, bool in_blocks, std::int64_t n_comps, bool zero_center, nb::handle gene_mask,
         bool scale, std::optional<double> max_value, bool whole, bool double_scores) {
        pp::PcaOptions o;
        o.n_comps = n_comps;
        o.zero_center = zero_center;
        const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
        o.gene_mask = optional_vector_arg<std::uint8_t>(host, gene_mask, "gene_mask");
        o.scale = scale;
        o.max_value = max_value;
        o.solver = whole ? pp::PcaSolver::covariance : pp::PcaSolver::automatic;
        o.double_scores = double_scores;
        auto r = [&] {
          if (!in_blocks) {
            const auto view = rows_arg(py, x, Passes::several);
            return run(py, [&](const Context& ctx) { return pp::pca(ctx, view, o); });
          }
          const PyRowBlocks blocks(py, nb::cast<nb::tuple>(x));
          return run(py, [&](const Context& ctx) { return pp::pca(ctx, blocks, o); });
        }();
        nb::dict out;
        out["scores"] = std::visit([](auto& s) { return to_array(std::move(s)); }, r.scores);
        out["components"] = to_array(std::move(r.components));
        out["variance"] = to_array(std::move(r.variance));
        out["variance_ratio"] = to_array(std::move(r.variance_ratio));
        return out;
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("in_blocks"), nb::arg("n_comps"), nb::arg("zero_center"),
      nb::arg("gene_mask").none(), nb::arg("scale"), nb::arg("max_value").none(), nb::arg("whole"),
      nb::arg("double_scores"),
      "x is a packed matrix, or with in_blocks (n_rows, n_cols, is_sparse, callable that yields packed blocks).\n"
      "Scores [n x k], components [genes in use x k], variance, variance_ratio.");
}

}  // namespace scw::python
