#include "io/zarr_array.hpp"

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/parallel.hpp"
#include "io/numbers.hpp"

namespace scw::io::zarr {
namespace {

constexpr std::uint64_t kMissing = ~std::uint64_t{0};
constexpr std::int64_t kFreeTasks = 1 << 16;  // chunks that nobody need have stored
constexpr std::int64_t kLeastRoom = 1 << 20;  // that a packed chunk may have beyond what it holds
constexpr std::int64_t kPartBytes = 4 << 20;  // plain chunks above this are read in parts
constexpr std::int64_t kAhead = 4;            // chunks that are asked for while another one is unpacked

static_assert(std::endian::native == std::endian::little);

std::int64_t piece_elements(const Piece& p) {
  std::int64_t n = 1;
  for (const auto k : p.extent) n *= k;
  return n;
}

}  // namespace

std::int64_t bytes_below(const Tree& tree, const std::string& folder, int depth, std::int64_t enough) {
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

std::int64_t ZarrArray::chunk_rows() const {
  // Of what is not packed any part can be read; small chunks are better read at once.
  const bool cut = meta_.pipeline.codecs.empty() && type.size > 0 && meta_.chunk_bytes() > kPartBytes;
  return dims.empty() || cut ? 1 : meta_.chunk[0];
}

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

}  // namespace scw::io::zarr
