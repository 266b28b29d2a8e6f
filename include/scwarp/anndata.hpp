// AnnData: a count matrix with named, aligned annotations; what files are read into and written from.
//
// Operations never take an AnnData: they take arrays. Files are read to and written from the host; in between a matrix
// may be on a device (to_device), where results of operations on it are made as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"
#include "scwarp/io/matrix_stream.hpp"

namespace scw {

namespace io {
/// What elements were read from, of any format; kept open so that what was not changed can be copied verbatim when
/// writing.
class Store;
}  // namespace io

/// An element that scwarp does not decode. It names its place in AnnData::source and is copied as it is when writing.
struct Foreign {
  std::string path;  ///< inside the source file, "/uns/x"
  std::string what;  ///< its encoding or type, for messages
};

// ---------------------------------------------------------------------------------------------------------- matrices

/// A matrix with what its file said about it. CSC and integer or boolean values are converted when read (to CSR; to
/// float if exact, else double); the writer goes back to the stored layout and dtype as long as the values still fit
/// them.
struct SCW_API MatrixElement {
  AnyMatrix data;
  std::optional<StoredLayout> stored_layout;  ///< unset: made by us
  std::string stored_dtype;                   ///< numpy name, "int64"; empty: that of `data`
  /// Set: the values are elsewhere and only writers can have them; `data` has the shape and nothing else.
  std::shared_ptr<const io::MatrixStream> stream;

  MatrixElement() = default;
  explicit MatrixElement(std::shared_ptr<const io::MatrixStream> s);
  template <class M, class = std::enable_if_t<std::is_constructible_v<AnyMatrix, M&&>>>
  MatrixElement(M&& m) : data(std::forward<M>(m)) {}

  std::int64_t n_rows() const;
  std::int64_t n_cols() const;
  bool is_sparse() const { return data.index() < 2; }
  AnyMatrixView view() const;
  /// For operations that change values in place; the pattern of a sparse matrix stays.
  AnyMutableMatrixView mutable_view();
  /// Where the values are: the host or ctx.device.
  Device device() const;
  /// A copy beside it.
  MatrixElement clone(const Context& ctx) const;
  /// A copy on the host or on ctx.device. The matrix is on either.
  MatrixElement copy_to(const Context& ctx, Device to) const;
};

/// Rows of a fixed-size type that scwarp stores but does not compute on: 3-dimensional arrays, complex or compound
/// values.
struct OpaqueRows {
  std::vector<std::int64_t> shape;  ///< shape[0] rows
  std::int64_t row_bytes = 0;
  std::vector<std::byte> bytes;
  std::vector<std::byte> type;  ///< HDF5's encoded datatype; empty: by dtype
  std::string dtype;            ///< numpy name of numbers ("complex128"); empty: a type that only its own format has
  std::string path;             ///< in the source: its attributes are copied from there
};

// ---------------------------------------------------------------------------------------------------------- columns

/// Booleans, one byte each (0 or 1): std::vector<bool> gives no pointers.
struct Bools {
  std::vector<std::uint8_t> values;
  friend bool operator==(const Bools&, const Bools&) = default;
};

struct SCW_API Categorical {
  using Categories = std::variant<std::vector<std::string>, std::vector<std::int64_t>, std::vector<double>, Bools>;
  std::vector<std::int32_t> codes;  ///< index into categories; -1: missing
  Categories categories;            ///< unique
  bool ordered = false;

  std::int64_t n_categories() const;
  /// Category names as text: numbers in shortest form, True and False.
  std::vector<std::string> category_names() const;
  /// From labels: categories are the distinct labels, sorted.
  static Categorical from_labels(const std::vector<std::string>& labels);
  /// Drops categories that no code refers to, as anndata does when it subsets.
  void remove_unused();
};

/// One column of a DataFrame.
struct SCW_API Column {
  using Data = std::variant<std::vector<std::int32_t>, std::vector<std::int64_t>, std::vector<float>,
                            std::vector<double>, Bools, std::vector<std::string>, Categorical, OpaqueRows, Foreign>;
  Data data;
  /// Set for pandas' nullable types (Int64, boolean, string): one byte per row, 1 where the value is missing.
  std::optional<std::vector<std::uint8_t>> missing;
  /// numpy name of the file's integer or float type ("uint16"); empty: that of `data`.
  std::string stored_dtype;

  Column() = default;
  template <class T, class = std::enable_if_t<std::is_constructible_v<Data, T&&>>>
  Column(T&& values) : data(std::forward<T>(values)) {}

  /// Rows; -1 for Foreign.
  std::int64_t size() const;
  bool is_numeric() const { return data.index() < 4; }
  bool is_categorical() const { return std::holds_alternative<Categorical>(data); }
  /// Numbers and booleans as double, missing as NaN. Throws DTypeMismatch for other columns.
  std::vector<double> to_double() const;
  /// Text of every row: strings, categories, numbers in shortest form; missing gives `missing_text`.
  std::vector<std::string> to_strings(std::string_view missing_text = "nan") const;
  /// Group code per row and the group names, for strings, booleans, integers and categories (-1: missing).
  Categorical to_categorical() const;
};

/// Named columns in order, and row names.
class SCW_API DataFrame {
 public:
  DataFrame() = default;
  /// Rows named "0" to "n-1".
  explicit DataFrame(std::int64_t n_rows);
  explicit DataFrame(std::vector<std::string> index, std::string index_name = {});

  std::int64_t n_rows() const { return n_rows_; }
  std::int64_t n_cols() const { return static_cast<std::int64_t>(columns_.size()); }
  const std::vector<std::string>& index() const { return index_; }
  /// Throws ShapeMismatch unless one name per row.
  void set_index(std::vector<std::string> index);
  /// Name of the index, empty if it has none.
  std::string index_name;
  /// Set when the file's index was not text (numpy name: "int64"); the writer restores it.
  std::string stored_index_dtype;

  const std::vector<std::pair<std::string, Column>>& columns() const { return columns_; }
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const Column* find(std::string_view name) const;
  Column* find(std::string_view name);
  /// Throws InvalidArgument that lists the columns there are.
  const Column& at(std::string_view name) const;
  Column& at(std::string_view name);
  /// Replaces the column of this name in its place, or appends. Throws ShapeMismatch unless it has n_rows() rows.
  void set(std::string name, Column column);
  /// False if there was none.
  bool erase(std::string_view name);
  /// Rows where keep[i] != 0. Categories without rows are dropped.
  DataFrame subset(const Context& ctx, Span<const std::uint8_t> keep) const;

 private:
  std::int64_t n_rows_ = 0;
  std::vector<std::string> index_;
  std::vector<std::pair<std::string, Column>> columns_;
};

// -------------------------------------------------------------------------------------------------------------- uns

/// An n-dimensional array, C order.
template <class T>
struct NdArray {
  std::vector<std::int64_t> shape;
  std::vector<T> values;
  std::string stored_dtype;

  NdArray() = default;
  NdArray(std::vector<T> v) : shape{static_cast<std::int64_t>(v.size())}, values(std::move(v)) {}
  NdArray(std::vector<std::int64_t> s, std::vector<T> v) : shape(std::move(s)), values(std::move(v)) {}
};
/// Booleans, one byte each.
struct BoolArray : NdArray<std::uint8_t> {
  using NdArray::NdArray;
};

/// A numpy structured array of one dimension: rank_genes_groups' "names", "scores" and so on, one field per group.
struct StructArray {
  using Field = std::variant<std::vector<float>, std::vector<double>, std::vector<std::int32_t>,
                             std::vector<std::int64_t>, Bools, std::vector<std::string>>;
  std::int64_t n_rows = 0;
  std::vector<std::pair<std::string, Field>> fields;
};

class Value;
/// A nested mapping; keys in byte order, as files list them.
using Dict = std::map<std::string, Value, std::less<>>;

/// A node of uns. A value that came from a file remembers where; asking for it without const forgets that, so that
/// untouched values can be copied verbatim when writing.
class SCW_API Value {
 public:
  using Data = std::variant<std::monostate, bool, std::int64_t, double, std::string, NdArray<std::int32_t>,
                            NdArray<std::int64_t>, NdArray<float>, NdArray<double>, BoolArray, NdArray<std::string>,
                            StructArray, Categorical, DataFrame, Foreign, std::shared_ptr<Dict>>;

  Value() = default;  ///< null
  Value(bool v) : data_(v) {}
  Value(int v) : data_(static_cast<std::int64_t>(v)) {}
  Value(std::int64_t v) : data_(v) {}
  Value(double v) : data_(v) {}
  Value(const char* v) : data_(std::string(v)) {}
  Value(std::string v) : data_(std::move(v)) {}
  Value(Dict v);
  Value(std::vector<std::string> v) : data_(NdArray<std::string>(std::move(v))) {}
  Value(std::vector<double> v) : data_(NdArray<double>(std::move(v))) {}
  Value(std::vector<float> v) : data_(NdArray<float>(std::move(v))) {}
  Value(std::vector<std::int32_t> v) : data_(NdArray<std::int32_t>(std::move(v))) {}
  Value(std::vector<std::int64_t> v) : data_(NdArray<std::int64_t>(std::move(v))) {}
  Value(NdArray<std::int32_t> v) : data_(std::move(v)) {}
  Value(NdArray<std::int64_t> v) : data_(std::move(v)) {}
  Value(NdArray<float> v) : data_(std::move(v)) {}
  Value(NdArray<double> v) : data_(std::move(v)) {}
  Value(BoolArray v) : data_(std::move(v)) {}
  Value(NdArray<std::string> v) : data_(std::move(v)) {}
  Value(StructArray v) : data_(std::move(v)) {}
  Value(Categorical v) : data_(std::move(v)) {}
  Value(DataFrame v) : data_(std::move(v)) {}
  Value(Foreign v) : data_(std::move(v)) {}
  // Copies are deep.
  Value(const Value& o);
  Value& operator=(const Value& o);
  Value(Value&&) noexcept = default;
  Value& operator=(Value&&) noexcept = default;

  const Data& data() const { return data_; }
  /// Null unless the value holds a T.
  template <class T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  bool is_null() const { return data_.index() == 0; }
  /// Null unless this is a mapping.
  const Dict* dict() const;
  Dict* dict();
  /// The entry `key` of a mapping, made if missing. A value of another kind becomes an empty mapping first.
  Value& operator[](std::string_view key);
  /// Entry `key`, or null if this is no mapping or has no such key.
  const Value* find(std::string_view key) const;

  /// Where in AnnData::source this value is stored unchanged; empty: nowhere.
  const std::string& stored_path() const { return stored_path_; }
  void set_stored_path(std::string path) { stored_path_ = std::move(path); }

 private:
  Data data_;
  std::string stored_path_;
};

// ---------------------------------------------------------------------------------------------------------- AnnData

/// An entry of obsm, varm, obsp, varp.
using AxisElement = std::variant<MatrixElement, DataFrame, OpaqueRows, Foreign>;
using AxisElements = std::map<std::string, AxisElement, std::less<>>;
/// Entries of layers.
using Layers = AxisElements;

/// Rows of an element, -1 for Foreign; and columns, -1 where it has no second axis.
SCW_API std::int64_t n_rows(const AxisElement& e);
SCW_API std::int64_t n_cols(const AxisElement& e);

/// The matrix before genes were selected: as many cells as X, its own genes.
struct Raw {
  MatrixElement X;
  DataFrame var;
  AxisElements varm;
};

/// n_obs cells x n_vars genes. Movable, not copyable. The maps are open; `validate` checks that everything is aligned,
/// and reading, writing and subsetting call it. The set_ functions check what they are given.
struct SCW_API AnnData {
  std::optional<MatrixElement> X;
  DataFrame obs, var;
  Layers layers;
  AxisElements obsm, varm, obsp, varp;
  Value uns = Dict{};
  std::optional<Raw> raw;

  std::shared_ptr<const io::Store> source;  ///< the file it came from
  std::vector<std::string> foreign;  ///< top-level objects of the source outside the AnnData layout, carried over

  std::int64_t n_obs() const { return obs.n_rows(); }
  std::int64_t n_vars() const { return var.n_rows(); }

  /// Throws ShapeMismatch that names the first element out of line.
  void validate() const;
  void set_X(MatrixElement x);
  void set_layer(std::string name, MatrixElement x);
  void set_obsm(std::string name, AxisElement x);
  void set_varm(std::string name, AxisElement x);
  void set_obsp(std::string name, MatrixElement x);
  void set_varp(std::string name, MatrixElement x);
  /// X, or the layer of this name. Throws InvalidArgument that lists what there is.
  const MatrixElement& matrix(std::string_view layer = {}) const;
  MatrixElement& matrix(std::string_view layer = {});
  /// An obsm entry that is a matrix. Throws InvalidArgument that lists what there is.
  const MatrixElement& obsm_matrix(std::string_view name) const;
  const MatrixElement& obsp_matrix(std::string_view name) const;

  /// Keeps the cells (genes) with keep[i] != 0, in order, in everything that is aligned with them; raw loses cells but
  /// no genes. Aligned Foreign elements cannot be cut: they are dropped, each with a warning in ctx.log. On an error
  /// the object is unchanged. Memory: the result beside the input. Throws ShapeMismatch for the length of the mask.
  void subset_obs(const Context& ctx, Span<const std::uint8_t> keep);
  void subset_var(const Context& ctx, Span<const std::uint8_t> keep);
  /// raw <- copy of X, var and varm.
  void set_raw_from_X(const Context& ctx);

  /// Moves X to ctx.device.
  void to_device(const Context& ctx);
  /// Moves every matrix to the host.
  void to_host(const Context& ctx);
};

}  // namespace scw
