#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/anndata_reader.hpp"
#include "io/streams.hpp"

namespace scw::io {
namespace {

constexpr std::int64_t kMaxUnsElements = 4 << 20;  // larger arrays in uns stay in the file
constexpr int kMaxDepth = 64;

std::string describe_node(const Node& node, const std::string& type) {
  if (!type.empty()) return type;
  return node.is_group ? "group without encoding" : "dataset without encoding";
}

/// Not complex numbers, say. What has no values at all is for the reader to complain of.
bool holds_numbers(const Node& sparse) {
  const auto values = sparse.find("data");
  if (!values || values->is_group) return true;
  const Kind kind = values->array()->type.kind;
  return kind == Kind::integer || kind == Kind::floating || kind == Kind::boolean;
}

}  // namespace

Foreign AnnDataReader::foreign(const Node& node, const std::string& type) {
  return {node.path, describe_node(node, type)};
}

// ---------------------------------------------------------------------------------------------- obsm, varm and so on

std::optional<AxisElement> AnnDataReader::axis_element(const Node& node, bool keep_order) {
  const auto type = encoding(node);
  if (is_sparse(node)) {
    if (!holds_numbers(node)) return foreign(node, type);
    try {
      return sparse(node, keep_order);
    } catch (const DTypeMismatch& e) {  // a file is read for all the rest of it too
      if (is_selection()) throw;
      ctx_.info(fmt::format("{}; it is left as it is", e.what()));
      return foreign(node, type);
    }
  }
  if (node.is_group) {
    if (type == "dataframe") return frame(node);
    return foreign(node, type);
  }
  const auto stored = node.array();
  const StoredArray& d = *stored;
  if (d.is_null) return std::nullopt;
  const bool number = (d.type.kind == Kind::floating && d.type.size <= 8) || d.type.kind == Kind::integer ||
                      d.type.kind == Kind::boolean;
  if (d.dims.size() == 2 && number && options_.stream_matrices)
    if (auto stream = stored_dense(ctx_, source_, node.array())) return MatrixElement(std::move(stream));
  if (d.dims.size() == 2 && number && !(d.type.kind == Kind::integer && d.type.size == 8)) return dense(d);
  if (d.dims.size() == 2 && number) {
    Matrix<double> x(ctx_.memory, d.dims[0], d.dims[1], "dense");
    if (d.read_numbers(ctx_, x.data.data())) {
      MatrixElement m(std::move(x));
      m.stored_layout = StoredLayout::dense;
      m.stored_dtype = d.type.name;
      return m;
    }
  }
  if (auto rows = d.opaque(ctx_)) return std::move(*rows);
  return foreign(node, type.empty() ? d.type.name : type);
}

AxisElements AnnDataReader::axis(const Node& parent, const char* name, std::int64_t rows, std::int64_t cols,
                                 bool others) {
  AxisElements out;
  const auto group = parent.find(name);
  if (!group) return out;
  if (!group->is_group) {
    const auto d = group->array();
    if (!d->is_null) out = d->fields_as_matrices(ctx_);
  } else {
    for (const auto& link : group->links()) {
      const auto node = group->child(link.name);
      if (others && is_selectable(*node)) continue;
      // Graphs: scanpy lists the neighbours of a cell nearest first, which sorting by index would lose.
      auto e = axis_element(*node, cols >= 0);
      if (!e) continue;
      if (scw::n_rows(*e) >= 0 && scw::n_rows(*e) != rows)
        node->fail("has {} rows (expected {})", scw::n_rows(*e), rows);
      if (cols >= 0 && scw::n_cols(*e) >= 0 && scw::n_cols(*e) != cols)
        node->fail("has {} columns (expected {})", scw::n_cols(*e), cols);
      out.insert_or_assign(link.name, std::move(*e));
    }
  }
  return out;
}

/// Whether axis_element reads a matrix that it can select from.
bool AnnDataReader::is_selectable(const Node& node) const {
  if (is_sparse(node)) return holds_numbers(node);
  if (node.is_group) return false;
  const auto d = node.array();
  return !d->is_null && d->dims.size() == 2 &&
         ((d->type.kind == Kind::floating && d->type.size <= 8) ||
          (d->type.kind == Kind::integer && d->type.size < 8) || d->type.kind == Kind::boolean);
}

// ---------------------------------------------------------------------------------------------------------------- uns

Value AnnDataReader::array_value(const StoredArray& d) {
  const auto keep = [&] { return Value(Foreign{d.path, d.type.name}); };
  if (d.is_null) return {};
  if (d.count > kMaxUnsElements || (d.type.kind == Kind::string && !d.has_readable_texts())) return keep();
  if (d.dims.empty()) {
    switch (d.type.kind) {
      case Kind::string:
        return d.texts(ctx_).at(0);
      case Kind::boolean:
        return small_numbers<std::uint8_t>(d)[0] != 0;
      case Kind::integer: {
        std::int64_t v = 0;
        return d.read_numbers(ctx_, &v) ? Value(v) : keep();
      }
      case Kind::floating:
        return d.type.size <= 8 ? Value(small_numbers<double>(d)[0]) : keep();
      default:
        return keep();
    }
  }
  const auto array = [&]<class T>(std::vector<T> values) {
    NdArray<T> a(d.dims, std::move(values));
    a.stored_dtype = d.type.name;
    return a;
  };
  switch (d.type.kind) {
    case Kind::string:
      return Value(NdArray<std::string>(d.dims, d.texts(ctx_)));
    case Kind::boolean:
      return Value(BoolArray(d.dims, small_numbers<std::uint8_t>(d)));
    case Kind::floating:
      if (d.type.size > 8) return keep();
      return d.type.size <= 4 ? Value(array(small_numbers<float>(d))) : Value(array(small_numbers<double>(d)));
    case Kind::integer: {
      if (d.type.size < 4 || (d.type.size == 4 && d.type.is_signed))
        return Value(array(small_numbers<std::int32_t>(d)));
      std::vector<std::int64_t> values(static_cast<std::size_t>(d.count));
      if (!d.read_numbers(ctx_, values.data())) return keep();
      return Value(array(std::move(values)));
    }
    case Kind::compound: {
      auto s = d.records(ctx_);
      return s ? Value(std::move(*s)) : keep();
    }
    default:
      return keep();
  }
}

Value AnnDataReader::value(const Node& node, int depth) {
  ctx_.check_cancelled(source_->op());
  const auto type = encoding(node);
  Value out;
  if (!node.is_group) {
    out = array_value(*node.array());
  } else if (type.empty() || type == "dict") {
    if (is_sparse(node)) {
      out = foreign(node, "sparse matrix");
    } else if (depth >= kMaxDepth) {
      node.fail("is nested more than {} deep", kMaxDepth);
    } else if (const auto id = node.identity(); id && !groups_seen_.insert(*id).second) {
      // A second way to the same group: walking it could take for ever.
      out = foreign(node, "group with several names");
    } else {
      Dict d;
      for (const auto& link : node.links()) d.emplace(link.name, value(*node.child(link.name), depth + 1));
      out = std::move(d);
    }
  } else if (type == "dataframe") {
    out = frame(node);
  } else if (type == "categorical") {
    const auto ordered = node.integers_attribute("ordered");
    out = categorical(node, *vector_of(node, "codes", -1), *node.child("categories")->array(),
                      ordered && !ordered->empty() && ordered->front() != 0);
  } else {
    out = foreign(node, type);
  }
  out.set_stored_path(node.path);
  return out;
}

// ------------------------------------------------------------------------------------------------------------- AnnData
AnnData AnnDataReader::read() {
  const auto top = source_->root();
  const Node& root = *top;
  const auto type = encoding(root);
  if (!type.empty() && type != "anndata") root.fail("is encoded as '{}' (expected anndata)", type);
  auto obs = root.find("obs");
  auto var = root.find("var");
  if (!obs || !var) {
    root.fail("has no '{}' (not an AnnData{})", obs ? "var" : "obs",
              root.find("matrix") ? "; it looks like 10x Genomics HDF5" : "");
  }
  AnnData a;
  a.source = source_;
  const bool legacy = !obs->is_group || !var->is_group;
  a.obs = frame(*obs);
  a.var = frame(*var);
  const std::int64_t n = a.n_obs(), m = a.n_vars();
  const auto obs_mask = options_.obs_mask, var_mask = options_.var_mask;
  if (!obs_mask.empty() && obs_mask.size != n)
    obs->fail<ShapeMismatch>("has {} cells (obs_mask has {} entries)", n, obs_mask.size);
  if (!var_mask.empty() && var_mask.size != m)
    var->fail<ShapeMismatch>("has {} genes (var_mask has {} entries)", m, var_mask.size);
  options_.obs_mask = options_.var_mask = {};
  // Large matrices are selected from while they are read, everything else afterwards; of old layouts everything.
  const bool select = !legacy && (!obs_mask.empty() || !var_mask.empty());
  const auto kept = [&](Span<const std::uint8_t> mask, std::int64_t all) {
    return mask.empty() || !select ? all : all - std::count(mask.begin(), mask.end(), std::uint8_t{0});
  };
  const std::int64_t rows = kept(obs_mask, n), cols = kept(var_mask, m);
  const auto selected = [&](bool genes, auto&& f) {
    return select ? selecting(obs_mask, genes ? var_mask : Span<const std::uint8_t>{}, f) : f();
  };
  const auto check_shape = [&](const Node& node, const MatrixElement& x, std::int64_t x_rows, std::int64_t x_cols) {
    if (x.n_rows() != x_rows || x.n_cols() != x_cols)
      node.fail("is {} x {} (expected {} x {})", x.n_rows(), x.n_cols(), x_rows, x_cols);
  };
  std::optional<MatrixElement> main;
  if (const auto x = root.find("X"); x && (x->is_group || !x->array()->is_null)) {
    main = selected(true, [&] { return matrix(*x); });
    check_shape(*x, *main, rows, cols);
    check_matrix(*x, *main);
  }
  std::optional<Raw> raw_part;
  const auto read_raw = [&](const Node& x, const Node& raw_var, const Node& parent, const char* varm) {
    Raw r;
    r.X = selected(false, [&] { return matrix(x); });
    r.var = frame(raw_var);
    check_shape(x, r.X, rows, r.var.n_rows());
    r.varm = axis(parent, varm, r.var.n_rows(), -1);
    raw_part = std::move(r);
  };
  if (auto raw = root.find("raw"); raw && raw->is_group)
    read_raw(*raw->child("X"), *raw->child("var"), *raw, "varm");
  else if (auto x = root.find("raw.X"))  // anndata 0.6
    read_raw(*x, *root.child("raw.var"), root, "raw.varm");
  Layers matrices;
  if (const auto group = select ? root.find("layers") : nullptr; group && group->is_group) {
    for (const auto& link : group->links()) {
      const auto node = group->child(link.name);
      if (!is_selectable(*node)) continue;
      auto e = selected(true, [&] { return axis_element(*node, true); });
      if (scw::n_rows(*e) != rows || scw::n_cols(*e) != cols)
        node->fail("is {} x {} (expected {} x {})", scw::n_rows(*e), scw::n_cols(*e), rows, cols);
      matrices.insert_or_assign(link.name, std::move(*e));
    }
  }
  a.layers = axis(root, "layers", n, m, select);
  a.obsm = axis(root, "obsm", n, -1);
  a.varm = axis(root, "varm", m, -1);
  a.obsp = axis(root, "obsp", n, n);
  a.varp = axis(root, "varp", m, m);
  if (select) {
    if (!obs_mask.empty()) a.subset_obs(ctx_, obs_mask);
    if (!var_mask.empty()) a.subset_var(ctx_, var_mask);
    a.layers.merge(matrices);
  }
  a.X = std::move(main);
  a.raw = std::move(raw_part);
  if (auto uns = root.find("uns")) {
    if (!uns->is_group) uns->fail("is a dataset (expected a group)");
    a.uns = value(*uns, 0);
    if (std::as_const(a.uns).dict() == nullptr) root.fail("its 'uns' is not a mapping");
  }
  if (legacy) adopt_legacy_categories(a);
  const std::set<std::string> known{"X",    "obs", "var", "layers", "obsm",    "varm",     "obsp",
                                    "varp", "uns", "raw", "raw.X",  "raw.var", "raw.varm", "raw.cat"};
  for (const auto& link : root.links()) {
    if (known.contains(link.name)) continue;
    if (!link.hard)
      source_->fail("/" + link.name, "is a soft or external link; scwarp reads what is in the file itself");
    a.foreign.push_back("/" + link.name);
  }
  if (legacy && !obs_mask.empty()) a.subset_obs(ctx_, obs_mask);
  if (legacy && !var_mask.empty()) a.subset_var(ctx_, var_mask);
  return a;
}

AnnData read_anndata(const Context& ctx, std::shared_ptr<const Store> source, const ReadH5adOptions& options) {
  SCW_EXPECT((options.obs_mask.empty() && options.var_mask.empty()) || !options.stream_matrices, source->op(),
             "obs_mask and var_mask do not go with stream_matrices");
  return AnnDataReader(ctx.host(), std::move(source), options).read();
}

MatrixElement read_anndata_matrix(const Context& ctx, std::shared_ptr<const Store> source, const std::string& element,
                                  const ReadH5adOptions& options) {
  return AnnDataReader(ctx, std::move(source), options).element(element);
}

}  // namespace scw::io
