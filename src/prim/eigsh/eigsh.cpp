#include "prim/eigsh/eigsh.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.hpp"
#include "prim/eigsh/kernel.hpp"

namespace scw::prim {
constinit Kernel<void(const Context&, std::int64_t, int, std::unique_ptr<EigshSpace>&)> eigsh_space_kernel{
    "prim.eigsh"};

namespace {

/// Orthonormal columns: x <- x U L^-1/2 of the Gram matrix, twice, since the first is inexact where L is small.
/// Directions that are lost in rounding become noise of size at most one, which the next filter turns into something.
void orthonormalise(EigshSpace& space, float* x, int q) {
  std::vector<double> g;
  for (int round = 0; round < 2; ++round) {
    space.gram(x, x, g);
    std::vector<double> scale(static_cast<std::size_t>(q));
    for (int a = 0; a < q; ++a) {
      const double d = g[static_cast<std::size_t>(a * q + a)];
      scale[static_cast<std::size_t>(a)] = d > 0 ? 1.0 / std::sqrt(d) : 0.0;
    }
    for (int a = 0; a < q; ++a)
      for (int b = 0; b < q; ++b)
        g[static_cast<std::size_t>(a * q + b)] *=
            scale[static_cast<std::size_t>(a)] * scale[static_cast<std::size_t>(b)];
    const SmallEigen e = small_eigh(g, q);
    std::vector<double> m(g.size());
    for (int b = 0; b < q; ++b) {
      const double s = 1.0 / std::sqrt(std::max(e.values[static_cast<std::size_t>(b)], 1e-13 * e.values[0] + 1e-300));
      for (int a = 0; a < q; ++a)
        m[static_cast<std::size_t>(a * q + b)] =
            scale[static_cast<std::size_t>(a)] * e.vectors[static_cast<std::size_t>(a * q + b)] * s;
    }
    space.rotate(x, m);
  }
}

}  // namespace

SmallEigen small_eigh(std::vector<double> a, int n) {
  const auto at = [n](int i, int j) {
    return static_cast<std::size_t>(i) * static_cast<std::size_t>(n) + static_cast<std::size_t>(j);
  };
  std::vector<double> v(a.size(), 0.0);
  for (int i = 0; i < n; ++i) v[at(i, i)] = 1.0;
  double norm = 0;
  for (const double x : a) norm += x * x;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0;
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) off += a[at(i, j)] * a[at(i, j)];
    if (!(off > 1e-30 * norm)) break;
    for (int p = 0; p < n; ++p)
      for (int q = p + 1; q < n; ++q) {
        const double apq = a[at(p, q)];
        if (apq == 0) continue;
        const double theta = (a[at(q, q)] - a[at(p, p)]) / (2.0 * apq);
        const double t = (theta >= 0 ? 1.0 : -1.0) / (std::abs(theta) + std::sqrt(theta * theta + 1.0));
        const double c = 1.0 / std::sqrt(t * t + 1.0);
        const double s = t * c;
        for (int k = 0; k < n; ++k) {
          const double x = a[at(k, p)];
          const double y = a[at(k, q)];
          a[at(k, p)] = c * x - s * y;
          a[at(k, q)] = s * x + c * y;
        }
        for (int k = 0; k < n; ++k) {
          const double x = a[at(p, k)];
          const double y = a[at(q, k)];
          a[at(p, k)] = c * x - s * y;
          a[at(q, k)] = s * x + c * y;
        }
        for (int k = 0; k < n; ++k) {
          const double x = v[at(k, p)];
          const double y = v[at(k, q)];
          v[at(k, p)] = c * x - s * y;
          v[at(k, q)] = s * x + c * y;
        }
      }
  }
  std::vector<int> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return a[at(i, i)] > a[at(j, j)]; });
  SmallEigen out;
  out.values.resize(static_cast<std::size_t>(n));
  out.vectors.resize(v.size());
  for (int j = 0; j < n; ++j) {
    const int from = order[static_cast<std::size_t>(j)];
    out.values[static_cast<std::size_t>(j)] = a[at(from, from)];
    for (int i = 0; i < n; ++i) out.vectors[at(i, j)] = v[at(i, from)];
  }
  return out;
}

Eigsh eigsh(const Context& ctx, std::int64_t n, const BlockOperator& a, const EigshOptions& options) {
  const int q = eigsh_block(options.n_eigen);
  SCW_ASSERT(n > q && options.n_eigen > 0);
  std::unique_ptr<EigshSpace> space;
  eigsh_space_kernel(ctx, n, q, space);
  const std::int64_t size = checked_mul(n, q);
  Array<float> x(ctx.workspace, size, "eigsh block", ctx.stream);
  Array<float> ax(ctx.workspace, size, "eigsh product", ctx.stream);
  Array<float> previous(ctx.workspace, size, "eigsh filter", ctx.stream);
  space->randomise(x.data(), ctx.rng);
  space->randomise(previous.data(), ctx.rng);  // finite: the first step of a filter takes none of it

  Eigsh out;
  double cut = options.lower + 0.8 * (options.upper - options.lower);
  double top = options.upper;
  int degree = 12;
  std::vector<double> theta(static_cast<std::size_t>(q));
  for (;;) {
    // Filter: the Chebyshev polynomial that is at most 1 in size on [lower, cut], scaled to 1 at `top`,
    // the largest wanted eigenvalue as far as it is known: scaled further up, all vectors could vanish.
    const double half = (cut - options.lower) / 2;
    const double centre = (cut + options.lower) / 2;
    const double sigma1 = half / (top - centre);
    double sigma = sigma1;
    if (options.known != nullptr) space->deflate(x.data(), options.known);
    a(x.data(), ax.data(), q);
    space->filter(ax.data(), x.data(), previous.data(), static_cast<float>(centre), static_cast<float>(sigma1 / half),
                  0.0f);
    for (int d = 1; d < degree; ++d) {
      // previous holds the newer vector; x the older one.
      const double next = 1.0 / (2.0 / sigma1 - sigma);
      a(previous.data(), ax.data(), q);
      space->filter(ax.data(), previous.data(), x.data(), static_cast<float>(centre),
                    static_cast<float>(2.0 * next / half), static_cast<float>(sigma * next));
      sigma = next;
      x.swap(previous);
    }
    x.swap(previous);
    out.products += degree;
    if (options.known != nullptr) space->deflate(x.data(), options.known);

    // Rayleigh and Ritz.
    orthonormalise(*space, x.data(), q);
    a(x.data(), ax.data(), q);
    ++out.products;
    ctx.check_cancelled("prim.eigsh");
    std::vector<double> g;
    space->gram(x.data(), ax.data(), g);
    const SmallEigen ritz = small_eigh(std::move(g), q);
    space->rotate(x.data(), ritz.vectors);
    space->rotate(ax.data(), ritz.vectors);
    theta = ritz.values;
    // |A v - theta v|^2 = |A v|^2 - theta^2 for Ritz vectors, but without the cancellation
    std::vector<double> residuals;
    space->residuals(ax.data(), x.data(), theta, residuals);
    out.converged = true;
    for (int b = 0; b < options.n_eigen; ++b) {
      const double gap =
          std::max(options.upper - theta[static_cast<std::size_t>(b)], 1e-5 * (options.upper - options.lower));
      if (std::sqrt(residuals[static_cast<std::size_t>(b)]) > options.tolerance * gap) out.converged = false;
    }
    if (out.converged || out.products >= options.max_products) break;
    // Everything below the last vector of the block may be damped. The degree lifts the last wanted vector by a few
    // orders of magnitude over the cut, unless that lifts the first one so far that single precision loses the others.
    const double low = theta[static_cast<std::size_t>(q - 1)];
    const double range = options.upper - options.lower;
    cut = std::clamp(low, options.lower + 0.1 * range, options.upper - 1e-4 * range);
    top = std::clamp(theta[0], cut + 5e-5 * range, options.upper);
    const auto rate = [&](double value) {
      return std::acosh(std::max((value - (cut + options.lower) / 2) / ((cut - options.lower) / 2), 1.0 + 1e-6));
    };
    const double wanted = theta[static_cast<std::size_t>(options.n_eigen - 1)];
    // The last bound keeps a vector that is still unseen between `top` and `upper` from overflowing.
    const double longest = std::min({6.0 / rate(wanted), 9.0 / rate(top), 60.0 / rate(options.upper)});
    degree = static_cast<int>(std::clamp(longest, 3.0, 100.0));
    degree = std::max(2, std::min(degree, options.max_products - out.products));
  }

  const auto k = static_cast<std::int64_t>(options.n_eigen);
  out.values.assign(theta.begin(), theta.begin() + k);
  out.vectors = Matrix<float>(ctx.workspace, n, k, "eigenvectors", ctx.stream);
  space->extract(x.data(), options.n_eigen, out.vectors.data.data());
  return out;
}

}  // namespace scw::prim
