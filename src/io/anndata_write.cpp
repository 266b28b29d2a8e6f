#include <algorithm>
#include <atomic>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "core/parallel.hpp"
#include "io/anndata_codec.hpp"
#include "io/store_copy.hpp"
#include "io/transpose.hpp"

namespace scw::io {
namespace {

constexpr std::int64_t kCheckGrain = 1 << 16;

template <class... F>
struct Overload : F... {
  using F::operator()...;
};

// --------------------------------------------------------------------------------------------- going back to stored
// types

/// float as IEEE half, if that is exact.
bool to_half(float v, std::uint16_t& out) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t exponent = bits >> 23 & 255U, mantissa = bits & 0x7FFFFFU;
  if (exponent == 255) {
    out = static_cast<std::uint16_t>(sign | 0x7C00U | (mantissa == 0 ? 0U : 0x200U));
    return true;
  }
  if (exponent == 0 && mantissa == 0) {
    out = sign;
    return true;
  }
  const int e = static_cast<int>(exponent) - 127;
  if (e > 15 || e < -24) return false;
  if (e >= -14) {
    out = static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(e + 15) << 10 | mantissa >> 13);
    return (mantissa & 0x1FFFU) == 0;
  }
  const std::uint32_t whole = mantissa | 0x800000U;
  const int shift = 13 + (-14 - e);
  out = static_cast<std::uint16_t>(sign | whole >> shift);
  return (whole & ((1U << shift) - 1)) == 0;
}

struct Half {
  std::uint16_t bits;
};

/// v as T; false if that loses anything.
template <class T, class V>
bool exactly(V v, T& out) {
  if constexpr (std::is_same_v<T, Half>) {
    return static_cast<V>(static_cast<float>(v)) == v || std::isnan(static_cast<double>(v))
               ? to_half(static_cast<float>(v), out.bits)
               : false;
  } else if constexpr (std::is_integral_v<V> && std::is_integral_v<T>) {
    out = static_cast<T>(v);
    return std::in_range<T>(v);
  } else if constexpr (std::is_integral_v<T>) {
    constexpr V kLow = static_cast<V>(std::numeric_limits<T>::min());
    constexpr V kHigh = static_cast<V>(std::numeric_limits<T>::max() / 2 + 1) * 2;  // first value beyond
    if (!(v >= kLow && v < kHigh)) {
      out = T{};
      return false;
    }
    out = static_cast<T>(v);
    return static_cast<V>(out) == v;
  } else {
    out = static_cast<T>(v);
    return static_cast<V>(out) == v || v != v;
  }
}

/// f.operator()<T>() for a stored type; float64 needs no going back.
template <class F>
bool with_stored_type(std::string_view name, F&& f) {
  if (name == "bool" || name == "int8") return f(std::int8_t{});
  if (name == "uint8") return f(std::uint8_t{});
  if (name == "int16") return f(std::int16_t{});
  if (name == "uint16") return f(std::uint16_t{});
  if (name == "int32") return f(std::int32_t{});
  if (name == "uint32") return f(std::uint32_t{});
  if (name == "int64") return f(std::int64_t{});
  if (name == "uint64") return f(std::uint64_t{});
  if (name == "float32") return f(float{});
  if (name == "float16") return f(Half{});
  return false;
}

template <class V>
const char* numpy_name() {
  if constexpr (std::is_same_v<V, float>) return "float32";
  if constexpr (std::is_same_v<V, double>) return "float64";
  if constexpr (std::is_same_v<V, std::int32_t>) return "int32";
  if constexpr (std::is_same_v<V, std::int64_t>) return "int64";
  if constexpr (std::is_same_v<V, std::uint8_t>) return "uint8";
}

class Writer {
 public:
  Writer(StoreWriter& out, const AnnData& data)
      : out_(out), ctx_(out.ctx()), op_(out.op()), file_(out.name()), data_(data) {
    has_source_ = data.source != nullptr && data.source->is_unchanged();
    can_copy_ = has_source_ && std::string_view(data.source->format()) == out.format();
  }
  void write();

 private:
  template <class V>
  void numbers(GroupWriter& g, const std::string& name, const V* values, const std::vector<std::int64_t>& dims,
               const std::string& stored, bool growable = false, const Attributes& attributes = {});
  template <class V>
  void array(GroupWriter& g, const std::string& name, const V* values, const std::vector<std::int64_t>& dims,
             const std::string& stored) {
    numbers(g, name, values, dims, stored, false, encoding("array", "0.2.0"));
  }
  void strings(GroupWriter& g, const std::string& name, const std::vector<std::string>& values) {
    g.texts(name, {static_cast<std::int64_t>(values.size())}, values, encoding("string-array", "0.2.0"));
  }
  void bools(GroupWriter& g, const std::string& name, const std::vector<std::uint8_t>& values,
             const std::vector<std::int64_t>& dims) {
    array(g, name, values.data(), dims, "bool");
  }
  void matrix(GroupWriter& g, const std::string& name, const MatrixElement& m);
  void streamed(GroupWriter& g, const std::string& name, const MatrixStream& m);
  template <class V>
  void sparse(GroupWriter& g, const std::string& name, const Csr<V>& m, bool by_column, const std::string& stored);
  void categorical(GroupWriter& g, const std::string& name, const Categorical& c);
  void column(GroupWriter& g, const std::string& name, const Column& c);
  void index(GroupWriter& g, const std::string& name, const DataFrame& f);
  void frame(GroupWriter& g, const std::string& name, const DataFrame& f);
  void opaque(GroupWriter& g, const std::string& name, const OpaqueRows& o);
  void foreign(GroupWriter& g, const std::string& name, const std::string& path);
  bool is_left_out(const Foreign& f, const std::string& path);
  bool is_left_out(const OpaqueRows& o, const std::string& path);
  void axis(GroupWriter& g, const std::string& name, const AxisElements& all);
  void struct_array(GroupWriter& g, const std::string& name, const StructArray& s);
  void value(GroupWriter& g, const std::string& name, const Value& v);

  StoreWriter& out_;
  const Context& ctx_;
  const char* op_;
  const std::string& file_;
  const AnnData& data_;
  bool has_source_ = false;    // it is there and as it was
  bool can_copy_ = false;      // and of the format that is written
  bool reads_source_ = false;  // while it is written
  std::set<std::string> warned_;
};

/// An array in its stored type if all values fit that, else in V.
template <class V>
void Writer::numbers(GroupWriter& g, const std::string& name, const V* values, const std::vector<std::int64_t>& dims,
                     const std::string& stored, bool growable, const Attributes& attributes) {
  std::int64_t cols = 1, n = 1;
  for (std::size_t k = 0; k < dims.size(); ++k) {
    n *= dims[k];
    if (k > 0) cols *= dims[k];
  }
  const bool done = stored != numpy_name<V>() && with_stored_type(stored, [&]<class T>(T) {
                      std::atomic<bool> fits{true};
                      const bool flag = stored == "bool";
                      parallel_for(ctx_, n, kCheckGrain, [&](std::int64_t begin, std::int64_t end) {
                        bool ok = true;
                        T out{};
                        for (std::int64_t i = begin; i < end; ++i) {
                          ok &= exactly(values[i], out);
                          if (flag) ok &= values[i] == V{0} || values[i] == V{1};
                        }
                        if (!ok) fits = false;
                      });
                      if (!fits) return false;
                      g.numbers(
                          name, stored, dims, growable,
                          [&](std::int64_t first, std::int64_t rows, std::byte* out) {
                            for (std::int64_t i = 0; i < rows * cols; ++i) {
                              T v{};
                              exactly(values[first * cols + i], v);
                              std::memcpy(out + static_cast<std::size_t>(i) * sizeof(T), &v, sizeof v);
                            }
                          },
                          attributes);
                      return true;
                    });
  if (done) return;
  g.numbers(
      name, numpy_name<V>(), dims, growable,
      [&](std::int64_t first, std::int64_t rows, std::byte* out) {
        std::memcpy(out, values + first * cols, static_cast<std::size_t>(rows * cols) * sizeof(V));
      },
      attributes);
}

// ----------------------------------------------------------------------------------------------------------- matrices

template <class V>
void Writer::sparse(GroupWriter& t, const std::string& name, const Csr<V>& m, bool by_column,
                    const std::string& stored) {
  Csr<V> turned;
  const Csr<V>* x = &m;
  if (by_column) {
    turned = transpose(ctx_, m.n_rows, m.n_cols, m.indptr, m.indices, m.values);
    x = &turned;
  }
  Attributes attributes = encoding(by_column ? "csc_matrix" : "csr_matrix", "0.1.0");
  attributes.emplace_back("shape", std::vector<std::int64_t>{m.n_rows, m.n_cols});
  const auto group = t.group(name, attributes);
  GroupWriter& g = *group;
  const std::int64_t nnz = x->values.size();
  numbers(g, "data", x->values.data(), {nnz}, stored, true);
  numbers(g, "indices", x->indices.data(), {nnz}, "", true);
  // scipy's own choice: 32 bits as long as they do
  numbers(g, "indptr", x->indptr.data(), {x->indptr.size()}, "int32", true);
}

/// Offsets are narrowed while they are written: scipy's own choice is 32 bits as long as they do.
FillRows narrowed(const FillRows& wide) {
  return [wide](std::int64_t first, std::int64_t n, std::byte* out) {
    std::vector<std::int64_t> buffer(static_cast<std::size_t>(n));
    wide(first, n, reinterpret_cast<std::byte*>(buffer.data()));
    for (std::size_t i = 0; i < buffer.size(); ++i) {
      const auto v = static_cast<std::int32_t>(buffer[i]);
      std::memcpy(out + i * sizeof v, &v, sizeof v);
    }
  };
}

void Writer::streamed(GroupWriter& t, const std::string& name, const MatrixStream& m) {
  reads_source_ = has_source_;
  if (m.layout == StoredLayout::dense) {
    t.numbers(name, m.dtype, {m.n_rows, m.n_cols}, false, m.values, encoding("array", "0.2.0"));
    return;
  }
  const bool by_column = m.layout == StoredLayout::csc;
  Attributes attributes = encoding(by_column ? "csc_matrix" : "csr_matrix", "0.1.0");
  attributes.emplace_back("shape", std::vector<std::int64_t>{m.n_rows, m.n_cols});
  const auto g = t.group(name, attributes);
  g->numbers("data", m.dtype, {m.nnz}, true, m.values, {});
  g->numbers("indices", "int32", {m.nnz}, true, m.indices, {});
  const std::int64_t offsets = (by_column ? m.n_cols : m.n_rows) + 1;
  if (m.nnz <= INT32_MAX)
    g->numbers("indptr", "int32", {offsets}, true, narrowed(m.indptr), {});
  else
    g->numbers("indptr", "int64", {offsets}, true, m.indptr, {});
}

void Writer::matrix(GroupWriter& t, const std::string& name, const MatrixElement& m) {
  if (m.stream != nullptr) return streamed(t, name, *m.stream);
  std::visit(
      [&]<class M>(const M& x) {
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>)
          sparse(t, name, x, m.stored_layout == StoredLayout::csc, m.stored_dtype);
        else
          array(t, name, x.data.data(), {x.n_rows, x.n_cols}, m.stored_dtype);
      },
      m.data);
}

// ------------------------------------------------------------------------------------------------------------ columns

void Writer::categorical(GroupWriter& t, const std::string& name, const Categorical& c) {
  Attributes attributes = encoding("categorical", "0.2.0");
  attributes.emplace_back("ordered", c.ordered);
  const auto group = t.group(name, attributes);
  GroupWriter& g = *group;
  const auto n = c.n_categories();
  // pandas' own choice of width
  const char* type = n <= 127 ? "int8" : n <= 32767 ? "int16" : "int32";
  const auto codes = static_cast<std::int64_t>(c.codes.size());
  array(g, "codes", c.codes.data(), {codes}, type);
  std::visit(Overload{[&](const std::vector<std::string>& v) { strings(g, "categories", v); },
                      [&](const Bools& v) { bools(g, "categories", v.values, {n}); },
                      [&](const auto& v) { array(g, "categories", v.data(), {n}, ""); }},
             c.categories);
}

void Writer::opaque(GroupWriter& t, const std::string& name, const OpaqueRows& o) {
  if (is_left_out(o, t.path + "/" + name)) return;
  Attributes attributes = encoding("array", "0.2.0");
  if (has_source_ && !o.path.empty())
    if (const auto from = data_.source->root()->find(o.path.substr(1)))
      for (auto& [key, value] : attributes)
        if (auto text = from->text_attribute(key.c_str())) value = std::move(*text);
  t.opaque(name, o, attributes);
}

void Writer::foreign(GroupWriter& t, const std::string& name, const std::string& path) {
  SCW_EXPECT(data_.source != nullptr, op_, "'{}/{}' is to be copied from a file, but there is no source", t.path, name);
  SCW_EXPECT_AS(IoError, has_source_, op_, "'{}/{}' is to be copied from '{}', which was changed since it was read",
                t.path, name, data_.source->name());
  if (can_copy_) return t.copy(name, *data_.source, path);
  if (is_left_out(Foreign{path, {}}, t.path + "/" + name)) return;
  transcode(ctx_, t, name, *data_.source->root()->child(path.substr(1)));
}

/// Whether the format has no form for what came from a store of another one; says so.
bool Writer::is_left_out(const Foreign& f, const std::string& path) {
  if (can_copy_ || !has_source_) return false;
  const auto node = data_.source->root()->find(f.path.substr(1));
  if (!node) return false;
  const std::string why = cannot_transcode(ctx_, *node);
  if (why.empty()) return false;
  if (warned_.insert(path).second)
    ctx_.warn(
        fmt::format("{}: '{}': '{}' has no form in {} and is left out ({})", op_, file_, path, out_.format(), why));
  return true;
}

bool Writer::is_left_out(const OpaqueRows& o, const std::string& path) {
  if (out_.takes(o)) return false;
  if (warned_.insert(path).second)
    ctx_.warn(fmt::format("{}: '{}': '{}' has no form in {} and is left out (its type is another format's own)", op_,
                          file_, path, out_.format()));
  return true;
}

void Writer::column(GroupWriter& t, const std::string& name, const Column& c) {
  const std::int64_t n = c.size();
  if (c.missing) {
    const char* type = std::holds_alternative<Bools>(c.data)                      ? "nullable-boolean"
                       : std::holds_alternative<std::vector<std::string>>(c.data) ? "nullable-string-array"
                                                                                  : "nullable-integer";
    const auto group = t.group(name, encoding(type, "0.1.0"));
    GroupWriter& g = *group;
    Column values = c;
    values.missing.reset();
    column(g, "values", values);
    bools(g, "mask", *c.missing, {n});
    return;
  }
  std::visit(
      Overload{[&](const std::vector<std::string>& v) { strings(t, name, v); },
               [&](const Bools& v) { bools(t, name, v.values, {n}); },
               [&](const Categorical& v) { categorical(t, name, v); }, [&](const OpaqueRows& v) { opaque(t, name, v); },
               [&](const Foreign& v) { foreign(t, name, v.path); },
               [&](const auto& v) { array(t, name, v.data(), {n}, c.stored_dtype); }},
      c.data);
}

/// Row names; numbers again if that is what they were.
void Writer::index(GroupWriter& t, const std::string& name, const DataFrame& f) {
  const auto parse = [&]<class T>(T) {
    std::vector<T> values;
    for (const auto& text : f.index()) {
      T v{};
      const auto end = text.data() + text.size();
      if (text == "nan") {
        v = static_cast<T>(NAN);
      } else if (const auto r = std::from_chars(text.data(), end, v); r.ec != std::errc{} || r.ptr != end) {
        return false;
      }
      values.push_back(v);
    }
    array(t, name, values.data(), {f.n_rows()}, f.stored_index_dtype);
    return true;
  };
  if (f.stored_index_dtype.find("int") != std::string::npos && parse(std::int64_t{})) return;
  if (f.stored_index_dtype.starts_with("float") && parse(double{})) return;
  strings(t, name, f.index());
}

void Writer::frame(GroupWriter& t, const std::string& name, const DataFrame& f) {
  ctx_.check_cancelled(op_);
  const std::string path = t.path + "/" + name;
  std::vector<std::string> order;
  std::string index_name = f.index_name.empty() ? "_index" : f.index_name;
  // The index and a column of the same name share their place in the file, so they must agree.
  const Column* same = f.find(index_name);
  if (same != nullptr && (!std::holds_alternative<std::vector<std::string>>(same->data) ||
                          std::get<std::vector<std::string>>(same->data) != f.index())) {
    SCW_EXPECT(index_name != "_index", op_, "'{}': column '_index' of '{}' has the name of the index", file_, path);
    ctx_.warn(fmt::format("{}: '{}': the index of '{}' loses its name '{}', which is a column's", op_, file_, path,
                          index_name));
    index_name = "_index";
    same = nullptr;
  }
  const auto leaves_out = [&](const std::string& column_name, const Column& c) {
    const std::string at = path + "/" + column_name;
    if (const auto* rows = std::get_if<OpaqueRows>(&c.data)) return is_left_out(*rows, at);
    const auto* elsewhere = std::get_if<Foreign>(&c.data);
    return elsewhere != nullptr && is_left_out(*elsewhere, at);
  };
  for (const auto& [column_name, c] : f.columns())
    if (!leaves_out(column_name, c)) order.push_back(column_name);
  Attributes attributes = encoding("dataframe", "0.2.0");
  attributes.emplace_back("column-order", std::move(order));
  attributes.emplace_back("_index", index_name);
  const auto group = t.group(name, attributes);
  GroupWriter& g = *group;
  index(g, index_name, f);
  for (const auto& [column_name, c] : f.columns())
    if (&c != same && !leaves_out(column_name, c)) column(g, column_name, c);
}

void Writer::axis(GroupWriter& t, const std::string& name, const AxisElements& all) {
  const auto group = t.group(name, encoding("dict", "0.1.0"));
  GroupWriter& g = *group;
  for (const auto& [key, e] : all) {
    const auto& k = key;
    ctx_.check_cancelled(op_);
    std::visit(
        Overload{[&](const MatrixElement& m) { matrix(g, k, m); }, [&](const DataFrame& f) { frame(g, k, f); },
                 [&](const OpaqueRows& o) { opaque(g, k, o); }, [&](const Foreign& f) { foreign(g, k, f.path); }},
        e);
  }
}

// ---------------------------------------------------------------------------------------------------------------- uns

void Writer::struct_array(GroupWriter& t, const std::string& name, const StructArray& s) {
  SCW_EXPECT(!s.fields.empty(), op_, "'{}/{}' is an array of records without fields", t.path, name);
  for (const auto& [field, data] : s.fields) {
    const auto n = static_cast<std::int64_t>(std::visit(
        Overload{[](const Bools& v) { return v.values.size(); }, [](const auto& v) { return v.size(); }}, data));
    SCW_EXPECT_AS(ShapeMismatch, n == s.n_rows, op_, "field '{}' of '{}' has {} rows (expected {})", field, name, n,
                  s.n_rows);
  }
  t.records(name, s, encoding("rec-array", "0.2.0"));
}

void Writer::value(GroupWriter& t, const std::string& name, const Value& v) {
  ctx_.check_cancelled(op_);
  if (can_copy_ && !v.stored_path().empty()) return foreign(t, name, v.stored_path());
  const auto scalar = [&]<class T>(const char* type, T x) {
    t.numbers(
        name, type, {}, false, [x](std::int64_t, std::int64_t, std::byte* out) { std::memcpy(out, &x, sizeof x); },
        encoding("numeric-scalar", "0.2.0"));
  };
  const auto check_shape = [&](const std::vector<std::int64_t>& shape, std::size_t have) {
    std::int64_t n = 1;
    for (const auto k : shape) n = checked_mul(n, k);
    SCW_EXPECT_AS(ShapeMismatch, n == static_cast<std::int64_t>(have), op_,
                  "'{}/{}' has {} values (its shape asks for {})", t.path, name, have, n);
  };
  std::visit(
      Overload{[&](std::monostate) { t.null(name, encoding("null", "0.1.0")); },
               [&](bool x) { scalar("bool", static_cast<std::int8_t>(x ? 1 : 0)); },
               [&](std::int64_t x) { scalar("int64", x); }, [&](double x) { scalar("float64", x); },
               [&](const std::string& x) { t.texts(name, {}, {x}, encoding("string", "0.2.0")); },
               [&](const NdArray<std::string>& x) {
                 check_shape(x.shape, x.values.size());
                 t.texts(name, x.shape, x.values, encoding("string-array", "0.2.0"));
               },
               [&](const BoolArray& x) {
                 check_shape(x.shape, x.values.size());
                 bools(t, name, x.values, x.shape);
               },
               [&](const StructArray& x) { struct_array(t, name, x); },
               [&](const Categorical& x) { categorical(t, name, x); }, [&](const DataFrame& x) { frame(t, name, x); },
               [&](const Foreign& x) { foreign(t, name, x.path); },
               [&](const std::shared_ptr<Dict>& x) {
                 const auto group = t.group(name, encoding("dict", "0.1.0"));
                 for (const auto& [key, child] : *x) value(*group, key, child);
               },
               [&]<class T>(const NdArray<T>& x) {
                 check_shape(x.shape, x.values.size());
                 array(t, name, x.values.data(), x.shape, x.stored_dtype);
               }},
      v.data());
}

// ------------------------------------------------------------------------------------------------------------ AnnData

void Writer::write() {
  const auto top = out_.root(encoding("anndata", "0.1.0"));
  GroupWriter& root = *top;
  if (data_.X) matrix(root, "X", *data_.X);
  frame(root, "obs", data_.obs);
  frame(root, "var", data_.var);
  axis(root, "layers", data_.layers);
  axis(root, "obsm", data_.obsm);
  axis(root, "varm", data_.varm);
  axis(root, "obsp", data_.obsp);
  axis(root, "varp", data_.varp);
  SCW_EXPECT(data_.uns.dict() != nullptr, op_, "'{}': uns is not a mapping", file_);
  value(root, "uns", data_.uns);
  if (data_.raw) {
    const auto g = root.group("raw", encoding("raw", "0.1.0"));
    matrix(*g, "X", data_.raw->X);
    frame(*g, "var", data_.raw->var);
    axis(*g, "varm", data_.raw->varm);
  }
  for (const auto& path : data_.foreign) foreign(root, path.substr(1), path);
  if (can_copy_) out_.copy_extra_attributes(*data_.source);
  SCW_EXPECT_AS(IoError, !reads_source_ || data_.source->is_unchanged(), op_, "'{}' was changed while it was read",
                data_.source->name());
}

}  // namespace

void write_anndata(StoreWriter& out, const AnnData& data) {
  const auto session = data.source == nullptr ? nullptr : data.source->session();
  Writer(out, data).write();
}

}  // namespace scw::io
