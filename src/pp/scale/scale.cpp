#include "scwarp/pp/scale.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "pp/scale/kernel.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/pp/gene_moments.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMutableMatrixView&, const ScaleArguments&)> scale_kernel{"pp.scale"};
constinit Kernel<void(const Context&, const AnyCsrView&, const ScaleArguments&, const AnyMutableMatrixView&)>
    scale_to_dense_kernel{"pp.scale: scale_to_dense"};

namespace {

constexpr const char* kOp = "pp.scale";

Scale statistics(const Context& ctx, const AnyMatrixView& x, const ScaleOptions& o) {
  SCW_EXPECT(!o.max_value || *o.max_value > 0, kOp, "max_value must be positive (got {})", o.max_value.value_or(0));
  SCW_EXPECT_AS(ShapeMismatch, o.mask.empty() || o.mask.size == n_rows(x), kOp,
                "mask must have one entry per cell (got {}, expected {})", o.mask.size, n_rows(x));
  GeneMomentsOptions g;
  Array<std::int32_t> codes;
  if (!o.mask.empty()) {
    const Array<std::uint8_t> mask = to_host<std::uint8_t>(ctx, o.mask);
    std::vector<std::int32_t> host(static_cast<std::size_t>(mask.size()));
    for (std::int64_t i = 0; i < mask.size(); ++i) host[static_cast<std::size_t>(i)] = mask[i] != 0 ? 0 : -1;
    codes = to_device<std::int32_t>(ctx, Span<const std::int32_t>(host));
    g.groups = std::as_const(codes).view();
  }
  GeneMoments m = gene_moments(ctx, x, g);
  Array<double> std = to_host<double>(ctx, std::as_const(m.variance.data).view());
  for (double& s : std) {
    s = std::sqrt(s);
    if (s == 0) s = 1;
  }
  Scale out;
  out.mean = std::move(m.mean.data);
  out.std =
      ctx.device.type == DeviceType::cpu ? std::move(std) : Array<double>(ctx.memory, std.size(), "std", ctx.stream);
  if (ctx.device.type != DeviceType::cpu)
    copy_bytes(ctx, out.std.data(), ctx.device, std.data(), Device{},
               static_cast<std::size_t>(std.size()) * sizeof(double));
  return out;
}

/// For the rows [first, first + count).
ScaleArguments arguments(const Scale& s, const ScaleOptions& o, std::int64_t first, std::int64_t count) {
  const auto mask = o.mask.empty() ? o.mask : o.mask.subspan(first, count);
  const double high = o.max_value.value_or(std::numeric_limits<double>::infinity());
  return {o.zero_center ? s.mean.data() : nullptr, s.std.data(),
          o.zero_center ? -high : -std::numeric_limits<double>::infinity(), high, mask};
}

/// A streamed matrix becomes a dense one on the host, some rows at a time.
template <class V, class Densify>
void dense_by_blocks(const Context& ctx, const CsrView<const V>& x, const Densify& densify, const MatrixView<V>& out) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  constexpr std::int64_t kBytes = std::int64_t{256} << 20;
  const std::int64_t room = std::clamp<std::int64_t>(available_bytes(ctx) / 8, 1, kBytes);
  const std::int64_t most = std::clamp<std::int64_t>(room / (x.n_cols * std::int64_t{sizeof(V)}), 1, x.n_rows);
  Matrix<V> block(ctx.workspace, most, x.n_cols, "dense block", ctx.stream);
  stream_rows(ctx, AnyMatrixView(x), RowParts::all, [&](std::int64_t first, const AnyMatrixView& streamed) {
    const auto& rows = std::get<CsrView<const V>>(streamed);
    for (std::int64_t r = 0; r < rows.n_rows; r += most) {
      const std::int64_t count = std::min(most, rows.n_rows - r);
      densify(rows.rows(r, count), first + r, MatrixView<V>(block.data.data(), count, x.n_cols));
      copy_bytes(ctx, out.row(first + r), Device{}, block.data.data(), ctx.device,
                 static_cast<std::size_t>(count * x.n_cols) * sizeof(V));
    }
  });
}

}  // namespace

Scale scale(const Context& ctx, const AnyMutableMatrixView& x, const ScaleOptions& options) {
  SCW_EXPECT(!options.zero_center || x.index() >= 2, kOp,
             "centring makes a sparse matrix dense: use scale_to_dense, or zero_center = false");
  Scale out = statistics(ctx, as_const(x), options);
  stream_rows(ctx, x, RowParts::all, [&](std::int64_t first, const AnyMutableMatrixView& rows) {
    scale_kernel(ctx, rows, arguments(out, options, first, n_rows(as_const(rows))));
  });
  return out;
}

Scale scale_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out, const ScaleOptions& options) {
  Scale s = statistics(ctx, to_any_matrix(x), options);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        const bool resident = is_resident(ctx, to_any_matrix(x));
        Matrix<V> dense(resident ? ctx.memory : host_memory(), v.n_rows, v.n_cols, "scaled matrix", ctx.stream);
        if (resident) {
          scale_to_dense_kernel(ctx, x, arguments(s, options, 0, v.n_rows), dense.view());
        } else {
          dense_by_blocks(
              ctx, v,
              [&](const AnyCsrView& rows, std::int64_t first, const MatrixView<V>& to) {
                scale_to_dense_kernel(ctx, rows, arguments(s, options, first, to.n_rows), to);
              },
              dense.view());
        }
        out = std::move(dense);
      },
      x);
  return s;
}

}  // namespace scw::pp
