#include "pp/gene_moments/passes.inl"

namespace scw::pp::cuda {
SCW_GENE_MOMENT_PASSES(, float);
}  // namespace scw::pp::cuda
