#include "scwarp/core/row_blocks.hpp"

#include <algorithm>
#include <future>
#include <vector>

#include "core/backend.hpp"
#include "core/check.hpp"

namespace scw {
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{256} << 20;  // 5 ms on the bus
constexpr std::int64_t kMinBlockBytes = std::int64_t{64} << 10;
constexpr std::int64_t kAlignedRows = 4096;  // tiles of PCA: blocks of whole tiles need no copy there

template <class T>
CsrView<T> slice(const CsrView<T>& x, std::int64_t first, std::int64_t count) {
  return x.rows(first, count);
}
template <class T>
MatrixView<T> slice(const MatrixView<T>& x, std::int64_t first, std::int64_t count) {
  return {x.row(first), count, x.n_cols, x.ld};
}

const void* address(const CsrView<const float>& x) { return x.indptr.data; }
const void* address(const CsrView<const double>& x) { return x.indptr.data; }
const void* address(const MatrixView<const float>& x) { return x.data; }
const void* address(const MatrixView<const double>& x) { return x.data; }

template <class T>
void upload(const Context& ctx, Array<T>& to, const T* from, std::int64_t n) {
  copy_bytes(ctx, to.data(), ctx.device, from, Device{}, static_cast<std::size_t>(n) * sizeof(T));
}

/// Room on the device for any block of a matrix, for CSR and dense rows.
template <class View>
class Room;

template <class V>
class Room<CsrView<V>> {
 public:
  static std::int64_t bytes(const CsrView<V>& x, std::int64_t first, std::int64_t last) {  // with indices or without
    return (x.indptr[last] - x.indptr[first]) * std::int64_t{sizeof(V) + sizeof(std::int32_t)} + (last - first) * 8;
  }
  Room(const Context& ctx, const CsrView<V>& x, const std::vector<std::int64_t>& bounds, RowParts parts)
      : x_(x), parts_(parts) {
    std::int64_t rows = 0, entries = 0;
    for (std::size_t b = 0; b + 1 < bounds.size(); ++b) {
      rows = std::max(rows, bounds[b + 1] - bounds[b]);
      entries = std::max(entries, x.indptr[bounds[b + 1]] - x.indptr[bounds[b]]);
    }
    indptr_ = Array<std::int64_t>(ctx.workspace, rows + 1, "streamed block", ctx.stream);
    if (parts == RowParts::all) indices_ = Array<std::int32_t>(ctx.workspace, entries, "streamed block", ctx.stream);
    values_ = Array<V>(ctx.workspace, entries, "streamed block", ctx.stream);
  }
  void fill(const Context& ctx, std::int64_t first, std::int64_t count) {
    first_ = first;
    count_ = count;
    const std::int64_t begin = x_.indptr[first];
    std::vector<std::int64_t> offsets(x_.indptr.data + first, x_.indptr.data + first + count + 1);
    for (std::int64_t& o : offsets) o -= begin;
    upload(ctx, indptr_, offsets.data(), count + 1);
    if (parts_ == RowParts::all) upload(ctx, indices_, x_.indices.data + begin, offsets.back());
    upload(ctx, values_, x_.values.data + begin, offsets.back());
    size_ = offsets.back();
  }
  CsrView<V> view() {
    return {count_,
            x_.n_cols,
            {indptr_.data(), count_ + 1},
            Span<const std::int32_t>(indices_.data(), parts_ == RowParts::all ? size_ : 0),
            {values_.data(), size_}};
  }
  void copy_back(const Context& ctx) {
    copy_bytes(ctx, x_.values.data + x_.indptr[first_], Device{}, values_.data(), ctx.device,
               static_cast<std::size_t>(size_) * sizeof(V));
  }

 private:
  CsrView<V> x_;
  RowParts parts_;
  std::int64_t first_ = 0, count_ = 0, size_ = 0;
  Array<std::int64_t> indptr_;
  Array<std::int32_t> indices_;
  Array<V> values_;
};

template <class V>
class Room<MatrixView<V>> {
 public:
  static std::int64_t bytes(const MatrixView<V>& x, std::int64_t first, std::int64_t last) {
    return (last - first) * x.n_cols * std::int64_t{sizeof(V)};
  }
  Room(const Context& ctx, const MatrixView<V>& x, const std::vector<std::int64_t>& bounds, RowParts) : x_(x) {
    std::int64_t rows = 0;
    for (std::size_t b = 0; b + 1 < bounds.size(); ++b) rows = std::max(rows, bounds[b + 1] - bounds[b]);
    values_ = Array<V>(ctx.workspace, checked_mul(rows, x.n_cols), "streamed block", ctx.stream);
  }
  void fill(const Context& ctx, std::int64_t first, std::int64_t count) {
    first_ = first;
    count_ = count;
    copy(ctx, [&](V* host, V* device, std::size_t n) { copy_bytes(ctx, device, ctx.device, host, Device{}, n); });
  }
  MatrixView<V> view() { return {values_.data(), count_, x_.n_cols}; }
  void copy_back(const Context& ctx) {
    copy(ctx, [&](V* host, V* device, std::size_t n) { copy_bytes(ctx, host, Device{}, device, ctx.device, n); });
  }

 private:
  template <class Copy>
  void copy(const Context&, const Copy& run) {
    const bool packed = x_.ld == x_.n_cols;
    const auto row_bytes = static_cast<std::size_t>(x_.n_cols) * sizeof(V);
    if (packed) return run(x_.row(first_), values_.data(), static_cast<std::size_t>(count_) * row_bytes);
    for (std::int64_t i = 0; i < count_; ++i) run(x_.row(first_ + i), values_.data() + i * x_.n_cols, row_bytes);
  }

  MatrixView<V> x_;
  std::int64_t first_ = 0, count_ = 0;
  Array<V> values_;
};

/// Boundaries of blocks of block_rows rows, or (0) of about as many as `target` bytes hold.
template <class View>
std::vector<std::int64_t> boundaries(const View& x, std::int64_t block_rows, std::int64_t target) {
  std::vector<std::int64_t> out{0};
  while (out.back() < x.n_rows) {
    const std::int64_t first = out.back();
    std::int64_t count = block_rows;
    if (block_rows == 0) {
      std::int64_t low = 1, high = x.n_rows - first;  // the most rows that fit, at least one
      while (low < high) {
        const std::int64_t middle = low + (high - low + 1) / 2;
        if (Room<View>::bytes(x, first, first + middle) <= target) {
          low = middle;
        } else {
          high = middle - 1;
        }
      }
      count = low > kAlignedRows && first + low < x.n_rows ? low / kAlignedRows * kAlignedRows : low;
    }
    out.push_back(std::min(x.n_rows, first + count));
  }
  return out;
}

/// Two rooms take turns: while body works on one, another thread fills the other on a stream of its own.
template <class View, class Body>
void stream(const Context& ctx, const View& x, std::int64_t block_rows, RowParts parts, bool changes,
            const Body& body) {
  if (x.n_rows == 0) return;
  const auto& hooks = detail::backend_hooks(ctx.device.type);
  const std::int64_t target =
      ctx.block_bytes > 0 ? ctx.block_bytes : std::clamp(available_bytes(ctx) / 8, kMinBlockBytes, kBlockBytes);
  const std::vector<std::int64_t> bounds = boundaries(x, block_rows, target);
  const std::size_t blocks = bounds.size() - 1;
  Context uploads = ctx;
  uploads.stream = hooks.stream(ctx.device.id, detail::OwnStream::copy);

  std::vector<Room<View>> rooms;
  for (std::size_t r = 0; r < std::min<std::size_t>(2, blocks); ++r) rooms.emplace_back(ctx, x, bounds, parts);
  struct Drain {  // rooms are freed on ctx.stream, after the uploads into them
    const Context &ctx, &uploads;
    ~Drain() {
      try {
        detail::backend_hooks(ctx.device.type).order(ctx, uploads.stream, ctx.stream);
      } catch (...) {  // the device has failed: the next call reports it
      }
    }
  } const drain{ctx, uploads};
  const auto fill = [&](std::size_t b) { rooms[b % 2].fill(uploads, bounds[b], bounds[b + 1] - bounds[b]); };

  hooks.order(ctx, ctx.stream, uploads.stream);  // the rooms are there
  fill(0);
  for (std::size_t b = 0; b < blocks; ++b) {
    ctx.check_cancelled("row blocks");
    hooks.order(ctx, uploads.stream, ctx.stream);  // block b has arrived
    std::future<void> next;
    if (b + 1 < blocks) {
      hooks.order(ctx, ctx.stream, uploads.stream);  // block b - 1 is no longer read
      next = std::async(std::launch::async, fill, b + 1);
    }
    body(bounds[b], rooms[b % 2].view());
    if (changes) rooms[b % 2].copy_back(ctx);
    if (next.valid()) next.get();
  }
}

template <class View>
auto mutable_host(const CsrView<const View>& x) {
  return CsrView<View>(x.n_rows, x.n_cols, x.indptr, x.indices, {const_cast<View*>(x.values.data), x.values.size});
}
template <class View>
auto mutable_host(const MatrixView<const View>& x) {
  return MatrixView<View>(const_cast<View*>(x.data), x.n_rows, x.n_cols, x.ld);
}

}  // namespace

bool is_resident(const Context& ctx, const AnyMatrixView& x) {
  if (ctx.device.type == DeviceType::cpu) return true;
  const void* const p = std::visit([](const auto& v) { return address(v); }, x);
  return p == nullptr || detail::backend_hooks(ctx.device.type).is_resident(p);
}

void stream_rows(const Context& ctx, const AnyMutableMatrixView& x, RowParts parts,
                 const std::function<void(std::int64_t, const AnyMutableMatrixView&)>& body) {
  if (is_resident(ctx, x)) return body(0, x);
  std::visit(
      [&](const auto& v) {
        stream(ctx, v, 0, parts, true, [&](std::int64_t first, const auto& block) { body(first, block); });
      },
      x);
}

void stream_rows(const Context& ctx, const AnyMatrixView& x, RowParts parts,
                 const std::function<void(std::int64_t, const AnyMatrixView&)>& body) {
  if (is_resident(ctx, x)) return body(0, x);
  std::visit(
      [&](const auto& v) {
        stream(ctx, mutable_host(v), 0, parts, false,
               [&](std::int64_t first, const auto& block) { body(first, as_const(block)); });
      },
      x);
}

void ResidentBlocks::for_each(const Context& ctx,
                              const std::function<void(std::int64_t, const AnyMatrixView&)>& body) const {
  SCW_EXPECT(block_rows_ >= 0, "row blocks", "block_rows must not be negative (got {})", block_rows_);
  if (!is_resident(ctx, x_)) {
    std::visit(
        [&](const auto& v) {
          stream(ctx, mutable_host(v), block_rows_, RowParts::all, false,
                 [&](std::int64_t first, const auto& block) { body(first, as_const(block)); });
        },
        x_);
    return;
  }
  const std::int64_t n = n_rows();
  const std::int64_t step = block_rows_ == 0 ? std::max<std::int64_t>(1, n) : block_rows_;
  for (std::int64_t first = 0; first < n; first += step) {
    ctx.check_cancelled("row blocks");
    const std::int64_t count = std::min(step, n - first);
    body(first, std::visit([&](const auto& x) -> AnyMatrixView { return slice(x, first, count); }, x_));
  }
}

}  // namespace scw
