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

}  // namespace

double student_t_two_sided(double t, double df) {
  if (std::isnan(t) || std::isnan(df)) return std::nan("");
  const double t2 = t * t;
  if (std::isinf(t2)) return 0.0;
  if (df > 1e15) return normal_two_sided(t);
  // I_{df/(df+t^2)}(df/2, 1/2), by the argument that keeps its digits (Abramowitz & Stegun 26.7.1, 26.5.27).
  return t2 < df ? boost::math::ibetac(0.5, df / 2, t2 / (df + t2), Policy())
                 : boost::math::ibeta(df / 2, 0.5, df / (df + t2), Policy());
}

double normal_two_sided(double z) { return std::erfc(std::abs(z) * 0.70710678118654752440); }

void benjamini_hochberg(Span<const double> p, Span<double> adjusted, SortScratch& scratch) {
  sort_by_key(p.size, [&](std::int64_t j) { return prim::sortable_bits(p[j] == 0 ? 0.0 : p[j]); }, scratch);
  double smallest = 1.0;
  for (std::int64_t i = p.size - 1; i >= 0; --i) {
    const std::int32_t j = scratch.sorted[i].index;
    smallest = std::min(smallest, p[j] / (static_cast<double>(i + 1) / static_cast<double>(p.size)));
    adjusted[j] = smallest;
  }
}

}  // namespace scw::tl
