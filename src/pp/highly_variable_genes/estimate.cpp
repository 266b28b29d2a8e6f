#include "core/estimate.hpp"

namespace scw::estimate {

Need highly_variable_genes(const Shape& s, bool counts, std::int64_t n_batches) {
  const std::int64_t groups = std::max<std::int64_t>(1, n_batches);
  const Need moments = gene_moments(s, groups);
  if (on_cuda(s)) {  // results are on the host
    if (!counts) return {moments.peak, 0};
    // Clip values, clipped sums and scales; where the rows of a group are.
    const std::int64_t codes = streams_to_device(s) && n_batches > 0 ? 4 * s.n_rows : 0;
    const std::int64_t held = codes + (56 * groups + 16) * s.n_cols;
    const Rooms r = rooms(s, held);
    const std::int64_t order = n_batches > 0 ? grouped_rows(r.block.n_rows, groups) : 0;
    return {std::max(moments.peak, held + r.bytes + order + gene_splits(r.block, s.value_bytes)), 0};
  }
  const std::int64_t kept = (counts ? 26 : 25) * s.n_cols;
  if (!counts) return {moments.peak + s.n_cols, kept};
  const std::int64_t sums = moments.peak - moments.kept;  // of the moments, per thread
  return {sums + 48 * threads(s) * groups * s.n_cols + 25 * s.n_cols + (24 * groups - 8) * s.n_cols, kept};
}

}  // namespace scw::estimate
