#include "io/hdf5.hpp"

#include <fcntl.h>
#include <libdeflate.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "core/parallel.hpp"
#include "io/lzf.hpp"

namespace scw::io {
namespace h5 {
namespace {

constexpr H5Z_filter_t kLzf = 32000;           // as h5py registers it
constexpr std::int64_t kMaxExpansion = 1040;   // deflate cannot do better than 1032 to 1
constexpr std::int64_t kFreeBytes = 64 << 20;  // declared sizes below this are not questioned
constexpr std::int64_t kBlockBytes = 1 << 20;
constexpr std::int64_t kChunkBytes = 1 << 19;
constexpr int kMaxLinks = 1 << 22;

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

std::size_t lzf_filter(unsigned flags, std::size_t, const unsigned*, std::size_t bytes, std::size_t* capacity,
                       void** buffer) {
  const auto* in = static_cast<const std::uint8_t*>(*buffer);
  const bool reverse = (flags & H5Z_FLAG_REVERSE) != 0;
  for (std::size_t room = std::max(bytes, *capacity); room <= bytes * 128 + 4096; room *= 2) {
    auto* out = static_cast<std::uint8_t*>(H5allocate_memory(room, false));
    if (out == nullptr) return 0;
    const auto n = reverse ? lzf_decompress(in, bytes, out, room) : lzf_compress(in, bytes, out, room);
    if (n > 0) {
      H5free_memory(*buffer);
      *buffer = out;
      *capacity = room;
      return static_cast<std::size_t>(n);
    }
    H5free_memory(out);
  }
  return 0;
}

void register_filters() {
  static const bool done = [] {
    if (H5Zfilter_avail(kLzf) <= 0) {
      static const H5Z_class2_t lzf{H5Z_CLASS_T_VERS, kLzf, 1, 1, "lzf", nullptr, nullptr, &lzf_filter};
      H5Zregister(&lzf);
    }
    return true;
  }();
  static_cast<void>(done);
}

herr_t first_message(unsigned, const H5E_error2_t* e, void* out) {
  *static_cast<std::string*>(out) = e->desc == nullptr ? "" : e->desc;
  return 1;
}

}  // namespace

Session::Session() : lock_(library_mutex()) {
  H5open();
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  register_filters();
}
Session::~Session() {
  H5Eclear2(H5E_DEFAULT);
  H5Eset_auto2(H5E_DEFAULT, print_, print_data_);
}

std::string last_error() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, &first_message, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "no reason given" : text;
}

}  // namespace h5

// ------------------------------------------------------------------------------------------------------------- Source

std::shared_ptr<const Source> Source::open(const char* op, const std::string& path) {
  h5::Session session;
  std::shared_ptr<Source> s(new Source);
  s->op_ = op;
  s->name_ = path;
  // O_NONBLOCK: a named pipe must not keep us waiting.
  s->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  SCW_EXPECT_AS(IoError, s->fd_ >= 0, op, "cannot open '{}' ({})", path, std::strerror(errno));
  SCW_EXPECT_AS(IoError, ::fstat(s->fd_, &s->stat_) == 0, op, "cannot read '{}' ({})", path, std::strerror(errno));
  SCW_EXPECT_AS(IoError, S_ISREG(s->stat_.st_mode), op, "'{}' is not a regular file", path);
  s->size_ = s->stat_.st_size;
  s->check_structure();
  const h5::Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  // Without locks: the file stays open for as long as the data, and others may want to replace it.
  H5Pset_file_locking(access.get(), false, true);
  s->file_ = h5::Id(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()));
  SCW_EXPECT_AS(FormatError, static_cast<bool>(s->file_), op, "'{}' is a damaged HDF5 file ({})", path,
                h5::last_error());
  return s;
}

std::shared_ptr<const Source> Source::open_image(const char* op, Span<const std::byte> image, const std::string& name) {
  h5::Session session;
  std::shared_ptr<Source> s(new Source);
  s->op_ = op;
  s->name_ = name;
  s->image_.assign(image.begin(), image.end());
  s->size_ = image.size;
  s->check_structure();
  const h5::Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  H5Pset_fapl_core(access.get(), 1 << 16, false);
  H5Pset_file_image(access.get(), s->image_.data(), s->image_.size());
  static std::int64_t counter = 0;  // names of open images must differ; guarded by the session
  s->file_ = h5::Id(H5Fopen(fmt::format("scwarp image {}", counter++).c_str(), H5F_ACC_RDONLY, access.get()));
  SCW_EXPECT_AS(FormatError, static_cast<bool>(s->file_), op, "'{}' is a damaged HDF5 file ({})", name,
                h5::last_error());
  return s;
}

/// The superblock may follow a block of the user's at 512, 1024, 2048 and so on; addresses count from it.
void Source::check_structure() {
  char head[8];
  bool found = false;
  for (std::uint64_t at = 0; !found && read_at(at, sizeof head, head); at = at == 0 ? 512 : at * 2) {
    found = std::memcmp(head, "\x89HDF\r\n\x1a\n", 8) == 0;
    if (found) base_ = at;
  }
  SCW_EXPECT_AS(FormatError, found, op_, "'{}' is not an HDF5 file", name_);
  structure_ = std::make_unique<h5::Structure>(
      [this](std::uint64_t address, std::size_t n, void* out) { return read_at(address, n, out); },
      static_cast<std::uint64_t>(size_) - base_);
  try {
    structure_->open();
  } catch (const h5::Structure::Damage& d) {
    detail::fail<FormatError>(op_, "'{}' is a damaged HDF5 file ({})", name_, d.what);
  }
}

void Source::check_object(const std::string& object, std::uint64_t address) const {
  try {
    structure_->check_object(address);
  } catch (const h5::Structure::Damage& d) {
    fail(object, "damaged: {}", d.what);
  }
}

Source::~Source() {
  h5::Session session;
  file_ = h5::Id();
  if (fd_ >= 0) ::close(fd_);
}

bool Source::read_at(std::uint64_t address, std::size_t n, void* out) const {
  const auto size = static_cast<std::uint64_t>(size_);
  if (address > size || base_ > size - address || n > size - address - base_) return false;
  if (n == 0) return true;
  if (fd_ < 0) {
    std::memcpy(out, image_.data() + base_ + address, n);
    return true;
  }
  for (std::size_t done = 0; done < n;) {
    const auto got = ::pread(fd_, static_cast<char*>(out) + done, n - done, static_cast<off_t>(base_ + address + done));
    if (got <= 0) {
      if (got < 0 && errno == EINTR) continue;
      return false;
    }
    done += static_cast<std::size_t>(got);
  }
  return true;
}

bool Source::is_unchanged() const {
  if (fd_ < 0) return true;
  struct stat now {};
  return ::fstat(fd_, &now) == 0 && now.st_size == stat_.st_size && now.st_mtim.tv_sec == stat_.st_mtim.tv_sec &&
         now.st_mtim.tv_nsec == stat_.st_mtim.tv_nsec;
}

namespace h5 {

// -------------------------------------------------------------------------------------------------------------- types

Type describe(Id id) {
  Type t;
  t.id = std::move(id);
  t.size = H5Tget_size(t.id.get());
  const auto integer = [&](hid_t type) {
    const auto bytes = H5Tget_size(type);
    const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
    hid_t native = H5I_INVALID_HID;
    switch (bytes) {
      case 1:
        native = is_signed ? H5T_NATIVE_INT8 : H5T_NATIVE_UINT8;
        break;
      case 2:
        native = is_signed ? H5T_NATIVE_INT16 : H5T_NATIVE_UINT16;
        break;
      case 4:
        native = is_signed ? H5T_NATIVE_INT32 : H5T_NATIVE_UINT32;
        break;
      case 8:
        native = is_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64;
        break;
      default:
        return;
    }
    t.is_signed = is_signed;
    t.kind = Kind::integer;
    t.native = H5Tequal(type, native) > 0;
    t.name = fmt::format("{}int{}", is_signed ? "" : "u", bytes * 8);
  };
  switch (H5Tget_class(t.id.get())) {
    case H5T_INTEGER:
      integer(t.id.get());
      break;
    case H5T_FLOAT:
      t.is_signed = true;
      t.kind = Kind::floating;
      t.native = H5Tequal(t.id.get(), H5T_NATIVE_FLOAT) > 0 || H5Tequal(t.id.get(), H5T_NATIVE_DOUBLE) > 0;
      t.name = fmt::format("float{}", t.size * 8);
      break;
    case H5T_STRING:
      t.kind = Kind::string;
      t.variable = H5Tis_variable_str(t.id.get()) > 0;
      t.padding = H5Tget_strpad(t.id.get());
      t.name = t.variable ? "text" : "fixed-length text";
      break;
    case H5T_COMPOUND:
      t.kind = Kind::compound;
      t.name = "compound";
      break;
    case H5T_ENUM: {
      // h5py's boolean and nothing else
      const Id super(H5Tget_super(t.id.get()));
      std::int8_t yes = 0, no = 1;
      if (H5Tget_nmembers(t.id.get()) == 2 && H5Tequal(super.get(), H5T_NATIVE_INT8) > 0 &&
          H5Tenum_valueof(t.id.get(), "TRUE", &yes) >= 0 && H5Tenum_valueof(t.id.get(), "FALSE", &no) >= 0 &&
          yes == 1 && no == 0) {
        t.kind = Kind::boolean;
        t.native = true;
        t.name = "bool";
      } else {
        t.name = "enumeration";
      }
      break;
    }
    case H5T_VLEN:
      t.name = "variable-length sequence";
      break;
    case H5T_REFERENCE:
      t.name = "reference";
      break;
    default:
      t.name = "type that scwarp does not know";
      break;
  }
  H5Eclear2(H5E_DEFAULT);
  return t;
}

Id string_type() {
  Id t(H5Tcopy(H5T_C_S1));
  H5Tset_size(t.get(), H5T_VARIABLE);
  H5Tset_cset(t.get(), H5T_CSET_UTF8);
  return t;
}
Id bool_type() {
  Id t(H5Tenum_create(H5T_NATIVE_INT8));
  std::int8_t value = 0;
  H5Tenum_insert(t.get(), "FALSE", &value);
  value = 1;
  H5Tenum_insert(t.get(), "TRUE", &value);
  return t;
}
Id type_of_name(std::string_view name) {
  const std::pair<std::string_view, hid_t> known[] = {{"int8", H5T_NATIVE_INT8},     {"uint8", H5T_NATIVE_UINT8},
                                                      {"int16", H5T_NATIVE_INT16},   {"uint16", H5T_NATIVE_UINT16},
                                                      {"int32", H5T_NATIVE_INT32},   {"uint32", H5T_NATIVE_UINT32},
                                                      {"int64", H5T_NATIVE_INT64},   {"uint64", H5T_NATIVE_UINT64},
                                                      {"float32", H5T_NATIVE_FLOAT}, {"float64", H5T_NATIVE_DOUBLE}};
  for (const auto& [n, type] : known)
    if (n == name) return Id(H5Tcopy(type));
  if (name == "bool") return bool_type();
  if (name == "float16") {
    Id t(H5Tcopy(H5T_IEEE_F32LE));
    H5Tset_fields(t.get(), 15, 10, 5, 0, 10);
    H5Tset_size(t.get(), 2);
    H5Tset_ebias(t.get(), 15);
    return t;
  }
  return Id();
}

// ----------------------------------------------------------------------------------------------------- groups and
// links

namespace {

Node open_node(const Source& source, hid_t parent, const std::string& name, std::string path) {
  Node node;
  node.source = &source;
  node.path = std::move(path);
  node.id = Id(H5Oopen(parent, name.c_str(), H5P_DEFAULT));
  if (!node.id) node.fail("cannot be opened ({})", last_error());
  const auto kind = H5Iget_type(node.id.get());
  if (kind != H5I_GROUP && kind != H5I_DATASET) node.fail("neither a group nor a dataset");
  node.is_group = kind == H5I_GROUP;
  H5O_info_t info{};
  if (H5Oget_info2(node.id.get(), &info, H5O_INFO_BASIC) < 0) node.fail("damaged ({})", last_error());
  node.address = info.addr;
  return node;
}

herr_t collect_link(hid_t, const char* name, const H5L_info_t* info, void* out) {
  auto& all = *static_cast<std::vector<Link>*>(out);
  if (all.size() >= kMaxLinks) return -1;
  try {
    all.push_back({name, info->type == H5L_TYPE_HARD});
  } catch (...) {
    return -1;
  }
  return 0;
}

}  // namespace

Node root(const Source& source) { return open_node(source, source.file(), "/", "/"); }

std::optional<Node> find(const Node& group, const std::string& name) {
  if (!group.is_group) group.fail("is a dataset (expected a group with '{}')", name);
  const auto slash = name.find('/');
  const std::string first = name.substr(0, slash);
  const std::string path = (group.path == "/" ? "" : group.path) + "/" + first;
  if (first.empty() || first == "." || first.find('\0') != std::string::npos) return std::nullopt;
  if (H5Lexists(group.id.get(), first.c_str(), H5P_DEFAULT) <= 0) {
    H5Eclear2(H5E_DEFAULT);
    return std::nullopt;
  }
  H5L_info_t info{};
  if (H5Lget_info(group.id.get(), first.c_str(), &info, H5P_DEFAULT) < 0)
    group.source->fail(path, "damaged link ({})", last_error());
  if (info.type != H5L_TYPE_HARD)
    group.source->fail(path, "is a {} link; scwarp reads what is in the file itself",
                       info.type == H5L_TYPE_SOFT ? "soft" : "external");
  group.source->check_object(path, info.u.address);
  Node node = open_node(*group.source, group.id.get(), first, path);
  if (slash == std::string::npos) return node;
  if (!node.is_group) return std::nullopt;
  return find(node, name.substr(slash + 1));
}

Node child(const Node& group, const std::string& name) {
  auto node = find(group, name);
  if (!node) group.fail("has no '{}'", name);
  return std::move(*node);
}

std::vector<Link> links(const Node& group) {
  std::vector<Link> all;
  hsize_t at = 0;
  // In the order of the file: to sort them, the library builds a table that it cannot take down when a member is
  // damaged.
  if (H5Literate(group.id.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &at, &collect_link, &all) < 0)
    group.fail("its list of members is damaged ({})", last_error());
  std::sort(all.begin(), all.end(), [](const Link& a, const Link& b) { return a.name < b.name; });
  return all;
}

// --------------------------------------------------------------------------------------------------------- attributes

namespace {

struct Attribute {
  Id id, space;
  Type type;
  std::int64_t count = 0;
};

std::optional<Attribute> attribute(const Node& node, const char* name) {
  if (!has_attribute(node, name)) return std::nullopt;
  Attribute a;
  a.id = Id(H5Aopen(node.id.get(), name, H5P_DEFAULT));
  if (!a.id) node.fail("attribute '{}' is damaged ({})", name, last_error());
  a.space = Id(H5Aget_space(a.id.get()));
  a.type = describe(Id(H5Aget_type(a.id.get())));
  a.count = H5Sget_simple_extent_npoints(a.space.get());
  if (H5Sget_simple_extent_type(a.space.get()) == H5S_NULL) a.count = 0;
  constexpr std::int64_t kMaxCount = 1 << 22;
  const auto storage = static_cast<std::int64_t>(H5Aget_storage_size(a.id.get()));
  if (a.count < 0 || a.count > kMaxCount || storage > node.source->size())
    node.fail("attribute '{}' declares an implausible size", name);
  return a;
}

}  // namespace

bool has_attribute(const Node& node, const char* name) {
  const bool found = H5Aexists(node.id.get(), name) > 0;
  H5Eclear2(H5E_DEFAULT);
  return found;
}

std::optional<std::vector<std::string>> texts_attribute(const Node& node, const char* name) {
  const auto a = attribute(node, name);
  if (!a) return std::nullopt;
  std::vector<std::string> out;
  if (a->count == 0) return out;
  if (a->type.kind != Kind::string) node.fail("attribute '{}' is of type {} (expected text)", name, a->type.name);
  if (a->type.variable) {
    const Id memory(H5Tcopy(a->type.id.get()));
    std::vector<char*> values(static_cast<std::size_t>(a->count), nullptr);
    if (H5Aread(a->id.get(), memory.get(), values.data()) < 0)
      node.fail("attribute '{}' cannot be read ({})", name, last_error());
    for (const char* v : values) out.emplace_back(v == nullptr ? "" : v);
    H5Dvlen_reclaim(memory.get(), a->space.get(), H5P_DEFAULT, values.data());
    return out;
  }
  const auto size = a->type.size;
  if (static_cast<std::int64_t>(size) > node.source->size())
    node.fail("attribute '{}' declares an implausible size", name);
  std::vector<char> values(size * static_cast<std::size_t>(a->count));
  if (H5Aread(a->id.get(), a->type.id.get(), values.data()) < 0)
    node.fail("attribute '{}' cannot be read ({})", name, last_error());
  for (std::int64_t i = 0; i < a->count; ++i) {
    const char* v = values.data() + static_cast<std::size_t>(i) * size;
    out.emplace_back(v, strnlen(v, size));
  }
  return out;
}

std::optional<std::string> text_attribute(const Node& node, const char* name) {
  auto all = texts_attribute(node, name);
  if (!all) return std::nullopt;
  if (all->size() != 1) node.fail("attribute '{}' has {} values (expected 1)", name, all->size());
  return std::move(all->front());
}

std::optional<std::vector<std::int64_t>> integers_attribute(const Node& node, const char* name) {
  const auto a = attribute(node, name);
  if (!a) return std::nullopt;
  std::vector<std::int64_t> out(static_cast<std::size_t>(a->count));
  if (a->count == 0) return out;
  if (a->type.kind == Kind::boolean) {
    std::vector<std::int8_t> flags(out.size());
    if (H5Aread(a->id.get(), a->type.id.get(), flags.data()) < 0)
      node.fail("attribute '{}' cannot be read ({})", name, last_error());
    std::copy(flags.begin(), flags.end(), out.begin());
    return out;
  }
  if (a->type.kind != Kind::integer) node.fail("attribute '{}' is of type {} (expected integers)", name, a->type.name);
  if (H5Aread(a->id.get(), H5T_NATIVE_INT64, out.data()) < 0)
    node.fail("attribute '{}' cannot be read ({})", name, last_error());
  return out;
}

// ----------------------------------------------------------------------------------------------------------- datasets

Dataset dataset(Node node) {
  if (node.is_group) node.fail("is a group (expected a dataset)");
  Dataset d;
  d.source = node.source;
  d.path = std::move(node.path);
  d.id = std::move(node.id);
  d.address = node.address;
  d.space = Id(H5Dget_space(d.id.get()));
  d.plist = Id(H5Dget_create_plist(d.id.get()));
  d.type = describe(Id(H5Dget_type(d.id.get())));
  if (!d.space || !d.plist || !d.type.id || d.type.size == 0) d.fail("damaged ({})", last_error());
  d.is_null = H5Sget_simple_extent_type(d.space.get()) == H5S_NULL;
  const int rank = H5Sget_simple_extent_ndims(d.space.get());
  if (rank < 0) d.fail("damaged ({})", last_error());
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  if (rank > 0 && H5Sget_simple_extent_dims(d.space.get(), dims.data(), nullptr) < 0)
    d.fail("damaged ({})", last_error());
  const auto layout = H5Pget_layout(d.plist.get());
  if (layout == H5D_VIRTUAL) d.fail("is a virtual dataset; scwarp reads what is in the file itself");
  if (H5Pget_external_count(d.plist.get()) > 0)
    d.fail("is stored in another file; scwarp reads what is in the file itself");

  d.count = d.is_null ? 0 : 1;
  bool fits = true;
  for (const hsize_t n : dims) {
    fits = fits && n <= static_cast<hsize_t>(INT64_MAX) &&
           !__builtin_mul_overflow(d.count, static_cast<std::int64_t>(n), &d.count);
    d.dims.push_back(static_cast<std::int64_t>(n));
  }
  std::int64_t declared = 0;
  fits = fits && !__builtin_mul_overflow(d.count, static_cast<std::int64_t>(d.type.size), &declared);
  if (!fits) d.fail("declares more elements than 64 bits can count");
  if (d.count == 0) return d;
  const auto stored = static_cast<std::int64_t>(std::min<hsize_t>(H5Dget_storage_size(d.id.get()), INT64_MAX));
  if (stored > d.source->size() || (declared > kFreeBytes && declared / kMaxExpansion > stored))
    d.fail("declares {} bytes, but stores {} in a file of {}", declared, stored, d.source->size());
  return d;
}

namespace {

/// Undoes the filters of raw chunks.
class Unpacker {
 public:
  Unpacker() = default;
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;
  ~Unpacker() {
    if (deflate_ != nullptr) libdeflate_free_decompressor(deflate_);
  }
  std::vector<std::byte> packed, plain, spare;

  /// packed -> plain, which gets `bytes` bytes; false if the chunk is damaged.
  bool unpack(const std::vector<H5Z_filter_t>& filters, unsigned skipped, std::size_t bytes, std::size_t element) {
    std::size_t have = packed.size();
    const std::byte* from = packed.data();
    plain.resize(bytes);
    spare.resize(bytes);
    std::byte* to = plain.data();
    for (std::size_t k = filters.size(); k-- > 0;) {
      if ((skipped >> k & 1U) != 0) continue;
      if (filters[k] == H5Z_FILTER_SHUFFLE) {
        if (have != bytes) return false;
        unshuffle(from, to, bytes, element);
      } else if (filters[k] == H5Z_FILTER_DEFLATE) {
        if (deflate_ == nullptr) deflate_ = libdeflate_alloc_decompressor();
        std::size_t got = 0;
        if (deflate_ == nullptr ||
            libdeflate_zlib_decompress(deflate_, from, have, to, bytes, &got) != LIBDEFLATE_SUCCESS || got != bytes)
          return false;
      } else {
        const auto got = lzf_decompress(reinterpret_cast<const std::uint8_t*>(from), have,
                                        reinterpret_cast<std::uint8_t*>(to), bytes);
        if (got != static_cast<std::int64_t>(bytes)) return false;
      }
      have = bytes;
      from = to;
      to = to == plain.data() ? spare.data() : plain.data();
    }
    if (have != bytes) return false;
    if (from == packed.data())
      std::memcpy(plain.data(), from, bytes);
    else if (from == spare.data())
      plain.swap(spare);
    return true;
  }

 private:
  static void unshuffle(const std::byte* in, std::byte* out, std::size_t bytes, std::size_t element) {
    const std::size_t n = bytes / element;
    if (element == 4) {
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t b = 0; b < 4; ++b) out[i * 4 + b] = in[b * n + i];
    } else if (element == 8) {
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t b = 0; b < 8; ++b) out[i * 8 + b] = in[b * n + i];
    } else {
      for (std::size_t b = 0; b < element; ++b)
        for (std::size_t i = 0; i < n; ++i) out[i * element + b] = in[b * n + i];
    }
    std::memcpy(out + n * element, in + n * element, bytes - n * element);
  }
  libdeflate_decompressor* deflate_ = nullptr;
};

/// The filters of a chunked dataset; nothing if we cannot undo one ourselves. Throws if HDF5 cannot either.
std::optional<std::vector<H5Z_filter_t>> own_filters(const Dataset& d) {
  std::vector<H5Z_filter_t> out;
  bool ours = true;
  const int n = H5Pget_nfilters(d.plist.get());
  for (int k = 0; k < n; ++k) {
    unsigned flags = 0, config = 0;
    std::size_t n_values = 0;
    char name[64] = "";
    const auto id =
        H5Pget_filter2(d.plist.get(), static_cast<unsigned>(k), &flags, &n_values, nullptr, sizeof name, name, &config);
    if (id < 0) d.fail("its filters are damaged ({})", last_error());
    out.push_back(id);
    ours = ours && (id == H5Z_FILTER_DEFLATE || id == H5Z_FILTER_SHUFFLE || id == kLzf);
    if (H5Zfilter_avail(id) <= 0)
      d.fail<NotSupported>(
          "is compressed by filter {} ('{}'), which is not installed (gzip, lzf and none are built in)", id,
          std::string_view(name, strnlen(name, sizeof name)));
  }
  if (!ours || n > 8) return std::nullopt;
  return out;
}

struct Workers {
  explicit Workers(const Context& ctx) : all(static_cast<std::size_t>(std::max(1, ctx.n_threads))) {}
  Unpacker& operator[](int worker) { return all[static_cast<std::size_t>(worker)]; }
  std::vector<Unpacker> all;
  std::mutex library;  // workers take turns in the library
};

bool read_chunks(const Context& ctx, const Dataset& d, std::size_t element_bytes,
                 const std::function<void(const Block&)>& body) {
  const auto filters = own_filters(d);
  const std::size_t rank = d.dims.size();
  if (!filters || rank < 1 || rank > 2) return false;
  hsize_t shape[2] = {1, 1};
  if (H5Pget_chunk(d.plist.get(), static_cast<int>(rank), shape) != static_cast<int>(rank)) return false;
  const std::int64_t rows = d.dims[0], cols = rank == 2 ? d.dims[1] : 1;
  const auto chunk_rows = static_cast<std::int64_t>(shape[0]), chunk_cols = static_cast<std::int64_t>(shape[1]);
  if (chunk_rows <= 0 || chunk_cols <= 0 || chunk_rows >= INT64_C(1) << 32 || chunk_cols >= INT64_C(1) << 32)
    return false;
  std::int64_t chunk_bytes = 0;
  if (__builtin_mul_overflow(chunk_rows * chunk_cols, static_cast<std::int64_t>(element_bytes), &chunk_bytes) ||
      chunk_bytes >= INT64_C(1) << 32)
    return false;
  const std::int64_t across = (cols + chunk_cols - 1) / chunk_cols, down = (rows + chunk_rows - 1) / chunk_rows;
  // Chunks never written hold the fill value.
  std::vector<std::byte> fill(element_bytes);
  H5D_fill_value_t fill_status{};
  if (d.type.kind != Kind::string && H5Pfill_value_defined(d.plist.get(), &fill_status) >= 0 &&
      fill_status == H5D_FILL_VALUE_USER_DEFINED && H5Tget_size(d.type.id.get()) == element_bytes)
    H5Pget_fill_value(d.plist.get(), d.type.id.get(), fill.data());
  Workers workers(ctx);
  parallel_chunks(ctx, checked_mul(across, down), 1, [&](std::int64_t c, std::int64_t, std::int64_t, int worker) {
    Unpacker& u = workers[worker];
    Block b;
    b.row = c / across * chunk_rows;
    b.col = c % across * chunk_cols;
    b.n_rows = std::min(chunk_rows, rows - b.row);
    b.n_cols = std::min(chunk_cols, cols - b.col);
    b.ld = chunk_cols;
    const hsize_t offset[2] = {static_cast<hsize_t>(b.row), static_cast<hsize_t>(b.col)};
    std::uint32_t skipped = 0;
    hsize_t stored = 0;
    {
      const std::lock_guard lock(workers.library);
      if (H5Dget_chunk_storage_size(d.id.get(), offset, &stored) < 0) {
        H5Eclear2(H5E_DEFAULT);
        stored = 0;
      }
      if (stored > static_cast<hsize_t>(d.source->size()))
        d.fail("the chunk at ({}, {}) declares {} bytes in a file of {}", b.row, b.col, stored, d.source->size());
      u.packed.resize(static_cast<std::size_t>(stored));
      if (stored > 0 && H5Dread_chunk(d.id.get(), H5P_DEFAULT, offset, &skipped, u.packed.data()) < 0)
        d.fail("the chunk at ({}, {}) cannot be read ({})", b.row, b.col, last_error());
    }
    if (stored == 0) {
      u.plain.resize(static_cast<std::size_t>(b.n_rows * b.ld) * element_bytes);
      for (std::size_t k = 0; k < u.plain.size(); k += element_bytes)
        std::memcpy(u.plain.data() + k, fill.data(), element_bytes);
    } else {
      if (chunk_bytes > kFreeBytes && chunk_bytes / kMaxExpansion > static_cast<std::int64_t>(stored))
        d.fail("the chunk at ({}, {}) declares {} bytes, but stores {}", b.row, b.col, chunk_bytes, stored);
      if (!u.unpack(*filters, skipped, static_cast<std::size_t>(chunk_bytes), element_bytes))
        d.fail("the chunk at ({}, {}) is damaged", b.row, b.col);
    }
    b.data = u.plain.data();
    body(b);
  });
  return true;
}

}  // namespace

void read_blocks(const Context& ctx, const Dataset& d, hid_t memory_type, std::size_t element_bytes,
                 const std::function<void(const Block&)>& body) {
  if (d.count == 0) return;
  const auto layout = H5Pget_layout(d.plist.get());
  const bool as_stored = memory_type == H5I_INVALID_HID || d.type.native;
  if (layout == H5D_CHUNKED && as_stored && read_chunks(ctx, d, element_bytes, body)) return;
  const std::int64_t rows = d.dims.empty() ? 1 : d.dims[0];
  const std::int64_t cols = d.count / rows;
  const std::int64_t row_bytes = checked_mul(cols, static_cast<std::int64_t>(element_bytes));
  std::int64_t step = std::max<std::int64_t>(1, kBlockBytes / row_bytes);
  Workers workers(ctx);
  const auto each = [&](auto&& get) {
    parallel_chunks(ctx, rows, step, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
      auto& buffer = workers[worker].plain;
      buffer.resize(static_cast<std::size_t>(checked_mul(end - begin, row_bytes)));
      get(begin, end, buffer);
      body({buffer.data(), begin, 0, end - begin, cols, cols});
    });
  };
  const haddr_t offset = layout == H5D_CONTIGUOUS && as_stored ? H5Dget_offset(d.id.get()) : HADDR_UNDEF;
  H5Eclear2(H5E_DEFAULT);
  if (offset != HADDR_UNDEF) {
    each([&](std::int64_t begin, std::int64_t, std::vector<std::byte>& buffer) {
      if (!d.source->read_at(offset + static_cast<std::uint64_t>(begin * row_bytes), buffer.size(), buffer.data()))
        d.fail("the file ends before row {}", begin);
    });
    return;
  }
  if (layout == H5D_CHUNKED) {
    own_filters(d);
    hsize_t shape[H5S_MAX_RANK];
    if (H5Pget_chunk(d.plist.get(), H5S_MAX_RANK, shape) > 0 && shape[0] > 0 && shape[0] < (hsize_t{1} << 32)) {
      const auto c = static_cast<std::int64_t>(shape[0]);
      step = (step + c - 1) / c * c;
    }
  }
  std::vector<hsize_t> count(d.dims.begin(), d.dims.end());
  each([&](std::int64_t begin, std::int64_t end, std::vector<std::byte>& buffer) {
    const std::lock_guard lock(workers.library);
    const hid_t type = memory_type == H5I_INVALID_HID ? d.type.id.get() : memory_type;
    const hsize_t n = static_cast<hsize_t>((end - begin) * cols);
    const Id memory(H5Screate_simple(1, &n, nullptr));
    const Id file(H5Scopy(d.space.get()));
    if (!d.dims.empty()) {
      std::vector<hsize_t> start(count.size(), 0), extent(count);
      start[0] = static_cast<hsize_t>(begin);
      extent[0] = static_cast<hsize_t>(end - begin);
      H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
    }
    if (H5Dread(d.id.get(), type, memory.get(), file.get(), H5P_DEFAULT, buffer.data()) < 0)
      d.fail("rows {} to {} cannot be read ({})", begin, end, last_error());
  });
}

namespace {

/// Converts n values; true if all fit.
template <class Dst, class Src>
bool convert(const Src* in, Dst* out, std::int64_t n) {
  if constexpr (std::is_same_v<Src, Dst>) {
    std::memcpy(out, in, static_cast<std::size_t>(n) * sizeof(Dst));
    return true;
  } else if constexpr (std::is_integral_v<Src> && std::is_integral_v<Dst>) {
    bool ok = true;
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = static_cast<Dst>(in[i]);
      ok &= std::in_range<Dst>(in[i]);
    }
    return ok;
  } else if constexpr (std::is_integral_v<Src>) {
    // Integers up to 2^24 (2^53) are exact in float (double); larger ones are asked for more room, also when they
    // happen to be exact.
    constexpr std::int64_t kExact = std::int64_t{1} << (std::is_same_v<Dst, float> ? 24 : 53);
    bool ok = true;
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = static_cast<Dst>(in[i]);
      if constexpr (sizeof(Src) >= 4) {
        if constexpr (std::is_signed_v<Src>)
          ok &= in[i] <= kExact && in[i] >= -kExact;
        else
          ok &= in[i] <= static_cast<std::uint64_t>(kExact);
      }
    }
    return ok;
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<Dst>(in[i]);
    return true;
  }
}

template <class F>
void visit_integer(const Type& t, F&& f) {
  if (t.kind == Kind::boolean) return f(std::int8_t{});
  if (t.is_signed) switch (t.size) {
      case 1:
        return f(std::int8_t{});
      case 2:
        return f(std::int16_t{});
      case 4:
        return f(std::int32_t{});
      default:
        return f(std::int64_t{});
    }
  switch (t.size) {
    case 1:
      return f(std::uint8_t{});
    case 2:
      return f(std::uint16_t{});
    case 4:
      return f(std::uint32_t{});
    default:
      return f(std::uint64_t{});
  }
}

}  // namespace

template <class T>
bool read_numbers(const Context& ctx, const Dataset& d, T* out) {
  std::atomic<bool> fits{true};
  const std::int64_t cols = d.dims.empty() || d.count == 0 ? 1 : d.count / d.dims[0];
  const auto read = [&]<class Src>(Src) {
    const hid_t memory = d.type.kind == Kind::boolean ? d.type.id.get() : native_type<Src>();
    read_blocks(ctx, d, memory, sizeof(Src), [&](const Block& b) {
      const auto* in = reinterpret_cast<const Src*>(b.data);
      bool ok = true;
      if (b.n_cols == cols && b.ld == cols) {
        ok = convert(in, out + b.row * cols, b.n_rows * cols);
      } else {
        for (std::int64_t i = 0; i < b.n_rows; ++i)
          ok &= convert(in + i * b.ld, out + (b.row + i) * cols + b.col, b.n_cols);
      }
      if (!ok) fits = false;
    });
  };
  if (d.type.kind == Kind::integer || d.type.kind == Kind::boolean) {
    visit_integer(d.type, read);
  } else if (d.type.kind == Kind::floating && std::is_floating_point_v<T>) {
    if (d.type.size <= 4)
      read(float{});
    else
      read(double{});
  } else {
    d.fail("is of type {} (expected {})", d.type.name, std::is_floating_point_v<T> ? "numbers" : "integers");
  }
  return fits;
}
template bool read_numbers(const Context&, const Dataset&, std::uint8_t*);
template bool read_numbers(const Context&, const Dataset&, std::int32_t*);
template bool read_numbers(const Context&, const Dataset&, std::int64_t*);
template bool read_numbers(const Context&, const Dataset&, float*);
template bool read_numbers(const Context&, const Dataset&, double*);

namespace {

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

/// Objects of the global heap, which holds variable-length strings. We read it ourselves: the library allocates each
/// string separately, and trusts the lengths that it finds.
class GlobalHeap {
 public:
  explicit GlobalHeap(const Dataset& d) : d_(d) {}
  std::string_view get(std::uint64_t address, std::uint32_t index, std::uint32_t length) {
    Collection& c = collection(address);
    const auto it = c.objects.find(index);
    if (it == c.objects.end() || length > it->second.second)
      d_.fail("text {} of the heap at {} is not there or too short", index, address);
    used_ += length;
    if (used_ > d_.source->size() + kFreeBytes) d_.fail("its texts are longer than the file");
    return {reinterpret_cast<const char*>(c.bytes.data()) + it->second.first, length};
  }

 private:
  struct Collection {
    std::vector<std::byte> bytes;
    std::unordered_map<std::uint32_t, std::pair<std::size_t, std::uint64_t>> objects;
  };
  Collection& collection(std::uint64_t address) {
    if (last_ != nullptr && last_address_ == address) return *last_;
    const auto known = all_.find(address);
    last_ = known != all_.end() ? &known->second : &load_collection(address);
    last_address_ = address;
    return *last_;
  }
  Collection& load_collection(std::uint64_t address) {
    std::byte head[16];
    const auto damaged = [&] { d_.fail("the heap of texts at {} is damaged", address); };
    if (!d_.source->read_at(address, sizeof head, head) || std::memcmp(head, "GCOL\x01", 5) != 0) damaged();
    const auto size = load<std::uint64_t>(head + 8);
    loaded_ += static_cast<std::int64_t>(std::min<std::uint64_t>(size, INT64_MAX / 2));
    if (size < 16 || size > static_cast<std::uint64_t>(d_.source->size())) damaged();
    if (loaded_ > d_.source->size() + kFreeBytes) damaged();  // collections overlap
    Collection c;
    c.bytes.resize(size);
    if (!d_.source->read_at(address, size, c.bytes.data())) damaged();
    for (std::size_t at = 16; size - at >= 16;) {
      const auto index = load<std::uint16_t>(c.bytes.data() + at);
      const auto length = load<std::uint64_t>(c.bytes.data() + at + 8);
      if (index == 0) break;  // the rest is free
      at += 16;
      if (length > size - at) damaged();
      c.objects.emplace(index, std::pair{at, length});
      at += std::min<std::size_t>((length + 7) / 8 * 8, size - at);
    }
    return all_.insert_or_assign(address, std::move(c)).first->second;
  }
  const Dataset& d_;
  std::unordered_map<std::uint64_t, Collection> all_;
  Collection* last_ = nullptr;
  std::uint64_t last_address_ = 0;
  std::int64_t used_ = 0, loaded_ = 0;
};

std::string_view cut(std::string_view text, H5T_str_t padding) {
  if (padding == H5T_STR_NULLTERM) return text.substr(0, text.find('\0'));
  const char pad = padding == H5T_STR_SPACEPAD ? ' ' : '\0';
  const auto last = text.find_last_not_of(pad);
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

constexpr std::size_t kReferenceBytes = 16;  // length, address of the heap, number in it

/// All elements as they are stored, in order.
std::vector<std::byte> stored_bytes(const Context& ctx, const Dataset& d, std::size_t element_bytes) {
  if (!has_readable_texts(d)) d.fail<NotSupported>("its texts are stored in a way that scwarp does not read");
  const auto size = static_cast<std::int64_t>(element_bytes);
  const std::int64_t cols = d.dims.empty() ? 1 : d.count / d.dims[0];
  std::vector<std::byte> out(static_cast<std::size_t>(checked_mul(d.count, size)));
  read_blocks(ctx, d, H5I_INVALID_HID, element_bytes, [&](const Block& b) {
    for (std::int64_t i = 0; i < b.n_rows; ++i)
      std::memcpy(out.data() + ((b.row + i) * cols + b.col) * size, b.data + i * b.ld * size,
                  static_cast<std::size_t>(b.n_cols * size));
  });
  return out;
}

std::vector<std::string> texts_of(const Dataset& d, const std::vector<std::byte>& bytes, std::size_t offset,
                                  std::size_t stride) {
  GlobalHeap heap(d);
  std::vector<std::string> out;
  out.reserve(bytes.size() / stride);
  for (std::size_t at = offset; at < bytes.size(); at += stride) {
    const std::byte* r = bytes.data() + at;
    const auto length = load<std::uint32_t>(r);
    const auto address = load<std::uint64_t>(r + 4);
    if (length == 0 || address == 0 || address == UINT64_MAX) {
      out.emplace_back();
    } else {
      const auto text = heap.get(address, load<std::uint32_t>(r + 12), length);
      out.emplace_back(text.substr(0, text.find('\0')));
    }
  }
  return out;
}

}  // namespace

bool has_readable_texts(const Dataset& d) {
  if (d.count == 0 || (d.type.kind == Kind::string && !d.type.variable)) return true;
  const auto layout = H5Pget_layout(d.plist.get());
  const bool ours = (layout == H5D_CHUNKED && d.dims.size() <= 2 && own_filters(d)) ||
                    (layout == H5D_CONTIGUOUS && H5Dget_offset(d.id.get()) != HADDR_UNDEF);
  H5Eclear2(H5E_DEFAULT);
  return ours;
}

std::vector<std::string> read_strings(const Context& ctx, const Dataset& d) {
  if (d.type.kind != Kind::string) d.fail("is of type {} (expected text)", d.type.name);
  const auto n = static_cast<std::size_t>(d.count);
  std::vector<std::string> out;
  if (n == 0) return out;
  const std::int64_t cols = d.dims.empty() ? 1 : d.count / d.dims[0];
  const auto place = [cols](const Block& b, std::int64_t i, std::int64_t j) {
    return static_cast<std::size_t>((b.row + i) * cols + b.col + j);
  };
  if (!d.type.variable) {
    out.resize(n);
    read_blocks(ctx, d, H5I_INVALID_HID, d.type.size, [&](const Block& b) {
      for (std::int64_t i = 0; i < b.n_rows; ++i)
        for (std::int64_t j = 0; j < b.n_cols; ++j)
          out[place(b, i, j)] =
              cut({reinterpret_cast<const char*>(b.data) + static_cast<std::size_t>(i * b.ld + j) * d.type.size,
                   d.type.size},
                  d.type.padding);
    });
    return out;
  }
  return texts_of(d, stored_bytes(ctx, d, kReferenceBytes), 0, kReferenceBytes);
}

std::vector<std::string> read_text_field(const Context& ctx, const Dataset& d, const std::string& name) {
  std::size_t record_bytes = 0;
  for (const auto& field : d.source->record(d.address, record_bytes))
    if (field.name == name && field.is_text && field.offset + kReferenceBytes <= record_bytes)
      return d.count == 0 ? std::vector<std::string>{}
                          : texts_of(d, stored_bytes(ctx, d, record_bytes), field.offset, record_bytes);
  d.fail("field '{}' cannot be read", name);
}

// ------------------------------------------------------------------------------------------------------------ writing

void check(bool ok, const char* op, const std::string& file, const std::string& object) {
  if (!ok) detail::fail<IoError>(op, "'{}': object '{}' cannot be written ({})", file, object, last_error());
}

namespace {
constexpr const char* kWrite = "write_h5ad";

void expect(const Target& t, bool ok, std::string_view name) {
  check(ok, kWrite, *t.file, t.path + "/" + std::string(name));
}

void write_attribute_data(const Target& t, hid_t object, const char* name, hid_t type, const Id& space,
                          const void* data) {
  const Id a(H5Acreate2(object, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT));
  expect(t, static_cast<bool>(a) && (data == nullptr || H5Awrite(a.get(), type, data) >= 0), name);
}

}  // namespace

Id create_links(std::string_view name) {
  Id plist(H5Pcreate(H5P_LINK_CREATE));
  // Only where it is needed: it makes HDF5 store the group in a newer form.
  if (std::any_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) > 127; }))
    H5Pset_char_encoding(plist.get(), H5T_CSET_UTF8);
  H5Pset_create_intermediate_group(plist.get(), 1);
  return plist;
}

Target group(const Target& parent, const std::string& name, Id& keep) {
  const Id how = create_links(name);
  keep = Id(H5Gcreate2(parent.id, name.c_str(), how.get(), H5P_DEFAULT, H5P_DEFAULT));
  expect(parent, static_cast<bool>(keep), name);
  Target t = parent;
  t.id = keep.get();
  t.path += "/" + name;
  return t;
}

void write_attribute(const Target& t, hid_t object, const char* name, std::string_view text) {
  const std::string copy(text);
  const char* value = copy.c_str();
  const Id type = string_type();
  write_attribute_data(t, object, name, type.get(), Id(H5Screate(H5S_SCALAR)), &value);
}
void write_attribute(const Target& t, hid_t object, const char* name, const std::vector<std::string>& texts) {
  std::vector<const char*> values;
  values.reserve(texts.size());
  for (const auto& text : texts) values.push_back(text.c_str());
  const Id type = string_type();
  const hsize_t n = texts.size();
  write_attribute_data(t, object, name, type.get(), Id(H5Screate_simple(1, &n, nullptr)),
                       texts.empty() ? nullptr : values.data());
}
void write_attribute(const Target& t, hid_t object, const char* name, const std::vector<std::int64_t>& values) {
  const hsize_t n = values.size();
  write_attribute_data(t, object, name, H5T_NATIVE_INT64, Id(H5Screate_simple(1, &n, nullptr)), values.data());
}
void write_attribute(const Target& t, hid_t object, const char* name, bool value) {
  const Id type = bool_type();
  const std::int8_t v = value ? 1 : 0;
  write_attribute_data(t, object, name, type.get(), Id(H5Screate(H5S_SCALAR)), &v);
}
void write_encoding(const Target& t, hid_t object, const char* type, const char* version) {
  write_attribute(t, object, "encoding-type", std::string_view(type));
  write_attribute(t, object, "encoding-version", std::string_view(version));
}

namespace {
struct AttributeCopy {
  const Target* target;
  hid_t to;
};
herr_t copy_attribute(hid_t from, const char* name, const H5A_info_t*, void* state) {
  const auto& c = *static_cast<AttributeCopy*>(state);
  if (H5Aexists(c.to, name) > 0) return 0;
  // What older layouts said in other words must not contradict the new encoding.
  for (const char* own : {"h5sparse_format", "h5sparse_shape", "encoding-type", "encoding-version", "shape", "_index",
                          "column-order", "ordered", "categories"})
    if (std::strcmp(name, own) == 0) return 0;
  const Id a(H5Aopen(from, name, H5P_DEFAULT));
  const Id type(H5Aget_type(a.get()));
  const Id space(H5Aget_space(a.get()));
  if (!a || !type || !space) return -1;
  if (H5Tdetect_class(type.get(), H5T_REFERENCE) > 0) return 0;  // would point at nothing in the new file
  const Id b(H5Acreate2(c.to, name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT));
  if (!b) return -1;
  const auto n = H5Sget_simple_extent_type(space.get()) == H5S_NULL ? 0 : H5Sget_simple_extent_npoints(space.get());
  if (n <= 0) return 0;
  try {
    std::vector<std::byte> buffer(static_cast<std::size_t>(n) * H5Tget_size(type.get()));
    if (H5Aread(a.get(), type.get(), buffer.data()) < 0) return -1;
    const herr_t written = H5Awrite(b.get(), type.get(), buffer.data());
    H5Dvlen_reclaim(type.get(), space.get(), H5P_DEFAULT, buffer.data());
    return written;
  } catch (...) {
    return -1;
  }
}
}  // namespace

void copy_attributes(const Target& t, hid_t from, hid_t object) {
  AttributeCopy state{&t, object};
  hsize_t at = 0;
  expect(t, H5Aiterate2(from, H5_INDEX_NAME, H5_ITER_INC, &at, &copy_attribute, &state) >= 0, "attributes");
}

namespace {

class Packer {
 public:
  Packer() = default;
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;
  ~Packer() {
    if (deflate_ != nullptr) libdeflate_free_compressor(deflate_);
  }
  std::vector<std::byte> plain, shuffled;

  /// plain -> out
  void pack(int level, std::size_t element, std::vector<std::byte>& out) {
    if (deflate_ == nullptr) deflate_ = libdeflate_alloc_compressor(level);
    SCW_ASSERT(deflate_ != nullptr);
    const std::byte* from = plain.data();
    if (element > 1) {
      shuffled.resize(plain.size());
      const std::size_t n = plain.size() / element;
      for (std::size_t b = 0; b < element; ++b) {
        std::byte* to = shuffled.data() + b * n;
        const std::byte* p = plain.data() + b;
        for (std::size_t i = 0; i < n; ++i) to[i] = p[i * element];
      }
      from = shuffled.data();
    }
    out.resize(libdeflate_zlib_compress_bound(deflate_, plain.size()));
    const auto n = libdeflate_zlib_compress(deflate_, from, plain.size(), out.data(), out.size());
    SCW_ASSERT(n > 0);
    out.resize(n);
  }

 private:
  libdeflate_compressor* deflate_ = nullptr;
};

}  // namespace

Id write_dataset(const Target& t, const std::string& name, hid_t type, const std::vector<std::int64_t>& dims,
                 bool growable, const FillRows& fill) {
  const std::size_t element = H5Tget_size(type);
  const std::int64_t rows = dims.empty() ? 1 : dims[0];
  std::int64_t cols = 1;
  for (std::size_t k = 1; k < dims.size(); ++k) cols = checked_mul(cols, dims[k]);
  const std::int64_t row_bytes = checked_mul(cols, static_cast<std::int64_t>(element));
  const std::int64_t bytes = checked_mul(rows, row_bytes);
  const bool packed = t.options.level > 0 && bytes >= 1024 && !dims.empty() && row_bytes < INT64_C(1) << 31;
  const bool chunked = packed || (growable && rows > 0);
  const Id plist(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(plist.get(), false);  // the same content gives the same bytes
  std::vector<hsize_t> extent(dims.begin(), dims.end()), largest(extent), shape(extent);
  std::int64_t step = std::max<std::int64_t>(1, kChunkBytes / std::max<std::int64_t>(1, row_bytes));
  step = std::min(step, std::max<std::int64_t>(1, rows));
  if (chunked) {
    shape[0] = static_cast<hsize_t>(step);
    H5Pset_chunk(plist.get(), static_cast<int>(shape.size()), shape.data());
    if (growable) largest[0] = H5S_UNLIMITED;
    if (packed) {
      if (element > 1) H5Pset_shuffle(plist.get());
      H5Pset_deflate(plist.get(), static_cast<unsigned>(std::min(t.options.level, 9)));
      H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER);
    }
  }
  const Id space(dims.empty() ? H5Screate(H5S_SCALAR)
                              : H5Screate_simple(static_cast<int>(dims.size()), extent.data(), largest.data()));
  const Id how = create_links(name);
  Id d(H5Dcreate2(t.id, name.c_str(), type, space.get(), how.get(), plist.get(), H5P_DEFAULT));
  expect(t, static_cast<bool>(d), name);
  if (bytes == 0) return d;
  if (!packed) {
    // One block of memory at a time.
    std::vector<std::byte> buffer(static_cast<std::size_t>(step * row_bytes));
    for (std::int64_t first = 0; first < rows; first += step) {
      t.ctx->check_cancelled(kWrite);
      const std::int64_t n = std::min(step, rows - first);
      fill(first, n, buffer.data());
      const Id file(H5Scopy(space.get()));
      if (!dims.empty()) {
        std::vector<hsize_t> start(extent.size(), 0), count(extent);
        start[0] = static_cast<hsize_t>(first);
        count[0] = static_cast<hsize_t>(n);
        H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
      }
      const hsize_t count = static_cast<hsize_t>(n * cols);
      const Id memory(H5Screate_simple(1, &count, nullptr));
      expect(t, H5Dwrite(d.get(), type, memory.get(), file.get(), H5P_DEFAULT, buffer.data()) >= 0, name);
    }
    return d;
  }
  // Batches of a fixed number of chunks are packed in parallel, then stored in order.
  constexpr std::int64_t kBatch = 32;
  const std::int64_t chunks = (rows + step - 1) / step;
  std::vector<std::vector<std::byte>> out(static_cast<std::size_t>(std::min(kBatch, chunks)));
  std::vector<Packer> packers(static_cast<std::size_t>(std::max(1, t.ctx->n_threads)));
  std::vector<hsize_t> offset(dims.size(), 0);
  for (std::int64_t begin = 0; begin < chunks; begin += kBatch) {
    const std::int64_t n = std::min(kBatch, chunks - begin);
    parallel_chunks(*t.ctx, n, 1, [&](std::int64_t c, std::int64_t, std::int64_t, int worker) {
      Packer& p = packers[static_cast<std::size_t>(worker)];
      const std::int64_t first = (begin + c) * step, count = std::min(step, rows - first);
      p.plain.resize(static_cast<std::size_t>(step * row_bytes));
      fill(first, count, p.plain.data());
      std::fill(p.plain.begin() + count * row_bytes, p.plain.end(), std::byte{0});
      p.pack(t.options.level, element, out[static_cast<std::size_t>(c)]);
    });
    for (std::int64_t c = 0; c < n; ++c) {
      const auto& chunk = out[static_cast<std::size_t>(c)];
      offset[0] = static_cast<hsize_t>((begin + c) * step);
      expect(t, H5Dwrite_chunk(d.get(), H5P_DEFAULT, 0, offset.data(), chunk.size(), chunk.data()) >= 0, name);
    }
  }
  return d;
}

Id write_strings(const Target& t, const std::string& name, const std::vector<std::int64_t>& dims,
                 const std::vector<std::string>& values) {
  const Id type = string_type();
  const Id plist(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(plist.get(), false);
  std::vector<hsize_t> extent(dims.begin(), dims.end());
  constexpr std::size_t kRefsPerChunk = 1 << 14;
  if (t.options.level > 0 && dims.size() == 1 && values.size() > kRefsPerChunk) {
    const hsize_t shape = kRefsPerChunk;
    H5Pset_chunk(plist.get(), 1, &shape);
    H5Pset_deflate(plist.get(), static_cast<unsigned>(std::min(t.options.level, 9)));
  }
  const Id space(dims.empty() ? H5Screate(H5S_SCALAR)
                              : H5Screate_simple(static_cast<int>(dims.size()), extent.data(), nullptr));
  const Id how = create_links(name);
  Id d(H5Dcreate2(t.id, name.c_str(), type.get(), space.get(), how.get(), plist.get(), H5P_DEFAULT));
  expect(t, static_cast<bool>(d), name);
  std::vector<const char*> texts;
  texts.reserve(values.size());
  for (const auto& v : values) texts.push_back(v.c_str());
  if (!texts.empty()) expect(t, H5Dwrite(d.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, texts.data()) >= 0, name);
  return d;
}

}  // namespace h5
}  // namespace scw::io
