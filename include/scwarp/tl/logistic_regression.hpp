// Multinomial logistic regression of group labels on gene expression. Kind: driver over its own kernel. Determinism
// tier B: the same bits for any number of threads and any blocks of rows; on CUDA the same bits on every run on one
// GPU (model and visible multiprocessors, whose number and shared memory decide into what tiles rows are cut). Two
// backends agree as far as tol determines the optimum: weights within gradient x c x n of it (strong convexity).
//
// Minimises (1/n) sum_i -log p(y_i | x_i) + 1/(2 C n) sum_kj w_kj^2 over weights and (unpenalised) intercepts: the
// objective of scikit-learn's LogisticRegression(penalty="l2"). Limited-memory BFGS (Nocedal & Wright 2006, Numerical
// Optimization, algorithm 7.4) with a diagonal scaling and a weak Wolfe line search (Lewis & Overton 2013, Math.
// Program. 141:135, algorithm 2.6).
#pragma once

#include <cstdint>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

struct LogisticRegressionOptions {
  /// Inverse strength of the penalty; > 0.
  double c = 1.0;
  /// Stop when no entry of the gradient of the objective exceeds this; > 0. scikit-learn stops at 1e-4.
  double tol = 1e-5;
  /// Most iterations; >= 1.
  int max_iter = 1000;
  bool fit_intercept = true;
};

struct LogisticRegression {
  /// [n_classes x n_genes] on the host; for two classes one row, the log-odds of the second against the first.
  Matrix<double> coefficients;
  std::vector<double> intercepts;  ///< one a row of coefficients; 0 without fit_intercept
  int n_iterations = 0;
  double max_gradient = 0;  ///< at the end
  bool converged = false;   ///< max_gradient <= tol
};

/// x: cells x genes, CSR or dense, on ctx.device. codes: [n_cells] on the host, class of each cell in [0, n_classes) or
/// negative = not used; every class needs a cell. Values must be finite.
/// Throws InvalidArgument (options, classes), ShapeMismatch (codes), DataError (values that are not finite).
/// Time an iteration: O(entries x classes). Memory: the CSC form of x (dense x also its CSR form), 8 bytes a cell and
/// class, 200 a gene and class. On CUDA: 6 or 10 bytes (float, double) an entry, 4 or 8 a cell and class, and for each
/// multiprocessor 8 a gene and class (at most 32 classes at a time); dense x is used as it is.
/// Row blocks: on the CPU each evaluation, of which an iteration takes one or two, is a pass; memory is then that of a
/// block (with its CSC form, and 8 bytes a cell and class) and 200 bytes a gene and class. They are collected first, in
/// two passes (CSR) or one (dense), if the matrix takes at most ctx.block_bytes, or without that a third of the memory
/// that is left and on the CPU at most 2 GiB. On CUDA they are always collected: the matrix must fit there.
SCW_API LogisticRegression logistic_regression(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes,
                                               std::int32_t n_classes, const LogisticRegressionOptions& options = {});
SCW_API LogisticRegression logistic_regression(const Context& ctx, const AnyMatrixView& x,
                                               Span<const std::int32_t> codes, std::int32_t n_classes,
                                               const LogisticRegressionOptions& options = {});

}  // namespace scw::tl
