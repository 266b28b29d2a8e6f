#pragma once

#include "math/metrics.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/knn.hpp"

namespace scw::pp {

/// Fills out.indices, out.distances (allocated, n x k) and n_rescanned.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, const KnnOptions&, KnnResult&)> knn_brute_kernel;
/// The same, and recall, recall_cells, rounds.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, const KnnOptions&, KnnResult&)> knn_descent_kernel;
/// first_bad: smallest row with a value that is not finite (or negative, if asked), -1 if there is none.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, bool, std::int64_t&)> knn_bad_row_kernel;
/// out[i, j] = distance; diagonal 0.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, Metric, double, const MatrixView<float>&)>
    pairwise_kernel;

/// Whether float scores by matrix tiles find the candidates.
inline bool is_tile_metric(Metric m) {
  return m == Metric::euclidean || m == Metric::sqeuclidean || m == Metric::cosine || m == Metric::correlation ||
         m == Metric::inner_product;
}

/// f(metric struct of math/metrics.hpp).
template <class F>
void visit_metric(Metric metric, double p, const F& f) {
  switch (metric) {
    case Metric::euclidean:
      return f(math::Euclidean{});
    case Metric::sqeuclidean:
      return f(math::SquaredEuclidean{});
    case Metric::manhattan:
      return f(math::Manhattan{});
    case Metric::chebyshev:
      return f(math::Chebyshev{});
    case Metric::minkowski:
      return f(math::Minkowski{p});
    case Metric::canberra:
      return f(math::Canberra{});
    case Metric::cosine:
      return f(math::Cosine{});
    case Metric::correlation:
      return f(math::Correlation{});
    case Metric::inner_product:
      return f(math::InnerProduct{});
    case Metric::jensenshannon:
      return f(math::JensenShannon{});
    case Metric::hellinger:
      return f(math::Hellinger{});
    case Metric::haversine:
      return f(math::Haversine{});
    case Metric::hamming:
      return f(math::Hamming{});
    case Metric::jaccard:
      return f(math::JaccardMetric{});
    case Metric::braycurtis:
      return f(math::BrayCurtis{});
  }
  throw InternalError("pp.knn: unknown metric");
}

}  // namespace scw::pp
