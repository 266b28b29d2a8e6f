// Two-sided tail probabilities and their adjustment, on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "scwarp/core/config.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

/// P(|T| > |t|), T Student's t with df > 0 degrees of freedom; NaN for NaN.
SCW_API double student_t_two_sided(double t, double df);

/// P(|Z| > |z|), Z standard normal: erfc(|z| / sqrt 2).
SCW_API double normal_two_sided(double z);

/// Benjamini & Hochberg 1995: p m / rank, running minimum from the largest p down, at most 1. p in [0, 1].
SCW_API void benjamini_hochberg(Span<const double> p, Span<double> adjusted, std::vector<std::int32_t>& scratch);

}  // namespace scw::tl
