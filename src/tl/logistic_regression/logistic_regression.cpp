#include "scwarp/tl/logistic_regression.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/check.hpp"
#include "prim/collect.hpp"
#include "tl/logistic_regression/kernel.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t>, std::int32_t,
                      const LogisticRegressionOptions&, LogisticRegression&)>
    logistic_regression_kernel{"tl.logistic_regression"};

namespace {

/// An evaluation is a pass, and there are a hundred: what memory holds, with its copy by gene, is read once.
std::int64_t most_collected_bytes(const Context& ctx) {
  constexpr std::int64_t kHostBytes = std::int64_t{2} << 30;  // without a limit the CPU has no end of memory to offer
  if (ctx.block_bytes > 0) return ctx.block_bytes;
  const std::int64_t room = available_bytes(ctx) / 3;
  return ctx.device.type == DeviceType::cpu ? std::min(room, kHostBytes) : room;
}

}  // namespace

LogisticRegression logistic_regression(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes,
                                       std::int32_t n_classes, const LogisticRegressionOptions& o) {
  constexpr const char* kOp = "tl.logistic_regression";
  SCW_EXPECT_AS(ShapeMismatch, codes.size == x.n_rows(), kOp,
                "codes must have one entry per cell (got {}, expected {})", codes.size, x.n_rows());
  SCW_EXPECT(n_classes >= 2, kOp, "at least two classes are needed (got {})", n_classes);
  SCW_EXPECT(o.c > 0 && std::isfinite(o.c), kOp, "c must be positive and finite (got {})", o.c);
  SCW_EXPECT(o.tol > 0, kOp, "tol must be positive (got {})", o.tol);
  SCW_EXPECT(o.max_iter >= 1, kOp, "max_iter must be positive (got {})", o.max_iter);
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(n_classes), 0);
  for (const std::int32_t c : codes) {
    SCW_EXPECT(c < n_classes, kOp, "class codes must be below n_classes (got {}, expected < {})", c, n_classes);
    if (c >= 0) ++sizes[static_cast<std::size_t>(c)];
  }
  for (std::int32_t c = 0; c < n_classes; ++c)
    SCW_EXPECT(sizes[static_cast<std::size_t>(c)] > 0, kOp, "class {} has no cells", c);
  LogisticRegression out;
  std::optional<AnyMatrix> collected;
  if (x.whole(ctx) == nullptr) collected = prim::collect(ctx, x, most_collected_bytes(ctx));
  if (collected) {
    const auto all = std::visit([](const auto& m) { return AnyMatrixView(m.view()); }, *collected);
    logistic_regression_kernel(ctx, ResidentBlocks(all), codes, n_classes, o, out);
  } else {
    logistic_regression_kernel(ctx, x, codes, n_classes, o, out);
  }
  return out;
}

LogisticRegression logistic_regression(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                                       std::int32_t n_classes, const LogisticRegressionOptions& options) {
  return logistic_regression(ctx, ResidentBlocks(x), codes, n_classes, options);
}

}  // namespace scw::tl
