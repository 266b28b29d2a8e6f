// Shared by cpu.cpp and cuda.cu: the small factorisation of orthogonalise_kernel.

#if defined(__CUDA_ARCH__)
#define SCW_UNROLL _Pragma("unroll")  // arrays with run-time indices would leave the registers
#else
#define SCW_UNROLL
#endif

namespace scw::prim {

/// Pairs (i, j <= i) of the vectors of a block, row by row.
inline constexpr int kEighPairs = static_cast<int>(kEighDeviceBlock * (kEighDeviceBlock + 1) / 2);
/// The least pivot of the Gram matrix, scaled to a unit diagonal, that each round accepts: Cholesky loses orthogonality
/// as its inverse, and the second round must find almost none lost.
inline constexpr double kEighLeastPivot[2] = {1e-11, 0.9};

/// inverse <- L^-1 (lower triangle) for L L' = g, the Gram matrix by pairs. False if it is too close to singular.
SCW_HD inline bool inverse_cholesky(const double* g, double least,
                                    double (&inverse)[kEighDeviceBlock][kEighDeviceBlock]) {
  constexpr int n = static_cast<int>(kEighDeviceBlock);
  double scale[n], l[n][n];  // l[i][i] holds the reciprocal
  bool good = true;
  SCW_UNROLL
  for (int i = 0; i < n; ++i) {
    const double d = g[i * (i + 1) / 2 + i];
    good = good && d > 1e-290 && d < 1e290;
    scale[i] = 1 / sqrt(d);
  }
  SCW_UNROLL
  for (int i = 0; i < n; ++i) {
    SCW_UNROLL
    for (int j = 0; j <= i; ++j) {
      double s = g[i * (i + 1) / 2 + j] * scale[i] * scale[j];
      SCW_UNROLL
      for (int k = 0; k < j; ++k) s -= l[i][k] * l[j][k];
      if (i == j) {
        good = good && s >= least;
        l[i][i] = 1 / sqrt(s);
      } else {
        l[i][j] = s * l[j][j];
      }
    }
  }
  SCW_UNROLL
  for (int j = 0; j < n; ++j) {
    SCW_UNROLL
    for (int i = j; i < n; ++i) {
      double s = i == j ? 1.0 : 0.0;
      SCW_UNROLL
      for (int k = j; k < i; ++k) s -= l[i][k] * inverse[k][j];
      inverse[i][j] = s * l[i][i];
    }
  }
  SCW_UNROLL
  for (int i = 0; i < n; ++i) {
    SCW_UNROLL
    for (int j = 0; j <= i; ++j) inverse[i][j] *= scale[j];
  }
  return good;
}

}  // namespace scw::prim
#undef SCW_UNROLL
