#include "io/hdf5_range.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/parallel.hpp"
#include "io/numbers.hpp"

namespace scw::io::h5 {
namespace {

constexpr std::int64_t kBlockBytes = 1 << 20;
constexpr std::int64_t kTaskBytes = 1 << 16;  // small chunks are handed out in groups of this size

template <class Src>
bool is_stored_as(const Type& t) {
  if (!t.native || t.size != sizeof(Src)) return false;
  if constexpr (std::is_floating_point_v<Src>)
    return t.kind == Kind::floating;
  else
    return t.kind == Kind::boolean ? sizeof(Src) == 1 : t.kind == Kind::integer && t.is_signed == std::is_signed_v<Src>;
}

[[noreturn]] void cut_short(const Dataset& d, std::uint64_t address) {
  d.fail<IoError>("the file cannot be read at byte {}: it was cut short or changed since it was opened", address);
}

}  // namespace

RangeReader::RangeReader(Dataset d) : RangeReader(d, d.type.size) {
  keep_ = std::make_unique<Dataset>(std::move(d));
  d_ = keep_.get();
}

RangeReader::RangeReader(const Dataset& d, std::size_t element_bytes) : d_(&d), element_bytes_(element_bytes) {
  const Session session;
  rows_ = d.dims.empty() ? std::min<std::int64_t>(d.count, 1) : d.dims[0];
  cols_ = d.count == 0 ? 0 : d.count / rows_;
  row_bytes_ = checked_mul(cols_, static_cast<std::int64_t>(element_bytes));
  if (d.count == 0) {
    own_ = true;
    return;
  }
  const auto layout = H5Pget_layout(d.plist.get());
  if (layout == H5D_CHUNKED) {
    set_fill();
    plan_chunks();
  } else if (layout == H5D_CONTIGUOUS) {
    const haddr_t offset = H5Dget_offset(d.id.get());
    if (offset != HADDR_UNDEF) {
      way_ = Way::contiguous;
      address_ = offset - d.source->base();  // alone among the library's addresses, this one counts the user block
      own_ = true;
    }
  }
  H5Eclear2(H5E_DEFAULT);
}

RangeReader::~RangeReader() {
  if (!keep_) return;
  const Session session;
  keep_.reset();
}

/// Chunks never written hold the fill value.
void RangeReader::set_fill() {
  const Dataset& d = dataset();
  fill_.resize(element_bytes_);
  H5D_fill_value_t fill_status{};
  if (d.type.kind != Kind::string && H5Pfill_value_defined(d.plist.get(), &fill_status) >= 0 &&
      fill_status == H5D_FILL_VALUE_USER_DEFINED && H5Tget_size(d.type.id.get()) == element_bytes_)
    H5Pget_fill_value(d.plist.get(), d.type.id.get(), fill_.data());
}

void RangeReader::plan_chunks() {
  const Dataset& d = *d_;
  auto filters = own_filters(d);
  const std::size_t rank = d.dims.size();
  if (!filters || rank < 1 || rank > 2) return;
  hsize_t shape[2] = {1, 1};
  if (H5Pget_chunk(d.plist.get(), static_cast<int>(rank), shape) != static_cast<int>(rank)) return;
  constexpr hsize_t kMost = hsize_t{1} << 32;
  if (shape[0] == 0 || shape[1] == 0 || shape[0] >= kMost || shape[1] >= kMost) return;
  chunk_rows_ = static_cast<std::int64_t>(shape[0]);
  chunk_cols_ = static_cast<std::int64_t>(shape[1]);
  if (__builtin_mul_overflow(chunk_rows_, chunk_cols_, &chunk_bytes_) ||
      __builtin_mul_overflow(chunk_bytes_, static_cast<std::int64_t>(element_bytes_), &chunk_bytes_) ||
      chunk_bytes_ >= INT64_C(1) << 32)
    return;
  across_ = (cols_ + chunk_cols_ - 1) / chunk_cols_;
  checked_mul(across_, (rows_ + chunk_rows_ - 1) / chunk_rows_);
  filters_ = std::move(*filters);
  expansion_ = max_expansion(d);
  way_ = Way::chunked;
  list_chunks();
  own_ = listed_;
}

/// From our own walk through the file's list: the library (1.10) can only ask for one chunk after another, and looks
/// through the whole list for each.
void RangeReader::list_chunks() {
  const auto* stored = d_->source->chunks(d_->address);
  if (stored == nullptr) return;
  chunks_.reserve(stored->size());
  for (const StoredChunk& s : *stored) {
    // (Outside: left over from a dataset that was made smaller.)
    if (s.row >= static_cast<std::uint64_t>(rows_) || s.col >= static_cast<std::uint64_t>(cols_)) continue;
    chunks_.push_back(
        {static_cast<std::int64_t>(s.row) / chunk_rows_ * across_ + static_cast<std::int64_t>(s.col) / chunk_cols_,
         s.address, s.bytes, s.skipped});
  }
  const auto before = [](const Chunk& a, const Chunk& b) { return a.number < b.number; };
  if (!std::is_sorted(chunks_.begin(), chunks_.end(), before)) std::sort(chunks_.begin(), chunks_.end(), before);
  for (std::size_t k = 1; k < chunks_.size(); ++k)
    if (chunks_[k - 1].number == chunks_[k].number) d_->fail("its list of chunks is damaged");
  listed_ = true;
}

const RangeReader::Chunk* RangeReader::find(std::int64_t number) const {
  const auto it = std::lower_bound(chunks_.begin(), chunks_.end(), number,
                                   [](const Chunk& c, std::int64_t n) { return c.number < n; });
  return it != chunks_.end() && it->number == number ? &*it : nullptr;
}

unsigned RangeReader::load(const hsize_t* offset, std::vector<std::byte>& packed) const {
  const Dataset& d = dataset();
  const auto where = [&] { return fmt::format("({})", fmt::join(offset, offset + d.dims.size(), ", ")); };
  hsize_t stored = 0;
  std::uint32_t skipped = 0;
  const std::lock_guard lock(library_);
  if (H5Dget_chunk_storage_size(d.id.get(), offset, &stored) < 0) {
    H5Eclear2(H5E_DEFAULT);
    stored = 0;
  }
  if (stored > static_cast<hsize_t>(d.source->size()))
    d.fail("the chunk at {} declares {} bytes in a file of {}", where(), stored, d.source->size());
  packed.resize(static_cast<std::size_t>(stored));
  if (stored > 0 && H5Dread_chunk(d.id.get(), H5P_DEFAULT, offset, &skipped, packed.data()) < 0)
    d.fail("the chunk at {} cannot be read ({})", where(), last_error());
  return skipped;
}

void RangeReader::unpack(std::int64_t number, Unpacker& u, std::byte* out) const {
  const Dataset& d = dataset();
  const std::int64_t row = number / across_ * chunk_rows_, col = number % across_ * chunk_cols_;
  Chunk chunk;
  if (listed_) {
    if (const Chunk* known = find(number)) chunk = *known;
    if (chunk.bytes == static_cast<std::uint64_t>(chunk_bytes_) &&
        (filters_.empty() || chunk.skipped + 1U == 1U << filters_.size())) {
      if (!d.source->read_at(chunk.address, chunk.bytes, out)) cut_short(d, chunk.address);
      return;
    }
    u.packed.resize(chunk.bytes);
    if (!d.source->read_at(chunk.address, chunk.bytes, u.packed.data())) cut_short(d, chunk.address);
  } else {
    const hsize_t offset[2] = {static_cast<hsize_t>(row), static_cast<hsize_t>(col)};
    chunk.skipped = load(offset, u.packed);
  }
  if (u.packed.empty()) {
    for (std::int64_t k = 0; k < chunk_bytes_; k += static_cast<std::int64_t>(element_bytes_))
      std::memcpy(out + k, fill_.data(), element_bytes_);
  } else if (!u.unpack(filters_, chunk.skipped, static_cast<std::size_t>(chunk_bytes_), element_bytes_, out)) {
    d.fail("the chunk at ({}, {}) is damaged", row, col);
  }
}

void RangeReader::stored_blocks(const Context& ctx, std::int64_t first, std::int64_t n, std::byte* direct,
                                const std::function<void(const Block&)>& body) const {
  if (way_ == Way::contiguous) return contiguous_blocks(ctx, first, n, direct, body);
  std::optional<Session> session;
  if (!listed_) session.emplace();
  Spares<Unpacker>::Loan workers(unpackers_, ctx.n_threads);
  const auto element = static_cast<std::int64_t>(element_bytes_);
  const std::int64_t begin = first / chunk_rows_ * across_, end = (first + n + chunk_rows_ - 1) / chunk_rows_ * across_;
  const std::int64_t grain = std::max<std::int64_t>(1, kTaskBytes / chunk_bytes_);
  parallel_chunks(ctx, end - begin, grain, [&](std::int64_t, std::int64_t from, std::int64_t to, int worker) {
    Unpacker& u = workers[worker];
    for (std::int64_t c = begin + from; c < begin + to; ++c) {
      const std::int64_t row = c / across_ * chunk_rows_;
      Block b;
      b.row = std::max(row, first);
      b.col = c % across_ * chunk_cols_;
      b.n_rows = std::min({row + chunk_rows_, rows_, first + n}) - b.row;
      b.n_cols = std::min(chunk_cols_, cols_ - b.col);
      b.ld = chunk_cols_;
      if (direct != nullptr && b.n_rows == chunk_rows_ && chunk_cols_ == cols_) {
        unpack(c, u, direct + (b.row - first) * row_bytes_);
        continue;
      }
      if (chunk_bytes_ > kFreeBytes && listed_) {
        const Chunk* known = find(c);
        if (known != nullptr && chunk_bytes_ / expansion_ > static_cast<std::int64_t>(known->bytes))
          dataset().fail("the chunk at ({}, {}) declares {} bytes, but stores {}", row, b.col, chunk_bytes_,
                         known->bytes);
      }
      u.plain.resize(static_cast<std::size_t>(chunk_bytes_));
      unpack(c, u, u.plain.data());
      b.data = u.plain.data() + (b.row - row) * b.ld * element;
      if (direct == nullptr) {
        body(b);
        continue;
      }
      for (std::int64_t i = 0; i < b.n_rows; ++i)
        std::memcpy(direct + (b.row + i - first) * row_bytes_ + b.col * element, b.data + i * b.ld * element,
                    static_cast<std::size_t>(b.n_cols * element));
    }
  });
}

void RangeReader::contiguous_blocks(const Context& ctx, std::int64_t first, std::int64_t n, std::byte* direct,
                                    const std::function<void(const Block&)>& body) const {
  Spares<Unpacker>::Loan workers(unpackers_, ctx.n_threads);
  const std::int64_t step = std::max<std::int64_t>(1, kBlockBytes / row_bytes_);
  parallel_chunks(ctx, n, step, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    const auto bytes = static_cast<std::size_t>(checked_mul(end - begin, row_bytes_));
    const std::uint64_t at = address_ + static_cast<std::uint64_t>((first + begin) * row_bytes_);
    std::byte* to = direct == nullptr ? nullptr : direct + begin * row_bytes_;
    if (to == nullptr) {
      auto& buffer = workers[worker].plain;
      if (buffer.size() < bytes) buffer.resize(bytes);
      to = buffer.data();
    }
    if (!dataset().source->read_at(at, bytes, to)) cut_short(dataset(), at);
    if (direct == nullptr) body({to, first + begin, 0, end - begin, cols_, cols_});
  });
}

void RangeReader::library_blocks(const Context& ctx, std::int64_t first, std::int64_t n, hid_t memory_type,
                                 std::size_t element_bytes, const std::function<void(const Block&)>& body) const {
  const Session session;
  const Dataset& d = dataset();
  const std::int64_t row_bytes = checked_mul(cols_, static_cast<std::int64_t>(element_bytes));
  std::int64_t step = std::max<std::int64_t>(1, kBlockBytes / row_bytes);
  if (H5Pget_layout(d.plist.get()) == H5D_CHUNKED) {
    // The library's own filters read past the ends of damaged chunks.
    if (const auto filters = own_filters(d))
      return chunk_blocks(ctx, first, n, memory_type, element_bytes, *filters, body);
    hsize_t shape[H5S_MAX_RANK];
    if (H5Pget_chunk(d.plist.get(), H5S_MAX_RANK, shape) > 0 && shape[0] > 0 && shape[0] < (hsize_t{1} << 32)) {
      const auto c = static_cast<std::int64_t>(shape[0]);
      step = (step + c - 1) / c * c;
    }
  }
  const std::vector<hsize_t> extent(d.dims.begin(), d.dims.end());
  const hid_t type = memory_type == H5I_INVALID_HID ? d.type.id.get() : memory_type;
  Spares<Unpacker>::Loan workers(unpackers_, ctx.n_threads);
  parallel_chunks(ctx, n, step, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    auto& buffer = workers[worker].plain;
    buffer.resize(static_cast<std::size_t>(checked_mul(end - begin, row_bytes)));
    {
      const std::lock_guard lock(library_);
      const hsize_t count = static_cast<hsize_t>((end - begin) * cols_);
      const Id memory(H5Screate_simple(1, &count, nullptr));
      const Id file(H5Scopy(d.space.get()));
      if (!d.dims.empty()) {
        std::vector<hsize_t> start(extent.size(), 0), size(extent);
        start[0] = static_cast<hsize_t>(first + begin);
        size[0] = static_cast<hsize_t>(end - begin);
        H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr);
      }
      if (H5Dread(d.id.get(), type, memory.get(), file.get(), H5P_DEFAULT, buffer.data()) < 0)
        d.fail("rows {} to {} cannot be read ({})", first + begin, first + end, last_error());
    }
    body({buffer.data(), first + begin, 0, end - begin, cols_, cols_});
  });
}

void RangeReader::chunk_blocks(const Context& ctx, std::int64_t first, std::int64_t n, hid_t memory_type,
                               std::size_t element_bytes, const std::vector<Filter>& filters,
                               const std::function<void(const Block&)>& body) const {
  const Dataset& d = dataset();
  const std::size_t rank = d.dims.size(), size = element_bytes_, wide = std::max(size, element_bytes);
  hsize_t shape[H5S_MAX_RANK];
  if (H5Pget_chunk(d.plist.get(), H5S_MAX_RANK, shape) != static_cast<int>(rank) || rank == 0)
    d.fail("its chunks are damaged");
  std::int64_t chunk = static_cast<std::int64_t>(size), n_chunks = 1;
  std::vector<std::int64_t> edge(rank), across(rank);
  for (std::size_t k = 0; k < rank; ++k) {
    edge[k] = static_cast<std::int64_t>(shape[k]);
    if (edge[k] <= 0) d.fail("its chunks are damaged");
    chunk = checked_mul(chunk, edge[k]);
    across[k] = (d.dims[k] - 1) / edge[k] + 1;
    n_chunks = checked_mul(n_chunks, across[k]);
  }
  constexpr std::int64_t kFreeChunks = 1 << 16;
  if (n_chunks > kFreeChunks && n_chunks > d.source->size())
    d.fail("declares {} chunks in a file of {} bytes", n_chunks, d.source->size());
  std::int64_t step = std::max<std::int64_t>(1, kBlockBytes / checked_mul(cols_, static_cast<std::int64_t>(wide)));
  step = (step - 1) / edge[0] * edge[0] + edge[0];
  // Blocks begin where chunks do.
  const std::int64_t begin = first / edge[0] * edge[0];
  Spares<Unpacker>::Loan workers(unpackers_, ctx.n_threads);
  parallel_chunks(ctx, first + n - begin, step, [&](std::int64_t, std::int64_t from, std::int64_t to, int worker) {
    const std::int64_t low = std::max(first, begin + from), high = begin + to;
    Unpacker& u = workers[worker];
    std::vector<std::byte> block(
        static_cast<std::size_t>(checked_mul((high - low) * cols_, static_cast<std::int64_t>(wide))));
    std::vector<hsize_t> at(rank, 0);
    at[0] = static_cast<hsize_t>(low / edge[0] * edge[0]);
    for (bool more = true; more;) {
      const unsigned skipped = load(at.data(), u.packed);
      u.plain.resize(static_cast<std::size_t>(chunk));
      if (u.packed.empty()) {
        for (std::size_t k = 0; k < u.plain.size(); k += size) std::memcpy(u.plain.data() + k, fill_.data(), size);
      } else if (!u.unpack(filters, skipped, u.plain.size(), size, u.plain.data())) {
        d.fail("the chunk at ({}) is damaged", fmt::join(at, ", "));
      }
      scatter(at, edge, low, high, u.plain.data(), block.data());
      more = false;
      for (std::size_t k = rank; k-- > 0 && !more;) {
        at[k] += shape[k];
        more = at[k] < static_cast<hsize_t>(k == 0 ? high : d.dims[k]);
        if (!more && k > 0) at[k] = 0;
      }
    }
    if (memory_type != H5I_INVALID_HID) {
      const std::lock_guard lock(library_);
      const auto count = static_cast<std::size_t>((high - low) * cols_);
      if (H5Tconvert(d.type.id.get(), memory_type, count, block.data(), nullptr, H5P_DEFAULT) < 0)
        d.fail("rows {} to {} cannot be converted ({})", low, high, last_error());
    }
    body({block.data(), low, 0, high - low, cols_, cols_});
  });
}

/// The part of a chunk in rows [low, high) -> these rows.
void RangeReader::scatter(const std::vector<hsize_t>& at, const std::vector<std::int64_t>& edge, std::int64_t low,
                          std::int64_t high, const std::byte* chunk, std::byte* rows) const {
  const auto& dims = dataset().dims;
  const std::size_t rank = dims.size(), size = element_bytes_;
  std::vector<std::int64_t> begin(rank), end(rank);
  for (std::size_t k = 0; k < rank; ++k) {
    const auto here = static_cast<std::int64_t>(at[k]);
    begin[k] = k == 0 ? std::max(low, here) : here;
    end[k] = std::min(k == 0 ? high : dims[k], here + edge[k]);
    if (begin[k] >= end[k]) return;
  }
  std::vector<std::int64_t> i = begin;
  const auto run = static_cast<std::size_t>(end[rank - 1] - begin[rank - 1]) * size;
  for (;;) {
    std::int64_t from = 0, to = 0;
    for (std::size_t k = 0; k < rank; ++k) {
      from = from * edge[k] + i[k] - static_cast<std::int64_t>(at[k]);
      to = to * (k == 0 ? 1 : dims[k]) + i[k] - (k == 0 ? low : 0);
    }
    std::memcpy(rows + static_cast<std::size_t>(to) * size, chunk + static_cast<std::size_t>(from) * size, run);
    std::size_t k = rank - 1;
    while (k-- > 0) {
      if (++i[k] < end[k]) break;
      i[k] = begin[k];
    }
    if (k == static_cast<std::size_t>(-1)) return;
  }
}

void RangeReader::blocks(const Context& ctx, std::int64_t first, std::int64_t n, hid_t memory_type,
                         std::size_t element_bytes, const std::function<void(const Block&)>& body) const {
  SCW_ASSERT(first >= 0 && n >= 0 && first <= rows_ - n);
  if (n == 0 || cols_ == 0) return;
  if (way_ != Way::library && (memory_type == H5I_INVALID_HID || dataset().type.native)) {
    SCW_ASSERT(element_bytes == element_bytes_);
    stored_blocks(ctx, first, n, nullptr, body);
  } else {
    library_blocks(ctx, first, n, memory_type, element_bytes, body);
  }
}

template <class T>
bool RangeReader::read(const Context& ctx, std::int64_t first, std::int64_t n, T* out) const {
  const Dataset& d = dataset();
  const bool integers = d.type.kind == Kind::integer || d.type.kind == Kind::boolean;
  if (!integers && !(d.type.kind == Kind::floating && std::is_floating_point_v<T>))
    d.fail("is of type {} (expected {})", d.type.name, std::is_floating_point_v<T> ? "numbers" : "integers");
  SCW_ASSERT(first >= 0 && n >= 0 && first <= rows_ - n);
  if (n == 0 || cols_ == 0) return true;
  if (way_ != Way::library && is_stored_as<T>(d.type)) {
    stored_blocks(ctx, first, n, reinterpret_cast<std::byte*>(out), {});
    return true;
  }
  std::atomic<bool> fits{true};
  const auto as = [&]<class Src>(Src) {
    const hid_t memory = d.type.kind == Kind::boolean ? d.type.id.get() : native_type<Src>();
    blocks(ctx, first, n, memory, sizeof(Src), [&](const Block& b) {
      const auto* in = reinterpret_cast<const Src*>(b.data);
      T* to = out + (b.row - first) * cols_ + b.col;
      bool ok = true;
      if (b.n_cols == cols_ && b.ld == cols_) {
        ok = convert(in, to, b.n_rows * cols_);
      } else {
        for (std::int64_t i = 0; i < b.n_rows; ++i) ok &= convert(in + i * b.ld, to + i * cols_, b.n_cols);
      }
      if (!ok) fits = false;
    });
  };
  if (integers)
    visit_integer(d.type.kind, d.type.size, d.type.is_signed, as);
  else if (d.type.size <= 4)
    as(float{});
  else
    as(double{});
  return fits;
}
template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, std::uint8_t*) const;
template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, std::int32_t*) const;
template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, std::int64_t*) const;
template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, float*) const;
template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, double*) const;

void read_blocks(const Context& ctx, const Dataset& d, hid_t memory_type, std::size_t element_bytes,
                 const std::function<void(const Block&)>& body) {
  if (d.count == 0) return;
  const RangeReader reader(d, element_bytes);
  reader.blocks(ctx, 0, reader.n_rows(), memory_type, element_bytes, body);
}

template <class T>
bool read_numbers(const Context& ctx, const Dataset& d, T* out) {
  const RangeReader reader(d, d.type.size);
  return reader.read(ctx, 0, reader.n_rows(), out);
}
template bool read_numbers(const Context&, const Dataset&, std::uint8_t*);
template bool read_numbers(const Context&, const Dataset&, std::int32_t*);
template bool read_numbers(const Context&, const Dataset&, std::int64_t*);
template bool read_numbers(const Context&, const Dataset&, float*);
template bool read_numbers(const Context&, const Dataset&, double*);

}  // namespace scw::io::h5
