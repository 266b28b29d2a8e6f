#include <algorithm>
#include <charconv>

#include "core/check.hpp"
#include "io/anndata_reader.hpp"

namespace scw::io {

/// Numbers, booleans and text of one dimension; nothing for other datasets.
std::optional<Column> AnnDataReader::plain_column(const StoredArray& d) {
  if (d.dims.size() != 1 || d.is_null) return std::nullopt;
  Column c;
  switch (d.type.kind) {
    case Kind::string:
      return Column(d.texts(ctx_));
    case Kind::boolean:
      return Column(Bools{small_numbers<std::uint8_t>(d)});
    case Kind::floating:
      if (d.type.size > 8) return std::nullopt;
      c = d.type.size <= 4 ? Column(small_numbers<float>(d)) : Column(small_numbers<double>(d));
      if (d.type.size != 4 && d.type.size != 8) c.stored_dtype = d.type.name;
      return c;
    case Kind::integer: {
      if (d.type.size < 4 || (d.type.size == 4 && d.type.is_signed)) {
        c = Column(small_numbers<std::int32_t>(d));
      } else {
        std::vector<std::int64_t> values(static_cast<std::size_t>(d.count));
        if (!d.read_numbers(ctx_, values.data())) return std::nullopt;  // above 2^63
        c = Column(std::move(values));
      }
      if (d.type.name != "int32" && d.type.name != "int64") c.stored_dtype = d.type.name;
      return c;
    }
    default:
      return std::nullopt;
  }
}

Categorical::Categories AnnDataReader::categories(const StoredArray& d) {
  if (d.dims.size() > 1) d.fail("has {} dimensions (expected 1)", d.dims.size());
  switch (d.type.kind) {
    case Kind::string:
      return d.texts(ctx_);
    case Kind::integer:
      return small_numbers<std::int64_t>(d);
    case Kind::boolean:
      return Bools{small_numbers<std::uint8_t>(d)};
    case Kind::floating:
      return small_numbers<double>(d);
    default:
      d.fail("is of type {} (expected text, numbers or booleans)", d.type.name);
  }
}

Categorical AnnDataReader::categorical(const Node& where, const StoredArray& codes, const StoredArray& names,
                                       bool ordered) {
  Categorical out;
  out.categories = categories(names);
  out.ordered = ordered;
  out.codes = small_numbers<std::int32_t>(codes);
  const auto n = out.n_categories();
  for (std::size_t i = 0; i < out.codes.size(); ++i)
    if (out.codes[i] < -1 || out.codes[i] >= n)
      where.fail<DataError>("code {} at position {} is out of range (there are {} categories)", out.codes[i], i, n);
  return out;
}

Column AnnDataReader::column(const Node& node, std::int64_t n_rows, const Node* frame) {
  const auto type = encoding(node);
  const auto first = [](const std::optional<std::vector<std::int64_t>>& v) {
    return v && !v->empty() && v->front() != 0;
  };
  if (node.is_group) {
    if (type == "categorical")
      return categorical(node, *vector_of(node, "codes", n_rows), *node.child("categories")->array(),
                         first(node.integers_attribute("ordered")));
    if (type == "nullable-integer" || type == "nullable-boolean" || type == "nullable-string-array") {
      auto c = plain_column(*vector_of(node, "values", n_rows));
      if (!c) return foreign(node, type);
      c->missing = small_numbers<std::uint8_t>(*vector_of(node, "mask", n_rows));
      return std::move(*c);
    }
    return foreign(node, type);
  }
  const auto stored = node.array();
  const StoredArray& d = *stored;
  if (d.is_null || d.dims.empty()) return foreign(node, type);
  if (d.dims[0] != n_rows && n_rows >= 0) d.fail("has {} rows (expected {})", d.dims[0], n_rows);
  // anndata 0.7: codes here, categories in __categories under the same name
  if (frame != nullptr && node.has_attribute("categories")) {
    const auto name = node.path.substr(frame->path.size() + 1);
    if (const auto names = frame->find("__categories/" + name))
      return categorical(node, d, *names->array(), first(names->integers_attribute("ordered")));
    node.fail("has codes, but there is no '__categories/{}'", name);
  }
  if (auto c = plain_column(d)) return std::move(*c);
  if (auto rows = d.opaque(ctx_)) return std::move(*rows);
  return foreign(node, type.empty() ? d.type.name : type);
}

DataFrame AnnDataReader::frame(const Node& node) {
  if (!node.is_group) return record_frame(*node.array());
  const auto index_name = node.text_attribute("_index");
  if (!index_name) node.fail("has no attribute '_index' (expected a data frame)");
  const auto order = node.texts_attribute("column-order");
  const Column index = column(*node.child(*index_name), -1, &node);
  if (std::holds_alternative<Foreign>(index.data) || std::holds_alternative<OpaqueRows>(index.data))
    node.fail("its index '{}' is neither text nor numbers", *index_name);
  DataFrame out(index.to_strings(), *index_name == "_index" ? "" : *index_name);
  if (index.data.index() < 5) {
    constexpr const char* kNames[] = {"int32", "int64", "float32", "float64", "bool"};
    out.stored_index_dtype = index.stored_dtype.empty() ? kNames[index.data.index()] : index.stored_dtype;
  }
  std::set<std::string> seen;
  if (order)
    for (const auto& name : *order) {
      if (!seen.insert(name).second) node.fail("lists column '{}' twice", name);
      const auto c = node.child(name);
      Column values = column(*c, out.n_rows(), &node);
      if (values.size() >= 0 && values.size() != out.n_rows())
        c->fail("has {} rows (expected {})", values.size(), out.n_rows());
      // Foreign columns have no rows of their own; set() takes them.
      out.set(name, std::move(values));
    }
  return out;
}

/// anndata 0.6: one dataset of records, the first field is the index.
DataFrame AnnDataReader::record_frame(const StoredArray& d) {
  const auto s = d.records(ctx_);
  if (!s || s->fields.empty()) d.fail("is neither a data frame nor an array of records");
  const auto to_column = [](const StructArray::Field& f) {
    return std::visit([](const auto& v) { return Column(v); }, f);
  };
  DataFrame out(to_column(s->fields[0].second).to_strings());
  if (s->fields[0].first != "index" && s->fields[0].first != "_index") out.index_name = s->fields[0].first;
  for (std::size_t k = 1; k < s->fields.size(); ++k) out.set(s->fields[k].first, to_column(s->fields[k].second));
  return out;
}

/// Codes in obs and var whose categories are in uns under "<column>_categories", as anndata 0.6 wrote them.
void AnnDataReader::adopt_legacy_categories(AnnData& a) {
  std::vector<std::string> used;
  constexpr std::string_view kSuffix = "_categories";
  for (const auto& [key, v] : *std::as_const(a.uns).dict()) {
    if (!key.ends_with(kSuffix)) continue;
    std::vector<std::string> names;
    if (const auto* text = v.get<std::string>())
      names = {*text};
    else if (const auto* texts = v.get<NdArray<std::string>>())
      names = texts->values;
    else
      continue;
    const std::string name = key.substr(0, key.size() - kSuffix.size());
    for (DataFrame* f : {&a.obs, &a.var}) {
      Column* c = f->find(name);
      if (c == nullptr) continue;
      Categorical k;
      if (const auto* small = std::get_if<std::vector<std::int32_t>>(&c->data))
        k.codes = *small;
      else if (const auto* wide = std::get_if<std::vector<std::int64_t>>(&c->data))
        for (const auto code : *wide)
          k.codes.push_back(static_cast<std::int32_t>(std::clamp<std::int64_t>(code, -2, INT32_MAX)));
      else
        continue;
      const auto n = static_cast<std::int64_t>(names.size());
      if (std::any_of(k.codes.begin(), k.codes.end(), [n](std::int32_t code) { return code < -1 || code >= n; }))
        continue;
      k.categories = names;
      *c = Column(std::move(k));
      used.push_back(key);
    }
  }
  for (const auto& key : used) a.uns.dict()->erase(key);
}

}  // namespace scw::io
