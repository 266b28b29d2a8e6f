#include "core/estimate.hpp"

namespace scw::estimate {

Need scale(const Shape& s, bool to_dense, bool masked) {
  const std::int64_t kept = 16 * s.n_cols + (to_dense ? dense_bytes(s) : 0);
  Need moments = gene_moments(s);
  if (on_cuda(s) && masked) moments.peak += grouped_rows(s.n_rows, 1);
  return {std::max(moments.peak + (masked ? 4 * s.n_rows : 0), kept + 8 * s.n_cols), kept};
}

}  // namespace scw::estimate
