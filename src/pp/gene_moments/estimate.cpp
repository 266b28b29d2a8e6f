#include "core/estimate.hpp"

namespace scw::estimate {

Need gene_moments(const Shape& s, std::int64_t n_groups, bool with_total) {
  const std::int64_t groups = std::max<std::int64_t>(1, n_groups), rows = groups + (with_total ? 1 : 0);
  const std::int64_t sums = checked_mul(32 * groups, s.n_cols), kept = 16 * rows * s.n_cols;
  if (on_cuda(s)) {
    const std::int64_t codes = streams_to_device(s) && groups > 1 ? 4 * s.n_rows : 0;  // on the host as well
    const std::int64_t held = codes + sums + 32 + 10 * s.n_cols;                       // 10: scales of the genes
    const Rooms r = rooms(s, held);
    const std::int64_t order = groups > 1 ? grouped_rows(r.block.n_rows, groups) : 0;
    return {std::max(held + r.bytes + order + gene_splits(r.block, 34), codes + kept), kept};
  }
  // Sums of each thread, as long as they stay below 512 MiB.
  const std::int64_t copies =
      std::clamp<std::int64_t>((std::int64_t{512} << 20) / std::max<std::int64_t>(1, sums), 1,
                               std::max<std::int64_t>(1, std::min(threads(s), ceil_div(s.n_rows, 256))));
  return from_file(s, {copies * sums + kept + 8 * rows, kept + 8 * rows});
}

}  // namespace scw::estimate
