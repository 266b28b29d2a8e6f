// Marker genes of groups of cells. Kind: driver (t-tests), dual (Wilcoxon ranking). Determinism tier A: what depends on
// the data is summed and ranked in integers; p-values are computed from it on the host.
//
// t-test: Welch 1947, Biometrika 34:28. Wilcoxon rank-sum test in the normal approximation with average ranks and the
// tie correction of Lehmann 1975, Nonparametrics, section 1.4. Adjustment: Benjamini & Hochberg 1995, JRSS B 57:289.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

enum class RankTest : std::uint8_t {
  t_test,                ///< Welch's t-test on group means and variances
  t_test_overestim_var,  ///< the same with the size of the other side replaced by the group's
  wilcoxon,              ///< rank-sum test on exact average ranks
  wilcoxon_binned,       ///< rank-sum test on values rounded to n_bins equal bins
};

enum class PAdjust : std::uint8_t { benjamini_hochberg, bonferroni };

struct RankGenesGroupsOptions {
  RankTest test = RankTest::t_test;
  /// Index of the group that the others are compared with; unset: every other cell, in a group or not.
  std::optional<std::int32_t> reference;
  /// Applied over all genes of a group.
  PAdjust p_adjust = PAdjust::benjamini_hochberg;
  /// Order genes by |score|; the scores keep their sign.
  bool rank_by_abs = false;
  /// Also give the fraction of cells with a non-zero value, per group and in the rest.
  bool pts = false;
  /// Fold changes from expm1 of the means of x (true), or from the means of expm1(x); false also runs the t-tests on
  /// expm1(x).
  bool mean_in_log_space = true;
  /// Base of the logarithm that x went through, > 0 and not 1; unset: e.
  std::optional<double> log_base;
  /// Wilcoxon: reduce the variance of the rank sum for ties.
  bool tie_correct = false;
  /// Wilcoxon: bring |R - E(R)| nearer to 0 by 1/2.
  bool use_continuity = false;
  /// Wilcoxon: scores are U = R - n1 (n1 + 1) / 2 instead of z (p-values stay those of z).
  bool return_u_values = false;
  /// wilcoxon_binned: number of bins, in [1, 2^24].
  std::int32_t n_bins = 1000;
  /// wilcoxon_binned: low and high end of the bins, low < high (values beyond go to the end bins); unset: smallest and
  /// largest value, with 0 for sparse x.
  std::optional<std::pair<double, double>> bin_range;
};

/// All arrays on the host. Rows of the matrices: the tested groups; columns: genes in the order of x.
struct RankGenesGroups {
  std::vector<std::int32_t> tested;       ///< the groups compared, in order: all but the reference
  std::vector<std::int64_t> group_sizes;  ///< [n_groups], cells
  Matrix<double> scores;  ///< [n_tested x n_genes]: t, z or U; t and z are 0 where undefined (no variance)
  Matrix<double> pvals;   ///< two-sided; 1 where undefined
  Matrix<double> pvals_adj;
  Matrix<double> logfoldchanges;  ///< log2((e(m1) + 1e-9) / (e(m2) + 1e-9)), e = expm1 in the base of the logarithm
  Matrix<std::int32_t> order;     ///< genes by descending score (or |score|), ties by index
  Matrix<double> pts;             ///< [n_groups x n_genes], all groups; empty without options.pts
  Matrix<double> pts_rest;        ///< [n_groups x n_genes]; empty without options.pts or with a reference
};

/// Compares each group with the reference or with all other cells, gene by gene.
///
/// x: cells x genes, logarithmised, float or double, CSR or dense, on ctx.device; at most 2^31 - 1 cells. codes:
/// [n_cells] on the host, the group of each cell in [0, n_groups) or -1. Stored zeros count as zeros. Throws
/// InvalidArgument (a group of fewer than two cells, options), ShapeMismatch (codes), DataError (NaN or infinite
/// values, naming the gene).
/// Time: O(entries), whatever the number of groups (Wilcoxon: times the digits of a radix sort). Memory: 80 bytes a
/// group and gene; t-tests: 4 a cell and 40 a thread and gene; Wilcoxon: 4 a cell and block of genes (at most 128
/// blocks), and 8 or 16 (float, double) an entry of one block for each thread. Wilcoxon on CUDA: 2 x 8 or 16 bytes an
/// entry of one block of genes, at most 4 GiB (less where the workspace has a limit, more if one gene needs it).
/// Passes over row blocks: t-tests two; Wilcoxon one, and one for each part of the genes whose entries fit into the
/// memory that is left (CPU: a quarter of it, at most 2 GiB at 8 or 12 bytes an entry; CUDA as above); binned one more.
SCW_API RankGenesGroups rank_genes_groups(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes,
                                          std::int32_t n_groups, const RankGenesGroupsOptions& options = {});
SCW_API RankGenesGroups rank_genes_groups(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                                          std::int32_t n_groups, const RankGenesGroupsOptions& options = {});

/// out[k, t] = values[t, order[t, k]], rounded to the type of out: what a table of markers holds, best gene first. All
/// on the host; values and order: [n_tests x n_genes], out: [at most n_genes x n_tests].
SCW_API void gather_ranked(const Context& ctx, MatrixView<const double> values, MatrixView<const std::int32_t> order,
                           MatrixView<float> out);
SCW_API void gather_ranked(const Context& ctx, MatrixView<const double> values, MatrixView<const std::int32_t> order,
                           MatrixView<double> out);

}  // namespace scw::tl
