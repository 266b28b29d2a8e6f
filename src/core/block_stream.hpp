// Blocks of rows of a host matrix that take turns on a device: what ResidentBlocks and io::FileRows share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <future>
#include <vector>

#include "core/backend.hpp"
#include "core/check.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::detail {

inline constexpr std::int64_t kBlockBytes = std::int64_t{256} << 20;  // 5 ms on the bus
inline constexpr std::int64_t kMinBlockBytes = std::int64_t{64} << 10;
inline constexpr std::int64_t kAlignedRows = 4096;  // tiles of PCA: blocks of whole tiles need no copy there

/// Bytes of a block where the caller does not say how many rows one has.
inline std::int64_t target_block_bytes(const Context& ctx) {
  return ctx.block_bytes > 0 ? ctx.block_bytes : std::clamp(available_bytes(ctx) / 8, kMinBlockBytes, kBlockBytes);
}

/// Boundaries of blocks of block_rows rows, or (0) of as many as `target` bytes hold, at least one; bytes(first, last)
/// grows with last.
template <class Bytes>
std::vector<std::int64_t> block_boundaries(std::int64_t n_rows, std::int64_t block_rows, std::int64_t target,
                                           const Bytes& bytes) {
  std::vector<std::int64_t> out{0};
  while (out.back() < n_rows) {
    const std::int64_t first = out.back();
    std::int64_t count = block_rows;
    if (block_rows == 0) {
      std::int64_t low = 1, high = n_rows - first;
      while (low < high) {
        const std::int64_t middle = low + (high - low + 1) / 2;
        if (bytes(first, first + middle) <= target) {
          low = middle;
        } else {
          high = middle - 1;
        }
      }
      count = low > kAlignedRows && first + low < n_rows ? low / kAlignedRows * kAlignedRows : low;
    }
    out.push_back(std::min(n_rows, first + count));
  }
  return out;
}

/// Bytes of rows [first, last) of a CSR matrix with these offsets, with its column indices.
inline std::int64_t csr_bytes(const std::int64_t* indptr, std::int64_t first, std::int64_t last,
                              std::size_t value_bytes) {
  return (indptr[last] - indptr[first]) * static_cast<std::int64_t>(value_bytes + sizeof(std::int32_t)) +
         (last - first) * 8;
}

/// Room on the device for any block of a matrix, for CSR and dense rows.
template <class View>
class BlockRoom;

template <class V>
class BlockRoom<CsrView<V>> {
 public:
  /// Of up to `rows` rows and `entries` entries.
  BlockRoom(const Context& ctx, std::int64_t rows, std::int64_t entries, RowParts parts) : parts_(parts) {
    indptr_ = Array<std::int64_t>(ctx.workspace, rows + 1, "streamed block", ctx.stream);
    if (parts == RowParts::all) indices_ = Array<std::int32_t>(ctx.workspace, entries, "streamed block", ctx.stream);
    values_ = Array<V>(ctx.workspace, entries, "streamed block", ctx.stream);
  }
  /// Room for the largest of the blocks between these boundaries.
  static BlockRoom of_largest(const Context& ctx, const std::int64_t* indptr, const std::vector<std::int64_t>& bounds,
                              RowParts parts) {
    std::int64_t rows = 0, entries = 0;
    for (std::size_t b = 0; b + 1 < bounds.size(); ++b) {
      rows = std::max(rows, bounds[b + 1] - bounds[b]);
      entries = std::max(entries, indptr[bounds[b + 1]] - indptr[bounds[b]]);
    }
    return BlockRoom(ctx, rows, entries, parts);
  }
  /// Uploads x, rows of a matrix on the host. ctx has the stream for it.
  void fill(const Context& ctx, const CsrView<V>& x) {
    const std::int64_t begin = x.indptr[0];
    fill(ctx, x, [&](std::int32_t* indices, V* values) {
      if (indices != nullptr) upload(ctx, indices, x.indices.data + begin, size_);
      upload(ctx, values, x.values.data + begin, size_);
    });
  }
  /// The same with read(indices, values) to fill the device's arrays, the first one null where indices are not wanted.
  template <class Read>
  void fill(const Context& ctx, const CsrView<V>& x, const Read& read) {
    host_ = x;
    std::vector<std::int64_t> offsets(x.indptr.data, x.indptr.data + x.n_rows + 1);
    for (std::int64_t& o : offsets) o -= x.indptr[0];
    size_ = offsets.back();
    upload(ctx, indptr_.data(), offsets.data(), x.n_rows + 1);
    read(parts_ == RowParts::all ? indices_.data() : nullptr, values_.data());
  }
  CsrView<V> view() {
    return {host_.n_rows,
            host_.n_cols,
            {indptr_.data(), host_.n_rows + 1},
            Span<const std::int32_t>(indices_.data(), parts_ == RowParts::all ? size_ : 0),
            {values_.data(), size_}};
  }
  void copy_back(const Context& ctx) {
    copy_bytes(ctx, host_.values.data + host_.indptr[0], Device{}, values_.data(), ctx.device,
               static_cast<std::size_t>(size_) * sizeof(V));
  }

 private:
  template <class T>
  static void upload(const Context& ctx, T* to, const T* from, std::int64_t n) {
    copy_bytes(ctx, to, ctx.device, from, Device{}, static_cast<std::size_t>(n) * sizeof(T));
  }

  RowParts parts_;
  CsrView<V> host_;
  std::int64_t size_ = 0;
  Array<std::int64_t> indptr_;
  Array<std::int32_t> indices_;
  Array<V> values_;
};

template <class V>
class BlockRoom<MatrixView<V>> {
 public:
  BlockRoom(const Context& ctx, std::int64_t rows, std::int64_t cols)
      : values_(ctx.workspace, checked_mul(rows, cols), "streamed block", ctx.stream) {}
  static BlockRoom of_largest(const Context& ctx, std::int64_t cols, const std::vector<std::int64_t>& bounds) {
    std::int64_t rows = 0;
    for (std::size_t b = 0; b + 1 < bounds.size(); ++b) rows = std::max(rows, bounds[b + 1] - bounds[b]);
    return BlockRoom(ctx, rows, cols);
  }
  void fill(const Context& ctx, const MatrixView<V>& x) {
    host_ = x;
    copy([&](V* host, V* device, std::size_t n) { copy_bytes(ctx, device, ctx.device, host, Device{}, n); });
  }
  /// The same with read(values) to fill the device's array.
  template <class Read>
  void fill(const Context&, const MatrixView<V>& x, const Read& read) {
    host_ = x;
    read(values_.data());
  }
  MatrixView<V> view() { return {values_.data(), host_.n_rows, host_.n_cols}; }
  void copy_back(const Context& ctx) {
    copy([&](V* host, V* device, std::size_t n) { copy_bytes(ctx, host, Device{}, device, ctx.device, n); });
  }

 private:
  template <class Copy>
  void copy(const Copy& run) {
    const bool packed = host_.ld == host_.n_cols;
    const auto row_bytes = static_cast<std::size_t>(host_.n_cols) * sizeof(V);
    if (packed) return run(host_.data, values_.data(), static_cast<std::size_t>(host_.n_rows) * row_bytes);
    for (std::int64_t i = 0; i < host_.n_rows; ++i) run(host_.row(i), values_.data() + i * host_.n_cols, row_bytes);
  }

  MatrixView<V> host_;
  Array<V> values_;
};

/// Two rooms take turns: while body(b, room) works on one, another thread has fill(uploads, b, room) fill the other on
/// a stream of its own.
template <class Room, class MakeRoom, class Fill, class Body>
void stream_blocks(const Context& ctx, std::size_t blocks, const MakeRoom& make_room, const Fill& fill,
                   const Body& body) {
  if (blocks == 0) return;
  const auto& hooks = backend_hooks(ctx.device.type);
  Context uploads = ctx;
  uploads.stream = hooks.stream(ctx.device.id, OwnStream::copy);

  std::vector<Room> rooms;
  for (std::size_t r = 0; r < std::min<std::size_t>(2, blocks); ++r) rooms.push_back(make_room());
  struct Drain {  // rooms are freed on ctx.stream, after the uploads into them
    const Context &ctx, &uploads;
    ~Drain() {
      try {
        backend_hooks(ctx.device.type).order(ctx, uploads.stream, ctx.stream);
      } catch (...) {  // the device has failed: the next call reports it
      }
    }
  } const drain{ctx, uploads};

  hooks.order(ctx, ctx.stream, uploads.stream);  // the rooms are there
  fill(uploads, std::size_t{0}, rooms[0]);
  for (std::size_t b = 0; b < blocks; ++b) {
    ctx.check_cancelled("row blocks");
    hooks.order(ctx, uploads.stream, ctx.stream);  // block b has arrived
    std::future<void> next;
    if (b + 1 < blocks) {
      hooks.order(ctx, ctx.stream, uploads.stream);  // block b - 1 is no longer read
      next = std::async(std::launch::async, [&, b] { fill(uploads, b + 1, rooms[(b + 1) % 2]); });
    }
    body(b, rooms[b % 2]);
    if (next.valid()) next.get();
  }
}

}  // namespace scw::detail
