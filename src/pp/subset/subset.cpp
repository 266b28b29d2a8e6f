#include "scwarp/pp/subset.hpp"

#include "core/check.hpp"
#include "prim/csr_subset.hpp"

namespace scw::pp {
namespace {

template <class V>
AnyMatrix take(const Context& ctx, const CsrView<const V>& x, Span<const std::uint8_t> cells,
               Span<const std::uint8_t> genes) {
  return prim::csr_subset(ctx, x, cells, genes);
}
template <class V>
AnyMatrix take(const Context& ctx, const MatrixView<const V>& x, Span<const std::uint8_t> cells,
               Span<const std::uint8_t> genes) {
  return prim::dense_subset(ctx, x, cells, genes);
}

}  // namespace

AnyMatrix subset(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> keep_cells,
                 Span<const std::uint8_t> keep_genes) {
  SCW_EXPECT_AS(NotSupported, ctx.device.type == DeviceType::cpu, "pp.subset", "has no CUDA implementation (got {})",
                to_string(ctx.device));
  return std::visit([&](const auto& v) { return take(ctx, v, keep_cells, keep_genes); }, x);
}

}  // namespace scw::pp
