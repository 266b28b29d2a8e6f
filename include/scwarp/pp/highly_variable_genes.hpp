// Kind: driver over gene_moments and one more pass for seurat_v3 and poisson_gene_selection. Determinism tier A.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

enum class HvgFlavor : std::uint8_t {
  seurat,
  cell_ranger,
  seurat_v3,
  seurat_v3_paper,
  pearson_residuals,
  poisson_gene_selection
};

struct HighlyVariableGenesOptions {
  HvgFlavor flavor = HvgFlavor::seurat;
  /// Genes to select, > 0. Unset: the four cutoffs decide (seurat, cell_ranger), or 2000 (other flavours).
  std::optional<std::int64_t> n_top_genes = {};
  /// Strict bounds on the mean (seurat: of ln(1 + mean)) and the normalised dispersion; ignored with n_top_genes.
  double min_mean = 0.0125, max_mean = 3;
  double min_disp = 0.5, max_disp = std::numeric_limits<double>::infinity();
  /// seurat: bins of equal width over the means, > 0.
  std::int64_t n_bins = 20;
  /// seurat_v3: share of the genes in a local fit of variance on mean, in (0, 1].
  double span = 0.3;
  /// pearson_residuals: overdispersion, > 0, and limit of the residuals, >= 0 (unset: square root of the number of
  /// cells of the batch).
  double theta = 100;
  std::optional<double> clip = {};
  /// seurat: base of the logarithm that the data were transformed with; unset: e.
  std::optional<double> log_base = {};
  /// Batch of each cell, [n_cells] on ctx.device, codes in [0, n_batches), any other: cell left out. Empty: no batches.
  /// Genes are selected in each batch, then the selections are merged.
  Span<const std::int32_t> batches = {};
  std::int32_t n_batches = 0;
  /// seurat, cell_ranger without batches: leave genes without counts out of the bins (with batches always done). They
  /// get zeros.
  bool filter_unexpressed_genes = false;
  /// [n_genes] on the host: place of each gene in the order that settles ties between batches' selections; empty: by
  /// index. scanpy settles them by name.
  Span<const std::int32_t> tie_order = {};
};

/// Arrays of one entry a gene, on the host; those that a flavour does not have are empty.
struct HighlyVariableGenes {
  Array<std::uint8_t> highly_variable;
  /// seurat: ln(1 + mean of the counts); else the mean. With batches: the average over them (seurat_v3: over all
  /// cells).
  Array<double> means;
  Array<double> dispersions, dispersions_norm;  ///< seurat, cell_ranger
  Array<double> variances;                      ///< the other flavours: over all cells
  /// The other flavours: variance of the standardised values, or of the residuals (ddof 0); average over batches.
  Array<double> variances_norm;
  Array<double> rank;                ///< the other flavours: median over batches, NaN where never among the first k
  Array<std::int32_t> n_batches;     ///< batches that selected the gene; the other flavours: also without batches
  Array<std::uint8_t> intersection;  ///< selected in every batch; seurat, cell_ranger: empty without batches
  /// poisson_gene_selection: share of cells without a count, the share that Poisson counts would give, and
  /// observed * (1 - expected), of which `rank` is the ascending rank; medians over batches.
  Array<double> observed_zeros, expected_zeros, zero_enrichment;
  std::int64_t n_selected = 0;
  /// All values read are non-negative integers: what the flavours on counts expect.
  bool counts = true;
  /// n_top_genes was more than the genes with a normalised dispersion (in any batch): all of those were selected.
  bool fewer_than_asked = false;
};

/// Selects genes that vary more between cells than genes of their mean usually do.
///
/// seurat (Satija et al. 2015, Nat Biotechnol 33:495), on log1p data: ln(variance/mean) of expm1(x), z-scored in bins
/// of the mean. cell_ranger (Zheng et al. 2017, Nat Commun 8:14049): variance/mean, centred by median and scaled by MAD
/// in bins between percentiles of the mean. seurat_v3, seurat_v3_paper (Stuart et al. 2019, Cell 177:1888), on counts:
/// variance of values standardised by the variance that a loess of log10 variance on log10 mean predicts, clipped at
/// sqrt(n) standard deviations; they differ in how batches are merged (rank, then number of batches; or the reverse).
/// pearson_residuals (Lause et al. 2021, Genome Biol 22:258), on counts: variance of the residuals of
/// normalize_pearson_residuals; cells without counts have residual 0. poisson_gene_selection (Andrews & Hemberg 2019,
/// Bioinformatics 35:2865), on counts: genes with zeros in more cells than Poisson counts of their share s_j / S of all
/// counts would have, by (share of cells without a count) * (1 - mean over cells i of exp(-(s_j / S) r_i)) with r_i the
/// total of the cell; the n_top_genes of highest rank in each batch, then by (number of batches, median rank). Ranks of
/// equal genes ascend with the index.
///
/// Ties: by tie_order, flavours on counts by index; for n_top_genes without batches all genes at the cutoff are
/// selected. Throws InvalidArgument, ShapeMismatch (options), DataError (values that are not finite, bins that
/// coincide, loess without enough genes). Memory: as gene_moments, and about 100 bytes a gene and batch. Floor: one
/// read of the matrix, two for seurat_v3, three for poisson_gene_selection, and there an exponential for every pair of
/// distinct cell and gene totals of a batch.
SCW_API HighlyVariableGenes highly_variable_genes(const Context& ctx, const RowBlocks& x,
                                                  const HighlyVariableGenesOptions& options = {});
SCW_API HighlyVariableGenes highly_variable_genes(const Context& ctx, const AnyMatrixView& x,
                                                  const HighlyVariableGenesOptions& options = {});

}  // namespace scw::pp
