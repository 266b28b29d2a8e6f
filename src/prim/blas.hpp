// The only door to BLAS and LAPACK on the host. Every call runs on the calling thread alone, so that its bits depend on
// the shape only; callers spread fixed tiles over threads.
#pragma once

#include <cstdint>

namespace scw::prim::blas {

/// Row-major c <- alpha op(a) op(b) + beta c; c is m x n, the inner extent k; ld* are row strides in elements.
void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const float* a,
          std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc);
void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, double alpha, const double* a,
          std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc);

/// All eigenpairs of the symmetric n x n matrix a (LAPACK dsyevd): values ascending, row i of a becomes eigenvector i.
void eigh(std::int64_t n, double* a, double* values);

}  // namespace scw::prim::blas
