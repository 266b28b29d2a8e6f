#include "prim/group_moments/cuda_body.inl"

namespace scw::prim::cuda {
SCW_GROUP_MOMENTS(, float);
}  // namespace scw::prim::cuda
