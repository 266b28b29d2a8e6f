#include "core/estimate.hpp"

namespace scw::estimate {

Need leiden(const Shape& g, std::int64_t n_resolutions) {
  const std::int64_t n = g.n_rows, edges = g.nnz, kept = 4 * n * n_resolutions;
  const std::int64_t graph = 16 * n + 8 * edges;
  if (on_cuda(g)) {
    // What the rounds need (143 a vertex), the hierarchy, tables of hubs, and the edges of the next level twice over.
    return {kept + graph + (143 + 8 + 28) * n + (std::int64_t{32} << 20) + 52 * edges, kept};
  }
  const std::int64_t level = 40 * n + 16 * edges;
  return {kept + graph + 4 * n + 228 * n + 16 * n * threads(g) + level, kept};
}

}  // namespace scw::estimate
