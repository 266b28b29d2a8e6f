// Shared by cpu.cpp and cuda.cu: weights of one row of neighbours, before both directions are joined.

#include "math/fuzzy.hpp"
#include "scwarp/pp/neighbors.hpp"

namespace scw::pp {

/// Similarities of one row (the cell itself first) to distances.
SCW_HD inline void similarities_to_distances(const float* similarities, int k, float* out) {
  out[0] = 0.0f;
  if (k == 1) return;
  float best = similarities[1], worst = similarities[1];
  for (int j = 2; j < k; ++j) {
    best = similarities[j] > best ? similarities[j] : best;
    worst = similarities[j] < worst ? similarities[j] : worst;
  }
  const double span = best > worst ? static_cast<double>(best) - static_cast<double>(worst) : 1.0;
  for (int j = 1; j < k; ++j)
    out[j] = static_cast<float>(static_cast<double>(best) - static_cast<double>(similarities[j]) + span);
}

/// Rows are added in groups of kSumGroup in their order, and so are the groups, level by level, on every backend.
inline constexpr std::int64_t kSumGroup = 256;
SCW_HD inline double group_sum(const double* values, std::int64_t n, std::int64_t group) {
  double sum = 0;
  for (std::int64_t i = group * kSumGroup; i < n && i < (group + 1) * kSumGroup; ++i) sum += values[i];
  return sum;
}

/// Median of the squares of the k - 1 distances after the first; scratch: k - 1 values.
SCW_HD inline double median_squared(const float* distances, int k, double* scratch) {
  const int m = k - 1;
  if (m == 0) return 0.0;
  for (int j = 0; j < m; ++j) {  // lists come sorted: insertion sort is linear
    const double d = static_cast<double>(distances[j + 1]) * static_cast<double>(distances[j + 1]);
    int at = j;
    for (; at > 0 && scratch[at - 1] > d; --at) scratch[at] = scratch[at - 1];
    scratch[at] = d;
  }
  return m % 2 == 1 ? scratch[m / 2] : 0.5 * (scratch[m / 2 - 1] + scratch[m / 2]);
}

/// |A n B| / (2 m - |A n B|) of two sorted lists of m indices (-1: missing).
SCW_HD inline float overlap(const std::int32_t* a, const std::int32_t* b, int m) {
  int shared = 0;
  for (int i = 0, j = 0; i < m && j < m;) {
    if (a[i] == b[j]) {
      shared += a[i] >= 0 ? 1 : 0;
      ++i;
      ++j;
    } else if (a[i] < b[j]) {
      ++i;
    } else {
      ++j;
    }
  }
  return static_cast<float>(static_cast<double>(shared) / static_cast<double>(2 * m - shared));
}

}  // namespace scw::pp
