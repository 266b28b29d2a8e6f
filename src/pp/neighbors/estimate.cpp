#include "core/estimate.hpp"

namespace scw::estimate {

Need connectivities(DeviceType device, std::int64_t n, std::int64_t k) {
  const std::int64_t all = checked_mul(n, k), kept = 8 * (n + 1) + 16 * n * (k - 1);
  // Weights; edges in both directions, by row and by neighbour.
  const std::int64_t lists = 4 * all + 8 * n + 16 * all + 12 * n;
  if (device == DeviceType::cpu) return {lists + 8 * n + kept, kept};
  const std::int64_t sorting = 16 * all + sort_scratch(all, 12, false);
  return {lists + std::max(sorting, 8 * n + kept + n / 64 + (1 << 16)), kept};
}

}  // namespace scw::estimate
