#include "core/estimate.hpp"
#include "prim/group_moments/estimate.hpp"

namespace scw::estimate {

Need aggregate(const Shape& s, std::int64_t n_groups, int n_functions, bool count_nonzero) {
  // Groups go through in batches of 256 MiB of moments.
  const std::int64_t batch = std::clamp<std::int64_t>(
      (std::int64_t{256} << 20) / (36 * std::max<std::int64_t>(1, s.n_cols)), 1, std::max<std::int64_t>(1, n_groups));
  if (on_cuda(s)) return {group_moments(s, batch), 0};
  const std::int64_t kept = (8 * std::int64_t{n_functions} + (count_nonzero ? 4 : 0)) * n_groups * s.n_cols;
  return {kept + group_moments(s, batch), kept};
}

}  // namespace scw::estimate
