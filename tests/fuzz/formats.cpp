#include "formats.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>

#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/inspect.hpp"
#include "scwarp/io/tenx.hpp"
#include "scwarp/io/text.hpp"
#include "scwarp/io/zarr.hpp"
#include "store.hpp"

namespace scw::fuzz {
namespace {

std::string_view text_of(Span<const std::byte> file) {
  return {reinterpret_cast<const char*>(file.data), static_cast<std::size_t>(file.size)};
}

/// A file that lives in memory, for what reads and writes by path.
class MemoryFile {
 public:
  explicit MemoryFile(Span<const std::byte> content = {}) : path("/dev/shm/scwarp_fuzz_" + std::to_string(::getpid())) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data), static_cast<std::streamsize>(content.size));
  }
  ~MemoryFile() { ::unlink(path.c_str()); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path;
};

void read_h5ad(Span<const std::byte> file) {
  io::ReadH5adOptions options;
  options.check_counts = true;
  io::read_h5ad(Context::cpu(1), file, "mutant", options).validate();
}

/// What the reader leaves in the file is copied from there when the data are written.
void copy_h5ad(Span<const std::byte> file) {
  const auto ctx = Context::cpu(1);
  const auto data = io::read_h5ad(ctx, file, "mutant");
  io::write_h5ad(ctx, data, MemoryFile().path);
}

void inspect(Span<const std::byte> file) { io::inspect(MemoryFile(file).path); }

void read_10x(Span<const std::byte> file) { io::read_10x_h5(Context::cpu(1), file, "mutant").validate(); }

/// The three texts of a folder, with a form feed between them: into memory, and through a temporary file, which must
/// come to the same end.
void read_mtx(Span<const std::byte> file) {
  const auto text = text_of(file);
  const std::size_t one = std::min(text.find('\f'), text.size()), begin_two = std::min(one + 1, text.size());
  const std::size_t two = std::min(text.find('\f', begin_two), text.size());
  const auto read = [&](bool stream) {
    io::Read10xMtxOptions options;
    options.stream_matrices = stream;
    options.gex_only = false;  // a kernel's work, which the fuzzed library leaves out
    return io::read_10x_mtx(Context::cpu(1), text.substr(0, one), text.substr(begin_two, two - begin_two),
                            text.substr(std::min(two + 1, text.size())), options);
  };
  std::string streamed;
  try {
    read(true).validate();
  } catch (const Error& e) {
    streamed = e.what();
  }
  try {
    read(false).validate();
  } catch (const Error& e) {
    if (streamed != e.what()) throw std::logic_error("streamed: '" + streamed + "', read: '" + e.what() + "'");
    throw;
  }
  if (!streamed.empty()) throw std::logic_error("streamed: '" + streamed + "', read without an error");
}

/// A table as text, or as a file if it is compressed.
void read_table(Span<const std::byte> file) {
  const auto ctx = Context::cpu(1);
  const auto text = text_of(file);
  if (text.starts_with("\x1f\x8b"))
    io::read_text(ctx, MemoryFile(file).path).validate();
  else
    io::read_text(ctx, text, "mutant").validate();
}

/// A store in one piece: see store.hpp.
void read_zarr(Span<const std::byte> file) {
  io::ReadZarrOptions options;
  options.check_counts = true;
  io::read_zarr(Context::cpu(1), unpack(file), "mutant", options).validate();
}

/// What the reader leaves in the store is written to another format.
void convert_zarr(Span<const std::byte> file) {
  const auto ctx = Context::cpu(1);
  io::write_h5ad(ctx, io::read_zarr(ctx, unpack(file), "mutant"), MemoryFile().path);
}

constexpr Format kFormats[] = {
    {"h5ad", &read_h5ad, Shape::hdf5},  {"10x", &read_10x, Shape::hdf5},          {"zarr", &read_zarr, Shape::store},
    {"mtx", &read_mtx, Shape::text},    {"table", &read_table, Shape::text},      {"copy", &copy_h5ad, Shape::hdf5},
    {"inspect", &inspect, Shape::hdf5}, {"convert", &convert_zarr, Shape::store},
};

}  // namespace

std::span<const Format> formats() { return kFormats; }

const Format& format(std::string_view name) {
  for (const auto& f : kFormats)
    if (name == f.name) return f;
  throw std::out_of_range("no format '" + std::string(name) + "'");
}

Outcome attempt(const Format& format, const Bytes& file) {
  try {
    format.read(Span<const std::byte>(file));
    return Outcome::read;
  } catch (const Error&) {
    return Outcome::refused;
  }
}

Bytes to_bytes(std::string_view text) {
  Bytes out(text.size());
  if (!text.empty()) std::memcpy(out.data(), text.data(), text.size());
  return out;
}

}  // namespace scw::fuzz
