#include "tl/logistic_regression/cuda.cuh"

namespace scw::tl::cuda {

void logistic_regression_f64(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                             std::int32_t n_classes, const LogisticRegressionOptions& o, LogisticRegression& out) {
  if (const auto* const csr = std::get_if<CsrView<const double>>(&x))
    logreg::minimise<double>(ctx, *csr, codes, n_classes, o, out);
  else
    logreg::minimise<double>(ctx, std::get<MatrixView<const double>>(x), codes, n_classes, o, out);
}

}  // namespace scw::tl::cuda
