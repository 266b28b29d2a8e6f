#include "pp/knn/cuda_scan.cuh"

namespace scw::pp::cuda {

void scan_dense_float(const Context& ctx, const MatrixView<const float>& x, double p, KnnResult& out) {
  visit_metric(out.metric, p, [&](const auto& metric) { scan_all(ctx, metric, x, out); });
}

}  // namespace scw::pp::cuda
