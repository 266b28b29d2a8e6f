#include "prim/cublas.cuh"
#include "prim/gemm/kernel.hpp"

namespace scw::prim::cuda {
namespace {

cublasStatus_t blas_gemm(cublasHandle_t h, cublasOperation_t a_op, cublasOperation_t b_op, int m, int n, int k,
                         const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta,
                         float* c, int ldc) {
  return cublasSgemm(h, a_op, b_op, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
cublasStatus_t blas_gemm(cublasHandle_t h, cublasOperation_t a_op, cublasOperation_t b_op, int m, int n, int k,
                         const double* alpha, const double* a, int lda, const double* b, int ldb, const double* beta,
                         double* c, int ldc) {
  return cublasDgemm(h, a_op, b_op, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

template <class T>
void run(const Context& ctx, const MatrixView<const T>& a, const MatrixView<const T>& b, const MatrixView<T>& c,
         const GemmOptions& o) {
  const scw::cuda::BlasHandle handle(ctx);
  const T alpha = static_cast<T>(o.alpha), beta = static_cast<T>(o.beta);
  // Row-major c = op(a) op(b) is column-major c' = op(b)' op(a)'.
  SCW_CUBLAS(blas_gemm(handle, o.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, o.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                       static_cast<int>(c.n_cols), static_cast<int>(c.n_rows),
                       static_cast<int>(o.trans_a ? a.n_rows : a.n_cols), &alpha, b.data, static_cast<int>(b.ld),
                       a.data, static_cast<int>(a.ld), &beta, c.data, static_cast<int>(c.ld)));
}

}  // namespace

void gemm_f32(const Context& ctx, const MatrixView<const float>& a, const MatrixView<const float>& b,
              const MatrixView<float>& c, const GemmOptions& o) {
  run(ctx, a, b, c, o);
}
void gemm_f64(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& b,
              const MatrixView<double>& c, const GemmOptions& o) {
  run(ctx, a, b, c, o);
}

SCW_REGISTER(gemm_f32_kernel, cuda, &gemm_f32);
SCW_REGISTER(gemm_f64_kernel, cuda, &gemm_f64);

}  // namespace scw::prim::cuda
