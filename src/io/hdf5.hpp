// The HDF5 C API behind types that close themselves, with errors that name file and object, and with raw chunks
// unpacked and packed by our own threads.
//
// Debian's library is not thread-safe: whoever calls it holds a Session. Inside a parallel loop, workers of the thread
// that holds the Session take turns by a mutex of the loop.
#pragma once

#include <hdf5.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/check.hpp"
#include "io/hdf5_structure.hpp"
#include "io/store.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"
#include "scwarp/io/h5ad.hpp"

namespace scw::io {

namespace h5 {

/// Sole use of the HDF5 library, which is silent meanwhile. May be nested on one thread.
class SCW_API Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

/// A counted reference to an HDF5 object of any kind.
class Id {
 public:
  Id() = default;
  explicit Id(hid_t id) : id_(id) {}
  Id(Id&& o) noexcept : id_(std::exchange(o.id_, H5I_INVALID_HID)) {}
  Id& operator=(Id&& o) noexcept {
    std::swap(id_, o.id_);
    return *this;
  }
  Id(const Id&) = delete;
  Id& operator=(const Id&) = delete;
  ~Id() {
    if (id_ > 0) H5Idec_ref(id_);
  }
  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

/// The innermost message of HDF5's error stack, which is then cleared.
SCW_API std::string last_error();

}  // namespace h5

/// An HDF5 file open for reading.
class SCW_API Source final : public Store {
 public:
  /// Throws IoError (cannot be opened) or FormatError (not HDF5). `op` starts every message.
  static std::shared_ptr<const Source> open(const char* op, const std::string& path);
  /// The content of a file in memory; `name` is for messages.
  static std::shared_ptr<const Source> open_image(const char* op, Span<const std::byte> image, const std::string& name);
  ~Source() override;

  const char* format() const override { return "HDF5"; }
  std::shared_ptr<void> session() const override { return std::make_shared<h5::Session>(); }
  std::unique_ptr<Node> root() const override;
  hid_t file() const { return file_.get(); }
  std::int64_t size() const { return size_; }
  /// Bytes of the user's in front of the superblock, from which HDF5 addresses count.
  std::uint64_t base() const { return base_; }
  /// Copies n bytes at an HDF5 address; false if they are not all inside the file.
  bool read_at(std::uint64_t address, std::size_t n, void* out) const;
  /// Checks the structure of an object before the library opens it. Throws FormatError.
  void check_object(const std::string& object, std::uint64_t address) const;
  /// The stored form of a dataset of records (see Structure::record).
  std::vector<h5::StoredField> record(std::uint64_t address, std::size_t& record_bytes) const {
    return structure_->record(address, record_bytes);
  }
  /// The chunks of a dataset (see Structure::chunks).
  const std::vector<h5::StoredChunk>* chunks(std::uint64_t address) const { return structure_->chunks(address); }
  bool is_unchanged() const override;

 private:
  Source() : Store("", {}) {}
  void check_structure();
  std::vector<std::byte> image_;
  int fd_ = -1;
  struct stat stat_ {};
  std::int64_t size_ = 0;
  std::uint64_t base_ = 0;
  std::unique_ptr<h5::Structure> structure_;
  h5::Id file_;
};

namespace h5 {

// ------------------------------------------------------------------------------------------------------------ reading

using io::Kind;

struct Type {
  Id id;
  Kind kind = Kind::other;
  std::size_t size = 0;
  bool is_signed = false;
  bool native = false;    ///< stored in this machine's byte order and layout
  bool variable = false;  ///< strings of variable length
  H5T_str_t padding = H5T_STR_NULLTERM;
  std::string name;  ///< as numpy calls it
};
Type describe(Id type);

/// A group or dataset and where it is.
struct Node {
  const Source* source = nullptr;
  std::string path;
  Id id;
  bool is_group = false;
  haddr_t address = 0;

  template <class E = FormatError, class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    source->fail<E>(path, text, std::forward<Args>(args)...);
  }
};

SCW_API Node root(const Source& source);
/// The child of a group, or nothing. `name` may be a relative path. Only hard links are followed: throws FormatError
/// for soft and external ones.
std::optional<Node> find(const Node& group, const std::string& name);
SCW_API Node child(const Node& group, const std::string& name);
struct Link {
  std::string name;
  bool hard = true;
};
/// Links of a group, in byte order of their names.
std::vector<Link> links(const Node& group);

bool has_attribute(const Node& node, const char* name);
std::optional<std::string> text_attribute(const Node& node, const char* name);
std::optional<std::vector<std::string>> texts_attribute(const Node& node, const char* name);
std::optional<std::vector<std::int64_t>> integers_attribute(const Node& node, const char* name);

struct Dataset {
  const Source* source = nullptr;
  std::string path;
  Id id, space, plist;
  Type type;
  bool is_null = false;  ///< holds nothing at all, not even zero elements
  std::vector<std::int64_t> dims;
  std::int64_t count = 0;  ///< product of dims
  haddr_t address = 0;     ///< of its header

  template <class E = FormatError, class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    source->fail<E>(path, text, std::forward<Args>(args)...);
  }
};
/// Checks that what the dataset declares can be in the file, before anybody allocates for it. Throws FormatError for a
/// group, for external or virtual storage and for sizes that the stored bytes cannot unpack to.
SCW_API Dataset dataset(Node node);

/// A block of a dataset seen as rows x columns (columns: everything after the first dimension).
struct Block {
  const std::byte* data = nullptr;
  std::int64_t row = 0, col = 0, n_rows = 0, n_cols = 0;
  std::int64_t ld = 0;  ///< elements from row to row in `data`
};
/// Calls body for blocks that cover the dataset, from several threads at once. Elements are of `element_bytes`: those
/// of `memory_type`, or as stored if that is H5I_INVALID_HID.
void read_blocks(const Context& ctx, const Dataset& d, hid_t memory_type, std::size_t element_bytes,
                 const std::function<void(const Block&)>& body);

/// The native HDF5 type of T.
template <class T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, float>) return H5T_NATIVE_FLOAT;
  if constexpr (std::is_same_v<T, double>) return H5T_NATIVE_DOUBLE;
  if constexpr (std::is_same_v<T, std::int8_t>) return H5T_NATIVE_INT8;
  if constexpr (std::is_same_v<T, std::uint8_t>) return H5T_NATIVE_UINT8;
  if constexpr (std::is_same_v<T, std::int16_t>) return H5T_NATIVE_INT16;
  if constexpr (std::is_same_v<T, std::uint16_t>) return H5T_NATIVE_UINT16;
  if constexpr (std::is_same_v<T, std::int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, std::uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::is_same_v<T, std::int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::is_same_v<T, std::uint64_t>) return H5T_NATIVE_UINT64;
}

/// Reads numbers and booleans as T. False if a value does not fit T exactly (`out` then holds rounded or cut values);
/// floating-point data are only read as float or double, and rounding those is no misfit. Throws FormatError for other
/// types.
template <class T>
bool read_numbers(const Context& ctx, const Dataset& d, T* out);
extern template bool read_numbers(const Context&, const Dataset&, std::uint8_t*);
extern template bool read_numbers(const Context&, const Dataset&, std::int32_t*);
extern template bool read_numbers(const Context&, const Dataset&, std::int64_t*);
extern template bool read_numbers(const Context&, const Dataset&, float*);
extern template bool read_numbers(const Context&, const Dataset&, double*);

/// Whether read_strings and read_text_field can: the library's own way to texts of variable length trusts the file too
/// much to be used, and ours needs contiguous storage or chunks of one or two dimensions.
bool has_readable_texts(const Dataset& d);
/// Reads strings of fixed or variable length. `session`: the caller's, given up while texts are fetched from the heap
/// of the file, which takes long and needs no library.
std::vector<std::string> read_strings(const Context& ctx, const Dataset& d, std::shared_ptr<void>* session = nullptr);
/// Reads a field of texts of variable length from a dataset of records.
std::vector<std::string> read_text_field(const Context& ctx, const Dataset& d, const std::string& name);

/// All elements as they are stored, in order. Throws NotSupported unless has_readable_texts.
std::vector<std::byte> stored_elements(const Context& ctx, const Dataset& d, std::size_t element_bytes);
/// A field of a dataset of records: `width` elements in every record, converted from one type to another.
void read_field(const Context& ctx, const Dataset& d, const std::string& name, hid_t stored, hid_t memory,
                std::int64_t width, void* out);
/// Sequences of elements of `base_bytes`, as they are stored.
std::vector<std::string> read_sequences(const Context& ctx, const Dataset& d, std::size_t base_bytes);

// ------------------------------------------------------------------------------------------------------------ writing

struct WriteOptions {
  Compression compression = Compression::gzip;
  int level = 1;
  std::int64_t chunk_bytes = 512 << 10;
};

/// Throws IoError with HDF5's reason.
void check(bool ok, const char* op, const std::string& file, const std::string& object);

/// Where to write: a group or file, and what to call it in messages.
struct Target {
  const Context* ctx = nullptr;
  const std::string* file = nullptr;
  hid_t id = H5I_INVALID_HID;
  std::string path;
  WriteOptions options;
  const char* op = "write_h5ad";  ///< starts messages
};

/// How to link an object of this name; makes groups on the way, for names with slashes.
Id create_links(std::string_view name);
Target group(const Target& parent, const std::string& name, Id& keep);
void write_attribute(const Target& t, hid_t object, const char* name, std::string_view text);
void write_attribute(const Target& t, hid_t object, const char* name, const std::vector<std::string>& texts);
void write_attribute(const Target& t, hid_t object, const char* name, const std::vector<std::int64_t>& values);
void write_attribute(const Target& t, hid_t object, const char* name, const std::vector<double>& values);
void write_attribute(const Target& t, hid_t object, const char* name, bool value);
void write_attribute(const Target& t, hid_t object, const char* name, std::int64_t value);
void write_attribute(const Target& t, hid_t object, const char* name, double value);
void write_encoding(const Target& t, hid_t object, const char* type, const char* version);
/// Copies attributes that `object` does not have yet.
void copy_attributes(const Target& t, hid_t from, hid_t object);

Id string_type();
/// h5py's boolean: an enumeration over int8.
Id bool_type();
/// File type of a numpy dtype name ("uint16", "float16", "bool"); invalid Id for an unknown name.
Id type_of_name(std::string_view numpy_name);

/// Writes a dataset whose memory and file type are the same `type`. dims empty: a scalar. Large ones are cut into
/// chunks, shuffled and deflated by ctx's threads; bytes in the file do not depend on their number.
Id write_dataset(const Target& t, const std::string& name, hid_t type, const std::vector<std::int64_t>& dims,
                 bool growable, const FillRows& fill);
Id write_strings(const Target& t, const std::string& name, const std::vector<std::int64_t>& dims,
                 const std::vector<std::string>& values);

}  // namespace h5
}  // namespace scw::io
