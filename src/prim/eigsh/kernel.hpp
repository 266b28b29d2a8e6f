#pragma once

#include <memory>
#include <vector>

#include "scwarp/core/kernel.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

/// Rows of a chunk of the sums over rows below. A chunk is summed in row order, the chunks in their order: one answer
/// for any number of threads and on every device.
inline constexpr std::int64_t kEigshChunk = 1024;

/// What eigsh() does with n x q row-major blocks of vectors on a device. Pointers are to the device, small q x q
/// matrices (row-major) and vectors are on the host.
class EigshSpace {
 public:
  virtual ~EigshSpace() = default;
  /// Uniform in [-1, 1), word b of row i.
  virtual void randomise(float* x, RngKey key) = 0;
  /// previous = scale1 * (ax - centre * x) - scale2 * previous
  virtual void filter(const float* ax, const float* x, float* previous, float centre, float scale1, float scale2) = 0;
  /// g = x^T y, products and sums in double.
  virtual void gram(const float* x, const float* y, std::vector<double>& g) = 0;
  /// x <- x m, sums in double.
  virtual void rotate(float* x, const std::vector<double>& m) = 0;
  /// Removes the component along the unit vector v, length n, from every column.
  virtual void deflate(float* x, const double* v) = 0;
  /// Squared norms of the columns of ax - x diag(theta).
  virtual void residuals(const float* ax, const float* x, const std::vector<double>& theta,
                         std::vector<double>& squares) = 0;
  /// The first k columns as an n x k block, each with the sign that makes its entry of largest size positive (ties: the
  /// first).
  virtual void extract(const float* x, int k, float* out) = 0;
};

/// Makes the space of n x q blocks on ctx.device. The space keeps a reference to ctx.
extern SCW_API Kernel<void(const Context&, std::int64_t, int, std::unique_ptr<EigshSpace>&)> eigsh_space_kernel;

}  // namespace scw::prim
