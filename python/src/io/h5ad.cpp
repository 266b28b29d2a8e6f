#include "scwarp/io/h5ad.hpp"

#include "bind.hpp"
#include "io/to_python.hpp"

namespace scw::python {
namespace {

/// "Allocates" what Python owns, so that an AnnData can hold it without a copy.
class Borrowed final : public MemoryResource {
 public:
  explicit Borrowed(const void* data) : data_(const_cast<void*>(data)) {}
  Device device() const override { return {}; }
  void* allocate(std::size_t, StreamHandle, const char*) override { return data_; }
  void deallocate(void*, std::size_t, StreamHandle) noexcept override {}

 private:
  void* data_;
};
template <class T>
Array<T> borrow(Span<const T> x) {
  return Array<T>(std::make_shared<Borrowed>(x.data), x.size);
}

template <class V>
MatrixElement borrow(const CsrView<V>& x) {
  Csr<std::remove_const_t<V>> m;
  m.n_rows = x.n_rows;
  m.n_cols = x.n_cols;
  m.indptr = borrow(x.indptr);
  m.indices = borrow(x.indices);
  m.values = borrow(Span<const std::remove_const_t<V>>(x.values));
  return m;
}
template <class V>
MatrixElement borrow(const MatrixView<V>& x) {
  Matrix<std::remove_const_t<V>> m;
  m.n_rows = x.n_rows;
  m.n_cols = x.n_cols;
  m.data = borrow(Span<const std::remove_const_t<V>>(x.data, x.n_rows * x.n_cols));
  return m;
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
      [](PyContext& py, const std::string& from, const std::string& to, int compression_level, bool check_counts,
         const std::vector<std::pair<std::string, nb::object>>& matrices) {
        std::vector<std::pair<std::string, MatrixElement>> borrowed;
        for (const auto& [name, packed] : matrices)
          borrowed.emplace_back(name, std::visit([](const auto& x) { return borrow(x); }, matrix_arg(py, packed)));
        run(py, [&](const Context& ctx) {
          io::ReadH5adOptions read;
          read.check_counts = check_counts;
          AnnData data = io::read_h5ad(ctx, from, read);
          for (auto& [name, x] : borrowed) {
            if (name == "X")
              data.set_X(std::move(x));
            else
              data.set_layer(name.substr(7), std::move(x));  // "layers/..."
          }
          io::WriteH5adOptions write;
          write.compression_level = compression_level;
          io::write_h5ad(ctx, data, to, write);
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("source"), nb::arg("target"), nb::arg("compression_level") = 1,
      nb::arg("check_counts") = false, nb::arg("matrices") = std::vector<std::pair<std::string, nb::object>>());
}

}  // namespace scw::python
