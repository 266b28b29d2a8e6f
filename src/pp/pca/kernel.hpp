#pragma once

#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/pca.hpp"

namespace scw::pp {

/// Which genes are in use, in which order, and how their values are scaled. Pointers on ctx.device.
struct GeneTransform {
  const std::int32_t* position = nullptr;  ///< [n_genes]: place among the genes in use, -1 = left out
  const std::int32_t* column = nullptr;    ///< [m]: the inverse
  std::int64_t m = 0;
  bool identity = false;                  ///< column[p] == p for all genes of x
  const double* center = nullptr;         ///< [m]; null: z = x
  const double* inverse_scale = nullptr;  ///< [m]
  double max_value = 0;                   ///< infinity: no clipping
};

/// A row as the kernels see it: z_ij - shift_j, which is fill_j where nothing is stored. fill_j is exact in the type of
/// x. Sparse rows keep shift_j = z(0) where a product allows it, so that fill_j = 0 and only stored entries count.
struct RowShift {
  const double* shift = nullptr;  ///< [m]
  const double* fill = nullptr;   ///< [m]; null: 0
};

// Blocks of rows start at multiples of kPcaBlockRows, so that a sum over blocks has the same order for any blocks.
inline constexpr std::int64_t kPcaBlockRows = 4096;

/// out[p] += sum of z (or z^2) over stored entries, out[m + p] += their number. CUDA may count every entry as stored,
/// and if out has 4 m elements, out[2 m + p] and out[3 m + p] become the least and the greatest z.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, bool, Span<double>)>
    pca_sums_kernel;

struct CovarianceMode {
  /// Sparse rows on the CPU only: the left factor has z - z(0) at stored entries and 0 elsewhere, instead of R.
  bool stored_left = false;
  bool first_block = true;                 ///< c = instead of c +=
  std::int64_t first_row = 0, n_rows = 0;  ///< of the block, and of the whole matrix
  /// CUDA with float values only, on the device: |z - shift| * unit [m] is at most kPcaLargest + 128, and partial keeps
  /// the integer sums of the rows since the last multiple of kPcaFlushRows from block to block.
  const double* unit = nullptr;
  std::int32_t* partial = nullptr;
};

/// CUDA, float values: products of 8-bit digits that are summed, rows summed in 32-bit integers before they are added
/// to the covariance in double (at most 2^14 each), and the largest value, a little below what three digits hold.
inline constexpr std::int64_t kPcaProducts = 5, kPcaFlushRows = 65536;
inline constexpr double kPcaLargest = 8.3e6;
inline std::int64_t pca_padded(std::int64_t m) { return (m + 15) / 16 * 16; }

/// c += R' R over the rows R of the block, upper triangle; what the lower one holds afterwards is undefined.
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, const RowShift&,
                           const CovarianceMode&, const MatrixView<double>&)>
    pca_covariance_kernel;

/// c_jk <- (c_jk - n left_j right_k + n add_j add_k) / divisor for j <= k, mirrored below; diagonal receives c_jj.
struct CovarianceEnd {
  const double* left = nullptr;
  const double* right = nullptr;
  const double* add = nullptr;  ///< null: 0
  double* diagonal = nullptr;
  double n = 0, divisor = 1;
};
extern SCW_API Kernel<void(const Context&, const MatrixView<double>&, const CovarianceEnd&)> pca_covariance_end_kernel;

/// With the rows r_i of the block: y_i = r_i v' + offset, w += sum_i y_i' r_i, y_sum += sum_i y_i.
/// v, w: [b x m], b <= 16; offset, y_sum: [b].
extern SCW_API
    Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, const RowShift&,
                const MatrixView<const double>&, Span<const double>, const MatrixView<double>&, Span<double>)>
        pca_apply_kernel;

using ScoresView = std::variant<MatrixView<float>, MatrixView<double>>;
/// out = R components + offset, components [m x k], offset [k].
extern SCW_API Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, const RowShift&,
                           const MatrixView<const double>&, Span<const double>, const ScoresView&)>
    pca_scores_kernel;

}  // namespace scw::pp
