// Shared by cpu.cpp and cuda.cu.

#include <cmath>
#include <cstdint>

namespace scw::pp {

/// The square root of IEEE 754 is correctly rounded everywhere.
struct SqrtValue {
  SCW_HD float operator()(float v) const { return ::sqrtf(v); }
  SCW_HD double operator()(double v) const { return ::sqrt(v); }
  template <class V>
  SCW_HD V operator()(V v, std::int64_t, std::int32_t) const {
    return (*this)(v);
  }
};

}  // namespace scw::pp
