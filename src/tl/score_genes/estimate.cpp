#include "core/estimate.hpp"

namespace scw::estimate {

Need score_genes(const Shape& s) {
  if (on_cuda(s)) {
    const std::int64_t held = 8 * s.n_rows + s.n_cols;
    return {held + rooms(s, held).bytes, 0};
  }
  return from_file(s, {16 * s.n_rows + 4 * s.n_cols, 8 * s.n_rows});
}

}  // namespace scw::estimate
