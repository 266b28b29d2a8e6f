// Dense matrices made from row blocks: where the matrix is resident, at once; else on the host, a few rows at a time.
#pragma once

#include <algorithm>

#include "core/block_stream.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::prim {

/// to = x, both on ctx.device and of the same shape.
template <class V>
void copy_rows(const Context& ctx, const MatrixView<const V>& x, const MatrixView<V>& to) {
  const auto row_bytes = static_cast<std::size_t>(x.n_cols) * sizeof(V);
  if (x.ld == x.n_cols && to.ld == to.n_cols)
    return copy_bytes(ctx, to.data, ctx.device, x.data, ctx.device, static_cast<std::size_t>(x.n_rows) * row_bytes);
  for (std::int64_t i = 0; i < x.n_rows; ++i) copy_bytes(ctx, to.row(i), ctx.device, x.row(i), ctx.device, row_bytes);
}

inline AnyMatrixView rows_of(const AnyMatrixView& x, std::int64_t first, std::int64_t count) {
  return std::visit(
      [&](const auto& v) -> AnyMatrixView {
        if constexpr (requires { v.indptr; })
          return v.rows(first, count);
        else
          return std::decay_t<decltype(v)>(v.row(first), count, v.n_cols, v.ld);
      },
      x);
}

namespace detail {

template <class V, class Make>
Matrix<V> dense_by_blocks(const Context& ctx, const RowBlocks& x, std::int64_t n_cols, const char* tag,
                          const Make& make) {
  if (const AnyMatrixView* const all = x.whole(ctx)) {
    Matrix<V> out(ctx.memory, x.n_rows(), n_cols, tag, ctx.stream);
    make(*all, std::int64_t{0}, out.view());
    return out;
  }
  Matrix<V> out(host_memory(), x.n_rows(), n_cols, tag);
  if (x.n_rows() == 0 || n_cols == 0) return out;
  const bool on_host = ctx.device == Device{};
  const std::int64_t room = scw::detail::target_block_bytes(ctx);
  const std::int64_t most = std::clamp<std::int64_t>(room / (n_cols * std::int64_t{sizeof(V)}), 1, x.n_rows());
  Matrix<V> buffer;
  if (!on_host) buffer = Matrix<V>(ctx.workspace, most, n_cols, "dense block", ctx.stream);
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    for (std::int64_t r = 0; r < n_rows(block); r += most) {
      const std::int64_t count = std::min(most, n_rows(block) - r);
      const MatrixView<V> home(out.view().row(first + r), count, n_cols);
      const MatrixView<V> to = on_host ? home : MatrixView<V>(buffer.data.data(), count, n_cols);
      make(rows_of(block, r, count), first + r, to);
      if (!on_host)
        copy_bytes(ctx, home.data, Device{}, to.data, ctx.device, static_cast<std::size_t>(count * n_cols) * sizeof(V));
    }
  });
  return out;
}

}  // namespace detail

/// A matrix [rows of x, n_cols] of the value type of x: make(rows, first_row, to) fills `to`, a MatrixView on
/// ctx.device, with what becomes of some rows of x. The result is in ctx.memory if x is resident as a whole, else on
/// the host. One pass. Memory besides the result: on CUDA, for a matrix that is not resident, as much as
/// a block of x: an eighth of what is left (at most 256 MiB).
template <class Make>
AnyDenseMatrix dense_by_blocks(const Context& ctx, const RowBlocks& x, std::int64_t n_cols, const char* tag,
                               const Make& make) {
  if (x.is_double(ctx)) return detail::dense_by_blocks<double>(ctx, x, n_cols, tag, make);
  return detail::dense_by_blocks<float>(ctx, x, n_cols, tag, make);
}

}  // namespace scw::prim
