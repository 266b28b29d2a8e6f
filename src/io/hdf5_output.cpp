#include "io/hdf5_output.hpp"

#include <fcntl.h>
#include <unistd.h>

#if __has_include(<H5FDdevelop.h>)
#include <H5FDdevelop.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/positioned.hpp"

namespace scw::io::h5 {
namespace {

using State = OutputFile::State;

struct Info {
  State* state;
};
/// What the library allocates per file: its own part first.
struct File {
  H5FD_t base{};
  State* state = nullptr;
  haddr_t end_of_addresses = 0, end_of_file = 0;
};
static_assert(std::is_standard_layout_v<File>);
File* own(H5FD_t* f) { return reinterpret_cast<File*>(f); }
const File* own(const H5FD_t* f) { return reinterpret_cast<const File*>(f); }

State* g_writing = nullptr;  // guarded by the session
int g_refusal = 0;

void give_up(State& s) {
  s.error = g_refusal = errno;
  s.given_up = true;
}

H5FD_t* open_file(const char*, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const Info*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  auto* f = new (std::nothrow) File;
  if (f != nullptr) f->state = info->state;
  return f == nullptr ? nullptr : &f->base;
}
herr_t close_file(H5FD_t* f) {
  delete own(f);
  return 0;
}
herr_t query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}
haddr_t get_eoa(const H5FD_t* f, H5FD_mem_t) { return own(f)->end_of_addresses; }
herr_t set_eoa(H5FD_t* f, H5FD_mem_t, haddr_t address) {
  own(f)->end_of_addresses = address;
  return 0;
}
haddr_t get_eof(const H5FD_t* f, H5FD_mem_t) { return own(f)->end_of_file; }

herr_t read(H5FD_t* f, H5FD_mem_t, hid_t, haddr_t address, std::size_t n, void* out) {
  const std::int64_t got =
      read_fully(own(f)->state->fd, out, static_cast<std::int64_t>(n), static_cast<std::int64_t>(address));
  if (got < 0) return -1;
  const auto there = static_cast<std::size_t>(got);
  std::memset(static_cast<char*>(out) + there, 0, n - there);  // beyond the end: as HDF5's own drivers do
  return 0;
}

herr_t write(H5FD_t* f, H5FD_mem_t, hid_t, haddr_t address, std::size_t n, const void* in) {
  File& file = *own(f);
  file.end_of_file = std::max<haddr_t>(file.end_of_file, address + n);
  if (!file.state->given_up &&
      !write_fully(file.state->fd, in, static_cast<std::int64_t>(n), static_cast<std::int64_t>(address)))
    give_up(*file.state);
  return 0;
}

herr_t truncate(H5FD_t* f, hid_t, hbool_t) {
  File& file = *own(f);
  if (file.end_of_addresses == file.end_of_file) return 0;
  if (!file.state->given_up && ::ftruncate(file.state->fd, static_cast<off_t>(file.end_of_addresses)) != 0)
    give_up(*file.state);
  file.end_of_file = file.end_of_addresses;
  return 0;
}

hid_t driver() {
  static const hid_t id = [] {
    static H5FD_class_t c{};
#if H5_VERSION_GE(1, 13, 0)
    c.version = H5FD_CLASS_VERSION;
    c.value = static_cast<H5FD_class_value_t>(600);  // of the range that needs no registration
#endif
    c.name = "scwarp";
    c.maxaddr = (haddr_t{1} << 62) - 1;
    c.fc_degree = H5F_CLOSE_STRONG;
    c.fapl_size = sizeof(Info);
    c.open = &open_file;
    c.close = &close_file;
    c.query = &query;
    c.get_eoa = &get_eoa;
    c.set_eoa = &set_eoa;
    c.get_eof = &get_eof;
    c.read = &read;
    c.write = &write;
    c.truncate = &truncate;
    const H5FD_mem_t map[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(map), std::end(map), c.fl_map);
    return H5FDregister(&c);
  }();
  return id;
}

}  // namespace

std::string OutputFile::refusal() { return g_writing == nullptr || g_refusal == 0 ? "" : std::strerror(g_refusal); }

OutputFile::OutputFile(const char* op, const std::string& path, bool newer)
    : op_(op), shown_(path), replacement_(op, path), state_(new State) {
  state_->fd = replacement_.fd();
  g_refusal = 0;
  g_writing = state_;
  const Id access(H5Pcreate(H5P_FILE_ACCESS));
  const Info info{state_};
  H5Pset_driver(access.get(), driver(), &info);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  H5Pset_libver_bounds(access.get(), newer ? H5F_LIBVER_V18 : H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST);
  state_->file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get());
  if (state_->file < 0) {
    const auto reason = refusal();
    g_writing = nullptr;
    delete state_;
    detail::fail<IoError>(op_, "'{}' cannot be written ({})", shown_, reason.empty() ? last_error() : reason);
  }
}

bool OutputFile::close() {
  if (state_->file < 0 || H5Fclose(std::exchange(state_->file, H5I_INVALID_HID)) >= 0) return state_->error == 0;
  // The library keeps the file and will write to it again when the process ends.
  state_->given_up = true;
  state_ = new State;
  return false;
}

OutputFile::~OutputFile() {
  state_->given_up = true;
  close();
  delete state_;
  g_writing = nullptr;
}

void OutputFile::commit() {
  const auto check = [this](bool ok) {
    if (ok) return;
    const auto reason = refusal();
    detail::fail<IoError>(op_, "'{}' cannot be written ({})", shown_, reason.empty() ? last_error() : reason);
  };
  // Flushed first: what the disk has no room for is found out while the file can still be given up.
  check(H5Fflush(state_->file, H5F_SCOPE_LOCAL) >= 0 && state_->error == 0);
  check(close());
  replacement_.commit();
}

}  // namespace scw::io::h5
