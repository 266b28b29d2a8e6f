#include "pp/gene_moments/passes.inl"

namespace scw::pp::cuda {
SCW_GENE_MOMENT_PASSES(, double);
}  // namespace scw::pp::cuda
