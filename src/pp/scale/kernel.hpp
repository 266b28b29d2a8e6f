#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/scale.hpp"

namespace scw::pp {

struct ScaleArguments {
  const double* mean;  // null: not centred
  const double* std;
  double low, high;  // clip limits, infinite for none
  Span<const std::uint8_t> mask;
};

extern SCW_API Kernel<void(const Context&, const AnyMutableMatrixView&, const ScaleArguments&)> scale_kernel;
/// out (dense, the value type of x) <- scaled x.
extern SCW_API Kernel<void(const Context&, const AnyCsrView&, const ScaleArguments&, const AnyMutableMatrixView& out)>
    scale_to_dense_kernel;

}  // namespace scw::pp
