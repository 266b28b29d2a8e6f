#include "prim/blas.hpp"

#include <cblas.h>

#include <vector>

#include "core/check.hpp"

extern "C" void dsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
                        double* work, const int* lwork, int* iwork, const int* liwork, int* info);

namespace scw::prim::blas {
namespace {

/// Threads of the BLAS itself would change the summation order with the machine, and fight with ours.
void single_threaded() {
  static const bool done = (openblas_set_num_threads(1), true);
  static_cast<void>(done);
}

CBLAS_TRANSPOSE op(bool trans) { return trans ? CblasTrans : CblasNoTrans; }
blasint narrow(std::int64_t n) { return static_cast<blasint>(n); }

}  // namespace

void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const float* a,
          std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  single_threaded();
  cblas_sgemm(CblasRowMajor, op(trans_a), op(trans_b), narrow(m), narrow(n), narrow(k), alpha, a, narrow(lda), b,
              narrow(ldb), beta, c, narrow(ldc));
}

void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, double alpha, const double* a,
          std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  single_threaded();
  cblas_dgemm(CblasRowMajor, op(trans_a), op(trans_b), narrow(m), narrow(n), narrow(k), alpha, a, narrow(lda), b,
              narrow(ldb), beta, c, narrow(ldc));
}

void eigh(std::int64_t n, double* a, double* values) {
  if (n == 0) return;
  single_threaded();
  const int size = static_cast<int>(n), query = -1;
  int info = 0, int_work_size = 0;
  double work_size = 0;
  // Column-major "L" of a symmetric matrix is its row-major upper triangle; column i out is row i for us.
  dsyevd_("V", "L", &size, a, &size, values, &work_size, &query, &int_work_size, &query, &info);
  const int lwork = static_cast<int>(work_size);
  std::vector<double> work(static_cast<std::size_t>(lwork));
  std::vector<int> int_work(static_cast<std::size_t>(int_work_size));
  dsyevd_("V", "L", &size, a, &size, values, work.data(), &lwork, int_work.data(), &int_work_size, &info);
  SCW_ASSERT(info == 0);
}

}  // namespace scw::prim::blas
