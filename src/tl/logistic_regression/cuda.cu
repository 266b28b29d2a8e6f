#include "tl/logistic_regression/cuda.cuh"

namespace scw::tl::cuda {

void logistic_regression(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                         std::int32_t n_classes, const LogisticRegressionOptions& o, LogisticRegression& out) {
  const scw::cuda::DeviceScope scope(ctx);
  if (const auto* const csr = std::get_if<CsrView<const float>>(&x))
    logreg::minimise<float>(ctx, *csr, codes, n_classes, o, out);
  else if (const auto* const dense = std::get_if<MatrixView<const float>>(&x))
    logreg::minimise<float>(ctx, *dense, codes, n_classes, o, out);
  else
    logistic_regression_f64(ctx, x, codes, n_classes, o, out);
}

SCW_REGISTER(logistic_regression_kernel, cuda, &logistic_regression);

}  // namespace scw::tl::cuda
