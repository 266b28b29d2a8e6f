#include "scwarp/io/h5ad.hpp"

#include "bind.hpp"

namespace scw::python {
namespace {

nb::object to_python(MatrixElement&& m) {
  const auto shape = nb::make_tuple(m.n_rows(), m.n_cols());
  nb::object data = std::visit(
      []<class M>(M& x) -> nb::object {
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>)
          return to_csr_parts(std::move(x));
        else
          return to_array(std::move(x));
      },
      m.data);
  const char* layout = !m.stored_layout                        ? ""
                       : *m.stored_layout == StoredLayout::csr ? "csr"
                       : *m.stored_layout == StoredLayout::csc ? "csc"
                                                               : "dense";
  return nb::make_tuple(data, shape, std::string(layout), m.stored_dtype);
}

}  // namespace

SCW_PYTHON(io, h5ad) {
  m.def(
      "read_h5ad_matrix",
      [](PyContext& py, const std::string& path, const std::string& element, bool check_counts) {
        io::ReadH5adOptions options;
        options.check_counts = check_counts;
        return to_python(
            run(py, [&](const Context& ctx) { return io::read_h5ad_matrix(ctx, path, element, options); }));
      },
      nb::arg("ctx"), nb::arg("path"), nb::arg("element") = "X", nb::arg("check_counts") = false);
  m.def(
      "copy_h5ad",
      [](PyContext& py, const std::string& from, const std::string& to, int compression_level, bool check_counts) {
        run(py, [&](const Context& ctx) {
          io::ReadH5adOptions read;
          read.check_counts = check_counts;
          const AnnData data = io::read_h5ad(ctx, from, read);
          io::WriteH5adOptions write;
          write.compression_level = compression_level;
          io::write_h5ad(ctx, data, to, write);
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("source"), nb::arg("target"), nb::arg("compression_level") = 1,
      nb::arg("check_counts") = false);
}

}  // namespace scw::python
