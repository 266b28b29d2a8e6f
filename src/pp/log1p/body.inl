// Shared by cpu.cpp and cuda.cu.

#include "math/elementary.hpp"

namespace scw::pp {

/// ln(1 + x) * scale, rounded once after the product unless scale is 1.
SCW_HD inline float log1p_value(float x, double scale) {
  return scale == 1.0 ? math::log1p(x) : static_cast<float>(math::log1p(static_cast<double>(x)) * scale);
}
SCW_HD inline double log1p_value(double x, double scale) { return math::log1p(x) * scale; }

}  // namespace scw::pp
