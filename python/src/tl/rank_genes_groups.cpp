#include "scwarp/tl/rank_genes_groups.hpp"

#include "bind.hpp"

namespace scw::python {
namespace {

tl::RankTest test_from(const std::string& name) {
  if (name == "t-test") return tl::RankTest::t_test;
  if (name == "t-test_overestim_var") return tl::RankTest::t_test_overestim_var;
  if (name == "wilcoxon") return tl::RankTest::wilcoxon;
  if (name == "wilcoxon_binned") return tl::RankTest::wilcoxon_binned;
  throw InvalidArgument("tl.rank_genes_groups: unknown method '" + name + "'");
}

tl::PAdjust adjust_from(const std::string& name) {
  if (name == "benjamini-hochberg") return tl::PAdjust::benjamini_hochberg;
  if (name == "bonferroni") return tl::PAdjust::bonferroni;
  throw InvalidArgument("tl.rank_genes_groups: unknown corr_method '" + name + "'");
}

template <class T>
nb::object table(PyContext& py, MatrixView<const double> values, MatrixView<const std::int32_t> order, std::int64_t n) {
  Matrix<T> out(host_memory(), n, values.n_rows, "marker table");
  run(py, [&](const Context& ctx) { tl::gather_ranked(ctx, values, order, out.view()); });
  return to_array(std::move(out));
}

}  // namespace

SCW_PYTHON(tl, gather_ranked) {
  m.def(
      "gather_ranked",
      [](PyContext& py, nb::handle values, nb::handle order, std::int64_t n, bool single) {
        const auto v = matrix2d_arg<double>(py, values, "values");
        const auto o = matrix2d_arg<std::int32_t>(py, order, "order");
        if (n < 0 || n > v.n_cols) throw InvalidArgument("tl.gather_ranked: n must be in [0, number of genes]");
        return single ? table<float>(py, v, o, n) : table<double>(py, v, o, n);
      },
      nb::arg("ctx"), nb::arg("values"), nb::arg("order"), nb::arg("n"), nb::arg("single"),
      "out[k, t] = values[t, order[t, k]] for k < n, as float32 or float64; all on the host.");
}

SCW_PYTHON(tl, gather_names) {
  m.def(
      "gather_names",
      [](PyContext& py, nb::list names, nb::handle order, std::uintptr_t out, std::int64_t n) {
        const auto o = matrix2d_arg<std::int32_t>(py, order, "order");
        if (n < 0 || n > o.n_cols) throw InvalidArgument("tl.gather_names: n must be in [0, number of genes]");
        const auto size = static_cast<std::int64_t>(names.size());
        auto* slot = reinterpret_cast<PyObject**>(out);
        for (std::int64_t k = 0; k < n; ++k)
          for (std::int64_t t = 0; t < o.n_rows; ++t, ++slot) {
            const std::int32_t j = o.row(t)[k];
            if (j < 0 || j >= size) throw InvalidArgument("tl.gather_names: order has an entry that is no gene");
            PyObject* const before = *slot;
            *slot = nb::handle(names[static_cast<std::size_t>(j)]).inc_ref().ptr();
            Py_XDECREF(before);
          }
      },
      nb::arg("ctx"), nb::arg("names"), nb::arg("order"), nb::arg("out"), nb::arg("n"),
      "out[k, t] = names[order[t, k]] for k < n: `out` is the address of n x len(order) objects, or of nothing yet.");
}

SCW_PYTHON(tl, rank_genes_groups) {
  m.def(
      "rank_genes_groups",
      [](PyContext& py, nb::handle x, nb::handle codes, int n_groups, const std::string& method,
         std::optional<int> reference, const std::string& corr_method, bool rankby_abs, bool pts,
         bool mean_in_log_space, std::optional<double> log_base, bool tie_correct, bool use_continuity,
         bool return_u_values, int n_bins, std::optional<std::pair<double, double>> bin_range) {
        const auto blocks = blocks_arg(py, x);
        const auto groups = host_vector_arg<std::int32_t>(codes, "codes");
        tl::RankGenesGroupsOptions o;
        o.test = test_from(method);
        o.reference = reference;
        o.p_adjust = adjust_from(corr_method);
        o.rank_by_abs = rankby_abs;
        o.pts = pts;
        o.mean_in_log_space = mean_in_log_space;
        o.log_base = log_base;
        o.tie_correct = tie_correct;
        o.use_continuity = use_continuity;
        o.return_u_values = return_u_values;
        o.n_bins = n_bins;
        o.bin_range = bin_range;
        auto r = run(py, [&](const Context& ctx) { return tl::rank_genes_groups(ctx, *blocks, groups, n_groups, o); });
        nb::dict out;
        out["tested"] = r.tested;
        out["group_sizes"] = r.group_sizes;
        out["order"] = to_array(std::move(r.order));
        out["scores"] = to_array(std::move(r.scores));
        out["pvals"] = to_array(std::move(r.pvals));
        out["pvals_adj"] = to_array(std::move(r.pvals_adj));
        out["logfoldchanges"] = to_array(std::move(r.logfoldchanges));
        if (pts) {
          out["pts"] = to_array(std::move(r.pts));
          if (!reference) out["pts_rest"] = to_array(std::move(r.pts_rest));
        }
        return out;
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("codes"), nb::arg("n_groups"), nb::kw_only(), nb::arg("method"),
      nb::arg("reference").none(), nb::arg("corr_method"), nb::arg("rankby_abs"), nb::arg("pts"),
      nb::arg("mean_in_log_space"), nb::arg("log_base").none(), nb::arg("tie_correct"), nb::arg("use_continuity"),
      nb::arg("return_u_values"), nb::arg("n_bins"), nb::arg("bin_range").none(),
      "Returns arrays of tested groups x genes.");
}

}  // namespace scw::python
