// Leading eigenpairs of a symmetric positive semi-definite operator. Kind: driver over prim::gemm; tier B.
#pragma once

#include <functional>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/rng.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim {

struct TopEigen {
  std::vector<double> values;  ///< decreasing
  Matrix<double> vectors;      ///< [k x m] on the host; row i is a unit vector
  bool converged = true;
  int n_products = 0;  ///< block products with the operator
};

/// w <- A v for the rows of v ([b x m] on ctx.device).
using BlockOperator = std::function<void(const MatrixView<const double>& v, const MatrixView<double>& w)>;

/// The k leading eigenpairs of A (m x m), each residual at most 1e-9 of its eigenvalue (CUDA: 1e-7), or rounding of the
/// largest. A residual of r leaves an error of at most r in the eigenvalue (and of about r^2 / gap), r / gap in the
/// direction of the vector. Thick-restart block Lanczos with full reorthogonalisation; the start is drawn with `key`.
/// Needs !eigh_is_direct(device, m, k). Memory: 16 m (eigh_basis_limit(device, k) + k) bytes on ctx.workspace.
TopEigen top_eigenpairs(const Context& ctx, std::int64_t m, std::int64_t k, const BlockOperator& op, RngKey key);

/// The largest basis that top_eigenpairs builds for k pairs.
std::int64_t eigh_basis_limit(Device device, std::int64_t k);
/// Whether m is so small (for k) that LAPACK decomposes the whole matrix.
bool eigh_is_direct(Device device, std::int64_t m, std::int64_t k);

/// The k leading eigenpairs of a symmetric matrix on ctx.device: LAPACK on the host while m is small, else
/// top_eigenpairs.
TopEigen top_eigenpairs(const Context& ctx, const MatrixView<const double>& a, std::int64_t k, RngKey key);

}  // namespace scw::prim
