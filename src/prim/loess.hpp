// Local regression of one variable: degree 2, Gaussian family, interpolated surface.
//
// Cleveland & Grosse 1991, Statistics and Computing 1:47: the abscissae are cut at medians (a k-d tree in one
// dimension) until a cell holds at most floor(n * span * cell) points; at the ends of the cells (the vertices) a
// quadratic is fitted to the floor(n * span) nearest points with tricube weights; between vertices its value and slope
// are blended by the cubic Hermite polynomial. On the host, in double; the conventions (margin of the box, which point
// is the median, what happens with ties) are those of the netlib code "dloess", so that the numbers are those of R and
// scikit-misc.
#pragma once

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw::prim {

struct LoessOptions {
  double span = 0.75;  ///< share of the points in a local fit, in (0, 1]
  double cell = 0.2;   ///< a cell holds at most this share of the points of a local fit
};

/// Fitted values at x, in the order of x. InvalidArgument for the span; DataError (op in the text) if a value is not
/// finite, or if a local fit has fewer than three distinct abscissae inside its radius: then no quadratic is
/// determined.
SCW_API Array<double> loess_fit(const Context& ctx, Span<const double> x, Span<const double> y,
                                const LoessOptions& options, const char* op);

}  // namespace scw::prim
