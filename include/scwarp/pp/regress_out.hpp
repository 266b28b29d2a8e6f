// Kind: driver; sums over cells in fixed chunks. Determinism: a categorical key tier A; numeric keys tier B (same bits
// for any number of threads and on every run; CPU and CUDA within 1e-12 of the largest value, before rounding).
#pragma once

#include <cstdint>
#include <variant>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"
#include "scwarp/pp/scale.hpp"

namespace scw::pp {

/// A dense matrix whose values an operation may change.
using AnyMutableDenseView = std::variant<MatrixView<float>, MatrixView<double>>;

struct RegressOut {
  /// Keys that were used; the others are constant or depend linearly on those before them (to 10 digits), which
  /// changes no residual.
  std::int64_t n_independent = 0;
  /// [(1 + k) x genes] on the host: the fitted value of cell i is row 0 plus the sum of keys_ik times row 1 + k. Only
  /// from fit_regression.
  Matrix<double> coefficients;
};

/// x <- residual of the least-squares fit of every gene on [1 | keys], in place, computed in double.
///
/// keys: [n_cells x k] on the host, finite. They are centred, scaled to unit length and orthogonalised (Gram-Schmidt,
/// every column twice) to Q; the residual is x - mean - Q Q^T x, which has no normal equations to lose digits in.
/// Throws ShapeMismatch, DataError (a key that is not finite); x is then unchanged. Memory: 8 bytes x (cells + 64 x
/// genes) x (k + 1) on the CPU, 8 bytes x (cells + 256 x genes) x (k + 1) on CUDA. Floor: two reads and one write of x.
SCW_API RegressOut regress_out(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> keys);

/// The same into a new dense matrix, on the host if x is not resident as a whole. Two passes over row blocks. Floor on
/// CUDA: two reads of x, one write of the result.
SCW_API RegressOut regress_out_to_dense(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out,
                                        MatrixView<const double> keys);
SCW_API RegressOut regress_out_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                        MatrixView<const double> keys);

/// The model alone, for ResidualBlocks. One pass.
SCW_API RegressOut fit_regression(const Context& ctx, const RowBlocks& x, MatrixView<const double> keys);

/// x <- x - mean of the gene over the cells of the same category, in place. codes: [n_cells] on ctx.device, in
/// [0, n_categories); cells with any other code keep their values. The means are those of gene_moments.
/// Throws ShapeMismatch, InvalidArgument; x is then unchanged. Floor: two reads and one write of x.
SCW_API void regress_out_categories(const Context& ctx, const AnyMutableDenseView& x, Span<const std::int32_t> codes,
                                    std::int32_t n_categories);
/// The same into a new dense matrix, on the host if x is not resident as a whole. Passes over row blocks: those of
/// gene_moments and one.
SCW_API void regress_out_categories_to_dense(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out,
                                             Span<const std::int32_t> codes, std::int32_t n_categories);
SCW_API void regress_out_categories_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                             Span<const std::int32_t> codes, std::int32_t n_categories);

/// What regress_out leaves of a matrix, as a source of dense blocks: the matrix stays as it is and nothing of its size
/// is ever dense. Values are computed in double and rounded to the type of x, as by regress_out (numeric keys: within
/// rounding of it, because the fit is written in the keys themselves).
class SCW_API ResidualBlocks final : public RowBlocks {
 public:
  /// All on the host and kept by reference: keys [n_cells x k], coefficients [(1 + k) x genes] as by fit_regression,
  /// and which genes there are (empty: all). Throws ShapeMismatch.
  ResidualBlocks(const RowBlocks& x, MatrixView<const double> keys, MatrixView<const double> coefficients,
                 Span<const std::uint8_t> gene_mask = {});
  /// A categorical key: codes [n_cells], and the mean of each category [n_categories x genes].
  ResidualBlocks(const RowBlocks& x, Span<const std::int32_t> codes, MatrixView<const double> means,
                 Span<const std::uint8_t> gene_mask = {});
  std::int64_t n_rows() const override { return x_.n_rows(); }
  std::int64_t n_cols() const override { return n_cols_; }
  bool is_sparse() const override { return false; }
  bool is_double(const Context& ctx) const override { return x_.is_double(ctx); }

 protected:
  void visit(const Context& ctx, RowParts parts, const Body& body) const override;

 private:
  void check_genes();
  template <class V>
  void visit_as(const Context& ctx, const Body& body) const;

  const RowBlocks& x_;
  MatrixView<const double> keys_, fit_;
  Span<const std::int32_t> codes_;
  Span<const std::uint8_t> gene_mask_;
  bool categorical_ = false;
  std::int64_t n_cols_ = 0;
};

}  // namespace scw::pp
