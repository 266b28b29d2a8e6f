#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/parallel.hpp"
#include "io/chunk_packer.hpp"
#include "io/hdf5.hpp"
#include "io/hdf5_output.hpp"

namespace scw::io::h5 {

void check(bool ok, const char* op, const std::string& file, const std::string& object) {
  const auto refusal = OutputFile::refusal();
  if (ok && refusal.empty()) return;
  detail::fail<IoError>(op, "'{}': object '{}' cannot be written ({})", file, object,
                        refusal.empty() ? last_error() : refusal);
}

namespace {

void expect(const Target& t, bool ok, std::string_view name) {
  check(ok, t.op, *t.file, t.path + "/" + std::string(name));
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
void write_attribute(const Target& t, hid_t object, const char* name, const std::vector<double>& values) {
  const hsize_t n = values.size();
  write_attribute_data(t, object, name, H5T_NATIVE_DOUBLE, Id(H5Screate_simple(1, &n, nullptr)), values.data());
}
void write_attribute(const Target& t, hid_t object, const char* name, std::int64_t value) {
  write_attribute_data(t, object, name, H5T_NATIVE_INT64, Id(H5Screate(H5S_SCALAR)), &value);
}
void write_attribute(const Target& t, hid_t object, const char* name, double value) {
  write_attribute_data(t, object, name, H5T_NATIVE_DOUBLE, Id(H5Screate(H5S_SCALAR)), &value);
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

constexpr H5Z_filter_t kZstd = 32015;  // as registered with the HDF Group

void compress(const Id& plist, const WriteOptions& options) {
  const auto level = static_cast<unsigned>(options.level);
  if (options.compression == Compression::gzip)
    H5Pset_deflate(plist.get(), std::min(level, 9U));
  else
    // Optional, for the library alone: it need not have the filter to store chunks that we have packed.
    H5Pset_filter(plist.get(), kZstd, H5Z_FLAG_OPTIONAL, 1, &level);
}

/// zstd is undone by our own reader alone, which leaves half floats, records and arrays of more dimensions to the
/// library.
WriteOptions options_for(const WriteOptions& options, hid_t type, std::size_t rank) {
  const auto kind = H5Tget_class(type);
  const bool plain = kind == H5T_INTEGER || kind == H5T_ENUM || (kind == H5T_FLOAT && H5Tget_size(type) >= 4);
  if (options.compression != Compression::zstd || (plain && rank <= 2)) return options;
  WriteOptions out = options;
  out.compression = Compression::gzip;
  out.level = 1;
  return out;
}

/// Tells how much of a large dataset is written, a few times a second.
class Meter {
 public:
  Meter(const Target& t, const std::string& name, std::int64_t bytes) : ctx_(*t.ctx), bytes_(bytes) {
    constexpr std::int64_t kLarge = 64 << 20;
    if (ctx_.progress != nullptr && bytes >= kLarge) step_ = "write " + t.path + "/" + name;
  }
  void done(std::int64_t bytes) {
    const auto now = Clock::now();
    if (step_.empty() || (bytes < bytes_ && now - last_ < std::chrono::milliseconds(200))) return;
    last_ = now;
    ctx_.report(step_, bytes, bytes_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  const Context& ctx_;
  std::int64_t bytes_;
  std::string step_;
  Clock::time_point last_ = Clock::now();
};

}  // namespace

Id write_dataset(const Target& t, const std::string& name, hid_t type, const std::vector<std::int64_t>& dims,
                 bool growable, const FillRows& fill) {
  const std::size_t element = H5Tget_size(type);
  const WriteOptions options = options_for(t.options, type, dims.size());
  const std::int64_t rows = dims.empty() ? 1 : dims[0];
  std::int64_t cols = 1;
  for (std::size_t k = 1; k < dims.size(); ++k) cols = checked_mul(cols, dims[k]);
  const std::int64_t row_bytes = checked_mul(cols, static_cast<std::int64_t>(element));
  const std::int64_t bytes = checked_mul(rows, row_bytes);
  const bool packed =
      options.compression != Compression::none && bytes >= 1024 && !dims.empty() && row_bytes < INT64_C(1) << 31;
  const bool chunked = packed || (growable && rows > 0);
  const Id plist(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(plist.get(), false);  // the same content gives the same bytes
  std::vector<hsize_t> extent(dims.begin(), dims.end()), largest(extent), shape(extent);
  std::int64_t step = std::max<std::int64_t>(1, options.chunk_bytes / std::max<std::int64_t>(1, row_bytes));
  step = std::min(step, std::max<std::int64_t>(1, rows));
  if (chunked) {
    shape[0] = static_cast<hsize_t>(step);
    H5Pset_chunk(plist.get(), static_cast<int>(shape.size()), shape.data());
    if (growable) largest[0] = H5S_UNLIMITED;
    if (packed) {
      if (element > 1) H5Pset_shuffle(plist.get());
      compress(plist, options);
      H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER);
    }
  }
  const Id space(dims.empty() ? H5Screate(H5S_SCALAR)
                              : H5Screate_simple(static_cast<int>(dims.size()), extent.data(), largest.data()));
  const Id how = create_links(name);
  Id d(H5Dcreate2(t.id, name.c_str(), type, space.get(), how.get(), plist.get(), H5P_DEFAULT));
  expect(t, static_cast<bool>(d), name);
  if (bytes == 0) return d;
  Meter meter(t, name, bytes);
  if (!packed) {
    // One block of memory at a time.
    std::vector<std::byte> buffer(static_cast<std::size_t>(step * row_bytes));
    for (std::int64_t first = 0; first < rows; first += step) {
      t.ctx->check_cancelled(t.op);
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
      meter.done((first + n) * row_bytes);
    }
    return d;
  }
  // Batches of a fixed number of chunks are packed in parallel, then stored in order.
  constexpr std::int64_t kBatch = 32;
  const std::int64_t chunks = (rows + step - 1) / step;
  std::vector<PackedChunk> out(static_cast<std::size_t>(std::min(kBatch, chunks)));
  std::vector<Packer> packers(static_cast<std::size_t>(std::max(1, t.ctx->n_threads)));
  std::vector<hsize_t> offset(dims.size(), 0);
  for (std::int64_t begin = 0; begin < chunks; begin += kBatch) {
    const std::int64_t n = std::min(kBatch, chunks - begin);
    parallel_chunks(*t.ctx, n, 1, [&](std::int64_t c, std::int64_t, std::int64_t, int worker) {
      Packer& p = packers[static_cast<std::size_t>(worker)];
      const std::int64_t first = (begin + c) * step, count = std::min(step, rows - first);
      const auto size = static_cast<std::size_t>(step * row_bytes), used = static_cast<std::size_t>(count * row_bytes);
      std::byte* plain = p.plain(size);
      fill(first, count, plain);
      std::memset(plain + used, 0, size - used);
      p.pack(options, element, out[static_cast<std::size_t>(c)]);
    });
    for (std::int64_t c = 0; c < n; ++c) {
      const auto& chunk = out[static_cast<std::size_t>(c)];
      offset[0] = static_cast<hsize_t>((begin + c) * step);
      expect(t, H5Dwrite_chunk(d.get(), H5P_DEFAULT, 0, offset.data(), chunk.size, chunk.bytes.get()) >= 0, name);
    }
    meter.done(std::min(rows, (begin + n) * step) * row_bytes);
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
  if (t.options.compression != Compression::none && dims.size() == 1 && values.size() > kRefsPerChunk) {
    const hsize_t shape = kRefsPerChunk;
    H5Pset_chunk(plist.get(), 1, &shape);
    // By the library itself, which has no zstd.
    H5Pset_deflate(plist.get(), static_cast<unsigned>(std::min(t.options.level, 6)));
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

}  // namespace scw::io::h5
