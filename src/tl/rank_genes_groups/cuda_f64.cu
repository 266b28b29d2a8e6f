#include "tl/rank_genes_groups/cuda.cuh"

namespace scw::tl::cuda {

void rank_sums_f64(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, const RankSpec& spec,
                   const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out) {
  if (x.is_sparse())
    ranks::Ranker<double, CsrView<const double>>(ctx, x, codes, spec, map, moments, out).run();
  else
    ranks::Ranker<double, MatrixView<const double>>(ctx, x, codes, spec, map, moments, out).run();
}

}  // namespace scw::tl::cuda
