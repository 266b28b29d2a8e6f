// UMAP's curves (McInnes, Healy, Melville: "UMAP: Uniform Manifold Approximation and Projection", arXiv:1802.03426,
// definitions 10 and 11 and section 4.2): phi(d) = 1 / (1 + a d^2b), its fit to min_dist and spread, and the
// coefficients of the attractive and the repulsive force.
#pragma once

#include "math/elementary.hpp"
#include "math/pow.hpp"
#include "scwarp/core/config.hpp"

namespace scw::math {

struct UmapCurve {
  double a = 1, b = 1;
};

/// Least squares of 1 / (1 + a x^2b) to 1 for x < min_dist, exp(-(x - min_dist) / spread) beyond, on 300 points of
/// [0, 3 spread], from a = b = 1 by Levenberg and Marquardt; to the last digits, where umap-learn stops at about 1e-8.
inline UmapCurve fit_umap_curve(double min_dist, double spread) {
  constexpr int kPoints = 300;
  double x[kPoints];
  double y[kPoints];
  double log_x[kPoints];
  for (int i = 0; i < kPoints; ++i) {
    x[i] = 3.0 * spread * i / (kPoints - 1);
    y[i] = x[i] < min_dist ? 1.0 : exp(-(x[i] - min_dist) / spread);
    log_x[i] = x[i] > 0 ? log_positive(x[i]) : 0.0;
  }
  // Residual r = phi - y; phi_a = -phi^2 x^2b, phi_b = -phi^2 a x^2b 2 ln x.
  const auto loss = [&](double a, double b) {
    double s = 0;
    for (int i = 0; i < kPoints; ++i) {
      const double p = x[i] > 0 ? exp(2.0 * b * log_x[i]) : 0.0;
      const double r = 1.0 / (1.0 + a * p) - y[i];
      s += r * r;
    }
    return s;
  };
  double a = 1;
  double b = 1;
  double lambda = 1e-3;
  double current = loss(a, b);
  for (int step = 0; step < 500; ++step) {
    double aa = 0;
    double ab = 0;
    double bb = 0;
    double ga = 0;
    double gb = 0;
    for (int i = 0; i < kPoints; ++i) {
      if (x[i] <= 0) continue;
      const double p = exp(2.0 * b * log_x[i]);
      const double phi = 1.0 / (1.0 + a * p);
      const double r = phi - y[i];
      const double da = -phi * phi * p;
      const double db = -phi * phi * a * p * 2.0 * log_x[i];
      aa += da * da;
      ab += da * db;
      bb += db * db;
      ga += da * r;
      gb += db * r;
    }
    const double haa = aa * (1 + lambda) + 1e-300;
    const double hbb = bb * (1 + lambda) + 1e-300;
    const double det = haa * hbb - ab * ab;
    const double step_a = -(hbb * ga - ab * gb) / det;
    const double step_b = -(haa * gb - ab * ga) / det;
    const double trial = loss(a + step_a, b + step_b);
    if (a + step_a > 0 && trial <= current) {
      a += step_a;
      b += step_b;
      current = trial;
      lambda = lambda > 1e-12 ? lambda * 0.1 : lambda;
      const double relative = (step_a < 0 ? -step_a : step_a) / a + (step_b < 0 ? -step_b : step_b) / (b < 0 ? -b : b);
      if (relative < 1e-14) break;
    } else {
      lambda *= 10;
      if (lambda > 1e12) break;
    }
  }
  return {a, b};
}

/// The curve and its forces in single precision, as the layout uses them. d2: squared distance. The force on a point is
/// coefficient * (point - other), each coordinate clipped to [-4, 4].
struct UmapForce {
  float a, b, attract, repel;

  UmapForce() = default;
  SCW_HD UmapForce(double a_, double b_, double gamma)
      : a(static_cast<float>(a_)),
        b(static_cast<float>(b_)),
        attract(static_cast<float>(-2.0 * a_ * b_)),
        repel(static_cast<float>(2.0 * gamma * b_)) {}

  /// -2ab d^2(b-1) / (1 + a d^2b). At distance 0 the value is finite and meets a zero vector.
  SCW_HD float attraction(float d2) const {
    const float s = d2 > 1e-30f ? d2 : 1e-30f;
    const float p = pow_positive(s, b);
    return attract * p / (s * (1.0f + a * p));
  }
  /// 2 gamma b / ((0.001 + d^2)(1 + a d^2b)).
  SCW_HD float repulsion(float d2) const {
    const float s = d2 > 1e-30f ? d2 : 1e-30f;
    return repel / ((0.001f + s) * (1.0f + a * pow_positive(s, b)));
  }
};

SCW_HD inline float clip4(float x) {
  x = x < -4.0f ? -4.0f : x;
  return x > 4.0f ? 4.0f : x;
}

}  // namespace scw::math
