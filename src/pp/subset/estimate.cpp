#include "core/estimate.hpp"

namespace scw::estimate {

Need subset(const Shape& s, std::int64_t kept_rows, std::int64_t kept_cols, std::int64_t kept_values) {
  const bool all_rows = kept_rows == s.n_rows, all_cols = kept_cols == s.n_cols;
  const std::int64_t kept = s.sparse ? 8 * (kept_rows + 1) + kept_values * (4 + s.value_bytes)
                                     : checked_mul(checked_mul(kept_rows, kept_cols), s.value_bytes);
  if (!on_cuda(s)) return {kept + 8 * kept_rows + 8 * kept_cols + (s.sparse ? 4 * s.n_cols : 0), kept};
  const std::int64_t rows = all_rows ? 0 : 8 * kept_rows;
  const std::int64_t columns = all_cols ? 0 : s.sparse ? 8 * ceil_div(s.n_cols, 32) : 4 * kept_cols;
  const std::int64_t selecting = all_rows ? 0 : rows + s.n_rows + s.n_rows / 64 + (1 << 16);  // the mask and CUB
  return {std::max(selecting, rows + columns + kept), kept};
}

}  // namespace scw::estimate
