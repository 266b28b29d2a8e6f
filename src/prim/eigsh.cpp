#include "prim/eigsh.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "math/philox.hpp"

namespace scw::prim {
namespace {

constexpr std::int64_t kRowGrain = 4096;

/// g += x^T y over rows [begin, end), q x q; both row-major with q columns, products in double.
SCW_CLONES void gram_rows(const float* x, const float* y, std::int64_t begin, std::int64_t end, int q, double* g) {
  for (std::int64_t i = begin; i < end; ++i)
    for (int a = 0; a < q; ++a) {
      const double xa = static_cast<double>(x[i * q + a]);
      for (int b = 0; b < q; ++b) g[a * q + b] += xa * static_cast<double>(y[i * q + b]);
    }
}

/// next = scale1 * (ax - centre * x) - scale2 * previous
SCW_CLONES void chebyshev_rows(const float* ax, const float* x, float* previous, std::int64_t begin, std::int64_t end,
                               float centre, float scale1, float scale2) {
  for (std::int64_t k = begin; k < end; ++k) previous[k] = scale1 * (ax[k] - centre * x[k]) - scale2 * previous[k];
}

/// x <- x * m in place, m q x q.
SCW_CLONES void rotate_rows(float* x, std::int64_t begin, std::int64_t end, int q, const double* m, double* row) {
  for (std::int64_t i = begin; i < end; ++i) {
    for (int b = 0; b < q; ++b) row[b] = 0;
    for (int a = 0; a < q; ++a) {
      const double xa = static_cast<double>(x[i * q + a]);
      for (int b = 0; b < q; ++b) row[b] += xa * m[a * q + b];
    }
    for (int b = 0; b < q; ++b) x[i * q + b] = static_cast<float>(row[b]);
  }
}

class Subspace {
 public:
  Subspace(const Context& ctx, std::int64_t n, int q) : ctx_(ctx), n_(n), q_(q) {}

  std::vector<double> gram(const float* x, const float* y) const {
    const auto qq = static_cast<std::size_t>(q_) * static_cast<std::size_t>(q_);
    std::vector<double> partial(static_cast<std::size_t>(chunk_count(n_, kRowGrain)) * qq, 0.0);
    parallel_chunks(ctx_, n_, kRowGrain, [&](std::int64_t c, std::int64_t begin, std::int64_t end, int) {
      gram_rows(x, y, begin, end, q_, partial.data() + static_cast<std::size_t>(c) * qq);
    });
    std::vector<double> g(qq, 0.0);
    for (std::size_t c = 0; c < partial.size(); c += qq)
      for (std::size_t k = 0; k < qq; ++k) g[k] += partial[c + k];
    return g;
  }

  void rotate(float* x, const std::vector<double>& m) const {
    parallel_for(ctx_, n_, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      std::vector<double> row(static_cast<std::size_t>(q_));
      rotate_rows(x, begin, end, q_, m.data(), row.data());
    });
  }

  /// Removes the component along the unit vector v.
  void deflate(float* x, const double* v) const {
    const auto q = static_cast<std::size_t>(q_);
    std::vector<double> partial(static_cast<std::size_t>(chunk_count(n_, kRowGrain)) * q, 0.0);
    parallel_chunks(ctx_, n_, kRowGrain, [&](std::int64_t c, std::int64_t begin, std::int64_t end, int) {
      double* const s = partial.data() + static_cast<std::size_t>(c) * q;
      for (std::int64_t i = begin; i < end; ++i)
        for (int b = 0; b < q_; ++b) s[b] += v[i] * static_cast<double>(x[i * q_ + b]);
    });
    std::vector<double> dot(q, 0.0);
    for (std::size_t k = 0; k < partial.size(); ++k) dot[k % q] += partial[k];
    parallel_for(ctx_, n_, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int b = 0; b < q_; ++b)
          x[i * q_ + b] =
              static_cast<float>(static_cast<double>(x[i * q_ + b]) - v[i] * dot[static_cast<std::size_t>(b)]);
    });
  }

  /// Orthonormal columns: x <- x U L^-1/2 of the Gram matrix, twice, since the first is inexact where L is small.
  /// Directions that are lost in rounding become noise of size at most one, which the next filter turns into something.
  void orthonormalise(float* x) const {
    for (int round = 0; round < 2; ++round) {
      auto g = gram(x, x);
      std::vector<double> scale(static_cast<std::size_t>(q_));
      for (int a = 0; a < q_; ++a) {
        const double d = g[static_cast<std::size_t>(a * q_ + a)];
        scale[static_cast<std::size_t>(a)] = d > 0 ? 1.0 / std::sqrt(d) : 0.0;
      }
      for (int a = 0; a < q_; ++a)
        for (int b = 0; b < q_; ++b)
          g[static_cast<std::size_t>(a * q_ + b)] *=
              scale[static_cast<std::size_t>(a)] * scale[static_cast<std::size_t>(b)];
      const SmallEigen e = small_eigh(g, q_);
      std::vector<double> m(g.size());
      for (int b = 0; b < q_; ++b) {
        const double s = 1.0 / std::sqrt(std::max(e.values[static_cast<std::size_t>(b)], 1e-13 * e.values[0] + 1e-300));
        for (int a = 0; a < q_; ++a)
          m[static_cast<std::size_t>(a * q_ + b)] =
              scale[static_cast<std::size_t>(a)] * e.vectors[static_cast<std::size_t>(a * q_ + b)] * s;
      }
      rotate(x, m);
    }
  }

 private:
  const Context& ctx_;
  std::int64_t n_;
  int q_;
};

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
  const Subspace space(ctx, n, q);
  const std::int64_t size = checked_mul(n, q);
  Array<float> x(ctx.workspace, size, "eigsh block");
  Array<float> ax(ctx.workspace, size, "eigsh product");
  Array<float> previous(ctx.workspace, size, "eigsh filter");

  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (int b = 0; b < q; b += 4) {
        const math::Philox4 r =
            math::random_words(ctx.rng, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(b));
        for (int w = 0; w < 4; ++w)
          x[i * q + b + w] = static_cast<float>(static_cast<std::int32_t>(r.v[w])) * 0x1.0p-31f;
      }
  });

  std::fill(previous.begin(), previous.end(), 0.0f);

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
    if (options.known != nullptr) space.deflate(x.data(), options.known);
    a(x.data(), ax.data(), q);
    parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      chebyshev_rows(ax.data(), x.data(), previous.data(), begin * q, end * q, static_cast<float>(centre),
                     static_cast<float>(sigma1 / half), 0.0f);
    });
    for (int d = 1; d < degree; ++d) {
      // previous holds the newer vector; x the older one.
      const double next = 1.0 / (2.0 / sigma1 - sigma);
      a(previous.data(), ax.data(), q);
      parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
        chebyshev_rows(ax.data(), previous.data(), x.data(), begin * q, end * q, static_cast<float>(centre),
                       static_cast<float>(2.0 * next / half), static_cast<float>(sigma * next));
      });
      sigma = next;
      x.swap(previous);
    }
    x.swap(previous);
    out.products += degree;
    if (options.known != nullptr) space.deflate(x.data(), options.known);

    // Rayleigh and Ritz.
    space.orthonormalise(x.data());
    a(x.data(), ax.data(), q);
    ++out.products;
    const SmallEigen ritz = small_eigh(space.gram(x.data(), ax.data()), q);
    space.rotate(x.data(), ritz.vectors);
    space.rotate(ax.data(), ritz.vectors);
    theta = ritz.values;
    const auto residuals =
        [&] {  // |A v - theta v|^2 = |A v|^2 - theta^2 for Ritz vectors, but without the cancellation
          std::vector<double> partial(static_cast<std::size_t>(chunk_count(n, kRowGrain)) * static_cast<std::size_t>(q),
                                      0.0);
          parallel_chunks(ctx, n, kRowGrain, [&](std::int64_t c, std::int64_t begin, std::int64_t end, int) {
            double* const s = partial.data() + static_cast<std::size_t>(c) * static_cast<std::size_t>(q);
            for (std::int64_t i = begin; i < end; ++i)
              for (int b = 0; b < q; ++b) {
                const double r = static_cast<double>(ax[i * q + b]) -
                                 theta[static_cast<std::size_t>(b)] * static_cast<double>(x[i * q + b]);
                s[b] += r * r;
              }
          });
          std::vector<double> s(static_cast<std::size_t>(q), 0.0);
          for (std::size_t k = 0; k < partial.size(); ++k) s[k % static_cast<std::size_t>(q)] += partial[k];
          return s;
        }();
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
  out.vectors = Matrix<float>(ctx.workspace, n, k, "eigenvectors");
  for (std::int64_t j = 0; j < k; ++j) {
    std::int64_t top = 0;
    for (std::int64_t i = 1; i < n; ++i)
      if (std::abs(x[i * q + j]) > std::abs(x[top * q + j])) top = i;
    const float sign = x[top * q + j] < 0 ? -1.0f : 1.0f;
    for (std::int64_t i = 0; i < n; ++i) out.vectors.data[i * k + j] = sign * x[i * q + j];
  }
  return out;
}

}  // namespace scw::prim
