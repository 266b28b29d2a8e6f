#include <algorithm>

#include "core/estimate.hpp"
#include "tl/leiden/rules.hpp"

namespace scw::estimate {

Need leiden(const Shape& g, std::int64_t n_resolutions) {
  const std::int64_t n = g.n_rows, edges = g.nnz, kept = 4 * n * n_resolutions;
  if (on_cuda(g)) {
    // The graph (16 a vertex, and weights that are not float), what the rounds need (127), the hierarchy (44) and the
    // edges of the next level, which are sorted in batches.
    const std::int64_t held = kept + (16 + 127 + 44) * n + (g.value_bytes == 4 ? 0 : 4 * edges);
    std::int64_t sort = g.block_bytes > 0 ? g.block_bytes : tl::kSortBytes;
    if (g.block_bytes == 0 && g.limit_bytes > 0)
      sort = std::clamp((g.limit_bytes - held) / 4, tl::kLeastSortBytes, tl::kSortBytes);
    sort = std::min(sort, tl::kSortedEntryBytes * edges);
    return {held + sort + sort / 64 + (std::int64_t{4} << 20) + 12 * edges, kept};
  }
  // Small graphs are clustered several times, a thread each.
  const std::int64_t graph = 16 * n + 8 * edges;
  const std::int64_t runs = n_resolutions * tl::number_of_starts(0, edges), t = threads(g);
  const std::int64_t at_once = runs > 1 && runs >= t ? t : 1;
  const std::int64_t one = (304 + 16 * (at_once > 1 ? 1 : t)) * n + 16 * edges;
  return {4 * n * runs + graph + at_once * one, kept};
}

}  // namespace scw::estimate
