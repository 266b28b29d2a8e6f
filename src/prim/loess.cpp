#include "prim/loess.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"

namespace scw::prim {
namespace {

struct Vertex {
  double at = 0, value = 0, slope = 0;
};

/// The point after which [l, u) (at least one point) is cut: the median, or the nearest gap between different values
/// (above before below), or the median if there is none on either side.
std::int64_t cut_point(const std::vector<double>& x, std::int64_t l, std::int64_t u) {
  const std::int64_t middle = (l + u + 1) / 2 - 1;
  std::int64_t offset = 0;
  while (middle + offset < u - 1 && middle + offset >= l) {
    const auto at = static_cast<std::size_t>(middle + offset);
    if (x[at] != x[at + 1]) return middle + offset;
    offset = offset > 0 ? -offset : -offset + 1;
  }
  return middle;
}

/// Ends of the cells, ascending.
std::vector<Vertex> vertices(const std::vector<double>& x, double max_points) {
  const auto n = static_cast<std::int64_t>(x.size());
  const double low = x.front(), high = x.back();
  const double range = std::max(high - low, std::max(std::abs(low), std::abs(high)) * 1e-10 + 1e-30);
  std::vector<double> at{low - 0.005 * range, high + 0.005 * range};
  struct Cell {
    std::int64_t l, u;
    double from, to;
  };
  std::vector<Cell> todo{{0, n, at[0], at[1]}};
  while (!todo.empty()) {
    const Cell c = todo.back();
    todo.pop_back();
    if (static_cast<double>(c.u - c.l) <= max_points) continue;
    const std::int64_t m = cut_point(x, c.l, c.u);
    const double t = x[static_cast<std::size_t>(m)];
    if (t == c.from || t == c.to) continue;
    at.push_back(t);
    todo.push_back({c.l, m + 1, c.from, t});
    todo.push_back({m + 1, c.u, t, c.to});
  }
  std::sort(at.begin(), at.end());
  at.erase(std::unique(at.begin(), at.end()), at.end());
  std::vector<Vertex> out(at.size());
  for (std::size_t k = 0; k < at.size(); ++k) out[k].at = at[k];
  return out;
}

/// Distance from `at` of its q-th nearest point; x ascending.
double radius(const std::vector<double>& x, double at, std::int64_t q) {
  const auto n = static_cast<std::int64_t>(x.size());
  // The q nearest are a window [first, first + q): move it up while the point above it is nearer than its lowest one.
  std::int64_t lo = 0, hi = n - q;
  while (lo < hi) {
    const std::int64_t mid = (lo + hi) / 2;
    if (at - x[static_cast<std::size_t>(mid)] > x[static_cast<std::size_t>(mid + q)] - at)
      lo = mid + 1;
    else
      hi = mid;
  }
  return std::max(std::abs(at - x[static_cast<std::size_t>(lo)]),
                  std::abs(x[static_cast<std::size_t>(lo + q - 1)] - at));
}

/// Weighted least squares of a + b d + c d^2, d = x - at, by Gram-Schmidt with every column orthogonalised twice.
/// False if the columns are dependent.
bool fit_vertex(const std::vector<double>& x, const std::vector<double>& y, std::int64_t q, Vertex& v) {
  const double h = radius(x, v.at, q);
  if (!(h > 0)) return false;
  const auto begin = std::upper_bound(x.begin(), x.end(), v.at - h) - x.begin();
  const auto end = std::lower_bound(x.begin(), x.end(), v.at + h) - x.begin();
  std::vector<double> columns[4];  // 1, d, d^2, y, all times the square root of the weight
  for (auto& c : columns) c.reserve(static_cast<std::size_t>(std::max<std::ptrdiff_t>(0, end - begin)));
  for (auto i = static_cast<std::size_t>(std::max<std::ptrdiff_t>(0, begin)); i < static_cast<std::size_t>(end); ++i) {
    const double d = x[i] - v.at;
    const double r = std::abs(d) / h;
    if (r >= 1) continue;
    const double t = 1 - r * r * r;
    const double w = std::sqrt(t * t * t);
    columns[0].push_back(w);
    columns[1].push_back(w * d);
    columns[2].push_back(w * d * d);
    columns[3].push_back(w * y[i]);
  }
  const std::size_t n = columns[0].size();
  const auto dot = [n](const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin(), 0.0);
  };
  double r[3][4] = {};
  for (int k = 0; k < 4; ++k) {
    const double before = std::sqrt(dot(columns[k], columns[k]));
    for (int pass = 0; pass < 2; ++pass)
      for (int j = 0; j < std::min(k, 3); ++j) {
        const double c = dot(columns[j], columns[k]);
        r[j][k] += c;
        for (std::size_t i = 0; i < n; ++i) columns[k][i] -= c * columns[j][i];
      }
    if (k == 3) break;
    r[k][k] = std::sqrt(dot(columns[k], columns[k]));
    if (!(r[k][k] > 1e-13 * before)) return false;
    for (double& c : columns[k]) c /= r[k][k];
  }
  const double c = r[2][3] / r[2][2];
  v.slope = (r[1][3] - r[1][2] * c) / r[1][1];
  v.value = (r[0][3] - r[0][1] * v.slope - r[0][2] * c) / r[0][0];
  return true;
}

}  // namespace

Array<double> loess_fit(const Context& ctx, Span<const double> x, Span<const double> y, const LoessOptions& options,
                        const char* op) {
  SCW_EXPECT(options.span > 0 && options.span <= 1, op, "span must be in (0, 1] (got {})", options.span);
  SCW_EXPECT_AS(ShapeMismatch, x.size == y.size, op, "loess needs as many x as y (got {} and {})", x.size, y.size);
  const std::int64_t n = x.size;
  for (std::int64_t i = 0; i < n; ++i)
    SCW_EXPECT_AS(DataError, std::isfinite(x[i]) && std::isfinite(y[i]), op,
                  "loess: point {} is not finite (got {}, {})", i, x[i], y[i]);
  const auto dn = static_cast<double>(n);
  const auto q = std::min(n, static_cast<std::int64_t>(std::floor(dn * options.span + 1e-5)));
  SCW_EXPECT_AS(DataError, q >= 3, op,
                "loess: a quadratic needs 3 points in a local fit (got {} points with span {}, that is {})", n,
                options.span, q);

  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::int64_t a, std::int64_t b) { return x[a] != x[b] ? x[a] < x[b] : a < b; });
  std::vector<double> xs(order.size()), ys(order.size());
  for (std::size_t k = 0; k < order.size(); ++k) xs[k] = x[order[k]], ys[k] = y[order[k]];

  std::vector<Vertex> at = vertices(xs, std::floor(dn * (options.span * options.cell)));
  std::vector<std::uint8_t> good(at.size(), 0);
  parallel_for(ctx, static_cast<std::int64_t>(at.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto k = static_cast<std::size_t>(begin); k < static_cast<std::size_t>(end); ++k)
      good[k] = fit_vertex(xs, ys, q, at[k]) ? 1 : 0;
  });
  for (std::size_t k = 0; k < at.size(); ++k)
    SCW_EXPECT_AS(
        DataError, good[k] != 0, op,
        "loess: fewer than 3 different values near {} (span {} takes {} of {} points); a larger span may help",
        at[k].at, options.span, q, n);

  Array<double> out(ctx.workspace, n, "loess fit");
  std::size_t cell = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    while (cell + 2 < at.size() && xs[k] > at[cell + 1].at) ++cell;
    const Vertex &a = at[cell], &b = at[cell + 1];
    const double h = b.at - a.at;
    const double t = (xs[k] - a.at) / h, s = 1 - t;
    out[order[k]] =
        s * s * (1 + 2 * t) * a.value + t * t * (3 - 2 * t) * b.value + (t * s * s * a.slope - t * t * s * b.slope) * h;
  }
  return out;
}

}  // namespace scw::prim
