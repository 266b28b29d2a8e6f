#include "core/estimate.hpp"
#include "tl/leiden/rules.hpp"

namespace scw::estimate {

Need leiden(const Shape& g, std::int64_t n_resolutions) {
  const std::int64_t n = g.n_rows, edges = g.nnz, kept = 4 * n * n_resolutions;
  const std::int64_t graph = 16 * n + 8 * edges;
  if (on_cuda(g)) {
    // What the rounds need (143 a vertex), the hierarchy, tables of hubs, and the edges of the next level twice over.
    return {kept + graph + (143 + 8 + 28) * n + (std::int64_t{32} << 20) + 52 * edges, kept};
  }
  // Small graphs are clustered several times, a thread each.
  const std::int64_t runs = n_resolutions * tl::number_of_starts(0, edges), t = threads(g);
  const std::int64_t at_once = runs > 1 && runs >= t ? t : 1;
  const std::int64_t one = (304 + 16 * (at_once > 1 ? 1 : t)) * n + 16 * edges;
  return {4 * n * runs + graph + at_once * one, kept};
}

}  // namespace scw::estimate
