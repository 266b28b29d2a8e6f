#include "io/zarr_store.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>
#include <mutex>

#include "core/parallel.hpp"
#include "io/numbers.hpp"
#include "io/spares.hpp"
#include "io/zarr_codecs.hpp"

namespace scw::io::zarr {
namespace {

constexpr std::int64_t kMaxMetadata = 64 << 20;
constexpr std::uint64_t kMissing = ~std::uint64_t{0};
constexpr std::int64_t kFreeTasks = 1 << 16;  // chunks that nobody need have stored
constexpr std::int64_t kLeastRoom = 1 << 20;  // that a packed chunk may have beyond what it holds
constexpr std::int64_t kPartBytes = 4 << 20;  // plain chunks above this are read in parts
constexpr std::int64_t kAhead = 4;            // chunks that are asked for while another one is unpacked

static_assert(std::endian::native == std::endian::little);

std::string join(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + "/" + name;
}

/// Bytes of the files in a folder and `depth` folders below it; counting stops once there are `enough`.
std::int64_t bytes_below(const Tree& tree, const std::string& folder, int depth, std::int64_t enough = INT64_MAX) {
  std::int64_t sum = 0;
  for (const auto& e : tree.list(folder)) {
    if (sum >= enough) break;
    const std::string key = join(folder, e.name);
    if (!e.is_folder)
      sum += tree.size(key).value_or(0);
    else if (depth > 0)
      sum += bytes_below(tree, key, depth - 1, enough - sum);
  }
  return sum;
}

std::uint32_t load32(const std::byte* p) {
  std::uint32_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return v;
}

void reverse_units(std::byte* p, std::size_t bytes, std::size_t unit) {
  for (std::size_t at = 0; at + unit <= bytes; at += unit) std::reverse(p + at, p + at + unit);
}

float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000U) << 16, exponent = h >> 10 & 31U, mantissa = h & 1023U;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | mantissa << 13);
  const float v = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::bit_cast<float>((exponent + 112U) << 23 | mantissa << 13);
  return sign != 0 ? -v : v;
}

void append_utf8(std::string& out, std::uint32_t c) {
  if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 63));
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  }
}

/// A text of fixed length, padded with zeros.
std::string fixed_text(const Type& t, const std::byte* p) {
  std::string out;
  if (t.text == TextForm::bytes) {
    out.assign(reinterpret_cast<const char*>(p), t.element.size);
    out.erase(std::find_if(out.rbegin(), out.rend(), [](char c) { return c != '\0'; }).base(), out.end());
    return out;
  }
  std::size_t n = t.element.size / 4;
  while (n > 0 && load32(p + 4 * (n - 1)) == 0) --n;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint32_t c = load32(p + 4 * i);
    if (t.swapped) c = __builtin_bswap32(c);
    append_utf8(out, c);
  }
  return out;
}

/// A chunk, or the part of it that is inside the array and the rows asked for.
struct Piece {
  std::vector<std::int64_t> at;      ///< number of the chunk along every dimension
  std::vector<std::int64_t> skip;    ///< elements of the chunk before the part, by dimension
  std::vector<std::int64_t> extent;  ///< of the part
  std::vector<std::int64_t> place;   ///< of the part in the result
};

std::int64_t piece_elements(const Piece& p) {
  std::int64_t n = 1;
  for (const auto k : p.extent) n *= k;
  return n;
}

class ZarrArray final : public StoredArray {
 public:
  ZarrArray(const ZarrStore& store, std::string path, std::string folder, ArrayMeta meta, bool null)
      : StoredArray(store, std::move(path)), zarr_(store), folder_(std::move(folder)), meta_(std::move(meta)) {
    type = meta_.type.element;
    dims = meta_.shape;
    is_null = null;
    count = 1;
    for (const auto n : dims) count *= n;
    if (null) count = 0;
    stamps_ = stamps();
    check_plausible();
  }

  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::uint8_t* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int32_t* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int64_t* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out,
            const std::vector<std::int32_t>& wanted) const override {
    return numbers(ctx, first, n, out, &wanted);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out,
            const std::vector<std::int32_t>& wanted) const override {
    return numbers(ctx, first, n, out, &wanted);
  }
  bool is_concurrent() const override { return true; }
  std::int64_t chunk_rows() const override {
    // Of what is not packed any part can be read; small chunks are better read at once.
    const bool cut = meta_.pipeline.codecs.empty() && type.size > 0 && meta_.chunk_bytes() > kPartBytes;
    return dims.empty() || cut ? 1 : meta_.chunk[0];
  }
  void will_read(std::int64_t first, std::int64_t n) const override;
  void release() const override { rooms_.clear(); }
  std::vector<std::string> texts(const Context& ctx) const override;
  std::optional<StructArray> records(const Context& ctx) const override;
  std::optional<OpaqueRows> opaque(const Context& ctx) const override;

 private:
  using Index = std::vector<std::uint64_t>;
  using Columns = std::vector<std::int32_t>;  // not negative: wanted
  /// What a thread needs to unpack chunks.
  struct Room {
    Unpacker unpacker;
    Buffer gathered;
  };
  /// Where a chunk is stored.
  struct Place {
    std::string key;
    std::int64_t offset = 0;
    std::int64_t bytes = -1;  ///< -1: the whole file
  };

  void check_plausible() const;
  template <class Body>
  void pieces(const Context& ctx, std::int64_t first, std::int64_t n, const Columns* wanted, Body&& body) const;
  static bool is_wanted(const Piece& piece, const Columns* wanted) {
    if (wanted == nullptr || piece.at.size() != 2) return true;
    const auto* const at = wanted->data() + piece.place[1];
    return std::any_of(at, at + piece.extent[1], [](std::int32_t j) { return j >= 0; });
  }
  std::int64_t count_pieces(std::int64_t first, std::int64_t n) const;
  /// The piece of number `task` of rows [first, first + n).
  void find_piece(std::int64_t task, std::int64_t first, std::int64_t n, Piece& piece) const;
  /// False if the chunk was never written (which a whole file shows only when it is read).
  bool find(const Piece& piece, Place& place) const;
  /// The stored bytes of a chunk; false if it was never written.
  bool load(const Piece& piece, Buffer& packed) const;
  /// The same for elements [from, from + n) of a chunk that is not compressed.
  bool load_part(const Piece& piece, std::int64_t from, std::int64_t n, std::byte* out) const;
  void expect(const Piece& piece) const;
  std::shared_ptr<const Index> shard_index(const std::string& key, std::int64_t inner) const;
  template <class T>
  bool numbers(const Context& ctx, std::int64_t first, std::int64_t n, T* out, const Columns* wanted = nullptr) const;
  /// Elements as they are in this machine, of fixed size.
  std::vector<std::byte> raw(const Context& ctx) const;
  /// put(from, to, n): n elements from an unpacked chunk to an offset (in elements) of the result. `direct`: bytes of a
  /// result of stored elements, where whole chunks may be unpacked at once.
  template <class Put>
  void elements(const Context& ctx, std::int64_t first, std::int64_t n, std::byte* direct, const Columns* wanted,
                Put&& put) const;
  /// run(from, to, n): runs of a piece that are contiguous in the result; source elements are `step` apart.
  template <class Run>
  void runs(const Piece& piece, Run&& run) const;
  std::string where(const Piece& piece) const { return fmt::format("({})", fmt::join(piece.at, ", ")); }
  /// A chunk that is not there holds the fill value, unless the store is being removed or replaced.
  void expect_never_written(const std::string& key) const {
    if (zarr_.tree().is_unchanged() && stamps() == stamps_) return;
    fail<IoError>("'{}' is not there: the store was removed, replaced or changed since it was opened", key);
  }
  std::pair<std::uint64_t, std::uint64_t> stamps() const {
    return {zarr_.tree().stamp(folder_), meta_.v3_keys ? zarr_.tree().stamp(join(folder_, "c")) : 0};
  }
  [[noreturn]] void fail_changed(const std::string& key) const {
    fail<IoError>("'{}' cannot be read: it was cut short or changed since it was opened", key);
  }

  const ZarrStore& zarr_;
  std::string folder_;
  ArrayMeta meta_;
  std::pair<std::uint64_t, std::uint64_t> stamps_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<const Index>> indices_;
  mutable Spares<Room> rooms_;
};

void ZarrArray::check_plausible() const {
  // A text takes this much even where nothing was written.
  const auto size = static_cast<std::int64_t>(type.kind == Kind::string ? std::max(type.size, sizeof(std::string))
                                                                        : std::max<std::size_t>(1, type.size));
  std::int64_t declared = 0;
  if (__builtin_mul_overflow(count, size, &declared)) fail("declares {} elements of {} bytes", count, size);
  // Unpacked as a whole, however little of it is inside the array.
  if (count > 0 && meta_.chunk_bytes() > kFreeBytes && meta_.chunk_elements() / 16 > count)
    fail("declares chunks of {} bytes for {} elements", meta_.chunk_bytes(), count);
  const std::int64_t tasks = count == 0 ? 0 : count_pieces(0, rows());
  if (declared <= kFreeBytes && tasks <= kFreeTasks) return;
  const std::int64_t wanted =
      std::max(declared / kMaxExpansion, tasks > kFreeTasks ? std::min(tasks, INT64_MAX / 4) * 4 : 0);
  const std::int64_t stored = bytes_below(zarr_.tree(), folder_, 34, wanted);
  if (stored < wanted) fail("declares {} bytes in {} chunks, but stores {}", declared, tasks, stored);
}

std::int64_t ZarrArray::count_pieces(std::int64_t first, std::int64_t n) const {
  std::int64_t out = 1;
  for (std::size_t k = 0; k < dims.size(); ++k) {
    const std::int64_t c = meta_.chunk[k];
    const std::int64_t begin = k == 0 ? first / c : 0, end = k == 0 ? (first + n - 1) / c + 1 : (dims[k] - 1) / c + 1;
    out *= end - begin;  // not more than there are elements
  }
  return out;
}

template <class Body>
void ZarrArray::pieces(const Context& ctx, std::int64_t first, std::int64_t n, const Columns* wanted,
                       Body&& body) const {
  if (!meta_.unsupported.empty())
    fail<NotSupported>(
        "is stored by codec '{}', which scwarp does not read (blosc, crc32c, gzip, lz4, shuffle, zlib and zstd are)",
        meta_.unsupported);
  SCW_ASSERT(first >= 0 && n >= 0 && first <= rows() - n);
  if (count == 0 || n == 0) return;
  const std::int64_t tasks = count_pieces(first, n);
  parallel_chunks(ctx, tasks, 1, [&](std::int64_t task, std::int64_t, std::int64_t, int worker) {
    Piece p;
    if (task + kAhead < tasks) {
      find_piece(task + kAhead, first, n, p);
      if (is_wanted(p, wanted)) expect(p);
    }
    find_piece(task, first, n, p);
    if (is_wanted(p, wanted)) body(p, worker);
  });
}

void ZarrArray::find_piece(std::int64_t task, std::int64_t first, std::int64_t n, Piece& p) const {
  const std::size_t rank = dims.size();
  p.at.resize(rank);
  p.skip.resize(rank);
  p.extent.resize(rank);
  p.place.resize(rank);
  for (std::size_t k = rank; k-- > 0;) {
    const std::int64_t c = meta_.chunk[k];
    const std::int64_t low = k == 0 ? first : 0, high = k == 0 ? first + n : dims[k];
    const std::int64_t begin = low / c, across = (high - 1) / c + 1 - begin;
    p.at[k] = begin + task % across;
    task /= across;
    const std::int64_t from = std::max(low, p.at[k] * c), to = high - p.at[k] * c < c ? high : (p.at[k] + 1) * c;
    p.skip[k] = from - p.at[k] * c;
    p.extent[k] = to - from;
    p.place[k] = from - low;
  }
}

void ZarrArray::will_read(std::int64_t first, std::int64_t n) const {
  first = std::min(first, rows());
  n = std::min(n, rows() - first);
  if (count == 0 || n <= 0) return;
  Piece p;
  const std::int64_t tasks = std::min(count_pieces(first, n), kAhead);
  for (std::int64_t task = 0; task < tasks; ++task) {
    find_piece(task, first, n, p);
    expect(p);
  }
}

void ZarrArray::expect(const Piece& piece) const {
  if (meta_.pipeline.codecs.empty() && piece_elements(piece) != meta_.chunk_elements()) return;
  Place place;
  if (find(piece, place)) zarr_.tree().will_read(place.key, place.offset, place.bytes);
}

std::shared_ptr<const ZarrArray::Index> ZarrArray::shard_index(const std::string& key, std::int64_t inner) const {
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = indices_.find(key); known != indices_.end()) return known->second;
  }
  std::shared_ptr<Index> index;
  if (const auto size = zarr_.tree().size(key)) {
    std::int64_t bytes = 0;
    const auto checks = static_cast<std::int64_t>(4 * meta_.index.codecs.size());
    if (__builtin_mul_overflow(inner, 16, &bytes) || bytes > *size - checks)
      fail("the shard '{}' of {} bytes is too short for an index of {} chunks", key, *size, inner);
    std::vector<std::byte> stored(static_cast<std::size_t>(bytes + checks)), plain(static_cast<std::size_t>(bytes));
    Unpacker u;
    if (!zarr_.tree().read(key, meta_.index_at_end ? *size - bytes - checks : 0, bytes + checks, stored.data()))
      fail<IoError>("the shard '{}' cannot be read", key);
    if (!u.unpack(meta_.index, stored.data(), stored.size(), plain.data(), plain.size()))
      fail("the index of the shard '{}' is damaged", key);
    if (meta_.index.swapped) reverse_units(plain.data(), plain.size(), 8);
    index = std::make_shared<Index>(static_cast<std::size_t>(2 * inner));
    std::memcpy(index->data(), plain.data(), plain.size());
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < index->size(); i += 2) {
      const std::uint64_t offset = (*index)[i], n = (*index)[i + 1], whole = static_cast<std::uint64_t>(*size);
      if (offset == kMissing && n == kMissing) continue;
      if (offset > whole || n > whole - offset)
        fail("chunk {} of the shard '{}' is outside of its {} bytes", i / 2, key, *size);
      // The same few bytes as every chunk would make a small file a large array.
      total += n;
      if (total > whole) fail("the chunks of the shard '{}' overlap: they have more than its {} bytes", key, *size);
    }
  } else {
    expect_never_written(key);
  }
  const std::lock_guard lock(mutex_);
  return indices_.emplace(key, std::move(index)).first->second;
}

bool ZarrArray::find(const Piece& piece, Place& place) const {
  place = {};
  if (!meta_.sharded) {
    place.key = join(folder_, meta_.key(piece.at));
    return true;
  }
  std::vector<std::int64_t> shard(piece.at.size());
  std::int64_t number = 0, inner = 1;
  for (std::size_t k = 0; k < piece.at.size(); ++k) {
    const std::int64_t per_shard = meta_.shard[k] / meta_.chunk[k];
    shard[k] = piece.at[k] / per_shard;
    number = number * per_shard + piece.at[k] % per_shard;
    inner *= per_shard;
  }
  place.key = join(folder_, meta_.key(shard));
  const auto index = shard_index(place.key, inner);
  if (!index) return false;
  const std::uint64_t offset = (*index)[static_cast<std::size_t>(2 * number)];
  const std::uint64_t bytes = (*index)[static_cast<std::size_t>(2 * number + 1)];
  if (offset == kMissing && bytes == kMissing) return false;
  place.offset = static_cast<std::int64_t>(offset);
  place.bytes = static_cast<std::int64_t>(bytes);
  return true;
}

bool ZarrArray::load(const Piece& piece, Buffer& packed) const {
  Place place;
  if (!find(piece, place)) return false;
  // A file with a hole in it costs nothing, memory for it does. No codec makes chunks much longer.
  const std::int64_t plain = meta_.chunk_bytes(), most = type.size > 0 ? plain + plain / 2 + kLeastRoom : UINT32_MAX;
  if (place.bytes < 0) {
    if (zarr_.tree().read(place.key, packed, most)) return true;
    expect_never_written(place.key);
    return false;
  }
  if (place.bytes > most) fail("the chunk at {} has {} bytes (expected at most {})", where(piece), place.bytes, most);
  packed.resize(static_cast<std::size_t>(place.bytes));
  if (!zarr_.tree().read(place.key, place.offset, place.bytes, packed.data())) fail_changed(place.key);
  return true;
}

bool ZarrArray::load_part(const Piece& piece, std::int64_t from, std::int64_t n, std::byte* out) const {
  Place place;
  if (!find(piece, place)) return false;
  const auto size = place.bytes < 0 ? zarr_.tree().size(place.key) : place.bytes;
  if (!size) {
    expect_never_written(place.key);
    return false;
  }
  if (*size != meta_.chunk_bytes())
    fail("the chunk at {} has {} bytes (expected {})", where(piece), *size, meta_.chunk_bytes());
  const auto element = static_cast<std::int64_t>(type.size);
  if (!zarr_.tree().read(place.key, place.offset + from * element, n * element, out)) fail_changed(place.key);
  return true;
}

template <class Run>
void ZarrArray::runs(const Piece& piece, Run&& run) const {
  const std::size_t rank = dims.size();
  if (rank == 0) return run(0, 0, 1, 1);
  // Elements of the unpacked chunk are apart by `stride` along each dimension.
  std::vector<std::int64_t> stride(rank, 1), out_stride(rank, 1);
  std::int64_t step = 1;
  for (std::size_t k = rank; k-- > 0;) {
    const std::size_t d = meta_.pipeline.order.empty() ? k : meta_.pipeline.order[k];
    stride[d] = step;
    step *= meta_.chunk[d];
  }
  for (std::size_t k = rank - 1; k-- > 0;) out_stride[k] = out_stride[k + 1] * dims[k + 1];
  // As many of the last dimensions as are whole, in the chunk and in the result, are one run.
  std::size_t outer = rank - 1;
  std::int64_t length = piece.extent[outer];
  if (meta_.pipeline.order.empty())
    while (outer > 0 && piece.extent[outer] == meta_.chunk[outer] && piece.extent[outer] == dims[outer])
      length *= piece.extent[--outer];
  std::int64_t from = 0, to = 0;
  for (std::size_t k = 0; k < rank; ++k) {
    from += piece.skip[k] * stride[k];
    to += piece.place[k] * out_stride[k];
  }
  std::vector<std::int64_t> i(outer, 0);
  for (;;) {
    run(from, to, length, stride[rank - 1]);
    std::size_t k = outer;
    for (; k-- > 0;) {
      from += stride[k];
      to += out_stride[k];
      if (++i[k] < piece.extent[k]) break;
      from -= piece.extent[k] * stride[k];
      to -= piece.extent[k] * out_stride[k];
      i[k] = 0;
    }
    if (k == static_cast<std::size_t>(-1)) return;
  }
}

template <class Put>
void ZarrArray::elements(const Context& ctx, std::int64_t first, std::int64_t n, std::byte* direct,
                         const Columns* wanted, Put&& put) const {
  Spares<Room>::Loan rooms(rooms_, ctx.n_threads);
  const std::size_t size = type.size;
  const std::int64_t chunk_elements = meta_.chunk_elements(), chunk_bytes = meta_.chunk_bytes();
  std::size_t unit = size;
  if (type.name.starts_with("complex")) unit /= 2;
  const bool swapped =
      meta_.pipeline.swapped && unit > 1 && meta_.type.text == TextForm::none && meta_.type.fields.empty();
  pieces(ctx, first, n, wanted, [&](const Piece& piece, int worker) {
    Room& room = rooms[worker];
    Unpacker& u = room.unpacker;
    const std::int64_t elements_in = piece_elements(piece);
    const auto fill = [&](std::int64_t to, std::int64_t length) {
      const std::int64_t some = std::min<std::int64_t>(length, 1 << 16);
      if (room.gathered.size() < static_cast<std::size_t>(some) * size) {
        room.gathered.resize(static_cast<std::size_t>(some) * size);
        for (std::size_t k = 0; k + size <= room.gathered.size(); k += size)
          std::memcpy(room.gathered.data() + k, meta_.fill.data(), size);
      }
      for (std::int64_t done = 0; done < length; done += some)
        put(room.gathered.data(), to + done, std::min(some, length - done));
    };
    bool is_loaded = false, is_there = false, is_unpacked = false;
    const auto unpack = [&](std::byte* to) {
      if (!u.unpack(meta_.pipeline, u.packed.data(), u.packed.size(), to, static_cast<std::size_t>(chunk_bytes)))
        fail("the chunk at {} is damaged", where(piece));
      if (swapped) reverse_units(to, static_cast<std::size_t>(chunk_bytes), unit);
    };
    runs(piece, [&](std::int64_t from, std::int64_t to, std::int64_t length, std::int64_t step) {
      if (meta_.pipeline.codecs.empty() && length == elements_in && step == 1) {
        // Nothing to undo: what is wanted, and no more, is read where it belongs.
        std::byte* part = direct;
        if (direct == nullptr) {
          u.plain.resize(static_cast<std::size_t>(length) * size);
          part = u.plain.data();
        } else {
          part += to * static_cast<std::int64_t>(size);
        }
        if (!load_part(piece, from, length, part)) return fill(to, length);
        if (swapped) reverse_units(part, static_cast<std::size_t>(length) * size, unit);
        if (direct == nullptr) put(part, to, length);
        return;
      }
      if (!is_loaded) {
        is_there = load(piece, u.packed);
        is_loaded = true;
        if (is_there && chunk_bytes > kFreeBytes &&
            chunk_bytes / kMaxExpansion > static_cast<std::int64_t>(u.packed.size()))
          fail("the chunk at {} declares {} bytes, but stores {}", where(piece), chunk_bytes, u.packed.size());
      }
      if (!is_there) return fill(to, length);
      if (direct != nullptr && length == chunk_elements && step == 1)
        return unpack(direct + to * static_cast<std::int64_t>(size));
      if (!is_unpacked) {
        u.plain.resize(static_cast<std::size_t>(chunk_bytes));
        unpack(u.plain.data());
        is_unpacked = true;
      }
      if (step == 1) return put(u.plain.data() + from * static_cast<std::int64_t>(size), to, length);
      std::vector<std::byte> row(static_cast<std::size_t>(length) * size);
      for (std::int64_t k = 0; k < length; ++k)
        std::memcpy(row.data() + static_cast<std::size_t>(k) * size,
                    u.plain.data() + static_cast<std::size_t>(from + k * step) * size, size);
      put(row.data(), to, length);
    });
  });
}

template <class T>
bool ZarrArray::numbers(const Context& ctx, std::int64_t first, std::int64_t n, T* out, const Columns* wanted) const {
  const bool integers = type.kind == Kind::integer || type.kind == Kind::boolean;
  if (!integers && !(type.kind == Kind::floating && std::is_floating_point_v<T>))
    fail("is of type {} (expected {})", type.name, std::is_floating_point_v<T> ? "numbers" : "integers");
  std::atomic<bool> fits{true};
  const auto as = [&]<class Src>(Src) {
    auto* const direct = std::is_same_v<Src, T> ? reinterpret_cast<std::byte*>(out) : nullptr;
    elements(ctx, first, n, direct, wanted, [&](const std::byte* from, std::int64_t to, std::int64_t length) {
      if (!convert(reinterpret_cast<const Src*>(from), out + to, length)) fits = false;
    });
  };
  if (integers) {
    visit_integer(type.kind, type.size, type.is_signed, as);
  } else if (type.size == 2) {
    elements(ctx, first, n, nullptr, wanted, [&](const std::byte* from, std::int64_t to, std::int64_t length) {
      for (std::int64_t i = 0; i < length; ++i) {
        std::uint16_t h = 0;
        std::memcpy(&h, from + 2 * i, 2);
        out[to + i] = static_cast<T>(half_to_float(h));
      }
    });
  } else if (type.size == 4) {
    as(float{});
  } else {
    as(double{});
  }
  return fits;
}

std::vector<std::byte> ZarrArray::raw(const Context& ctx) const {
  std::vector<std::byte> out(static_cast<std::size_t>(count) * type.size);
  elements(ctx, 0, count == 0 ? 0 : rows(), out.data(), nullptr,
           [&](const std::byte* from, std::int64_t to, std::int64_t n) {
             std::memcpy(out.data() + static_cast<std::size_t>(to) * type.size, from,
                         static_cast<std::size_t>(n) * type.size);
           });
  return out;
}

std::vector<std::string> ZarrArray::texts(const Context& ctx) const {
  if (type.kind != Kind::string) fail("is of type {} (expected text)", type.name);
  std::vector<std::string> out(static_cast<std::size_t>(count));
  if (meta_.type.text != TextForm::vlen_utf8) {
    const auto bytes = raw(ctx);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = fixed_text(meta_.type, bytes.data() + i * type.size);
    return out;
  }
  Spares<Room>::Loan rooms(rooms_, ctx.n_threads);
  std::vector<std::vector<std::string_view>> of_worker(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  const auto expected = static_cast<std::uint64_t>(meta_.chunk_elements());
  std::atomic<std::int64_t> filled{0};  // bytes of texts that nobody stored
  pieces(ctx, 0, count == 0 ? 0 : rows(), nullptr, [&](const Piece& piece, int worker) {
    Unpacker& u = rooms[worker].unpacker;
    auto& texts = of_worker[static_cast<std::size_t>(worker)];
    const bool is_there = load(piece, u.packed);
    texts.clear();
    if (is_there) {
      const auto damaged = [&] { fail("the texts of the chunk at {} are damaged", where(piece)); };
      if (!u.unpack(meta_.pipeline, u.packed.data(), u.packed.size(), u.plain)) damaged();
      const std::byte* p = u.plain.data();
      std::size_t left = u.plain.size();
      if (left < 4 || load32(p) != expected || expected > left / 4) damaged();
      p += 4;
      left -= 4;
      for (std::uint64_t i = 0; i < expected; ++i) {
        if (left < 4 || load32(p) > left - 4) damaged();
        const std::size_t n = load32(p);
        texts.emplace_back(reinterpret_cast<const char*>(p + 4), n);
        p += 4 + n;
        left -= 4 + n;
      }
    }
    runs(piece, [&](std::int64_t from, std::int64_t to, std::int64_t length, std::int64_t step) {
      if (const auto n = static_cast<std::int64_t>(meta_.fill_text.size());
          !is_there && n > 0 && (length > kFreeBytes / n || (filled += length * n) > kFreeBytes))
        fail("its fill value of {} bytes takes the place of more than {} texts", n, kFreeBytes / n);
      for (std::int64_t k = 0; k < length; ++k)
        out[static_cast<std::size_t>(to + k)] =
            is_there ? texts[static_cast<std::size_t>(from + k * step)] : std::string_view(meta_.fill_text);
    });
  });
  return out;
}

std::optional<StructArray> ZarrArray::records(const Context& ctx) const {
  if (type.kind != Kind::compound || dims.size() != 1) return std::nullopt;
  for (const auto& f : meta_.type.fields) {
    const auto& e = f.type.element;
    const bool known = e.kind == Kind::boolean || e.kind == Kind::string || (e.kind == Kind::floating && e.size <= 8) ||
                       (e.kind == Kind::integer && e.name != "uint64");
    if (!known) return std::nullopt;
  }
  const auto bytes = raw(ctx);
  const auto n = static_cast<std::size_t>(count);
  StructArray out;
  out.n_rows = count;
  for (const auto& f : meta_.type.fields) {
    const auto& e = f.type.element;
    std::vector<std::byte> column(n * e.size);
    for (std::size_t i = 0; i < n; ++i)
      std::memcpy(column.data() + i * e.size, bytes.data() + i * type.size + f.offset, e.size);
    const bool swapped = f.type.swapped || meta_.pipeline.swapped;
    if (swapped && e.size > 1 && f.type.text == TextForm::none) reverse_units(column.data(), column.size(), e.size);
    const auto as = [&]<class T>(T) {
      std::vector<T> values(n);
      if (e.kind == Kind::integer) {
        visit_integer(e.kind, e.size, e.is_signed, [&]<class Src>(Src) {
          for (std::size_t i = 0; i < n; ++i) {
            Src v{};
            std::memcpy(&v, column.data() + i * sizeof v, sizeof v);
            values[i] = static_cast<T>(v);
          }
        });
      } else if (e.size == sizeof(T)) {
        if (n > 0) std::memcpy(values.data(), column.data(), column.size());
      } else {
        for (std::size_t i = 0; i < n; ++i) {
          std::uint16_t h = 0;
          std::memcpy(&h, column.data() + 2 * i, 2);
          values[i] = static_cast<T>(half_to_float(h));
        }
      }
      out.fields.emplace_back(f.name, std::move(values));
    };
    if (e.kind == Kind::floating) {
      e.size <= 4 ? as(float{}) : as(double{});
    } else if (e.kind == Kind::integer) {
      e.size <= 2 || (e.size == 4 && e.is_signed) ? as(std::int32_t{}) : as(std::int64_t{});
    } else if (e.kind == Kind::boolean) {
      Bools flags;
      for (const auto b : column) flags.values.push_back(b != std::byte{0} ? 1 : 0);
      out.fields.emplace_back(f.name, std::move(flags));
    } else {
      std::vector<std::string> texts;
      Type t = f.type;
      t.swapped = swapped;
      for (std::size_t i = 0; i < n; ++i) texts.push_back(fixed_text(t, column.data() + i * e.size));
      out.fields.emplace_back(f.name, std::move(texts));
    }
  }
  return out;
}

std::optional<OpaqueRows> ZarrArray::opaque(const Context& ctx) const {
  const bool number = type.kind == Kind::integer || type.kind == Kind::floating || type.kind == Kind::boolean ||
                      type.name == "complex64" || type.name == "complex128";
  if (is_null || dims.empty() || !number) return std::nullopt;
  OpaqueRows out;
  out.path = path;
  out.shape = dims;
  out.row_bytes = count == 0 ? 0 : count / dims[0] * static_cast<std::int64_t>(type.size);
  out.dtype = type.name;
  out.bytes = raw(ctx);
  return out;
}

// -------------------------------------------------------------------------------------------------------------- nodes

class ZarrNode final : public Node {
 public:
  ZarrNode(const ZarrStore& store, std::string folder, bool group, Json metadata)
      : Node(store, "/" + folder, group),
        zarr_(store),
        folder_(std::move(folder)),
        metadata_(std::move(metadata)),
        attributes_(store.attributes(folder_, metadata_)) {}

  std::unique_ptr<Node> find(const std::string& name) const override {
    if (!is_group) fail("is an array (expected a group with '{}')", name);
    const auto slash = name.find('/');
    const std::string first = name.substr(0, slash);
    if (!is_plain_name(first)) return nullptr;
    bool group = false;
    const std::string folder = join(folder_, first);
    Json metadata = zarr_.metadata(folder, group);
    if (metadata.is_null()) return nullptr;
    auto node = std::make_unique<ZarrNode>(zarr_, folder, group, std::move(metadata));
    if (slash == std::string::npos) return node;
    return group ? node->find(name.substr(slash + 1)) : nullptr;
  }
  std::vector<Link> links() const override {
    std::vector<Link> out;
    for (const auto& e : zarr_.tree().list(folder_)) {
      const std::string folder = join(folder_, e.name);
      if (e.is_link) {
        if (e.name[0] != '.') out.push_back({e.name, false});
      } else if (e.is_folder && (zarr_.version() == 3 ? zarr_.tree().size(folder + "/zarr.json").has_value()
                                                      : zarr_.tree().size(folder + "/.zgroup").has_value() ||
                                                            zarr_.tree().size(folder + "/.zarray").has_value())) {
        out.push_back({e.name, true});
      }
    }
    return out;
  }
  std::unique_ptr<StoredArray> array() const override {
    if (is_group) fail("is a group (expected an array)");
    try {
      ArrayMeta meta = zarr_.version() == 3 ? parse_v3(metadata_) : parse_v2(metadata_);
      const bool null = attributes_.contains("encoding-type") && attributes_.at("encoding-type") == "null";
      return std::make_unique<ZarrArray>(zarr_, path, folder_, std::move(meta), null);
    } catch (const Damage& d) {
      fail("{}", d.what);
    }
  }
  std::int64_t stored_bytes() const override { return bytes_below(zarr_.tree(), folder_, 64); }
  bool has_attribute(const char* name) const override { return attributes_.contains(name); }
  std::optional<std::vector<std::string>> texts_attribute(const char* name) const override {
    const auto it = attributes_.find(name);
    if (it == attributes_.end()) return std::nullopt;
    std::vector<std::string> out;
    for (const Json& v : it->is_array() ? *it : Json::array({*it})) {
      if (!v.is_string()) fail("attribute '{}' is {} (expected text)", name, v.type_name());
      out.push_back(v.get<std::string>());
    }
    return out;
  }
  Attributes attributes(std::vector<std::string>& dropped) const override {
    Attributes out;
    for (const auto& [name, v] : attributes_.items()) {
      const auto all = [&v](auto&& is) { return v.is_array() && !v.empty() && std::all_of(v.begin(), v.end(), is); };
      const auto whole = [](const Json& x) {
        return x.is_number_integer() && !(x.is_number_unsigned() && x.get<std::uint64_t>() > INT64_MAX);
      };
      if (v.is_string())
        out.emplace_back(name, v.get<std::string>());
      else if (v.is_boolean())
        out.emplace_back(name, v.get<bool>());
      else if (whole(v))
        out.emplace_back(name, v.get<std::int64_t>());
      else if (v.is_number())
        out.emplace_back(name, v.get<double>());
      else if (all(whole))
        out.emplace_back(name, v.get<std::vector<std::int64_t>>());
      else if (all([](const Json& x) { return x.is_number(); }))
        out.emplace_back(name, v.get<std::vector<double>>());
      else if (all([](const Json& x) { return x.is_string(); }) || (v.is_array() && v.empty()))
        out.emplace_back(name, v.get<std::vector<std::string>>());
      else
        dropped.push_back(name);
    }
    return out;
  }
  std::optional<std::vector<std::int64_t>> integers_attribute(const char* name) const override {
    const auto it = attributes_.find(name);
    if (it == attributes_.end()) return std::nullopt;
    std::vector<std::int64_t> out;
    for (const Json& v : it->is_array() ? *it : Json::array({*it})) {
      if (v.is_boolean())
        out.push_back(v.get<bool>() ? 1 : 0);
      else if (v.is_number_integer() && !(v.is_number_unsigned() && v.get<std::uint64_t>() > INT64_MAX))
        out.push_back(v.get<std::int64_t>());
      else
        fail("attribute '{}' is {} (expected integers)", name, v.dump());
    }
    return out;
  }

 private:
  const ZarrStore& zarr_;
  std::string folder_;
  Json metadata_, attributes_;
};

}  // namespace

std::shared_ptr<const ZarrStore> ZarrStore::open(const char* op, std::string name, std::unique_ptr<Tree> tree) {
  std::shared_ptr<ZarrStore> s(new ZarrStore(op, std::move(name), std::move(tree)));
  s->version_ = s->tree_->size("zarr.json") ? 3 : s->tree_->size(".zgroup") ? 2 : 0;
  SCW_EXPECT_AS(FormatError, s->version_ != 0, op, "'{}' is not a Zarr group (neither zarr.json nor .zgroup is there)",
                s->name_);
  return s;
}

Json ZarrStore::load(const std::string& key) const {
  const auto size = tree_->size(key);
  if (!size) return nullptr;
  if (*size > kMaxMetadata) fail("/" + key, "has {} bytes of metadata (expected at most {})", *size, kMaxMetadata);
  std::vector<std::byte> text;
  if (!tree_->read(key, text)) return nullptr;
  try {
    return parse_json(text);
  } catch (const Damage& d) {
    fail("/" + key, "{}", d.what);
  }
}

Json ZarrStore::metadata(const std::string& folder, bool& is_group) const {
  if (version_ == 3) {
    Json j = load(join(folder, "zarr.json"));
    if (j.is_null()) return j;
    const bool known =
        j.is_object() && j.contains("node_type") && (j["node_type"] == "group" || j["node_type"] == "array");
    if (!known) fail("/" + folder, "its metadata are those of neither a group nor an array");
    is_group = j["node_type"] == "group";
    return j;
  }
  Json j = load(join(folder, ".zarray"));
  is_group = j.is_null();
  if (is_group) j = load(join(folder, ".zgroup"));
  if (!j.is_null() && !j.is_object()) fail("/" + folder, "its metadata are no mapping");
  return j;
}

Json ZarrStore::attributes(const std::string& folder, const Json& metadata) const {
  Json out = Json::object();
  if (version_ == 3) {
    if (metadata.contains("attributes")) out = metadata.at("attributes");
  } else if (Json j = load(join(folder, ".zattrs")); !j.is_null()) {
    out = std::move(j);
  }
  if (!out.is_object()) fail("/" + folder, "its attributes are no mapping");
  return out;
}

std::unique_ptr<Node> ZarrStore::root() const {
  bool is_group = true;
  Json j = metadata("", is_group);
  return std::make_unique<ZarrNode>(*this, "", is_group, std::move(j));
}

}  // namespace scw::io::zarr
