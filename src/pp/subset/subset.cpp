#include "scwarp/pp/subset.hpp"

#include "prim/csr_subset/csr_subset.hpp"

namespace scw::pp {

AnyMatrix subset(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> keep_cells,
                 Span<const std::uint8_t> keep_genes) {
  return prim::subset(ctx, x, keep_cells, keep_genes);
}

}  // namespace scw::pp
