#include "io/stored_rows.hpp"

#include "core/check.hpp"

namespace scw::io {
namespace {

/// Numbers of `rank` dimensions, ready to be read.
std::unique_ptr<StoredArray> numbers(const Context& ctx, const Node& node, std::size_t rank, bool integers) {
  auto a = node.array();
  if (a->dims.size() != rank) a->fail("has {} dimensions (expected {})", a->dims.size(), rank);
  const bool whole = a->type.kind == Kind::integer || a->type.kind == Kind::boolean;
  if (!whole && (integers || a->type.kind != Kind::floating || a->type.size > 8))
    a->fail("is of type {} (expected {})", a->type.name, integers ? "integers" : "numbers");
  double nothing = 0;
  a->read(ctx, 0, 0, &nothing);  // a first reading finds out where things are, and is not for several threads
  return a;
}

/// Of a sparse matrix by rows; `shape` is found as the format has it.
std::vector<std::int64_t> shape_of(const Context& ctx, const Node& node, std::string& type) {
  const bool legacy = node.has_attribute("h5sparse_format");
  type = node.text_attribute(legacy ? "h5sparse_format" : "encoding-type").value_or("");
  std::optional<std::vector<std::int64_t>> shape;
  if (const auto stored = type.empty() ? node.find("shape") : nullptr; stored != nullptr && !stored->is_group) {
    // 10x Genomics: compressed columns of genes x cells are compressed rows of cells x genes
    const auto sizes = numbers(ctx, *stored, 1, true);
    if (sizes->count != 2) sizes->fail("has {} entries (expected 2)", sizes->count);
    shape.emplace(2);
    if (!sizes->read_numbers(ctx, shape->data())) sizes->fail("holds values out of range for 64 bits");
    std::swap(shape->front(), shape->back());
    type = "csr_matrix";
  } else {
    shape = node.integers_attribute(legacy ? "h5sparse_shape" : "shape");
  }
  if (type.starts_with("csc"))
    node.fail<NotSupported>(
        "is stored by columns (CSC), which cannot be read by rows: load it whole (without backed), or write the file "
        "anew with scwarp convert --csr (in Python scwarp.io.convert(..., csr=True))");
  if (type != "csr" && type != "csr_matrix") node.fail("is encoded as '{}' (expected csr_matrix or array)", type);
  if (!shape || shape->size() != 2 || (*shape)[0] < 0 || (*shape)[1] < 0)
    node.fail("has no valid shape (expected two sizes)");
  return *shape;
}

}  // namespace

StoredRows::~StoredRows() {
  if (!store) return;
  const auto session = store->session();
  indptr.reset();
  indices.reset();
  data.reset();
}

StoredRows open_rows(const Context& ctx, const char* op, const std::string& path, const std::string& element) {
  StoredRows out;
  out.store = open_store(op, path);
  const auto session = out.store->session();
  const auto node = out.store->root()->find(element);
  SCW_EXPECT(node != nullptr, op, "'{}' has no '{}'", path, element);
  const auto check_size = [&] {
    if (out.n_rows > INT32_MAX || out.n_cols > INT32_MAX)
      node->fail<NotSupported>("is {} x {} (expected less than 2^31 rows and columns)", out.n_rows, out.n_cols);
  };
  if (!node->is_group) {
    out.data = numbers(ctx, *node, 2, false);
    out.n_rows = out.data->dims[0];
    out.n_cols = out.data->dims[1];
    check_size();
    return out;
  }
  std::string type;
  const auto shape = shape_of(ctx, *node, type);
  out.n_rows = shape[0];
  out.n_cols = shape[1];
  check_size();
  out.indptr = numbers(ctx, *node->child("indptr"), 1, true);
  out.indices = numbers(ctx, *node->child("indices"), 1, true);
  out.data = numbers(ctx, *node->child("data"), 1, false);
  if (out.indptr->count != out.n_rows + 1)
    out.indptr->fail("has {} entries (expected {})", out.indptr->count, out.n_rows + 1);
  return out;
}

}  // namespace scw::io
