#include "scwarp/io/inspect.hpp"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "core/check.hpp"
#include "io/lines.hpp"
#include "io/store.hpp"
#include "scwarp/io/zarr.hpp"

namespace scw::io {

namespace {

constexpr const char* kOp = "inspect";
constexpr int kDeepest = 32;

struct Inspector {
  Context ctx = Context::cpu(1);
  std::vector<FileEntry> out;

  /// The dataset `name` of a group, if there is one.
  static std::unique_ptr<StoredArray> part(const Node& group, const char* name) {
    const auto node = group.find(name);
    return !node || node->is_group ? nullptr : node->array();
  }

  void visit_array(const Node& node, FileEntry e) {
    e.stored_bytes = node.stored_bytes();
    const std::string encoding = node.text_attribute("encoding-type").value_or("");
    const auto array = node.array();
    const StoredArray& d = *array;
    e.shape = d.dims;
    e.dtype = d.type.name;
    e.kind = d.is_null                                                                ? "null"
             : d.dims.empty()                                                         ? "scalar"
             : d.type.kind == Kind::string                                            ? "text"
             : d.type.kind == Kind::compound                                          ? "table"
             : !encoding.empty() && encoding != "array" && encoding != "string-array" ? encoding
                                                                                      : "array";
    out.push_back(std::move(e));
  }

  void visit(const Node& node, int depth) {
    FileEntry e;
    e.path = node.path;
    if (!node.is_group) return visit_array(node, std::move(e));
    const std::string encoding = node.text_attribute("encoding-type").value_or("");
    const auto data = part(node, "data"), indptr = part(node, "indptr");
    if (data && indptr && node.find("indices")) {
      const std::string old = node.text_attribute("h5sparse_format").value_or("");
      const bool is_10x = encoding.empty() && old.empty();  // cells are the columns that indptr cuts
      e.kind = is_10x ? "10x counts" : (encoding.starts_with("csc") || old == "csc") ? "csc" : "csr";
      e.dtype = data->type.name;
      e.nnz = data->count;
      for (const char* name : {"shape", "h5sparse_shape"})
        if (auto shape = node.integers_attribute(name)) e.shape = *shape;
      if (const auto shape = part(node, "shape"); shape && shape->count == 2) {
        e.shape.resize(2);
        shape->read_numbers(ctx, e.shape.data());
        std::swap(e.shape[0], e.shape[1]);  // genes x cells in the file
      }
      e.stored_bytes = node.stored_bytes();
      out.push_back(std::move(e));
      return;
    }
    const auto codes = part(node, "codes"), categories = part(node, "categories");
    if (encoding == "categorical" && codes && categories) {
      e.kind = "categorical";
      e.shape = codes->dims;
      e.dtype = categories->type.name;
      e.n_categories = categories->count;
      e.stored_bytes = node.stored_bytes();
      out.push_back(std::move(e));
      return;
    }
    const auto values = part(node, "values");
    if (encoding.starts_with("nullable") && values) {
      e.kind = encoding;
      e.shape = values->dims;
      e.dtype = values->type.name;
      e.stored_bytes = node.stored_bytes();
      out.push_back(std::move(e));
      return;
    }
    e.kind = encoding.empty() ? "dict" : encoding;
    e.stored_bytes = node.stored_bytes();
    const auto names = node.links();
    if (e.kind == "dataframe") {
      const auto index = part(node, node.text_attribute("_index").value_or("_index").c_str());
      e.shape = {index && !index->dims.empty() ? index->dims[0] : 0,
                 std::max<std::int64_t>(0, static_cast<std::int64_t>(names.size()) - 1)};
    }
    if (!e.path.empty() && e.path != "/") out.push_back(e);
    if (depth >= kDeepest) return;
    for (const auto& link : names)
      if (link.hard) visit(*node.child(link.name), depth + 1);
  }
};

/// From the header of the matrix: genes x cells, and how many values.
FileEntry mtx_folder(const std::string& path) {
  const Context ctx = Context::cpu(1);
  std::error_code none;
  const std::filesystem::path folder(path);
  auto file = folder / "matrix.mtx";
  if (!std::filesystem::exists(file, none)) file = folder / "matrix.mtx.gz";
  SCW_EXPECT_AS(FormatError, std::filesystem::exists(file, none), kOp,
                "'{}' is a folder that is neither a Zarr store nor has a matrix.mtx", path);
  Lines lines(ctx, kOp, file.string());
  auto line = lines.next();
  const std::string banner(line.value_or(""));
  if (!banner.starts_with("%%MatrixMarket")) lines.fail("expected %%MatrixMarket");
  while (line && (line->empty() || line->starts_with('%'))) line = lines.next();
  std::int64_t genes = 0, cells = 0, values = 0;
  std::istringstream sizes{std::string(line.value_or(""))};
  if (!(sizes >> genes >> cells >> values)) lines.fail("expected three sizes");
  const char* const type = banner.find("integer") != std::string::npos ? "integer" : "real";
  const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(file, none));
  return {"X", "10x counts", {cells, genes}, type, values, -1, bytes};
}

}  // namespace

std::vector<FileEntry> inspect(const std::string& path) {
  std::error_code none;
  if (std::filesystem::is_directory(path, none) && !is_zarr(path)) return {mtx_folder(path)};
  const auto source = open_store(kOp, path);
  const auto session = source->session();
  Inspector inspector;
  inspector.visit(*source->root(), 0);
  return std::move(inspector.out);
}

}  // namespace scw::io
