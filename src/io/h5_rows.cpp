// Matrices in HDF5 files, read by rows.
#include "core/check.hpp"
#include "io/hdf5.hpp"
#include "io/stored_numbers.hpp"

namespace scw::io {
namespace {

constexpr const char* kOp = "file rows";

class H5Numbers final : public StoredNumbers {
 public:
  H5Numbers(std::shared_ptr<const Source> source, h5::Dataset d)
      : StoredNumbers(d.dims, d.type.name), source_(std::move(source)), d_(std::move(d)) {}
  ~H5Numbers() override {
    const h5::Session session;
    d_.id = h5::Id();
    d_.space = h5::Id();
    d_.plist = h5::Id();
    d_.type.id = h5::Id();
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int32_t* out) const override {
    return read_as(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int64_t* out) const override {
    return read_as(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out) const override {
    return read_as(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out) const override {
    return read_as(ctx, first, n, out);
  }
  void fail(const std::string& what) const override { d_.fail("{}", what); }

 private:
  template <class T>
  bool read_as(const Context& ctx, std::int64_t first, std::int64_t n, T* out) const {
    const h5::Session session;
    std::int64_t cols = 1;
    for (std::size_t k = 1; k < d_.dims.size(); ++k) cols *= d_.dims[k];
    std::vector<hsize_t> start(d_.dims.size(), 0), extent(d_.dims.begin(), d_.dims.end());
    start[0] = static_cast<hsize_t>(first);
    extent[0] = static_cast<hsize_t>(n);
    const hsize_t count = static_cast<hsize_t>(n * cols);
    if (count == 0) return true;
    const h5::Id memory(H5Screate_simple(1, &count, nullptr)), file(H5Scopy(d_.space.get()));
    H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
    if (d_.type.kind == h5::Kind::boolean) {
      std::vector<std::int8_t> b(count);
      H5Dread(d_.id.get(), d_.type.id.get(), memory.get(), file.get(), H5P_DEFAULT, b.data());
      std::copy(b.begin(), b.end(), out);
      return true;
    }
    if (H5Dread(d_.id.get(), h5::native_type<T>(), memory.get(), file.get(), H5P_DEFAULT, out) < 0)
      d_.fail("cannot be read ({})", h5::last_error());
    bool fits = true;
    if constexpr (std::is_same_v<T, float>)
      if (d_.type.kind == h5::Kind::integer && d_.type.size >= 4)
        for (hsize_t i = 0; i < count; ++i) fits &= std::abs(out[i]) < 0x1p24f;
    static_cast<void>(ctx);
    return fits;
  }

  std::shared_ptr<const Source> source_;
  h5::Dataset d_;
};

/// Numbers of `rank` dimensions.
std::unique_ptr<StoredNumbers> numbers(const std::shared_ptr<const Source>& source, h5::Node node, std::size_t rank,
                                       bool integers) {
  h5::Dataset d = h5::dataset(std::move(node));
  if (d.dims.size() != rank) d.fail("has {} dimensions (expected {})", d.dims.size(), rank);
  const bool whole = d.type.kind == h5::Kind::integer || d.type.kind == h5::Kind::boolean;
  if (!whole && (integers || d.type.kind != h5::Kind::floating || d.type.size > 8))
    d.fail("is of type {} (expected {})", d.type.name, integers ? "integers" : "numbers");
  return std::make_unique<H5Numbers>(source, std::move(d));
}

}  // namespace

StoredRows open_h5_rows(const Context& ctx, const std::string& path, const std::string& element) {
  const h5::Session session;
  const auto source = Source::open(kOp, path);
  auto node = h5::find(h5::root(*source), element);
  SCW_EXPECT(node.has_value(), kOp, "'{}' has no '{}'", path, element);
  StoredRows out;
  if (!node->is_group) {
    out.data = numbers(source, std::move(*node), 2, false);
    out.n_rows = out.data->dims()[0];
    out.n_cols = out.data->dims()[1];
    if (out.n_rows > INT32_MAX || out.n_cols > INT32_MAX)
      out.data->fail(fmt::format("is {} x {} (expected less than 2^31 rows and columns)", out.n_rows, out.n_cols));
    return out;
  }
  const bool legacy = h5::has_attribute(*node, "h5sparse_format");
  std::string type = h5::text_attribute(*node, legacy ? "h5sparse_format" : "encoding-type").value_or("");
  std::optional<std::vector<std::int64_t>> shape;
  if (auto stored = h5::find(*node, "shape"); type.empty() && stored.has_value()) {
    // 10x Genomics: compressed columns of genes x cells are compressed rows of cells x genes
    const h5::Dataset d = h5::dataset(std::move(*stored));
    if (d.dims != std::vector<std::int64_t>{2}) d.fail("has {} entries (expected 2)", d.count);
    shape.emplace(2);
    if (!h5::read_numbers(ctx, d, shape->data())) d.fail("holds values out of range for 64 bits");
    std::swap(shape->front(), shape->back());
    type = "csr_matrix";
  } else {
    shape = h5::integers_attribute(*node, legacy ? "h5sparse_shape" : "shape");
  }
  if (type.starts_with("csc"))
    node->fail<NotSupported>(
        "is stored by columns (CSC), which cannot be read by rows: convert the file (scwarp convert) or load it whole");
  if (type != "csr" && type != "csr_matrix") node->fail("is encoded as '{}' (expected csr_matrix or array)", type);
  if (!shape || shape->size() != 2 || (*shape)[0] < 0 || (*shape)[1] < 0)
    node->fail("has no valid shape (expected two sizes)");
  out.n_rows = (*shape)[0];
  out.n_cols = (*shape)[1];
  if (out.n_rows > INT32_MAX || out.n_cols > INT32_MAX)
    node->fail<NotSupported>("is {} x {} (expected less than 2^31 rows and columns)", out.n_rows, out.n_cols);
  out.indptr = numbers(source, h5::child(*node, "indptr"), 1, true);
  out.indices = numbers(source, h5::child(*node, "indices"), 1, true);
  out.data = numbers(source, h5::child(*node, "data"), 1, false);
  if (out.indptr->dims()[0] != out.n_rows + 1)
    out.indptr->fail(fmt::format("has {} entries (expected {})", out.indptr->dims()[0], out.n_rows + 1));
  return out;
}

}  // namespace scw::io
