// Shared by the CPU sources and cuda.cu: rows of either layout behind one interface.

#include "math/metrics.hpp"
#include "pp/knn/kernel.hpp"

namespace scw::pp {

/// Row terms of a metric.
template <class V>
SCW_HD inline math::RowTerm row_term(const MatrixView<const V>& x, Metric metric, std::int64_t i) {
  math::RowTerm out;
  const V* const row = x.row(i);
  if (metric == Metric::correlation)
    out.shift =
        x.n_cols > 0 ? math::dense_row_sum(row, x.n_cols, math::Identity{}) / static_cast<double>(x.n_cols) : 0.0;
  if (metric == Metric::cosine || metric == Metric::correlation)
    out.scale = math::square_root(math::dense_row_sum(row, x.n_cols, math::SquareOfDifference{out.shift}));
  if (metric == Metric::jensenshannon) out.scale = math::dense_row_sum(row, x.n_cols, math::Identity{});
  return out;
}
template <class V>
SCW_HD inline math::RowTerm row_term(const CsrView<const V>& x, Metric metric, std::int64_t i) {
  math::RowTerm out;
  const std::int64_t begin = x.indptr.data[i];
  if (metric == Metric::cosine)
    out.scale = math::square_root(math::sparse_row_sum(x.indices.data + begin, x.values.data + begin,
                                                       x.indptr.data[i + 1] - begin, math::SquareOfDifference{}));
  return out;
}

template <class M, class V>
SCW_HD inline double row_key(const M& metric, const MatrixView<const V>& x, std::int64_t i, std::int64_t j,
                             const math::RowTerm& a, const math::RowTerm& b) {
  return dense_key(metric, x.row(i), x.row(j), x.n_cols, a, b);
}
template <class M, class V>
SCW_HD inline double row_key(const M& metric, const CsrView<const V>& x, std::int64_t i, std::int64_t j,
                             const math::RowTerm& a, const math::RowTerm& b) {
  const std::int64_t bi = x.indptr.data[i], bj = x.indptr.data[j];
  return math::sparse_key(metric, x.indices.data + bi, x.values.data + bi, x.indptr.data[i + 1] - bi,
                          x.indices.data + bj, x.values.data + bj, x.indptr.data[j + 1] - bj,
                          static_cast<std::int64_t>(x.n_cols), a, b);
}

/// Nearer first, ties by index.
SCW_HD inline bool nearer(double key_a, std::int32_t a, double key_b, std::int32_t b) {
  return key_a < key_b || (key_a == key_b && a < b);
}

}  // namespace scw::pp
