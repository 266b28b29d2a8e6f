#include "scwarp/io/file_rows.hpp"

#include <nanobind/stl/shared_ptr.h>

#include "bind.hpp"
#include "scwarp/pp/transformed_rows.hpp"

namespace scw::python {
namespace {

std::vector<std::uint8_t> flags(nb::handle mask) {
  const auto m = host_vector_arg<std::uint8_t>(mask, "keep");
  return {m.begin(), m.end()};
}

/// (name, arguments...) as scwarp._on_disk writes them.
pp::RowStep step_from(const nb::tuple& t) {
  const auto name = nb::cast<std::string>(t[0]);
  if (name == "normalize") return pp::NormalizeRows{nb::cast<double>(t[1])};
  if (name == "scale") {
    const auto counts = host_vector_arg<double>(t[1], "counts");
    return pp::ScaleRows{{counts.begin(), counts.end()}, nb::cast<double>(t[2])};
  }
  if (name == "log1p") return pp::Log1pRows{nb::cast<std::optional<double>>(t[1])};
  if (name == "sqrt") return pp::SqrtRows{};
  if (name == "keep") return pp::KeepColumns{flags(t[1])};
  throw InvalidArgument("row_source: unknown step '" + name + "'");
}

}  // namespace

SCW_PYTHON(io, file_rows) {
  nb::class_<io::FileMatrix>(m, "FileMatrix", "A matrix that stays in its file.")
      .def_prop_ro("path", &io::FileMatrix::path)
      .def_prop_ro("element", &io::FileMatrix::element)
      .def_prop_ro("shape", [](const io::FileMatrix& f) { return nb::make_tuple(f.n_rows(), f.n_cols()); })
      .def_prop_ro("n_entries", &io::FileMatrix::n_entries)
      .def_prop_ro("is_sparse", &io::FileMatrix::is_sparse)
      .def_prop_ro("dtype", &io::FileMatrix::dtype)
      .def("row_lengths",
           [](const io::FileMatrix& f) {
             Array<std::int64_t> out(host_memory(), f.is_sparse() ? f.n_rows() : 0, "row lengths");
             for (std::int64_t i = 0; i < out.size(); ++i) out[i] = f.indptr()[i + 1] - f.indptr()[i];
             return to_array(std::move(out));
           })
      .def_prop_ro("passes",
                   [](const io::FileMatrix& f) {
                     return nb::make_tuple(f.n_passes(RowParts::all), f.n_passes(RowParts::values));
                   })
      .def(
          "fits_float",
          [](const io::FileMatrix& f, PyContext& py) {
            return run(py, [&](const Context& ctx) { return f.fits_float(ctx); });
          },
          nb::arg("ctx"));
  m.def(
      "open_matrix",
      [](PyContext& py, const std::string& path, const std::string& element) {
        return std::const_pointer_cast<io::FileMatrix>(
            run(py, [&](const Context& ctx) { return io::FileMatrix::open(ctx, path, element); }));
      },
      nb::arg("ctx"), nb::arg("path"), nb::arg("element") = "X");

  nb::class_<RowSource>(m, "RowSource", "Cells x genes in blocks of rows: an argument in place of a packed matrix.")
      .def_prop_ro("shape", [](const RowSource& s) { return nb::make_tuple(s.rows->n_rows(), s.rows->n_cols()); })
      .def_prop_ro("is_sparse", [](const RowSource& s) { return s.rows->is_sparse(); });
  m.def(
      "row_source",
      [](const std::shared_ptr<io::FileMatrix>& file, nb::handle rows, bool as_double,
         const std::vector<nb::tuple>& steps) {
        io::FileRowsOptions o;
        o.as_double = as_double;
        if (!rows.is_none()) {
          const auto picked = host_vector_arg<std::int64_t>(rows, "rows");
          o.all_rows = false;
          o.rows.assign(picked.begin(), picked.end());
        }
        std::shared_ptr<const RowBlocks> source = std::make_shared<io::FileRows>(file, std::move(o));
        std::vector<pp::RowStep> parsed;
        for (const nb::tuple& t : steps) parsed.push_back(step_from(t));
        if (!parsed.empty()) source = std::make_shared<pp::TransformedRows>(source, std::move(parsed));
        return RowSource{std::move(source)};
      },
      nb::arg("file"), nb::arg("rows").none(), nb::arg("as_double"), nb::arg("steps"));
  m.def(
      "visit_rows",
      [](PyContext& py, const RowSource& source, bool values_only) {
        return run(py, [&](const Context& ctx) {
          std::int64_t blocks = 0;
          source.rows->for_each(
              ctx, [&](std::int64_t, const AnyMatrixView&) { ++blocks; },
              values_only ? RowParts::values : RowParts::all);
          ctx.synchronize();
          return blocks;
        });
      },
      nb::arg("ctx"), nb::arg("source"), nb::arg("values_only") = false,
      "One pass that does nothing with the blocks, and their number: what a pass takes at least.");
  m.def(
      "load_rows",
      [](PyContext& py, const RowSource& source) -> nb::object {
        auto loaded = run(py, [&](const Context& ctx) { return io::load_rows(ctx, *source.rows); });
        return std::visit(
            []<class M>(M& x) -> nb::object {
              if constexpr (requires { x.indptr; })
                return to_csr_parts(std::move(x));
              else
                return to_array(std::move(x));
            },
            loaded);
      },
      nb::arg("ctx"), nb::arg("source"), "All rows in memory: (indptr, indices, data) or an array.");
}

}  // namespace scw::python
