// Memory of prim::group_moments, scales included.
#pragma once

#include "core/estimate.hpp"

namespace scw::estimate {

inline std::int64_t group_moments(const Shape& s, std::int64_t groups) {
  const std::int64_t m = s.n_cols, size = groups * m;
  if (on_cuda(s)) {
    const Rooms r = rooms(s, 0);
    const Shape& b = r.block;
    const std::int64_t placing = 4 * b.n_rows + grouped_rows(b.n_rows, groups);
    return r.bytes + 36 * size + 2 * m + std::max(placing, 4 * b.n_rows + 8 * groups + 8 + gene_splits(b, 38));
  }
  return 36 * size + (16 + 16 + 1) * m + 4 * s.n_rows + 32 * threads(s) * m;
}

/// What the moments of blocks take more than those of the whole matrix: a second set, and a second set of maxima.
inline std::int64_t group_moments_by_blocks(const Shape& s, std::int64_t groups) {
  return 37 * groups * s.n_cols + 26 * s.n_cols;
}

}  // namespace scw::estimate
