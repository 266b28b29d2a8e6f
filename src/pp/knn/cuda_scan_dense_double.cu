#include "pp/knn/cuda_scan.cuh"

namespace scw::pp::cuda {

void scan_dense_double(const Context& ctx, const MatrixView<const double>& x, double p, KnnResult& out) {
  visit_metric(out.metric, p, [&](const auto& metric) { scan_all(ctx, metric, x, out); });
}

}  // namespace scw::pp::cuda
