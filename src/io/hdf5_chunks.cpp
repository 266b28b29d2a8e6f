// Blocks of datasets, unpacked by our own threads, and the numbers in them.
#include "io/hdf5_chunks.hpp"

#include <libdeflate.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/parallel.hpp"
#include "io/lzf.hpp"

namespace scw::io::h5 {

namespace {

constexpr std::int64_t kBlockBytes = 1 << 20;

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

}  // namespace

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

namespace {

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

}  // namespace scw::io::h5
