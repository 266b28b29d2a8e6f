// Distances between two rows, in double, in an order that is fixed: 8 accumulators, entry of column c goes to number
// c mod 8 in increasing c, then accumulators are added as a tree (4, 2, 1). A column where both rows are zero adds
// nothing, so a sparse row has the bits of the dense one, and every backend has the same bits.
//
// Each metric is a struct:
//   struct Acc                                    its accumulator
//   static double row(double x)  / finish         what is summed per row beforehand (norm, total); see RowTerm
//   add(Acc&, x, y, a, b)                         one column; a, b: RowTerm of the two rows
//   key(Acc, a, b, n_columns)                     what is ordered: smaller is nearer
//   value(key)                                    what is reported
#pragma once

#include <cmath>
#include <cstdint>

#include "math/elementary.hpp"
#include "scwarp/core/config.hpp"

namespace scw::math {

inline constexpr int kLanes = 8;

struct RowTerm {
  double shift = 0;  ///< correlation: the mean
  double scale = 0;  ///< cosine, correlation: the norm; jensenshannon: the sum
};

struct SumAcc {
  double s = 0;
  SCW_HD void merge(const SumAcc& o) { s += o.s; }
};
struct MaxAcc {
  double s = 0;
  SCW_HD void merge(const MaxAcc& o) { s = o.s > s ? o.s : s; }
};
struct PairAcc {
  double s = 0, t = 0;
  SCW_HD void merge(const PairAcc& o) {
    s += o.s;
    t += o.t;
  }
};

SCW_HD inline double magnitude(double x) { return x < 0 ? -x : x; }
/// IEEE square root: correctly rounded on both backends.
SCW_HD inline double square_root(double x) { return std::sqrt(x); }

/// x^p for x >= 0.
SCW_HD inline double power(double x, double p) { return x < 2.3e-308 ? 0.0 : exp(p * log_positive(x)); }

/// sin and cos of |x| <= about 10^5: reduction by pi/2 in three parts (Cody & Waite), Taylor series to |r|^17 on
/// |r| <= pi/4, error below 2e-16 absolute.
SCW_HD inline void sin_cos(double x, double& s, double& c) {
  const double shifted = x * 0x1.45f306dc9c883p-1 + 0x1.8p52;
  const double k = shifted - 0x1.8p52;
  const double r = ((x - k * 0x1.921fb54400000p+0) - k * 0x1.0b4611a600000p-34) - k * 0x1.3198a2e037073p-69;
  const double z = r * r;
  double ps = 1.0 / 355687428096000.0;
  ps = ps * z - 1.0 / 1307674368000.0;
  ps = ps * z + 1.0 / 6227020800.0;
  ps = ps * z - 1.0 / 39916800.0;
  ps = ps * z + 1.0 / 362880.0;
  ps = ps * z - 1.0 / 5040.0;
  ps = ps * z + 1.0 / 120.0;
  ps = ps * z - 1.0 / 6.0;
  const double sr = r + r * z * ps;
  double pc = 1.0 / 20922789888000.0;
  pc = pc * z - 1.0 / 87178291200.0;
  pc = pc * z + 1.0 / 479001600.0;
  pc = pc * z - 1.0 / 3628800.0;
  pc = pc * z + 1.0 / 40320.0;
  pc = pc * z - 1.0 / 720.0;
  pc = pc * z + 1.0 / 24.0;
  const double cr = 1.0 - (0.5 * z - z * z * pc);
  const std::uint64_t quadrant = bits_of(shifted) & 3;
  const double a = (quadrant & 1) != 0 ? cr : sr;
  const double b = (quadrant & 1) != 0 ? sr : cr;
  s = (quadrant & 2) != 0 ? -a : a;
  c = ((quadrant + 1) & 2) != 0 ? -b : b;
}

/// asin(x), 0 <= x <= 1: Newton steps on sin from the estimate of Abramowitz & Stegun 4.4.45; above 1/sqrt(2) by
/// asin(x) = pi/2 - asin(sqrt(1 - x^2)).
SCW_HD inline double arc_sine(double x) {
  const bool large = x > 0.7071067811865476;
  const double y = large ? square_root((1.0 - x) * (1.0 + x)) : x;
  double a =
      1.5707963267948966 - square_root(1.0 - y) * (1.5707288 + y * (-0.2121144 + y * (0.0742610 - y * 0.0187293)));
  for (int i = 0; i < 3; ++i) {
    double s = 0, c = 0;
    sin_cos(a, s, c);
    a -= (s - y) / c;
  }
  return large ? 1.5707963267948966 - a : a;
}

struct SquaredEuclidean {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const {
    const double t = x - y;
    acc.s += t * t;
  }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const { return acc.s; }
  SCW_HD double value(double key) const { return key; }
};
struct Euclidean : SquaredEuclidean {
  SCW_HD double value(double key) const { return square_root(key); }
};
struct Manhattan {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const { acc.s += magnitude(x - y); }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const { return acc.s; }
  SCW_HD double value(double key) const { return key; }
};
struct Chebyshev {
  using Acc = MaxAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const {
    const double t = magnitude(x - y);
    acc.s = t > acc.s ? t : acc.s;
  }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const { return acc.s; }
  SCW_HD double value(double key) const { return key; }
};
struct Minkowski {
  using Acc = SumAcc;
  double p = 2;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const {
    acc.s += power(magnitude(x - y), p);
  }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const { return acc.s; }
  SCW_HD double value(double key) const { return power(key, 1.0 / p); }
};
struct Canberra {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const {
    const double d = magnitude(x) + magnitude(y);
    acc.s += d > 0 ? magnitude(x - y) / d : 0.0;
  }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const { return acc.s; }
  SCW_HD double value(double key) const { return key; }
};
/// Cosine of rows minus their shift (0 for cosine, the mean for correlation).
struct Cosine {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const { acc.s += x * y; }
  SCW_HD double key(const Acc& acc, const RowTerm& a, const RowTerm& b, std::int64_t) const {
    const double norms = a.scale * b.scale;
    const double d = norms > 0 ? 1.0 - acc.s / norms : 1.0;
    return d > 0 ? d : 0.0;
  }
  SCW_HD double value(double key) const { return key; }
};
struct Correlation : Cosine {
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm& a, const RowTerm& b) const {
    acc.s += (x - a.shift) * (y - b.shift);
  }
};
struct InnerProduct {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const { acc.s += x * y; }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const { return -acc.s; }
  SCW_HD double value(double key) const { return -key; }
};
struct JensenShannon {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm& a, const RowTerm& b) const {
    const double p = a.scale > 0 ? x / a.scale : 0.0;
    const double q = b.scale > 0 ? y / b.scale : 0.0;
    const double m = 0.5 * (p + q);
    double t = 0;
    if (p > 1e-300) t += p * log_positive(p / m);
    if (q > 1e-300) t += q * log_positive(q / m);
    acc.s += t;
  }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const {
    return acc.s > 0 ? acc.s : 0.0;
  }
  SCW_HD double value(double key) const { return square_root(0.5 * key); }
};
struct Hellinger {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const { acc.s += square_root(x * y); }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const {
    const double t = 1.0 - acc.s;
    return t > 0 ? t : 0.0;
  }
  SCW_HD double value(double key) const { return square_root(key); }
};
struct Hamming {
  using Acc = SumAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const { acc.s += x != y ? 1.0 : 0.0; }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t n) const {
    return n > 0 ? acc.s / static_cast<double>(n) : 0.0;
  }
  SCW_HD double value(double key) const { return key; }
};
struct JaccardMetric {
  using Acc = PairAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const {
    const bool a = x != 0, b = y != 0;
    acc.s += a != b ? 1.0 : 0.0;
    acc.t += a || b ? 1.0 : 0.0;
  }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const {
    return acc.t > 0 ? acc.s / acc.t : 0.0;
  }
  SCW_HD double value(double key) const { return key; }
};
struct BrayCurtis {
  using Acc = PairAcc;
  SCW_HD void add(Acc& acc, double x, double y, const RowTerm&, const RowTerm&) const {
    acc.s += magnitude(x - y);
    acc.t += magnitude(x) + magnitude(y);
  }
  SCW_HD double key(const Acc& acc, const RowTerm&, const RowTerm&, std::int64_t) const {
    return acc.t > 0 ? acc.s / acc.t : 0.0;
  }
  SCW_HD double value(double key) const { return key; }
};

/// Adds the accumulators as a tree.
template <class Acc>
SCW_HD inline Acc merge_lanes(Acc* lanes) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    for (int l = 0; l < offset; ++l) lanes[l].merge(lanes[l + offset]);
  return lanes[0];
}

template <class M, class V>
SCW_HD inline double dense_key(const M& metric, const V* x, const V* y, std::int64_t n, const RowTerm& a,
                               const RowTerm& b) {
  typename M::Acc lanes[kLanes];
  std::int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes)
    for (int l = 0; l < kLanes; ++l)
      metric.add(lanes[l], static_cast<double>(x[c + l]), static_cast<double>(y[c + l]), a, b);
  for (int l = 0; c + l < n; ++l)
    metric.add(lanes[l], static_cast<double>(x[c + l]), static_cast<double>(y[c + l]), a, b);
  return metric.key(merge_lanes(lanes), a, b, n);
}

/// Rows as (columns, values, count), columns increasing.
template <class M, class V>
SCW_HD inline double sparse_key(const M& metric, const std::int32_t* cx, const V* x, std::int64_t nx,
                                const std::int32_t* cy, const V* y, std::int64_t ny, std::int64_t n, const RowTerm& a,
                                const RowTerm& b) {
  typename M::Acc lanes[kLanes];
  std::int64_t i = 0, j = 0;
  while (i < nx || j < ny) {
    const std::int32_t ci = i < nx ? cx[i] : 0x7FFFFFFF;
    const std::int32_t cj = j < ny ? cy[j] : 0x7FFFFFFF;
    const std::int32_t c = ci < cj ? ci : cj;
    const double xv = ci == c ? static_cast<double>(x[i]) : 0.0;
    const double yv = cj == c ? static_cast<double>(y[j]) : 0.0;
    i += ci == c ? 1 : 0;
    j += cj == c ? 1 : 0;
    metric.add(lanes[c % kLanes], xv, yv, a, b);
  }
  return metric.key(merge_lanes(lanes), a, b, n);
}

/// (latitude, longitude) in radians.
template <class V>
SCW_HD inline double haversine(const V* x, const V* y) {
  double s0 = 0, s1 = 0, cx = 0, cy = 0, unused = 0;
  sin_cos(0.5 * (static_cast<double>(x[0]) - static_cast<double>(y[0])), s0, unused);
  sin_cos(0.5 * (static_cast<double>(x[1]) - static_cast<double>(y[1])), s1, unused);
  sin_cos(static_cast<double>(x[0]), unused, cx);
  sin_cos(static_cast<double>(y[0]), unused, cy);
  const double h = s0 * s0 + cx * cy * (s1 * s1);
  return 2.0 * arc_sine(square_root(h > 1.0 ? 1.0 : (h > 0 ? h : 0.0)));
}

/// haversine through the interface of the others.
struct Haversine : SquaredEuclidean {};
template <class V>
SCW_HD inline double dense_key(const Haversine&, const V* x, const V* y, std::int64_t, const RowTerm&, const RowTerm&) {
  return haversine(x, y);
}

/// Sum of f(x) over a dense row in the order of the distances.
template <class V, class F>
SCW_HD inline double dense_row_sum(const V* x, std::int64_t n, const F& f) {
  SumAcc lanes[kLanes];
  for (std::int64_t c = 0; c < n; ++c) lanes[c % kLanes].s += f(static_cast<double>(x[c]));
  return merge_lanes(lanes).s;
}
template <class V, class F>
SCW_HD inline double sparse_row_sum(const std::int32_t* columns, const V* x, std::int64_t count, const F& f) {
  SumAcc lanes[kLanes];
  for (std::int64_t i = 0; i < count; ++i) lanes[columns[i] % kLanes].s += f(static_cast<double>(x[i]));
  return merge_lanes(lanes).s;
}

struct Identity {
  SCW_HD double operator()(double x) const { return x; }
};
struct SquareOfDifference {
  double shift = 0;
  SCW_HD double operator()(double x) const { return (x - shift) * (x - shift); }
};

}  // namespace scw::math
