#include "pp/sqrt/kernel.hpp"
#include "prim/row_ops.cuh"

#include "pp/sqrt/body.inl"

namespace scw::pp::cuda {

void sqrt(const Context& ctx, const AnyMutableMatrixView& x) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { prim::cuda::map_values(ctx, v, SqrtValue{}); }, x);
}

SCW_REGISTER(sqrt_kernel, cuda, &sqrt);

}  // namespace scw::pp::cuda
