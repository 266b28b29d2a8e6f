#include "tl/rank_genes_groups/p_values.hpp"

#include <algorithm>
#include <cmath>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include <boost/math/policies/policy.hpp>
#include <boost/math/special_functions/beta.hpp>
#pragma GCC diagnostic pop

namespace scw::tl {
namespace {

namespace policies = boost::math::policies;
// Errors become values: no exception may leave a tail probability. Double throughout: long double is five times slower.
using Policy = policies::policy<policies::promote_double<false>, policies::domain_error<policies::ignore_error>,
                                policies::overflow_error<policies::ignore_error>,
                                policies::evaluation_error<policies::ignore_error>>;

constexpr double kLargeDf = 1000;

/// I_x(a, 1/2) with x = df / (df + t^2), a = df / 2, df >= kLargeDf: the expansion for a >> b of DiDonato & Morris
/// 1992, ACM Trans. Math. Softw. 18:360 (eq. 9), whose coefficients are constants for b = 1/2. u = -T ln x <=
/// kLargestU. Several times faster than the general function, which evaluates gamma functions.
constexpr double kLargestU = 690;
double incomplete_beta_large_df(double df, double u) {
  static constexpr double kP[] = {1,
                                  -0.08333333333333333,
                                  0.0062499999999999995,
                                  -0.0005042989417989418,
                                  4.343722442680775e-05,
                                  -3.89638573232323e-06,
                                  3.583335463450789e-07,
                                  -3.349747072060576e-08,
                                  3.167585434316112e-09,
                                  -3.0210368517370937e-10,
                                  2.9004157876692506e-11,
                                  -2.7993967483752667e-12,
                                  2.713639320017201e-13};
  const double big = df / 2 - 0.25;  // T = a + (b - 1) / 2
  const double w = 1 / (big * big);
  const double ratio = 1 + w * (1.0 / 64 - w * (19.0 / 8192));            // Gamma(a + 1/2) / (Gamma(a) sqrt T)
  const double h = std::sqrt(u) * std::exp(-u) * 0.56418958354775628695;  // u^b e^-u / Gamma(b)
  const double q = std::erfc(std::sqrt(u));
  if (h == 0) return q;  // t is 0
  const double half_log = u / big / 2;
  double j = q / h, power = 1, b2n = 0.5, sum = q;
  for (int n = 1; n < 13; ++n) {
    j = (b2n * (b2n + 1) * j + (u + b2n + 1) * power) * (w / 4);
    power *= half_log * half_log;
    b2n += 2;
    const double term = kP[n] * j * h;
    sum += term;
    if (std::abs(term) < 1e-17 * sum) break;
  }
  return std::min(sum * ratio, 1.0);
}

}  // namespace

double student_t_two_sided(double t, double df) {
  if (std::isnan(t) || std::isnan(df)) return std::nan("");
  const double t2 = t * t;
  if (std::isinf(t2)) return 0.0;
  if (df > 1e15) return normal_two_sided(t);
  if (df >= kLargeDf) {
    const double u = (df / 2 - 0.25) * std::log1p(t2 / df);
    if (u > 760) return 0.0;  // below the smallest number
    if (u <= kLargestU) return incomplete_beta_large_df(df, u);
  }
  // I_{df/(df+t^2)}(df/2, 1/2), by the argument that keeps its digits (Abramowitz & Stegun 26.7.1, 26.5.27).
  return t2 < df ? boost::math::ibetac(0.5, df / 2, t2 / (df + t2), Policy())
                 : boost::math::ibeta(df / 2, 0.5, df / (df + t2), Policy());
}

double normal_two_sided(double z) { return std::erfc(std::abs(z) * 0.70710678118654752440); }

void benjamini_hochberg(Span<const double> p, Span<double> adjusted, SortScratch& scratch) {
  sort_by_key(p.size, [&](std::int64_t j) { return prim::sortable_bits(p[j] == 0 ? 0.0 : p[j]); }, scratch);
  double smallest = 1.0;
  for (std::int64_t i = p.size - 1; i >= 0; --i) {
    const double own = prim::from_sortable_bits(scratch.sorted[i].key);
    smallest = std::min(smallest, own / (static_cast<double>(i + 1) / static_cast<double>(p.size)));
    adjusted[scratch.sorted[i].index] = smallest;
  }
}

}  // namespace scw::tl
