#include "prim/collect.hpp"

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "prim/dense_by_blocks.hpp"

namespace scw::prim {
namespace {

template <class V>
std::optional<AnyMatrix> collect_csr(const Context& ctx, const RowBlocks& x, std::int64_t most_bytes) {
  const std::int64_t n = x.n_rows();
  Array<std::int64_t> indptr(host_memory(), n + 1, "row offsets");
  indptr[0] = 0;
  const auto count = [&](std::int64_t first, const AnyMatrixView& block) {
    const auto& v = std::get<CsrView<const V>>(block);
    const Array<std::int64_t> own = to_host<std::int64_t>(ctx, {v.indptr.data, v.n_rows + 1});
    for (std::int64_t i = 0; i < v.n_rows; ++i) indptr[first + i + 1] = indptr[first + i] + own[i + 1] - own[i];
  };
  x.for_each(ctx, count, RowParts::values);
  if (indptr[n] > (most_bytes - 8 * (n + 1)) / std::int64_t{sizeof(V) + sizeof(std::int32_t)}) return std::nullopt;
  Csr<V> out;
  out.n_rows = n;
  out.n_cols = static_cast<std::int32_t>(x.n_cols());
  out.indices = Array<std::int32_t>(ctx.workspace, indptr[n], "collected blocks", ctx.stream);
  out.values = Array<V>(ctx.workspace, indptr[n], "collected blocks", ctx.stream);
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    const auto& v = std::get<CsrView<const V>>(block);
    if (v.n_rows == 0) return;
    std::int64_t ends[2] = {0, 0};
    copy_bytes(ctx, &ends[0], Device{}, v.indptr.data, ctx.device, sizeof ends[0]);
    copy_bytes(ctx, &ends[1], Device{}, v.indptr.data + v.n_rows, ctx.device, sizeof ends[1]);
    const std::int64_t begin = indptr[first], size = ends[1] - ends[0];
    SCW_EXPECT_AS(DataError, size == indptr[first + v.n_rows] - begin, "row blocks",
                  "a pass has other entries than the one before");
    const auto copy = [&](auto* to, const auto* from) {
      copy_bytes(ctx, to + begin, ctx.device, from + ends[0], ctx.device,
                 static_cast<std::size_t>(size) * sizeof(*from));
    };
    copy(out.indices.data(), v.indices.data);
    copy(out.values.data(), v.values.data);
  });
  out.indptr = to_device<std::int64_t>(ctx, std::as_const(indptr).view(), "collected blocks");
  return out;
}

template <class V>
std::optional<AnyMatrix> collect_dense(const Context& ctx, const RowBlocks& x, std::int64_t most_bytes) {
  if (checked_mul(x.n_rows(), checked_mul(x.n_cols(), std::int64_t{sizeof(V)})) > most_bytes) return std::nullopt;
  Matrix<V> out(ctx.workspace, x.n_rows(), x.n_cols(), "collected blocks", ctx.stream);
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    const auto& v = std::get<MatrixView<const V>>(block);
    copy_rows(ctx, v, MatrixView<V>(out.view().row(first), v.n_rows, v.n_cols));
  });
  return out;
}

}  // namespace

std::optional<AnyMatrix> collect(const Context& ctx, const RowBlocks& x, std::int64_t most_bytes) {
  if (x.is_double(ctx))
    return x.is_sparse() ? collect_csr<double>(ctx, x, most_bytes) : collect_dense<double>(ctx, x, most_bytes);
  return x.is_sparse() ? collect_csr<float>(ctx, x, most_bytes) : collect_dense<float>(ctx, x, most_bytes);
}

}  // namespace scw::prim
