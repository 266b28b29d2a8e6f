#include "scwarp/io/inspect.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "io/hdf5.hpp"

namespace scw::io {

namespace {

constexpr int kDeepest = 32;

struct Inspector {
  Context ctx = Context::cpu(1);
  std::vector<FileEntry> out;

  std::int64_t stored(const h5::Node& node, int depth = 0) const {
    if (!node.is_group) return static_cast<std::int64_t>(H5Dget_storage_size(node.id.get()));
    std::int64_t sum = 0;
    if (depth < kDeepest)
      for (const auto& link : h5::links(node))
        if (link.hard) sum += stored(h5::child(node, link.name), depth + 1);
    return sum;
  }

  /// The dataset `name` of a group, if there is one.
  static std::optional<h5::Dataset> part(const h5::Node& group, const char* name) {
    auto node = h5::find(group, name);
    if (!node || node->is_group) return std::nullopt;
    return h5::dataset(std::move(*node));
  }

  void visit_dataset(h5::Node node, FileEntry e) {
    e.stored_bytes = stored(node);
    const std::string encoding = h5::text_attribute(node, "encoding-type").value_or("");
    const h5::Dataset d = h5::dataset(std::move(node));
    e.shape = d.dims;
    e.dtype = d.type.name;
    e.kind = d.is_null                                                                ? "null"
             : d.dims.empty()                                                         ? "scalar"
             : d.type.kind == h5::Kind::string                                        ? "text"
             : d.type.kind == h5::Kind::compound                                      ? "table"
             : !encoding.empty() && encoding != "array" && encoding != "string-array" ? encoding
                                                                                      : "array";
    out.push_back(std::move(e));
  }

  void visit(h5::Node node, int depth) {
    FileEntry e;
    e.path = node.path;
    if (!node.is_group) return visit_dataset(std::move(node), std::move(e));
    const std::string encoding = h5::text_attribute(node, "encoding-type").value_or("");
    const auto data = part(node, "data"), indptr = part(node, "indptr");
    if (data && indptr && h5::find(node, "indices")) {
      const std::string old = h5::text_attribute(node, "h5sparse_format").value_or("");
      const bool is_10x = encoding.empty() && old.empty();  // cells are the columns that indptr cuts
      e.kind = is_10x ? "10x counts" : (encoding.starts_with("csc") || old == "csc") ? "csc" : "csr";
      e.dtype = data->type.name;
      e.nnz = data->count;
      for (const char* name : {"shape", "h5sparse_shape"})
        if (auto shape = h5::integers_attribute(node, name)) e.shape = *shape;
      if (const auto shape = part(node, "shape"); shape && shape->count == 2) {
        e.shape.resize(2);
        h5::read_numbers(ctx, *shape, e.shape.data());
        std::swap(e.shape[0], e.shape[1]);  // genes x cells in the file
      }
      e.stored_bytes = stored(node);
      out.push_back(std::move(e));
      return;
    }
    const auto codes = part(node, "codes"), categories = part(node, "categories");
    if (encoding == "categorical" && codes && categories) {
      e.kind = "categorical";
      e.shape = codes->dims;
      e.dtype = categories->type.name;
      e.n_categories = categories->count;
      e.stored_bytes = stored(node);
      out.push_back(std::move(e));
      return;
    }
    const auto values = part(node, "values");
    if (encoding.starts_with("nullable") && values) {
      e.kind = encoding;
      e.shape = values->dims;
      e.dtype = values->type.name;
      e.stored_bytes = stored(node);
      out.push_back(std::move(e));
      return;
    }
    e.kind = encoding.empty() ? "dict" : encoding;
    e.stored_bytes = stored(node);
    const auto names = h5::links(node);
    if (e.kind == "dataframe") {
      const auto index = part(node, h5::text_attribute(node, "_index").value_or("_index").c_str());
      e.shape = {index && !index->dims.empty() ? index->dims[0] : 0,
                 std::max<std::int64_t>(0, static_cast<std::int64_t>(names.size()) - 1)};
    }
    if (!e.path.empty() && e.path != "/") out.push_back(e);
    if (depth >= kDeepest) return;
    for (const auto& link : names)
      if (link.hard) visit(h5::child(node, link.name), depth + 1);
  }
};

}  // namespace

std::vector<FileEntry> inspect(const std::string& path) {
  const h5::Session session;
  const auto source = Source::open("inspect", path);
  Inspector inspector;
  inspector.visit(h5::root(*source), 0);
  return std::move(inspector.out);
}

}  // namespace scw::io
