#include "io/hdf5.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/hdf5_filters.hpp"
#include "io/lzf.hpp"
#include "io/positioned.hpp"

namespace scw::io {
namespace h5 {
namespace {

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
  // At exit the library closes what is open, and crashes on a damaged file that it failed to close before. We close our
  // own files. (Without effect where somebody else has used this library before: then it is theirs.)
  static const herr_t no_exit = H5dont_atexit();
  static_cast<void>(no_exit);
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
  const auto bytes = static_cast<std::int64_t>(n);
  return read_fully(fd_, out, bytes, static_cast<std::int64_t>(base_ + address)) == bytes;
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
  if (name == "complex64" || name == "complex128") {  // as h5py has them
    const hid_t part = name == "complex64" ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
    const std::size_t n = H5Tget_size(part);
    Id t(H5Tcreate(H5T_COMPOUND, 2 * n));
    H5Tinsert(t.get(), "r", 0, part);
    H5Tinsert(t.get(), "i", n, part);
    return t;
  }
  if (name == "float16") {
    Id t(H5Tcopy(H5T_IEEE_F32LE));
    H5Tset_fields(t.get(), 15, 10, 5, 0, 10);
    H5Tset_size(t.get(), 2);
    H5Tset_ebias(t.get(), 15);
    return t;
  }
  return Id();
}

}  // namespace h5
}  // namespace scw::io
