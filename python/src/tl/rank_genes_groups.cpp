#include "scwarp/tl/rank_genes_groups.hpp"

#include <algorithm>

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

/// A NumPy array whose objects are null, which NumPy takes for None. numpy.zeros and numpy.empty write an object to
/// each of them, which takes longer than to fill it. By NumPy's table of C functions, whose places are its ABI.
nb::object array_of_nothing(nb::object dtype, std::int64_t n) {
  constexpr int kArrayType = 2, kNewFromDescr = 94;
  const nb::module_ numpy = nb::module_::import_("numpy");
  const bool old = nb::cast<std::string>(numpy.attr("__version__")).starts_with("1.");
  const nb::object table =
      nb::module_::import_(old ? "numpy.core._multiarray_umath" : "numpy._core._multiarray_umath").attr("_ARRAY_API");
  auto* const api = static_cast<void**>(PyCapsule_GetPointer(table.ptr(), nullptr));
  if (api == nullptr) throw nb::python_error();
  using NewFromDescr =
      PyObject* (*)(PyTypeObject*, PyObject*, int, const Py_ssize_t*, const Py_ssize_t*, void*, int, PyObject*);
  const auto make = reinterpret_cast<NewFromDescr>(api[kNewFromDescr]);
  const auto shape = static_cast<Py_ssize_t>(n);
  PyObject* const out =
      make(static_cast<PyTypeObject*>(api[kArrayType]), dtype.release().ptr(), 1, &shape, nullptr, nullptr, 0, nullptr);
  if (out == nullptr) throw nb::python_error();
  return nb::steal(out);
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
      [](PyContext& py, nb::list names, nb::handle order, std::int64_t n, nb::object dtype) {
        const auto o = matrix2d_arg<std::int32_t>(py, order, "order");
        if (n < 0 || n > o.n_cols) throw InvalidArgument("tl.gather_names: n must be in [0, number of genes]");
        if (nb::cast<std::int64_t>(dtype.attr("itemsize")) != o.n_rows * std::int64_t{sizeof(PyObject*)})
          throw InvalidArgument("tl.gather_names: dtype must have one object for each row of order");
        std::vector<std::uintptr_t> objects(nb::len(names));
        std::vector<std::int64_t> uses(objects.size());
        for (std::size_t j = 0; j < objects.size(); ++j)
          objects[j] = reinterpret_cast<std::uintptr_t>(nb::handle(names[j]).ptr());
        nb::object out = array_of_nothing(dtype, n);
        const auto first = nb::cast<std::uintptr_t>(out.attr("ctypes").attr("data"));
        // Threads write the pointers; then references are counted, once for each object.
        auto* const slots = reinterpret_cast<std::uintptr_t*>(first);
        try {
          run(py, [&](const Context& ctx) { tl::gather_ranked(ctx, objects, o, {slots, n, o.n_rows}, uses); });
        } catch (...) {  // pointers without references must not stay
          std::fill_n(slots, n * o.n_rows, std::uintptr_t{0});
          throw;
        }
        for (std::size_t j = 0; j < objects.size(); ++j) {
          auto* const object = reinterpret_cast<PyObject*>(objects[j]);
          for (std::int64_t k = 0; k < uses[j]; ++k) Py_INCREF(object);
        }
        return out;
      },
      nb::arg("ctx"), nb::arg("names"), nb::arg("order"), nb::arg("n"), nb::arg("dtype"),
      "An array of n elements of `dtype`, which has as many objects as order rows: names[order[t, k]] in element k.");
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
