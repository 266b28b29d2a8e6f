#include "core/estimate.hpp"

namespace scw::estimate {

Need normalize_pearson_residuals(const Shape& s) {
  const std::int64_t kept = dense_bytes(s), model = 8 * (s.n_rows + s.n_cols + 1);
  return {std::max({gene_moments(s).peak, model + 8 * s.n_rows, model + kept}), kept};
}

}  // namespace scw::estimate
