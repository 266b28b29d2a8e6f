#include "tl/rank_genes_groups/cuda.cuh"

namespace scw::tl::cuda {

void rank_sums_f64(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes, const RankSpec& spec,
                   const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out) {
  if (const auto* const csr = std::get_if<CsrView<const double>>(&x))
    ranks::Ranker<double, CsrView<const double>>(ctx, *csr, codes, spec, map, moments, out).run();
  else
    ranks::Ranker<double, MatrixView<const double>>(ctx, std::get<MatrixView<const double>>(x), codes, spec, map,
                                                    moments, out)
        .run();
}

}  // namespace scw::tl::cuda
