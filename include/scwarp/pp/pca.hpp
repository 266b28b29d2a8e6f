// Kind: driver over prim::gemm, prim::eigh and four kernels of its own. Determinism tier B: the same bits on every run,
// for any number of threads and any cutting into row blocks; across devices within 1e-5 (variance) and 1e-4 (scores).
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

/// How the leading eigenpairs are found. Both are exact: the iteration ends at residuals below 1e-9 of the eigenvalue
/// (CUDA: 1e-7, which leaves errors of 1e-7 in the variance and of 5e-6 in the direction of a component whose variance
/// is 2 % from its neighbours').
enum class PcaSolver : std::uint8_t {
  automatic,   ///< covariance up to kPcaMaxCovarianceGenes genes in use, else krylov
  covariance,  ///< forms the genes x genes covariance matrix
  krylov,      ///< multiplies blocks of vectors by the matrix; never forms the covariance
};

inline constexpr std::int64_t kPcaMaxCovarianceGenes = 6000;

struct PcaOptions {
  /// Components k. 0: 50, or min(cells, genes in use) - 1 if that minimum is at most 50. At most min(cells, genes in
  /// use) with PcaSolver::covariance, less than it otherwise.
  std::int64_t n_comps = 0;
  /// Subtract the mean of each gene. false: truncated singular value decomposition of the matrix as it is.
  bool zero_center = true;
  /// [n_genes] on the host, 0 = leave the gene out; empty: use all.
  Span<const std::uint8_t> gene_mask;
  /// Decompose z_ij = (x_ij - mean_j) / std_j (ddof 1; std 0 counts as 1) instead of x, without writing z anywhere.
  bool scale = false;
  /// With scale: clip z to [-max_value, max_value]; > 0.
  std::optional<double> max_value;
  PcaSolver solver = PcaSolver::automatic;
  /// Scores in double instead of float (float input is decomposed in float either way).
  bool double_scores = false;
};

struct Pca {
  /// [n_cells x k] on ctx.device: (z - mean of z) * components.
  std::variant<Matrix<float>, Matrix<double>> scores;
  /// [genes in use x k] on the host, in the order of the genes; unit columns, the largest |entry| of each (the first of
  /// equals) is positive.
  Matrix<double> components;
  /// [k] on the host, decreasing. Centred: variance of the scores with ddof 1. Not centred: their variance with ddof 0,
  /// in order of decreasing singular value (as scikit-learn's TruncatedSVD reports it).
  Array<double> variance;
  /// [k] variance / total variance of the genes in use (same ddof); 0 if all genes are constant.
  Array<double> variance_ratio;
  /// [genes in use] on the host: mean of x, and with scale the divisor (else empty).
  Array<double> mean, std;
  /// [genes in use] on the host: their columns in x.
  Array<std::int64_t> genes;
  /// false: the eigenvalue iteration stopped at its limit; a warning was logged.
  bool converged = true;
};

/// Principal components of cells x genes, float or double, CSR or dense, on ctx.device. Sparse input stays sparse: it
/// is centred (and scaled) implicitly, one tile of rows at a time.
///
/// covariance: tiles of at most 4096 cells are centred in double, multiplied in the type of x and accumulated in
/// double; sparse tiles as sparse-times-dense products when that is cheaper. CUDA, float: the centred values become
/// integers of 24 bits (each gene scaled to its largest value), whose products are computed from 8-bit digits on the
/// tensor cores, without rounding, and summed in 32-bit integers (the scheme of Ootomo, Ozaki & Yokota 2024, Int. J.
/// High Perform. Comput. Appl. 38:297): errors of 2^-23 of the
/// gene's largest value, which do not add up. Eigenpairs by thick-restart block
/// Lanczos (Wu & Simon 2000, SIAM J. Matrix Anal. Appl. 22:602; block form with full reorthogonalisation) with a Philox
/// start from ctx.rng. Sign rule: see Pca::components. Floor: cells * genes^2 multiply-adds / 2 (dense); CUDA,
/// float: 4.5 cells * genes^2 of 8-bit integers.
///
/// Memory besides the result, m genes in use, k components, s = bytes of a value of x: eigenvectors 16 m (400 + 2.5 k);
/// covariance 8 m^2 + one tile of at most 4096 rows (m s a row, and its stored entries for sparse rows); krylov 128 m
/// for each of 2 n_threads partial sums. CUDA: eigenvectors 16 m (160 + 1.5 k); covariance 8 m^2, and for float
/// 20 m^2 + 49152 m (sparse: 57344 m), for double one tile of at most 4096 rows; sums 8192 m; krylov one tile of at
/// most 4096 rows in double; 32 MiB for cuBLAS: 1.0 GB for 1M x 5000 in float.
///
/// Throws InvalidArgument (options, fewer than 2 cells or genes), ShapeMismatch (mask), DataError (NaN, infinity, or
/// squares that overflow).
SCW_API Pca pca(const Context& ctx, const AnyMatrixView& x, const PcaOptions& options = {});

/// The same for a matrix that arrives in row blocks; bit-identical to the resident form, whatever the blocks. Reads the
/// source three times (five with scale, and once per block product with krylov).
SCW_API Pca pca(const Context& ctx, const RowBlocks& x, const PcaOptions& options = {});

}  // namespace scw::pp
