#include "core/estimate.hpp"

namespace scw::estimate {

Need normalize_pearson_residuals(const Shape& s) {
  const std::int64_t model = 8 * (s.n_rows + s.n_cols + 1);
  if (streams_to_device(s)) {
    const std::int64_t totals = 8 * s.n_rows + rooms(s, 8 * s.n_rows, RowParts::values).bytes;
    const std::int64_t result = dense_result_bytes(s, model);
    return {
        std::max({gene_moments(s).peak, totals, model + 8 * s.n_rows, model + result + rooms(s, model + result).bytes}),
        0};
  }
  const std::int64_t kept = dense_bytes(s);
  return {std::max({gene_moments(s).peak, model + 8 * s.n_rows, model + kept}), kept};
}

}  // namespace scw::estimate
