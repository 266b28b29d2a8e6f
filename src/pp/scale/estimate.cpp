#include "core/estimate.hpp"

namespace scw::estimate {

Need scale(const Shape& s, bool to_dense, bool masked) {
  if (streams_to_device(s)) {
    const std::int64_t mask = masked ? s.n_rows : 0, held = mask + 16 * s.n_cols;
    const std::int64_t result = to_dense ? dense_result_bytes(s, held) : 0;
    const std::int64_t moments = gene_moments(s).peak + (masked ? 5 * s.n_rows + grouped_rows(s.n_rows, 1) : 0);
    return {std::max(moments, held + result + rooms(s, held + result).bytes), 16 * s.n_cols};
  }
  const std::int64_t kept = 16 * s.n_cols + (to_dense ? dense_bytes(s) : 0);
  Need moments = gene_moments(s);
  if (on_cuda(s) && masked) moments.peak += grouped_rows(s.n_rows, 1);
  return {std::max(moments.peak + (masked ? 4 * s.n_rows : 0), kept + 8 * s.n_cols), kept};
}

}  // namespace scw::estimate
