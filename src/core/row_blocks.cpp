#include "scwarp/core/row_blocks.hpp"

#include <algorithm>
#include <vector>

#include "core/backend.hpp"
#include "core/block_stream.hpp"
#include "core/check.hpp"

namespace scw {
namespace {

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

template <class V>
detail::BlockRoom<CsrView<V>> make_room(const Context& ctx, const CsrView<V>& x,
                                        const std::vector<std::int64_t>& bounds, RowParts parts) {
  return detail::BlockRoom<CsrView<V>>::of_largest(ctx, x.indptr.data, bounds, parts);
}
template <class V>
detail::BlockRoom<MatrixView<V>> make_room(const Context& ctx, const MatrixView<V>& x,
                                           const std::vector<std::int64_t>& bounds, RowParts) {
  return detail::BlockRoom<MatrixView<V>>::of_largest(ctx, x.n_cols, bounds);
}

template <class V>
std::int64_t bytes_of_rows(const CsrView<V>& x, std::int64_t first, std::int64_t last) {
  return detail::csr_bytes(x.indptr.data, first, last, sizeof(V));
}
template <class V>
std::int64_t bytes_of_rows(const MatrixView<V>& x, std::int64_t first, std::int64_t last) {
  return (last - first) * x.n_cols * std::int64_t{sizeof(V)};
}

/// Blocks of a host matrix on the device, one after another; what body changes is copied back if `changes`.
template <class View, class Body>
void stream(const Context& ctx, const View& x, std::int64_t block_rows, RowParts parts, bool changes,
            const Body& body) {
  if (x.n_rows == 0) return;
  const std::vector<std::int64_t> bounds =
      detail::block_boundaries(x.n_rows, block_rows, detail::target_block_bytes(ctx),
                               [&](std::int64_t first, std::int64_t last) { return bytes_of_rows(x, first, last); });
  using Room = detail::BlockRoom<View>;
  detail::stream_blocks<Room>(
      ctx, bounds.size() - 1, [&] { return make_room(ctx, x, bounds, parts); },
      [&](const Context& uploads, std::size_t b, Room& room) {
        room.fill(uploads, slice(x, bounds[b], bounds[b + 1] - bounds[b]));
      },
      [&](std::size_t b, Room& room) {
        body(bounds[b], room.view());
        if (changes) room.copy_back(ctx);
      });
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

const AnyMatrixView* ResidentBlocks::whole(const Context& ctx) const {
  return block_rows_ == 0 && is_resident(ctx, x_) ? &x_ : nullptr;
}

void ResidentBlocks::visit(const Context& ctx, RowParts parts, const Body& body) const {
  SCW_EXPECT(block_rows_ >= 0, "row blocks", "block_rows must not be negative (got {})", block_rows_);
  if (!is_resident(ctx, x_)) {
    std::visit(
        [&](const auto& v) {
          stream(ctx, mutable_host(v), block_rows_, parts, false,
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
