#include "pp/sqrt/kernel.hpp"
#include "prim/row_ops.hpp"

#include "pp/sqrt/body.inl"

namespace scw::pp::cpu {

void sqrt(const Context& ctx, const AnyMutableMatrixView& x) {
  std::visit([&](const auto& v) { prim::cpu::for_each_value(ctx, v, SqrtValue{}); }, x);
}

SCW_REGISTER(sqrt_kernel, cpu, &sqrt);

}  // namespace scw::pp::cpu
