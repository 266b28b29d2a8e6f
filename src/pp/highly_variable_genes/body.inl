// What the CPU and CUDA versions of expected_zeros share.
#include "math/elementary.hpp"
#include "prim/fixed_point.hpp"

namespace scw::pp {

/// Probability that a Poisson count of mean share * total is zero, for `weight` cells of that total, as an integer.
SCW_HD inline std::int64_t zeros_term(double share, double total, std::int64_t weight, const prim::FixedScale& scale) {
  return weight * scale.quantise(math::exp(-(share * total)));
}

}  // namespace scw::pp
