#include "scwarp/pp/scale.hpp"

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

ScaleArguments arguments(const Scale& s, const ScaleOptions& o) {
  const double high = o.max_value.value_or(std::numeric_limits<double>::infinity());
  return {o.zero_center ? s.mean.data() : nullptr, s.std.data(),
          o.zero_center ? -high : -std::numeric_limits<double>::infinity(), high, o.mask};
}

}  // namespace

Scale scale(const Context& ctx, const AnyMutableMatrixView& x, const ScaleOptions& options) {
  SCW_EXPECT(!options.zero_center || x.index() >= 2, kOp,
             "centring makes a sparse matrix dense: use scale_to_dense, or zero_center = false");
  Scale out = statistics(ctx, as_const(x), options);
  stream_rows(ctx, x, [&](std::int64_t first, const AnyMutableMatrixView& rows) {
    ScaleArguments a = arguments(out, options);
    if (!a.mask.empty()) a.mask = a.mask.subspan(first, n_rows(as_const(rows)));
    scale_kernel(ctx, rows, a);
  });
  return out;
}

Scale scale_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out, const ScaleOptions& options) {
  Scale s = statistics(ctx, to_any_matrix(x), options);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        Matrix<V> dense(ctx.memory, v.n_rows, v.n_cols, "scaled matrix", ctx.stream);
        scale_to_dense_kernel(ctx, x, arguments(s, options), dense.view());
        out = std::move(dense);
      },
      x);
  return s;
}

}  // namespace scw::pp
