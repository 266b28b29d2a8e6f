#include "core/estimate.hpp"

namespace scw::estimate {

std::int64_t Shape::bytes() const {
  if (!sparse) return dense_bytes(*this);
  return checked_add(checked_mul(nnz, 4 + value_bytes), checked_mul(n_rows + 1, 8));
}

}  // namespace scw::estimate
