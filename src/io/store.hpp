// What files of named groups and arrays have in common, whatever their format: HDF5 (hdf5_store.cpp) and Zarr
// (zarr_store.cpp, zarr_write.cpp). AnnData is decoded (anndata_reader.hpp) and encoded (anndata_write.cpp) on this
// interface alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/check.hpp"
#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

// ------------------------------------------------------------------------------------------------------------ reading

enum class Kind : std::uint8_t { integer, floating, boolean, string, compound, other };

struct ElementType {
  Kind kind = Kind::other;
  std::size_t size = 0;  ///< bytes
  bool is_signed = false;
  std::string name;  ///< as numpy calls it, "int64"; else in words
};

using Attribute = std::variant<std::string, std::vector<std::string>, std::vector<std::int64_t>, bool, std::int64_t,
                               double, std::vector<double>>;
using Attributes = std::vector<std::pair<std::string, Attribute>>;

class Node;

/// A file or folder, open for reading.
class SCW_API Store {
 public:
  Store(const char* op, std::string name) : op_(op), name_(std::move(name)) {}
  virtual ~Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const char* op() const { return op_; }
  /// Its path, for messages.
  const std::string& name() const { return name_; }
  /// "HDF5", "Zarr": elements are copied verbatim only between stores of one format.
  virtual const char* format() const = 0;
  /// False if it was changed since it was opened.
  virtual bool is_unchanged() const = 0;
  /// Whoever uses the store, its nodes or arrays holds one of these meanwhile (HDF5: the library, which serves one
  /// thread at a time). May be nested.
  virtual std::shared_ptr<void> session() const { return nullptr; }
  virtual std::unique_ptr<Node> root() const = 0;

  /// Throws E: "read_h5ad: 'file', object '/X': ...".
  template <class E = FormatError, class... Args>
  [[noreturn]] void fail(std::string_view object, fmt::format_string<Args...> text, Args&&... args) const {
    throw E(
        fmt::format("{}: '{}', object '{}': {}", op_, name_, object, fmt::format(text, std::forward<Args>(args)...)));
  }

 protected:
  const char* op_;
  std::string name_;
};

/// An array of a store. What it declares was checked against what is stored, so that a caller may allocate for it.
class SCW_API StoredArray {
 public:
  StoredArray(const Store& s, std::string p) : store(&s), path(std::move(p)) {}
  virtual ~StoredArray() = default;
  StoredArray(const StoredArray&) = delete;
  StoredArray& operator=(const StoredArray&) = delete;

  const Store* store;
  std::string path;
  ElementType type;
  bool is_null = false;  ///< holds nothing at all, not even zero elements
  std::vector<std::int64_t> dims;
  std::int64_t count = 0;  ///< product of dims

  /// Rows of the first dimension; a scalar has one.
  std::int64_t rows() const { return dims.empty() ? 1 : dims[0]; }

  /// Rows [first, first + n) as numbers of another type, row-major. False if a value does not fit exactly (`out` then
  /// holds rounded or cut values); floating-point data are only read as float or double, and rounding those is no
  /// misfit. Throws FormatError for other types.
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::uint8_t* out) const = 0;
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int32_t* out) const = 0;
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int64_t* out) const = 0;
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out) const = 0;
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out) const = 0;
  template <class T>
  bool read_numbers(const Context& ctx, T* out) const {
    return read(ctx, 0, count == 0 ? 0 : rows(), out);
  }

  /// The same for an array of two dimensions of which only columns j with wanted[j] >= 0 will be looked at: what the
  /// others get is anything, and chunks without a wanted column are not read.
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out,
                    const std::vector<std::int32_t>& /*wanted*/) const {
    return read(ctx, first, n, out);
  }
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out,
                    const std::vector<std::int32_t>& /*wanted*/) const {
    return read(ctx, first, n, out);
  }

  /// Whether read() may be called by several threads at once, and without a session.
  virtual bool is_concurrent() const { return false; }
  /// Rows that are stored together: ranges that begin and end at multiples of this unpack nothing twice.
  virtual std::int64_t chunk_rows() const { return 1; }
  /// Rows [first, first + n), or as many of them as there are, will soon be read: a device may fetch them meanwhile.
  virtual void will_read(std::int64_t /*first*/, std::int64_t /*n*/) const {}
  /// Gives up the memory that it keeps from one read() for the next.
  virtual void release() const {}

  /// Whether texts() can.
  virtual bool has_readable_texts() const { return true; }
  virtual std::vector<std::string> texts(const Context& ctx) const = 0;
  /// Records of one dimension; nothing if this is something else or has fields that StructArray does not know.
  virtual std::optional<StructArray> records(const Context& ctx) const = 0;
  /// Numbers that no other function gives (of more dimensions, complex) or values that scwarp does not compute on, row
  /// by row; nothing if they cannot be stored elsewhere.
  virtual std::optional<OpaqueRows> opaque(const Context& ctx) const = 0;
  /// anndata 0.6 stored obsm as one array of records, a field per entry.
  virtual AxisElements fields_as_matrices(const Context&) const { fail("is neither a group nor an array of records"); }

  template <class E = FormatError, class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    store->fail<E>(path, text, std::forward<Args>(args)...);
  }
};

/// A group or array and where it is.
class SCW_API Node {
 public:
  Node(const Store& s, std::string p, bool group) : store(&s), path(std::move(p)), is_group(group) {}
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const Store* store;
  std::string path;  ///< "/", "/obs/leiden"
  bool is_group;

  /// The member of a group, or null. `name` may be a relative path ("layers/counts"). Throws FormatError for what leads
  /// out of the store.
  virtual std::unique_ptr<Node> find(const std::string& name) const = 0;
  /// The same; FormatError if it is not there.
  std::unique_ptr<Node> child(const std::string& name) const {
    auto node = find(name);
    if (!node) fail("has no '{}'", name);
    return node;
  }
  struct Link {
    std::string name;
    bool hard = true;  ///< false: leads somewhere else, child() would throw
  };
  /// Members of a group in byte order of their names.
  virtual std::vector<Link> links() const = 0;
  /// Throws FormatError for a group and for an array that declares more than can be stored.
  virtual std::unique_ptr<StoredArray> array() const = 0;
  /// The same for nodes that are the same under several names; nothing if the format has no such thing.
  virtual std::optional<std::uint64_t> identity() const { return std::nullopt; }
  /// Bytes in the store, compressed, with everything below.
  virtual std::int64_t stored_bytes() const = 0;

  virtual bool has_attribute(const char* name) const = 0;
  virtual std::optional<std::vector<std::string>> texts_attribute(const char* name) const = 0;
  virtual std::optional<std::vector<std::int64_t>> integers_attribute(const char* name) const = 0;
  /// All of them; `dropped` gets the names of those that Attribute has no form for.
  virtual Attributes attributes(std::vector<std::string>& dropped) const = 0;
  std::optional<std::string> text_attribute(const char* name) const {
    auto all = texts_attribute(name);
    if (!all) return std::nullopt;
    if (all->size() != 1) fail("attribute '{}' has {} values (expected 1)", name, all->size());
    return std::move(all->front());
  }

  template <class E = FormatError, class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    store->fail<E>(path, text, std::forward<Args>(args)...);
  }
};

/// Gives up a session for a scope that only reads arrays that are is_concurrent(), so that other threads get a turn.
class SessionPause {
 public:
  SessionPause(const Store& store, std::shared_ptr<void>& session) : store_(store), session_(session) {
    session_.reset();
  }
  ~SessionPause() { session_ = store_.session(); }
  SessionPause(const SessionPause&) = delete;
  SessionPause& operator=(const SessionPause&) = delete;

 private:
  const Store& store_;
  std::shared_ptr<void>& session_;
};

/// An HDF5 file or a Zarr folder, by content. Throws IoError, FormatError. `op` starts every message.
SCW_API std::shared_ptr<const Store> open_store(const char* op, const std::string& path);

// ------------------------------------------------------------------------------------------------------------ writing

/// The two attributes that every encoded element has.
inline Attributes encoding(std::string type, std::string version) {
  return {{"encoding-type", std::move(type)}, {"encoding-version", std::move(version)}};
}

/// Fills rows [first, first + n) of an array, row-major. Called from several threads at once.
using FillRows = FillRange;

/// A group that is being written. Bytes do not depend on the number of threads.
class SCW_API GroupWriter {
 public:
  explicit GroupWriter(std::string p) : path(std::move(p)) {}
  virtual ~GroupWriter() = default;
  GroupWriter(const GroupWriter&) = delete;
  GroupWriter& operator=(const GroupWriter&) = delete;

  std::string path;  ///< empty: the root

  virtual std::unique_ptr<GroupWriter> group(const std::string& name, const Attributes& attributes) = 0;
  /// An array of a numpy type ("float32", "bool"), whose elements `fill` gives as they are stored. dims empty: a
  /// scalar. `growable`: others may append rows.
  virtual void numbers(const std::string& name, std::string_view dtype, const std::vector<std::int64_t>& dims,
                       bool growable, const FillRows& fill, const Attributes& attributes) = 0;
  virtual void texts(const std::string& name, const std::vector<std::int64_t>& dims,
                     const std::vector<std::string>& values, const Attributes& attributes) = 0;
  virtual void null(const std::string& name, const Attributes& attributes) = 0;
  virtual void records(const std::string& name, const StructArray& values, const Attributes& attributes) = 0;
  /// The writer was asked whether it takes them.
  virtual void opaque(const std::string& name, const OpaqueRows& values, const Attributes& attributes) = 0;
  /// The element at `path` of a store of the same format, verbatim, with everything below and all attributes. Throws
  /// IoError.
  virtual void copy(const std::string& name, const Store& from, const std::string& path) = 0;
};

/// A file or folder that is being written.
class SCW_API StoreWriter {
 public:
  StoreWriter(const Context& ctx, const char* op, std::string name) : ctx_(ctx), op_(op), name_(std::move(name)) {}
  virtual ~StoreWriter() = default;
  StoreWriter(const StoreWriter&) = delete;
  StoreWriter& operator=(const StoreWriter&) = delete;

  const Context& ctx() const { return ctx_; }
  const char* op() const { return op_; }
  /// Where it will be, for messages.
  const std::string& name() const { return name_; }
  virtual const char* format() const = 0;
  virtual std::unique_ptr<GroupWriter> root(const Attributes& attributes) = 0;
  virtual bool takes(const OpaqueRows& rows) const = 0;
  /// Attributes that the encodings do not know, on objects that were in the store that the data came from: they are
  /// carried over. Called last, for a source of the same format.
  virtual void copy_extra_attributes(const Store& from) = 0;

 protected:
  const Context& ctx_;
  const char* op_;
  std::string name_;
};

}  // namespace scw::io
