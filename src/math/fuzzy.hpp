// Weights of a neighbour graph. Sums along a row go to 8 accumulators (entry j to number j mod 8), added as a tree, so
// that they vectorise and have the same bits on every backend.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/elementary.hpp"
#include "scwarp/core/config.hpp"

namespace scw::math {

struct FuzzyRow {
  double rho = 0;    ///< distance to the nearest neighbour that is not at distance 0
  double sigma = 1;  ///< scale of the row
};

SCW_HD inline double lane_sum(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// Sum of the k distances of a row.
SCW_HD inline double row_sum(const float* distances, int k) {
  double lanes[8] = {};
  int j = 0;
  for (; j + 8 <= k; j += 8)
    for (int l = 0; l < 8; ++l) lanes[l] += static_cast<double>(distances[j + l]);
  for (int l = 0; j + l < k; ++l) lanes[l] += static_cast<double>(distances[j + l]);
  return lane_sum(lanes);
}

/// Scale of one row of k distances, the cell itself first: sigma solves sum_{j>=1} exp(-max(0, d_j - rho) / sigma) =
/// log2 k by bisection (64 steps, tolerance 1e-5), with the floor 1e-3 of the row's mean distance (of the overall mean
/// if all are 0). McInnes, Healy, Melville 2018, arXiv:1802.03426, algorithm 3, and the constants of umap-learn.
SCW_HD inline FuzzyRow fuzzy_row(const float* distances, int k, double overall_mean) {
  FuzzyRow out;
  for (int j = 0; j < k; ++j) {
    const double d = static_cast<double>(distances[j]);
    if (d > 0 && (out.rho == 0 || d < out.rho)) out.rho = d;
  }
  const double target = log_positive(static_cast<double>(k)) * kInvLn2;
  double low = 0, high = -1, mid = 1;  // high < 0: none yet
  for (int step = 0; step < 64; ++step) {
    double lanes[8] = {};
    int j = 1;
    for (; j + 8 <= k; j += 8)
      for (int l = 0; l < 8; ++l) {
        const double d = static_cast<double>(distances[j + l]) - out.rho;
        lanes[l] += exp(-((d > 0 ? d : 0.0) / mid));
      }
    for (int l = 0; j + l < k; ++l) {
      const double d = static_cast<double>(distances[j + l]) - out.rho;
      lanes[l] += exp(-((d > 0 ? d : 0.0) / mid));
    }
    const double sum = lane_sum(lanes);
    const double excess = sum - target;
    if (excess < 1e-5 && excess > -1e-5) break;
    if (excess > 0) {
      high = mid;
      mid = 0.5 * (low + high);
    } else {
      low = mid;
      mid = high < 0 ? 2.0 * mid : 0.5 * (low + high);
    }
  }
  const double floor = 1e-3 * (out.rho > 0 ? row_sum(distances, k) / static_cast<double>(k) : overall_mean);
  out.sigma = mid < floor ? floor : mid;
  return out;
}

/// Membership of a neighbour at distance d.
SCW_HD inline float fuzzy_weight(double d, const FuzzyRow& row) {
  const double t = d - row.rho;
  return t <= 0 || row.sigma == 0 ? 1.0f : static_cast<float>(exp(-(t / row.sigma)));
}

/// Gauss kernel with a width per cell. Haghverdi, Buettner, Theis 2016, doi:10.1038/nmeth.3971. Cells at the same place
/// weigh 1 whatever their widths.
SCW_HD inline double gauss_weight(double squared_distance, double squared_sigma_i, double squared_sigma_j) {
  const double den = squared_sigma_i + squared_sigma_j;
  if (!(den > 0)) return squared_distance > 0 ? 0.0 : 1.0;
  const double num = 2.0 * (std::sqrt(squared_sigma_i) * std::sqrt(squared_sigma_j));
  return std::sqrt(num / den) * exp(-(squared_distance / den));
}

/// a or b.
struct FuzzyUnion {
  SCW_HD float operator()(float a, float b) const {
    const double x = static_cast<double>(a), y = static_cast<double>(b);
    return static_cast<float>(x + y - x * y);
  }
};
struct Larger {
  SCW_HD float operator()(float a, float b) const { return a > b ? a : b; }
};
struct Mean {
  SCW_HD float operator()(float a, float b) const {
    return static_cast<float>(0.5 * (static_cast<double>(a) + static_cast<double>(b)));
  }
};

}  // namespace scw::math
