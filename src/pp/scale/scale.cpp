#include "scwarp/pp/scale.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/transfer.hpp"
#include "pp/scale/kernel.hpp"
#include "prim/dense_by_blocks.hpp"
#include "scwarp/pp/gene_moments.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMutableMatrixView&, const ScaleArguments&)> scale_kernel{"pp.scale"};
constinit Kernel<void(const Context&, const AnyCsrView&, const ScaleArguments&, const AnyMutableMatrixView&)>
    scale_to_dense_kernel{"pp.scale: scale_to_dense"};

SCW_BUILT_ON("pp.scale", "pp.gene_moments");

namespace {

constexpr const char* kOp = "pp.scale";

Scale statistics(const Context& ctx, const RowBlocks& x, const ScaleOptions& o) {
  SCW_EXPECT(!o.max_value || *o.max_value > 0, kOp, "max_value must be positive (got {})", o.max_value.value_or(0));
  SCW_EXPECT_AS(ShapeMismatch, o.mask.empty() || o.mask.size == x.n_rows(), kOp,
                "mask must have one entry per cell (got {}, expected {})", o.mask.size, x.n_rows());
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

}  // namespace

Scale scale(const Context& ctx, const AnyMutableMatrixView& x, const ScaleOptions& options) {
  SCW_EXPECT(!options.zero_center || x.index() >= 2, kOp,
             "centring makes a sparse matrix dense: use scale_to_dense, or zero_center = false");
  Scale out = statistics(ctx, ResidentBlocks(as_const(x)), options);
  stream_rows(ctx, x, RowParts::all, [&](std::int64_t first, const AnyMutableMatrixView& rows) {
    scale_kernel(ctx, rows, arguments(out, options, first, n_rows(as_const(rows))));
  });
  return out;
}

Scale scale_to_dense(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out, const ScaleOptions& options) {
  Scale s = statistics(ctx, x, options);
  const auto make = [&]<class V>(const AnyMatrixView& rows, std::int64_t first, const MatrixView<V>& to) {
    const ScaleArguments a = arguments(s, options, first, to.n_rows);
    if (const auto* const dense = std::get_if<MatrixView<const V>>(&rows)) {
      prim::copy_rows(ctx, *dense, to);
      scale_kernel(ctx, to, a);
    } else {
      scale_to_dense_kernel(ctx, std::get<CsrView<const V>>(rows), a, to);
    }
  };
  out = prim::dense_by_blocks(ctx, x, x.n_cols(), "scaled matrix", make);
  return s;
}

Scale scale_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out, const ScaleOptions& options) {
  return scale_to_dense(ctx, ResidentBlocks(to_any_matrix(x)), out, options);
}

}  // namespace scw::pp
