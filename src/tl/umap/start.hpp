// Formulas of the start that the CPU and CUDA share.
#pragma once

#include <cmath>

#include "math/philox.hpp"

namespace scw::tl {

/// Close to normal with mean 0 and variance 1 (sum of four uniforms): enough to tell points apart.
SCW_HD inline float umap_noise(RngKey key, std::int64_t item) {
  const math::Philox4 r = math::random_words(key, static_cast<std::uint64_t>(item), 0);
  double s = 0;
  for (const std::uint32_t v : r.v) s += static_cast<double>(v) * 0x1.0p-32 - 0.5;
  return static_cast<float>(s * 1.7320508075688772);
}

/// Uniform in [-10, 10).
SCW_HD inline float umap_random(RngKey key, std::int64_t item) {
  return static_cast<float>(20.0 * math::random_uniform(key, static_cast<std::uint64_t>(item)) - 10.0);
}

/// A spectral coordinate: the largest becomes 10, with noise for points that coincide.
SCW_HD inline float umap_spectral(float v, float largest, RngKey key, std::int64_t item) {
  return (largest > 0 ? v * (10.0f / largest) : 0.0f) + 1e-4f * umap_noise(key, item);
}

SCW_HD inline float umap_stretch(float v, float low, float high) {
  const float extent = high - low;
  return extent > 0 ? 10.0f * ((v - low) / extent) : 0.0f;
}

/// How far equal rows of a given start are moved apart: umap-learn's rule, a thousandth of the distance to the nearest
/// neighbour, with the distance of evenly spread cells.
inline float umap_jitter(std::int64_t n_cells, std::int64_t dims) {
  return 1e-3f * 10.0f * static_cast<float>(std::pow(static_cast<double>(n_cells), -1.0 / static_cast<double>(dims)));
}

/// Samples of an edge per pass, in units of 2^-32.
SCW_HD inline std::uint32_t umap_rate(float weight, float most) {
  const double rate = static_cast<double>(weight) / static_cast<double>(most) * 0x1.0p32;
  return static_cast<std::uint32_t>(rate < 4294967295.0 ? rate : 4294967295.0);
}

}  // namespace scw::tl
