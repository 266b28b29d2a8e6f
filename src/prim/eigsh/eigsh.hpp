// A few largest eigenvalues of a symmetric operator with their eigenvectors. Driver; tier B: the same bits on every
// run, for any number of threads and, if the operator has the same bits, on CUDA.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

/// Eigenvalues (descending) and eigenvectors (column j of `vectors`, row-major n x n) of a small symmetric matrix, by
/// cyclic Jacobi rotations (Golub & Van Loan, Matrix Computations, 8.5). `matrix` (row-major) is destroyed.
struct SmallEigen {
  std::vector<double> values, vectors;
};
SCW_API SmallEigen small_eigh(std::vector<double> matrix, int n);

/// y = A x for blocks of `block` vectors, n x block row-major, on the device of the Context.
using BlockOperator = std::function<void(const float* x, float* y, int block)>;

struct EigshOptions {
  int n_eigen = 2;
  /// Bounds of the spectrum of A; the wanted eigenvalues are the ones next to `upper`.
  double lower = -1, upper = 1;
  /// A known eigenvector of eigenvalue `upper` that is not wanted, length n, unit norm, on ctx.device; or null.
  const double* known = nullptr;
  /// Stop when every wanted vector has |A v - theta v| <= tolerance * (upper - theta), or after max_products products
  /// with a block of vectors.
  double tolerance = 0.02;
  int max_products = 400;
};

struct Eigsh {
  std::vector<double> values;  ///< n_eigen, descending
  Matrix<float>
      vectors;  ///< n x n_eigen on ctx.device, unit columns, the entry of largest size positive (ties: the first)
  int products = 0;
  bool converged = false;
};

/// Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago, Chelikowsky, J. Comput. Phys. 219, 2006, algorithm 4.1)
/// on a block of n_eigen + max(4, n_eigen) vectors, in single precision with double inner products. Start vectors from
/// ctx.rng. n must exceed the block (eigsh_block). Memory: 12 bytes x n x block.
SCW_API Eigsh eigsh(const Context& ctx, std::int64_t n, const BlockOperator& a, const EigshOptions& options);

/// Number of vectors eigsh() works on.
inline int eigsh_block(int n_eigen) { return ((n_eigen + (n_eigen > 4 ? n_eigen : 4)) + 7) / 8 * 8; }

}  // namespace scw::prim
