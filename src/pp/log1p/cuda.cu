#include "pp/log1p/kernel.hpp"
#include "prim/row_ops.cuh"

#include "pp/log1p/body.inl"

namespace scw::pp::cuda {

struct Log1pValue {
  double scale;
  template <class V>
  SCW_HD V operator()(V value, std::int64_t, std::int32_t) const {
    return log1p_value(value, scale);
  }
};

void log1p(const Context& ctx, const AnyMutableMatrixView& x, double scale) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { prim::cuda::for_each_value(ctx, v, Log1pValue{scale}); }, x);
}

SCW_REGISTER(log1p_kernel, cuda, &log1p);

}  // namespace scw::pp::cuda
