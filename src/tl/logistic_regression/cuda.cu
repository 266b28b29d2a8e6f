#include <limits>
#include <optional>

#include "prim/collect.hpp"
#include "tl/logistic_regression/cuda.cuh"

namespace scw::tl::cuda {
namespace {

void run(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes, std::int32_t n_classes,
         const LogisticRegressionOptions& o, LogisticRegression& out) {
  if (const auto* const csr = std::get_if<CsrView<const float>>(&x))
    logreg::minimise<float>(ctx, *csr, codes, n_classes, o, out);
  else if (const auto* const dense = std::get_if<MatrixView<const float>>(&x))
    logreg::minimise<float>(ctx, *dense, codes, n_classes, o, out);
  else
    logistic_regression_f64(ctx, x, codes, n_classes, o, out);
}

}  // namespace

/// Tiles of rows and their entries by gene are made once: blocks are collected.
void logistic_regression(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, std::int32_t n_classes,
                         const LogisticRegressionOptions& o, LogisticRegression& out) {
  const scw::cuda::DeviceScope scope(ctx);
  if (const AnyMatrixView* const all = x.whole(ctx)) return run(ctx, *all, codes, n_classes, o, out);
  const std::optional<AnyMatrix> collected = prim::collect(ctx, x, std::numeric_limits<std::int64_t>::max());
  std::visit([&](const auto& m) { run(ctx, m.view(), codes, n_classes, o, out); }, *collected);
}

SCW_REGISTER(logistic_regression_kernel, cuda, &logistic_regression);

}  // namespace scw::tl::cuda
