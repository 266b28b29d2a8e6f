#include "scwarp/anndata.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/check.hpp"
#include "prim/csr_subset/csr_subset.hpp"

namespace scw {
namespace {

template <class... F>
struct Overload : F... {
  using F::operator()...;
};

std::string number_text(double v) {
  if (std::isnan(v)) return "nan";
  std::string text = fmt::format("{}", v);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

template <class T>
std::string list_names(const T& entries) {
  std::string out;
  for (const auto& [name, value] : entries) out += (out.empty() ? "" : ", ") + name;
  return out.empty() ? "none" : out;
}

std::vector<std::int64_t> kept_rows(Span<const std::uint8_t> keep) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < keep.size; ++i)
    if (keep[i] != 0) rows.push_back(i);
  return rows;
}

using Rows = std::vector<std::int64_t>;

template <class T>
std::vector<T> take(const std::vector<T>& values, const Rows& rows) {
  std::vector<T> out;
  out.reserve(rows.size());
  for (const auto i : rows) out.push_back(values[static_cast<std::size_t>(i)]);
  return out;
}

OpaqueRows take(const OpaqueRows& e, const Rows& rows) {
  OpaqueRows out = e;
  out.shape[0] = static_cast<std::int64_t>(rows.size());
  out.bytes.resize(rows.size() * static_cast<std::size_t>(e.row_bytes));
  for (std::size_t k = 0; k < rows.size() && e.row_bytes > 0; ++k)
    std::memcpy(out.bytes.data() + k * static_cast<std::size_t>(e.row_bytes), e.bytes.data() + rows[k] * e.row_bytes,
                static_cast<std::size_t>(e.row_bytes));
  return out;
}

/// ctx, or its host if x is there.
Context where(const Context& ctx, const MatrixElement& x) { return x.device() == Device{} ? ctx.host() : ctx; }

/// An empty mask keeps everything.
MatrixElement take(const Context& ctx, const MatrixElement& x, Span<const std::uint8_t> keep_rows,
                   Span<const std::uint8_t> keep_cols) {
  MatrixElement out = std::visit([](auto&& m) { return MatrixElement(std::move(m)); },
                                 prim::subset(where(ctx, x), x.view(), keep_rows, keep_cols));
  out.stored_layout = x.stored_layout;
  out.stored_dtype = x.stored_dtype;
  return out;
}

Column take(const Column& c, const Rows& rows) {
  Column out = std::visit(
      Overload{[&](const Bools& v) { return Column(Bools{take(v.values, rows)}); },
               [&](const Categorical& v) {
                 Categorical k;
                 k.codes = take(v.codes, rows);
                 k.categories = v.categories;
                 k.ordered = v.ordered;
                 k.remove_unused();
                 return Column(std::move(k));
               },
               [&](const Foreign& v) { return Column(v); }, [&](const auto& v) { return Column(take(v, rows)); }},
      c.data);
  if (c.missing) out.missing = take(*c.missing, rows);
  out.stored_dtype = c.stored_dtype;
  return out;
}

/// Cuts the rows, columns or both of every entry; what cannot be cut is dropped with a warning.
AxisElements take(const Context& ctx, const AxisElements& all, const char* slot, Span<const std::uint8_t> keep,
                  const Rows& kept, bool rows, bool columns) {
  AxisElements out;
  for (const auto& [name, e] : all) {
    const auto drop = [&](const std::string& what) {
      ctx.warn(fmt::format("AnnData: {}['{}'] ({}) cannot be subset and is dropped", slot, name, what));
    };
    if (const auto* m = std::get_if<MatrixElement>(&e)) {
      const Span<const std::uint8_t> all_of_them;
      out.emplace(name, take(ctx, *m, rows ? keep : all_of_them, columns ? keep : all_of_them));
    } else if (const auto* frame = std::get_if<DataFrame>(&e); frame != nullptr && rows && !columns) {
      out.emplace(name, frame->subset(ctx, keep));
    } else if (const auto* opaque = std::get_if<OpaqueRows>(&e); opaque != nullptr && rows && !columns) {
      out.emplace(name, take(*opaque, kept));
    } else if (const auto* foreign = std::get_if<Foreign>(&e)) {
      drop(foreign->what);
    } else {
      drop(rows && columns ? "not a matrix" : "no second axis that scwarp knows");
    }
  }
  return out;
}

void check_extent(const std::string& name, std::int64_t got, std::int64_t expected, const char* axis) {
  SCW_EXPECT_AS(ShapeMismatch, got < 0 || got == expected, "AnnData", "{} has {} {} (expected {})", name, got, axis,
                expected);
}

void check_element(const std::string& name, const AxisElement& e, std::int64_t rows, std::int64_t cols) {
  check_extent(name, n_rows(e), rows, "rows");
  if (cols >= 0) check_extent(name, n_cols(e), cols, "columns");
}

template <class T>
Array<T> copy_array(const Context& ctx, const Array<T>& x, Device to) {
  const Context target = to == Device{} ? ctx.host() : ctx;
  Array<T> out(target.memory, x.size(), "AnnData copy", target.stream);
  copy_bytes(ctx, out.data(), to, x.data(), x.device(), static_cast<std::size_t>(x.size()) * sizeof(T));
  return out;
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- matrices

std::int64_t MatrixElement::n_rows() const {
  return std::visit([](const auto& m) { return m.n_rows; }, data);
}
std::int64_t MatrixElement::n_cols() const {
  return std::visit([](const auto& m) { return static_cast<std::int64_t>(m.n_cols); }, data);
}
MatrixElement::MatrixElement(std::shared_ptr<const io::MatrixStream> s) : stream(std::move(s)) {
  Matrix<float> shape;
  shape.n_rows = stream->n_rows;
  shape.n_cols = stream->n_cols;
  data = std::move(shape);
}
namespace {
void expect_values(const MatrixElement& m) {
  SCW_EXPECT(m.stream == nullptr, "AnnData", "a matrix that is streamed from a file has no values in memory");
}
}  // namespace
AnyMatrixView MatrixElement::view() const {
  expect_values(*this);
  return std::visit([](const auto& m) { return AnyMatrixView(m.view()); }, data);
}
AnyMutableMatrixView MatrixElement::mutable_view() {
  expect_values(*this);
  return std::visit([](auto& m) { return AnyMutableMatrixView(m.view()); }, data);
}
Device MatrixElement::device() const {
  return std::visit(
      [](const auto& m) {
        if constexpr (requires { m.indptr; })
          return m.indptr.device();
        else
          return m.data.device();
      },
      data);
}
MatrixElement MatrixElement::clone(const Context& ctx) const { return copy_to(ctx, device()); }
MatrixElement MatrixElement::copy_to(const Context& ctx, Device to) const {
  expect_values(*this);
  const auto dense = [&]<class V>(const Matrix<V>& m) {
    Matrix<V> out;
    out.n_rows = m.n_rows;
    out.n_cols = m.n_cols;
    out.data = copy_array(ctx, m.data, to);
    return MatrixElement(std::move(out));
  };
  const auto sparse = [&]<class V>(const Csr<V>& m) {
    Csr<V> out;
    out.n_rows = m.n_rows;
    out.n_cols = m.n_cols;
    out.indptr = copy_array(ctx, m.indptr, to);
    out.indices = copy_array(ctx, m.indices, to);
    out.values = copy_array(ctx, m.values, to);
    return MatrixElement(std::move(out));
  };
  MatrixElement out = std::visit(Overload{dense, sparse}, data);
  out.stored_layout = stored_layout;
  out.stored_dtype = stored_dtype;
  return out;
}

// ----------------------------------------------------------------------------------------------------------- columns

std::int64_t Categorical::n_categories() const {
  return std::visit(Overload{[](const Bools& v) { return static_cast<std::int64_t>(v.values.size()); },
                             [](const auto& v) { return static_cast<std::int64_t>(v.size()); }},
                    categories);
}

std::vector<std::string> Categorical::category_names() const {
  std::vector<std::string> out;
  std::visit(Overload{[&](const std::vector<std::string>& v) { out = v; },
                      [&](const std::vector<std::int64_t>& v) {
                        for (const auto x : v) out.push_back(fmt::format("{}", x));
                      },
                      [&](const std::vector<double>& v) {
                        for (const auto x : v) out.push_back(number_text(x));
                      },
                      [&](const Bools& v) {
                        for (const auto x : v.values) out.emplace_back(x != 0 ? "True" : "False");
                      }},
             categories);
  return out;
}

namespace {
/// Sorted distinct values and the code of each input.
template <class T>
std::pair<std::vector<T>, std::vector<std::int32_t>> factorize(const std::vector<T>& values) {
  std::vector<T> names(values);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::vector<std::int32_t> codes;
  codes.reserve(values.size());
  for (const auto& v : values)
    codes.push_back(static_cast<std::int32_t>(std::lower_bound(names.begin(), names.end(), v) - names.begin()));
  return {std::move(names), std::move(codes)};
}
}  // namespace

Categorical Categorical::from_labels(const std::vector<std::string>& labels) {
  Categorical out;
  std::vector<std::string> names;
  std::tie(names, out.codes) = factorize(labels);
  out.categories = std::move(names);
  return out;
}

void Categorical::remove_unused() {
  const auto n = static_cast<std::size_t>(n_categories());
  std::vector<std::int32_t> renamed(n, -1);
  for (const auto c : codes)
    if (c >= 0) renamed[static_cast<std::size_t>(c)] = 0;
  Rows used;
  for (std::size_t k = 0; k < n; ++k)
    if (renamed[k] == 0) {
      renamed[k] = static_cast<std::int32_t>(used.size());
      used.push_back(static_cast<std::int64_t>(k));
    }
  if (used.size() == n) return;
  for (auto& c : codes)
    if (c >= 0) c = renamed[static_cast<std::size_t>(c)];
  std::visit(Overload{[&](Bools& v) { v.values = take(v.values, used); }, [&](auto& v) { v = take(v, used); }},
             categories);
}

std::int64_t Column::size() const {
  return std::visit(
      Overload{[](const Bools& v) { return static_cast<std::int64_t>(v.values.size()); },
               [](const Categorical& v) { return static_cast<std::int64_t>(v.codes.size()); },
               [](const OpaqueRows& v) { return v.shape.at(0); }, [](const Foreign&) { return std::int64_t{-1}; },
               [](const auto& v) { return static_cast<std::int64_t>(v.size()); }},
      data);
}

std::vector<double> Column::to_double() const {
  std::vector<double> out;
  const auto refuse = [](const char* kind) {
    detail::fail<DTypeMismatch>("column", "{} values cannot be read as numbers", kind);
  };
  std::visit(Overload{[&](const Bools& v) { out.assign(v.values.begin(), v.values.end()); },
                      [&](const Categorical&) { refuse("categorical"); },
                      [&](const std::vector<std::string>&) { refuse("string"); },
                      [&](const OpaqueRows&) { refuse("structured"); }, [&](const Foreign&) { refuse("undecoded"); },
                      [&](const auto& v) {
                        out.reserve(v.size());
                        for (const auto x : v) out.push_back(static_cast<double>(x));
                      }},
             data);
  if (missing)
    for (std::size_t i = 0; i < out.size(); ++i)
      if ((*missing)[i] != 0) out[i] = std::numeric_limits<double>::quiet_NaN();
  return out;
}

std::vector<std::string> Column::to_strings(std::string_view missing_text) const {
  std::vector<std::string> out;
  out.reserve(static_cast<std::size_t>(std::max<std::int64_t>(0, size())));
  std::visit(
      Overload{
          [&](const std::vector<std::string>& v) { out = v; },
          [&](const Bools& v) {
            for (const auto x : v.values) out.emplace_back(x != 0 ? "True" : "False");
          },
          [&](const Categorical& v) {
            const auto names = v.category_names();
            for (const auto c : v.codes)
              out.emplace_back(c < 0 ? std::string(missing_text) : names[static_cast<std::size_t>(c)]);
          },
          [&](const OpaqueRows&) { detail::fail<DTypeMismatch>("column", "structured values cannot be read as text"); },
          [&](const Foreign& v) { detail::fail<DTypeMismatch>("column", "'{}' ({}) is not decoded", v.path, v.what); },
          [&](const std::vector<float>& v) {
            for (const auto x : v) out.push_back(std::isnan(x) ? std::string(missing_text) : fmt::format("{}", x));
          },
          [&](const std::vector<double>& v) {
            for (const auto x : v) out.push_back(std::isnan(x) ? std::string(missing_text) : number_text(x));
          },
          [&](const auto& v) {
            for (const auto x : v) out.push_back(fmt::format("{}", x));
          }},
      data);
  if (missing)
    for (std::size_t i = 0; i < out.size(); ++i)
      if ((*missing)[i] != 0) out[i] = missing_text;
  return out;
}

Categorical Column::to_categorical() const {
  Categorical out;
  const auto integers = [&](const auto& v) {
    std::vector<std::int64_t> names;
    std::tie(names, out.codes) = factorize(std::vector<std::int64_t>(v.begin(), v.end()));
    out.categories = std::move(names);
  };
  std::visit(Overload{[&](const Categorical& v) { out = v; },
                      [&](const std::vector<std::string>& v) { out = Categorical::from_labels(v); },
                      [&](const Bools& v) {
                        Bools names;
                        std::tie(names.values, out.codes) = factorize(v.values);
                        out.categories = std::move(names);
                      },
                      [&](const std::vector<std::int32_t>& v) { integers(v); },
                      [&](const std::vector<std::int64_t>& v) { integers(v); },
                      [&](const auto&) {
                        detail::fail<DTypeMismatch>(
                            "column", "no groups in this column (expected categories, text, integers or booleans)");
                      }},
             data);
  if (missing) {
    for (std::size_t i = 0; i < out.codes.size(); ++i)
      if ((*missing)[i] != 0) out.codes[i] = -1;
    out.remove_unused();
  }
  return out;
}

DataFrame::DataFrame(std::int64_t n_rows) : n_rows_(n_rows) {
  index_.reserve(static_cast<std::size_t>(n_rows));
  for (std::int64_t i = 0; i < n_rows; ++i) index_.push_back(std::to_string(i));
}
DataFrame::DataFrame(std::vector<std::string> index, std::string name)
    : index_name(std::move(name)), n_rows_(static_cast<std::int64_t>(index.size())), index_(std::move(index)) {}

void DataFrame::set_index(std::vector<std::string> index) {
  check_extent("the index", static_cast<std::int64_t>(index.size()), n_rows_, "names");
  index_ = std::move(index);
  stored_index_dtype.clear();
}
const Column* DataFrame::find(std::string_view name) const {
  for (const auto& [n, c] : columns_)
    if (n == name) return &c;
  return nullptr;
}
Column* DataFrame::find(std::string_view name) { return const_cast<Column*>(std::as_const(*this).find(name)); }
const Column& DataFrame::at(std::string_view name) const {
  const Column* c = find(name);
  SCW_EXPECT(c != nullptr, "DataFrame", "no column '{}' (columns: {})", name, list_names(columns_));
  return *c;
}
Column& DataFrame::at(std::string_view name) { return const_cast<Column&>(std::as_const(*this).at(name)); }
void DataFrame::set(std::string name, Column column) {
  check_extent("column '" + name + "'", column.size(), n_rows_, "rows");
  if (column.missing)
    check_extent("the mask of '" + name + "'", static_cast<std::int64_t>(column.missing->size()), n_rows_, "rows");
  if (Column* c = find(name))
    *c = std::move(column);
  else
    columns_.emplace_back(std::move(name), std::move(column));
}
bool DataFrame::erase(std::string_view name) {
  return std::erase_if(columns_, [&](const auto& c) { return c.first == name; }) > 0;
}
DataFrame DataFrame::subset(const Context& ctx, Span<const std::uint8_t> keep) const {
  check_extent("the mask", keep.size, n_rows_, "entries");
  const Rows rows = kept_rows(keep);
  DataFrame out;
  out.n_rows_ = static_cast<std::int64_t>(rows.size());
  out.index_ = take(index_, rows);
  out.index_name = index_name;
  out.stored_index_dtype = stored_index_dtype;
  for (const auto& [name, c] : columns_) {
    if (const auto* foreign = std::get_if<Foreign>(&c.data))
      ctx.warn(fmt::format("AnnData: column '{}' ({}, {}) cannot be subset and is dropped", name, foreign->path,
                           foreign->what));
    else
      out.columns_.emplace_back(name, take(c, rows));
  }
  return out;
}

// --------------------------------------------------------------------------------------------------------------- uns

Value::Value(Dict v) : data_(std::make_shared<Dict>(std::move(v))) {}
Value::Value(const Value& o) : data_(o.data_), stored_path_(o.stored_path_) {
  if (const auto* d = std::get_if<std::shared_ptr<Dict>>(&o.data_)) data_ = std::make_shared<Dict>(**d);
}
Value& Value::operator=(const Value& o) {
  *this = Value(o);
  return *this;
}
const Dict* Value::dict() const {
  const auto* d = std::get_if<std::shared_ptr<Dict>>(&data_);
  return d == nullptr ? nullptr : d->get();
}
Dict* Value::dict() {
  auto* d = std::get_if<std::shared_ptr<Dict>>(&data_);
  if (d == nullptr) return nullptr;
  stored_path_.clear();
  return d->get();
}
Value& Value::operator[](std::string_view key) {
  if (std::as_const(*this).dict() == nullptr) data_ = std::make_shared<Dict>();
  Dict& d = *dict();
  const auto it = d.find(key);
  if (it == d.end()) return d[std::string(key)];
  // The caller may change what it gets, at any depth.
  it->second.stored_path_.clear();
  return it->second;
}
const Value* Value::find(std::string_view key) const {
  const Dict* d = dict();
  if (d == nullptr) return nullptr;
  const auto it = d->find(key);
  return it == d->end() ? nullptr : &it->second;
}

// ----------------------------------------------------------------------------------------------------------- AnnData

std::int64_t n_rows(const AxisElement& e) {
  return std::visit(Overload{[](const OpaqueRows& v) { return v.shape.at(0); },
                             [](const Foreign&) { return std::int64_t{-1}; }, [](const auto& v) { return v.n_rows(); }},
                    e);
}
std::int64_t n_cols(const AxisElement& e) {
  return std::visit(Overload{[](const OpaqueRows& v) { return v.shape.size() > 1 ? v.shape[1] : std::int64_t{-1}; },
                             [](const Foreign&) { return std::int64_t{-1}; }, [](const auto& v) { return v.n_cols(); }},
                    e);
}

void AnnData::validate() const {
  const auto frame = [](const char* name, const DataFrame& f) {
    for (const auto& [column, c] : f.columns())
      check_extent(fmt::format("{}['{}']", name, column), c.size(), f.n_rows(), "rows");
  };
  frame("obs", obs);
  frame("var", var);
  const auto matrix = [&](const std::string& name, const MatrixElement& x, std::int64_t r, std::int64_t c) {
    SCW_EXPECT_AS(ShapeMismatch, x.n_rows() == r && x.n_cols() == c, "AnnData", "{} is {} x {} (expected {} x {})",
                  name, x.n_rows(), x.n_cols(), r, c);
  };
  if (X) matrix("X", *X, n_obs(), n_vars());
  const auto all = [&](const char* slot, const AxisElements& entries, std::int64_t r, std::int64_t c) {
    for (const auto& [name, e] : entries) check_element(fmt::format("{}['{}']", slot, name), e, r, c);
  };
  all("layers", layers, n_obs(), n_vars());
  all("obsm", obsm, n_obs(), -1);
  all("varm", varm, n_vars(), -1);
  all("obsp", obsp, n_obs(), n_obs());
  all("varp", varp, n_vars(), n_vars());
  if (raw) {
    matrix("raw.X", raw->X, n_obs(), raw->var.n_rows());
    frame("raw.var", raw->var);
    all("raw.varm", raw->varm, raw->var.n_rows(), -1);
  }
}

namespace {
void set_element(AxisElements& slot, const char* slot_name, std::string name, AxisElement x, std::int64_t rows,
                 std::int64_t cols) {
  check_element(fmt::format("{}['{}']", slot_name, name), x, rows, cols);
  slot.insert_or_assign(std::move(name), std::move(x));
}
const MatrixElement& find_matrix(const AxisElements& slot, const char* slot_name, std::string_view name) {
  const auto it = slot.find(name);
  SCW_EXPECT(it != slot.end(), "AnnData", "no {}['{}'] (there are: {})", slot_name, name, list_names(slot));
  const auto* m = std::get_if<MatrixElement>(&it->second);
  SCW_EXPECT_AS(DTypeMismatch, m != nullptr, "AnnData", "{}['{}'] is not a matrix of numbers", slot_name, name);
  return *m;
}
}  // namespace

void AnnData::set_X(MatrixElement x) {
  SCW_EXPECT_AS(ShapeMismatch, x.n_rows() == n_obs() && x.n_cols() == n_vars(), "AnnData",
                "X is {} x {} (expected {} x {})", x.n_rows(), x.n_cols(), n_obs(), n_vars());
  X = std::move(x);
}
void AnnData::set_layer(std::string name, MatrixElement x) {
  set_element(layers, "layers", std::move(name), std::move(x), n_obs(), n_vars());
}
void AnnData::set_obsm(std::string name, AxisElement x) {
  set_element(obsm, "obsm", std::move(name), std::move(x), n_obs(), -1);
}
void AnnData::set_varm(std::string name, AxisElement x) {
  set_element(varm, "varm", std::move(name), std::move(x), n_vars(), -1);
}
void AnnData::set_obsp(std::string name, MatrixElement x) {
  set_element(obsp, "obsp", std::move(name), std::move(x), n_obs(), n_obs());
}
void AnnData::set_varp(std::string name, MatrixElement x) {
  set_element(varp, "varp", std::move(name), std::move(x), n_vars(), n_vars());
}

const MatrixElement& AnnData::matrix(std::string_view layer) const {
  if (!layer.empty()) return find_matrix(layers, "layers", layer);
  SCW_EXPECT(X.has_value(), "AnnData", "there is no X (layers: {})", list_names(layers));
  return *X;
}
MatrixElement& AnnData::matrix(std::string_view layer) {
  return const_cast<MatrixElement&>(std::as_const(*this).matrix(layer));
}
const MatrixElement& AnnData::obsm_matrix(std::string_view name) const { return find_matrix(obsm, "obsm", name); }
const MatrixElement& AnnData::obsp_matrix(std::string_view name) const { return find_matrix(obsp, "obsp", name); }

void AnnData::subset_obs(const Context& ctx, Span<const std::uint8_t> keep) {
  SCW_EXPECT_AS(ShapeMismatch, keep.size == n_obs(), "AnnData", "the mask has {} entries (expected n_obs = {})",
                keep.size, n_obs());
  validate();
  const Rows kept = kept_rows(keep);
  if (static_cast<std::int64_t>(kept.size()) == keep.size) return;
  auto new_obs = obs.subset(ctx, keep);
  auto new_layers = take(ctx, layers, "layers", keep, kept, true, false);
  auto new_obsm = take(ctx, obsm, "obsm", keep, kept, true, false);
  auto new_obsp = take(ctx, obsp, "obsp", keep, kept, true, true);
  std::optional<MatrixElement> new_X, new_raw;
  if (X) new_X = take(ctx, *X, keep, {});
  if (raw) new_raw = take(ctx, raw->X, keep, {});
  // Nothing below throws.
  obs = std::move(new_obs);
  layers = std::move(new_layers);
  obsm = std::move(new_obsm);
  obsp = std::move(new_obsp);
  if (X) X = std::move(new_X);
  if (raw) raw->X = std::move(*new_raw);
}

void AnnData::subset_var(const Context& ctx, Span<const std::uint8_t> keep) {
  SCW_EXPECT_AS(ShapeMismatch, keep.size == n_vars(), "AnnData", "the mask has {} entries (expected n_vars = {})",
                keep.size, n_vars());
  validate();
  const Rows kept = kept_rows(keep);
  if (static_cast<std::int64_t>(kept.size()) == keep.size) return;
  auto new_var = var.subset(ctx, keep);
  auto new_layers = take(ctx, layers, "layers", keep, kept, false, true);
  auto new_varm = take(ctx, varm, "varm", keep, kept, true, false);
  auto new_varp = take(ctx, varp, "varp", keep, kept, true, true);
  std::optional<MatrixElement> new_X;
  if (X) new_X = take(ctx, *X, {}, keep);
  var = std::move(new_var);
  layers = std::move(new_layers);
  varm = std::move(new_varm);
  varp = std::move(new_varp);
  if (X) X = std::move(new_X);
}

void AnnData::set_raw_from_X(const Context& ctx) {
  SCW_EXPECT(X.has_value(), "AnnData", "raw needs X, and there is none");
  Raw out;
  out.X = X->clone(ctx);
  out.var = var;
  for (const auto& [name, e] : varm) {
    if (const auto* m = std::get_if<MatrixElement>(&e))
      out.varm.emplace(name, m->clone(ctx));
    else if (const auto* f = std::get_if<DataFrame>(&e))
      out.varm.emplace(name, *f);
    else if (const auto* o = std::get_if<OpaqueRows>(&e))
      out.varm.emplace(name, *o);
    else
      out.varm.emplace(name, std::get<Foreign>(e));
  }
  raw = std::move(out);
}

namespace {

void move_to(const Context& ctx, MatrixElement& x, Device to) {
  if (x.device() != to) x = x.copy_to(ctx, to);
}

}  // namespace

void AnnData::to_device(const Context& ctx) {
  if (X) move_to(ctx, *X, ctx.device);
}

void AnnData::to_host(const Context& ctx) {
  if (X) move_to(ctx, *X, Device{});
  if (raw) move_to(ctx, raw->X, Device{});
  for (auto* elements : {&layers, &obsm, &varm, &obsp, &varp})
    for (auto& [name, e] : *elements)
      if (auto* m = std::get_if<MatrixElement>(&e)) move_to(ctx, *m, Device{});
}

}  // namespace scw
