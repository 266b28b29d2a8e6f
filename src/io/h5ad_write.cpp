#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/hdf5.hpp"
#include "io/transpose.hpp"
#include "scwarp/io/h5ad.hpp"

namespace scw::io {
namespace {

using h5::Id;
using h5::Target;

constexpr const char* kOp = "write_h5ad";
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
  Writer(const Context& ctx, const AnnData& data, const std::string& file, const WriteH5adOptions& options)
      : ctx_(ctx), data_(data), file_(file) {
    options_.level = options.compression_level;
    can_copy_ = data.source != nullptr && data.source->is_unchanged();
  }
  void write(hid_t file);

 private:
  template <class V>
  Id numbers(const Target& t, const std::string& name, const V* values, const std::vector<std::int64_t>& dims,
             const std::string& stored, bool growable = false);
  void array(const Target& t, const std::string& name, Id dataset) {
    h5::write_encoding(t, dataset.get(), "array", "0.2.0");
    static_cast<void>(name);
  }
  void strings(const Target& t, const std::string& name, const std::vector<std::string>& values) {
    const Id d = h5::write_strings(t, name, {static_cast<std::int64_t>(values.size())}, values);
    h5::write_encoding(t, d.get(), "string-array", "0.2.0");
  }
  void bools(const Target& t, const std::string& name, const std::vector<std::uint8_t>& values,
             const std::vector<std::int64_t>& dims);
  void matrix(const Target& t, const std::string& name, const MatrixElement& m);
  template <class V>
  void sparse(const Target& t, const std::string& name, const Csr<V>& m, bool by_column, const std::string& stored);
  void categorical(const Target& t, const std::string& name, const Categorical& c);
  void column(const Target& t, const std::string& name, const Column& c);
  void index(const Target& t, const std::string& name, const DataFrame& f);
  void frame(const Target& t, const std::string& name, const DataFrame& f);
  void opaque(const Target& t, const std::string& name, const OpaqueRows& o);
  void foreign(const Target& t, const std::string& name, const std::string& path);
  void axis(const Target& t, const std::string& name, const AxisElements& all);
  void struct_array(const Target& t, const std::string& name, const StructArray& s);
  void value(const Target& t, const std::string& name, const Value& v);
  void copy_extra_attributes(hid_t file);

  const Context& ctx_;
  const AnnData& data_;
  const std::string& file_;
  h5::WriteOptions options_;
  bool can_copy_ = false;  // the source is there and as it was
};

/// An array in its stored type if all values fit that, else in V.
template <class V>
Id Writer::numbers(const Target& t, const std::string& name, const V* values, const std::vector<std::int64_t>& dims,
                   const std::string& stored, bool growable) {
  std::int64_t cols = 1, n = 1;
  for (std::size_t k = 0; k < dims.size(); ++k) {
    n *= dims[k];
    if (k > 0) cols *= dims[k];
  }
  Id result;
  const bool done =
      stored != numpy_name<V>() && with_stored_type(stored, [&]<class T>(T) {
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
        const Id type = h5::type_of_name(stored);
        result = h5::write_dataset(t, name, type.get(), dims, growable,
                                   [&](std::int64_t first, std::int64_t rows, std::byte* out) {
                                     for (std::int64_t i = 0; i < rows * cols; ++i) {
                                       T v{};
                                       exactly(values[first * cols + i], v);
                                       std::memcpy(out + static_cast<std::size_t>(i) * sizeof(T), &v, sizeof v);
                                     }
                                   });
        return true;
      });
  if (done) return result;
  return h5::write_dataset(t, name, h5::native_type<V>(), dims, growable,
                           [&](std::int64_t first, std::int64_t rows, std::byte* out) {
                             std::memcpy(out, values + first * cols, static_cast<std::size_t>(rows * cols) * sizeof(V));
                           });
}

void Writer::bools(const Target& t, const std::string& name, const std::vector<std::uint8_t>& values,
                   const std::vector<std::int64_t>& dims) {
  array(t, name, numbers(t, name, values.data(), dims, "bool"));
}

// ----------------------------------------------------------------------------------------------------------- matrices

template <class V>
void Writer::sparse(const Target& t, const std::string& name, const Csr<V>& m, bool by_column,
                    const std::string& stored) {
  Csr<V> turned;
  const Csr<V>* x = &m;
  if (by_column) {
    turned = transpose(ctx_, m.n_rows, m.n_cols, m.indptr, m.indices, m.values);
    x = &turned;
  }
  Id keep;
  const Target g = h5::group(t, name, keep);
  h5::write_encoding(g, g.id, by_column ? "csc_matrix" : "csr_matrix", "0.1.0");
  h5::write_attribute(g, g.id, "shape", std::vector<std::int64_t>{m.n_rows, m.n_cols});
  const std::int64_t nnz = x->values.size();
  numbers(g, "data", x->values.data(), {nnz}, stored, true);
  numbers(g, "indices", x->indices.data(), {nnz}, "", true);
  // scipy's own choice: 32 bits as long as they do
  numbers(g, "indptr", x->indptr.data(), {x->indptr.size()}, "int32", true);
}

void Writer::matrix(const Target& t, const std::string& name, const MatrixElement& m) {
  std::visit(
      [&]<class M>(const M& x) {
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>)
          sparse(t, name, x, m.stored_layout == StoredLayout::csc, m.stored_dtype);
        else
          array(t, name, numbers(t, name, x.data.data(), {x.n_rows, x.n_cols}, m.stored_dtype));
      },
      m.data);
}

// ------------------------------------------------------------------------------------------------------------ columns

void Writer::categorical(const Target& t, const std::string& name, const Categorical& c) {
  Id keep;
  const Target g = h5::group(t, name, keep);
  h5::write_encoding(g, g.id, "categorical", "0.2.0");
  h5::write_attribute(g, g.id, "ordered", c.ordered);
  const auto n = c.n_categories();
  // pandas' own choice of width
  const char* type = n <= 127 ? "int8" : n <= 32767 ? "int16" : "int32";
  const auto codes = static_cast<std::int64_t>(c.codes.size());
  array(g, "codes", numbers(g, "codes", c.codes.data(), {codes}, type));
  std::visit(Overload{[&](const std::vector<std::string>& v) { strings(g, "categories", v); },
                      [&](const Bools& v) { bools(g, "categories", v.values, {n}); },
                      [&](const auto& v) { array(g, "categories", numbers(g, "categories", v.data(), {n}, "")); }},
             c.categories);
}

void Writer::opaque(const Target& t, const std::string& name, const OpaqueRows& o) {
  const Id type(H5Tdecode(o.type.data()));
  h5::check(static_cast<bool>(type), kOp, file_, t.path + "/" + name);
  const Id d = h5::write_dataset(
      t, name, type.get(), o.shape, false, [&](std::int64_t first, std::int64_t rows, std::byte* out) {
        std::memcpy(out, o.bytes.data() + first * o.row_bytes, static_cast<std::size_t>(rows * o.row_bytes));
      });
  std::string encoding = "array", version = "0.2.0";
  if (can_copy_ && !o.path.empty())
    if (const auto from = h5::find(h5::root(*data_.source), o.path.substr(1))) {
      encoding = h5::text_attribute(*from, "encoding-type").value_or(encoding);
      version = h5::text_attribute(*from, "encoding-version").value_or(version);
    }
  h5::write_encoding(t, d.get(), encoding.c_str(), version.c_str());
}

void Writer::foreign(const Target& t, const std::string& name, const std::string& path) {
  SCW_EXPECT(data_.source != nullptr, kOp, "'{}/{}' is to be copied from a file, but there is no source", t.path, name);
  SCW_EXPECT_AS(IoError, can_copy_, kOp, "'{}/{}' is to be copied from '{}', which was changed since it was read",
                t.path, name, data_.source->name());
  const Id links = h5::create_links(name);
  const bool ok = H5Ocopy(data_.source->file(), path.c_str(), t.id, name.c_str(), H5P_DEFAULT, links.get()) >= 0;
  if (!ok)
    detail::fail<IoError>(kOp, "'{}': object '{}/{}' cannot be copied from '{}' ({})", file_, t.path, name,
                          data_.source->name(), h5::last_error());
}

void Writer::column(const Target& t, const std::string& name, const Column& c) {
  const std::int64_t n = c.size();
  if (c.missing) {
    Id keep;
    const Target g = h5::group(t, name, keep);
    const char* type = std::holds_alternative<Bools>(c.data)                      ? "nullable-boolean"
                       : std::holds_alternative<std::vector<std::string>>(c.data) ? "nullable-string-array"
                                                                                  : "nullable-integer";
    h5::write_encoding(g, g.id, type, "0.1.0");
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
               [&](const auto& v) { array(t, name, numbers(t, name, v.data(), {n}, c.stored_dtype)); }},
      c.data);
}

/// Row names; numbers again if that is what they were.
void Writer::index(const Target& t, const std::string& name, const DataFrame& f) {
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
    array(t, name, numbers(t, name, values.data(), {f.n_rows()}, f.stored_index_dtype));
    return true;
  };
  if (f.stored_index_dtype.find("int") != std::string::npos && parse(std::int64_t{})) return;
  if (f.stored_index_dtype.starts_with("float") && parse(double{})) return;
  strings(t, name, f.index());
}

void Writer::frame(const Target& t, const std::string& name, const DataFrame& f) {
  ctx_.check_cancelled(kOp);
  Id keep;
  const Target g = h5::group(t, name, keep);
  h5::write_encoding(g, g.id, "dataframe", "0.2.0");
  std::vector<std::string> order;
  std::string index_name = f.index_name.empty() ? "_index" : f.index_name;
  // The index and a column of the same name share their place in the file, so they must agree.
  const Column* same = f.find(index_name);
  if (same != nullptr && (!std::holds_alternative<std::vector<std::string>>(same->data) ||
                          std::get<std::vector<std::string>>(same->data) != f.index())) {
    SCW_EXPECT(index_name != "_index", kOp, "'{}': column '_index' of '{}' has the name of the index", file_, g.path);
    ctx_.warn(fmt::format("{}: '{}': the index of '{}' loses its name '{}', which is a column's", kOp, file_, g.path,
                          index_name));
    index_name = "_index";
    same = nullptr;
  }
  for (const auto& [column_name, c] : f.columns()) order.push_back(column_name);
  h5::write_attribute(g, g.id, "column-order", order);
  h5::write_attribute(g, g.id, "_index", std::string_view(index_name));
  index(g, index_name, f);
  for (const auto& [column_name, c] : f.columns())
    if (&c != same) column(g, column_name, c);
}

void Writer::axis(const Target& t, const std::string& name, const AxisElements& all) {
  Id keep;
  const Target g = h5::group(t, name, keep);
  h5::write_encoding(g, g.id, "dict", "0.1.0");
  for (const auto& [key, e] : all) {
    const auto& k = key;
    ctx_.check_cancelled(kOp);
    std::visit(
        Overload{[&](const MatrixElement& m) { matrix(g, k, m); }, [&](const DataFrame& f) { frame(g, k, f); },
                 [&](const OpaqueRows& o) { opaque(g, k, o); }, [&](const Foreign& f) { foreign(g, k, f.path); }},
        e);
  }
}

// ---------------------------------------------------------------------------------------------------------------- uns

/// Records as h5py writes them: text fields of variable length.
void Writer::struct_array(const Target& t, const std::string& name, const StructArray& s) {
  struct Field {
    Id type;
    std::size_t size, offset;
  };
  std::vector<Field> fields;
  std::size_t record = 0;
  for (const auto& [field, data] : s.fields) {
    Field f{Id(), 0, record};
    std::visit(
        Overload{[&](const std::vector<std::string>& v) {
                   SCW_EXPECT_AS(ShapeMismatch, static_cast<std::int64_t>(v.size()) == s.n_rows, kOp,
                                 "field '{}' of '{}' has {} rows (expected {})", field, name, v.size(), s.n_rows);
                   f.type = h5::string_type();
                   f.size = sizeof(char*);
                 },
                 [&](const Bools& v) {
                   SCW_EXPECT_AS(ShapeMismatch, static_cast<std::int64_t>(v.values.size()) == s.n_rows, kOp,
                                 "field '{}' of '{}' has {} rows (expected {})", field, name, v.values.size(),
                                 s.n_rows);
                   f.type = h5::bool_type();
                   f.size = 1;
                 },
                 [&]<class T>(const std::vector<T>& v) {
                   SCW_EXPECT_AS(ShapeMismatch, static_cast<std::int64_t>(v.size()) == s.n_rows, kOp,
                                 "field '{}' of '{}' has {} rows (expected {})", field, name, v.size(), s.n_rows);
                   f.type = Id(H5Tcopy(h5::native_type<T>()));
                   f.size = sizeof(T);
                 }},
        data);
    record += f.size;
    fields.push_back(std::move(f));
  }
  SCW_EXPECT(record > 0, kOp, "'{}/{}' is an array of records without fields", t.path, name);
  const Id type(H5Tcreate(H5T_COMPOUND, record));
  for (std::size_t k = 0; k < fields.size(); ++k)
    h5::check(H5Tinsert(type.get(), s.fields[k].first.c_str(), fields[k].offset, fields[k].type.get()) >= 0, kOp, file_,
              t.path + "/" + name);
  std::vector<std::byte> rows(static_cast<std::size_t>(s.n_rows) * record);
  for (std::size_t k = 0; k < fields.size(); ++k) {
    const auto put = [&](std::size_t i, const void* v) {
      std::memcpy(rows.data() + i * record + fields[k].offset, v, fields[k].size);
    };
    std::visit(Overload{[&](const std::vector<std::string>& v) {
                          for (std::size_t i = 0; i < v.size(); ++i) {
                            const char* text = v[i].c_str();
                            put(i, &text);
                          }
                        },
                        [&](const Bools& v) {
                          for (std::size_t i = 0; i < v.values.size(); ++i) put(i, &v.values[i]);
                        },
                        [&](const auto& v) {
                          for (std::size_t i = 0; i < v.size(); ++i) put(i, &v[i]);
                        }},
               s.fields[k].second);
  }
  const Id plist(H5Pcreate(H5P_DATASET_CREATE));
  const Id how = h5::create_links(name);
  H5Pset_obj_track_times(plist.get(), false);
  const hsize_t n = static_cast<hsize_t>(s.n_rows);
  const Id space(H5Screate_simple(1, &n, nullptr));
  const Id d(H5Dcreate2(t.id, name.c_str(), type.get(), space.get(), how.get(), plist.get(), H5P_DEFAULT));
  h5::check(d && (n == 0 || H5Dwrite(d.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.data()) >= 0), kOp, file_,
            t.path + "/" + name);
  h5::write_encoding(t, d.get(), "rec-array", "0.2.0");
}

void Writer::value(const Target& t, const std::string& name, const Value& v) {
  ctx_.check_cancelled(kOp);
  if (can_copy_ && !v.stored_path().empty()) return foreign(t, name, v.stored_path());
  const auto scalar = [&](hid_t type, const void* data, std::size_t size) {
    const Id d = h5::write_dataset(t, name, type, {}, false,
                                   [&](std::int64_t, std::int64_t, std::byte* out) { std::memcpy(out, data, size); });
    h5::write_encoding(t, d.get(), "numeric-scalar", "0.2.0");
  };
  const auto check_shape = [&](const std::vector<std::int64_t>& shape, std::size_t have) {
    std::int64_t n = 1;
    for (const auto k : shape) n = checked_mul(n, k);
    SCW_EXPECT_AS(ShapeMismatch, n == static_cast<std::int64_t>(have), kOp,
                  "'{}/{}' has {} values (its shape asks for {})", t.path, name, have, n);
  };
  std::visit(
      Overload{[&](std::monostate) {
                 const Id space(H5Screate(H5S_NULL));
                 const Id how = h5::create_links(name);
                 const Id plist(H5Pcreate(H5P_DATASET_CREATE));
                 H5Pset_obj_track_times(plist.get(), false);
                 const Id d(H5Dcreate2(t.id, name.c_str(), H5T_NATIVE_FLOAT, space.get(), how.get(), plist.get(),
                                       H5P_DEFAULT));
                 h5::check(static_cast<bool>(d), kOp, file_, t.path + "/" + name);
                 h5::write_encoding(t, d.get(), "null", "0.1.0");
               },
               [&](bool x) {
                 const Id type = h5::bool_type();
                 const std::int8_t byte = x ? 1 : 0;
                 scalar(type.get(), &byte, 1);
               },
               [&](std::int64_t x) { scalar(H5T_NATIVE_INT64, &x, sizeof x); },
               [&](double x) { scalar(H5T_NATIVE_DOUBLE, &x, sizeof x); },
               [&](const std::string& x) {
                 const Id d = h5::write_strings(t, name, {}, {x});
                 h5::write_encoding(t, d.get(), "string", "0.2.0");
               },
               [&](const NdArray<std::string>& x) {
                 check_shape(x.shape, x.values.size());
                 const Id d = h5::write_strings(t, name, x.shape, x.values);
                 h5::write_encoding(t, d.get(), "string-array", "0.2.0");
               },
               [&](const BoolArray& x) {
                 check_shape(x.shape, x.values.size());
                 bools(t, name, x.values, x.shape);
               },
               [&](const StructArray& x) { struct_array(t, name, x); },
               [&](const Categorical& x) { categorical(t, name, x); }, [&](const DataFrame& x) { frame(t, name, x); },
               [&](const Foreign& x) { foreign(t, name, x.path); },
               [&](const std::shared_ptr<Dict>& x) {
                 Id keep;
                 const Target g = h5::group(t, name, keep);
                 h5::write_encoding(g, g.id, "dict", "0.1.0");
                 for (const auto& [key, child] : *x) value(g, key, child);
               },
               [&]<class T>(const NdArray<T>& x) {
                 check_shape(x.shape, x.values.size());
                 array(t, name, numbers(t, name, x.values.data(), x.shape, x.stored_dtype));
               }},
      v.data());
}

// ------------------------------------------------------------------------------------------------------------ AnnData

void Writer::write(hid_t file) {
  Target root;
  root.ctx = &ctx_;
  root.file = &file_;
  root.id = file;
  root.options = options_;
  const Id top(H5Oopen(file, "/", H5P_DEFAULT));
  h5::write_encoding(root, top.get(), "anndata", "0.1.0");
  if (data_.X) matrix(root, "X", *data_.X);
  frame(root, "obs", data_.obs);
  frame(root, "var", data_.var);
  axis(root, "layers", data_.layers);
  axis(root, "obsm", data_.obsm);
  axis(root, "varm", data_.varm);
  axis(root, "obsp", data_.obsp);
  axis(root, "varp", data_.varp);
  SCW_EXPECT(data_.uns.dict() != nullptr, kOp, "'{}': uns is not a mapping", file_);
  value(root, "uns", data_.uns);
  if (data_.raw) {
    Id keep;
    const Target g = h5::group(root, "raw", keep);
    h5::write_encoding(g, g.id, "raw", "0.1.0");
    matrix(g, "X", data_.raw->X);
    frame(g, "var", data_.raw->var);
    axis(g, "varm", data_.raw->varm);
  }
  for (const auto& path : data_.foreign) foreign(root, path.substr(1), path);
  if (can_copy_) copy_extra_attributes(file);
}

/// Attributes that the encodings do not know, on objects that were there before: they are carried over as well.
void Writer::copy_extra_attributes(hid_t file) {
  std::vector<std::string> paths;
  const auto collect = [](hid_t, const char* name, const H5O_info_t*, void* all) -> herr_t {
    try {
      static_cast<std::vector<std::string>*>(all)->emplace_back(name);
    } catch (...) {
      return -1;
    }
    return 0;
  };
  h5::check(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, collect, &paths, H5O_INFO_BASIC) >= 0, kOp, file_, "/");
  Target root;
  root.ctx = &ctx_;
  root.file = &file_;
  root.id = file;
  const h5::Node top = h5::root(*data_.source);
  for (const auto& path : paths) {
    const Id to(H5Oopen(file, path.c_str(), H5P_DEFAULT));
    if (path == ".") {
      h5::copy_attributes(root, top.id.get(), to.get());
    } else {
      std::optional<h5::Node> from;
      try {
        from = h5::find(top, path);
      } catch (const FormatError&) {
        continue;  // damaged where nobody looked
      }
      if (from) h5::copy_attributes(root, from->id.get(), to.get());
    }
  }
}

/// A file that is removed unless it was moved to its place.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target) {
    static std::atomic<int> counter{0};
    path_ = target.parent_path() /
            fmt::format(".{}.{}-{}.tmp", target.filename().string(), static_cast<long>(::getpid()), counter++);
  }
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::filesystem::path& path() const { return path_; }
  void moved() { path_.clear(); }

 private:
  std::filesystem::path path_;
};

std::int64_t widest_frame(const AnnData& a) {
  std::int64_t n = std::max(a.obs.n_cols(), a.var.n_cols());
  const auto look = [&](const AxisElements& all) {
    for (const auto& [name, e] : all)
      if (const auto* f = std::get_if<DataFrame>(&e)) n = std::max(n, f->n_cols());
  };
  look(a.obsm);
  look(a.varm);
  if (a.raw) {
    n = std::max(n, a.raw->var.n_cols());
    look(a.raw->varm);
  }
  return n;
}

void sync(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  const bool ok = fd >= 0 && ::fsync(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  SCW_EXPECT_AS(IoError, ok, kOp, "cannot flush '{}' to disk ({})", path.string(), std::strerror(reason));
}

}  // namespace

void write_h5ad(const Context& ctx, const AnnData& data, const std::string& path, const WriteH5adOptions& options) {
  SCW_EXPECT(options.compression_level >= 0 && options.compression_level <= 9, kOp,
             "compression_level must be 0 to 9 (got {})", options.compression_level);
  data.validate();
  // A link stays a link: what it points to is replaced.
  std::error_code none;
  std::filesystem::path target = path;
  if (std::filesystem::is_symlink(target, none)) target = std::filesystem::canonical(target, none);
  if (target.empty()) target = path;
  struct stat old {};
  const bool exists = ::stat(target.c_str(), &old) == 0;
  SCW_EXPECT_AS(IoError, !exists || S_ISREG(old.st_mode), kOp, "'{}' exists and is not a regular file", path);
  const auto folder = target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
  SCW_EXPECT_AS(IoError, std::filesystem::is_directory(folder, none), kOp, "'{}' is not a folder", folder.string());

  const h5::Session session;
  TemporaryFile temporary(target);
  {
    const Id access(H5Pcreate(H5P_FILE_ACCESS));
    H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
    H5Pset_file_locking(access.get(), false, true);
    // The oldest format that can hold the file, for the oldest readers: it keeps attributes below 64 KiB, and the list
    // of columns is one.
    constexpr std::int64_t kMaxOldColumns = 3900;
    H5Pset_libver_bounds(access.get(), widest_frame(data) > kMaxOldColumns ? H5F_LIBVER_V18 : H5F_LIBVER_EARLIEST,
                         H5F_LIBVER_LATEST);
    const hid_t file = H5Fcreate(temporary.path().c_str(), H5F_ACC_EXCL, H5P_DEFAULT, access.get());
    SCW_EXPECT_AS(IoError, file >= 0, kOp, "cannot create a file in '{}' ({})", folder.string(), h5::last_error());
    try {
      Writer(ctx, data, path, options).write(file);
    } catch (...) {
      H5Fclose(file);
      throw;
    }
    SCW_EXPECT_AS(IoError, H5Fclose(file) >= 0, kOp, "'{}' cannot be completed ({})", path, h5::last_error());
  }
  if (exists) ::chmod(temporary.path().c_str(), old.st_mode & 07777);
  sync(temporary.path(), O_RDONLY);
  SCW_EXPECT_AS(IoError, ::rename(temporary.path().c_str(), target.c_str()) == 0, kOp, "cannot replace '{}' ({})", path,
                std::strerror(errno));
  temporary.moved();
  sync(folder, O_RDONLY | O_DIRECTORY);
}

}  // namespace scw::io
