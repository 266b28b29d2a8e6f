#include "core/estimate.hpp"

namespace scw::estimate {

Need umap(const Shape& g, std::int64_t d) {
  const std::int64_t n = g.n_rows, edges = g.nnz, kept = 4 * n * d;
  const std::int64_t pruned = 8 * (n + 1) + 8 * edges;
  const std::int64_t q = ceil_div(d + 4, 8) * 8;  // columns of the block whose span holds the eigenvectors
  const std::int64_t component = 4 * n + 8 * (n + 1) + 8 * n + 8 * edges;
  const std::int64_t spectral = pruned + component + 4 * n + 12 * n * q + 8 * 64 * ceil_div(n, 1024) + 4 * n * d * 2;
  const std::int64_t layout = 4 * n + 8 * (n + 1) + 4 * n * d + 8 * edges;
  const std::int64_t ordering = pruned + 4 * n * d + layout + (on_cuda(g) ? 24 * n : 12 * n);
  const std::int64_t running = layout + 8 * n * d + (on_cuda(g) ? 0 : n * 4);
  return {std::max({spectral, ordering, running, layout + kept}), kept};
}

}  // namespace scw::estimate
