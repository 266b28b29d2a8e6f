// Memory of every operation before it runs. Each function stands beside its operation (src/*/<op>/estimate.cpp) and
// says what the operation holds at its peak beyond its arguments, and what of that it returns; tests compare the
// figures with measured peaks: never below them, and at most 10 % above (plus 2 MiB), unless a comment here says that
// the size depends on more than the shape.
#pragma once

#include <cstdint>

#include "scwarp/core/config.hpp"
#include "scwarp/core/device.hpp"

namespace scw::estimate {

/// A matrix of cells x genes and where it is worked on. CUDA figures are of device memory, for a matrix that is there,
/// and for devices with 227 KiB of shared memory a block (Hopper, Blackwell); with less, sparse matrices of many genes
/// need some 4 bytes a cell more.
struct Shape {
  DeviceType device = DeviceType::cpu;
  int n_threads = 1;  ///< CPU
  std::int64_t n_rows = 0, n_cols = 0;
  std::int64_t nnz = 0;  ///< stored values; of a dense matrix those that are not 0 (or n_rows * n_cols)
  int value_bytes = 4;
  bool sparse = true;
  /// The matrix goes through in blocks of rows, which count as well. CPU: from a file (scwarp/io/file_rows.hpp), full
  /// blocks, although those of over 4 096 rows are cut to multiples of that; without steps that are done while reading.
  /// CUDA: from the host (two blocks on the device at once), where rows are about equally long; dense results stay on
  /// the host.
  bool in_file = false;
  std::int64_t block_bytes = 0;  ///< of a block; 0: 256 MiB (CUDA: at most an eighth of what is left of the limit)
  std::int64_t limit_bytes = 0;  ///< CUDA: most that may be held (scw.memory.configure); 0: no limit

  /// What the matrix itself takes.
  SCW_API std::int64_t bytes() const;
};

struct Need {
  std::int64_t peak = 0;  ///< most bytes at once, `kept` included
  std::int64_t kept = 0;  ///< the result, where the operation works (on CUDA: 0 if the result is on the host)
};

SCW_API Need calculate_qc_metrics(const Shape&, int n_families, int n_tops, std::int64_t largest_top);
SCW_API Need cell_counts(const Shape&);  ///< of filter_cells, without the subset
SCW_API Need gene_counts(const Shape&);  ///< of filter_genes, without the subset
/// kept_values: stored values of the result (dense: ignored).
SCW_API Need subset(const Shape&, std::int64_t kept_rows, std::int64_t kept_cols, std::int64_t kept_values);
SCW_API Need normalize_total(const Shape&, bool has_target_sum, bool exclude_highly_expressed = false);
SCW_API Need log1p(const Shape&);
SCW_API Need sqrt(const Shape&);
SCW_API Need gene_moments(const Shape&, std::int64_t n_groups = 1, bool with_total = false);
/// counts: the flavours that are not seurat or cell_ranger (without pearson_residuals and poisson_gene_selection).
SCW_API Need highly_variable_genes(const Shape&, bool counts, std::int64_t n_batches = 0);
/// to_dense: of a sparse matrix.
SCW_API Need scale(const Shape&, bool to_dense, bool masked = false);
/// Numeric keys; sparse matrices become dense.
SCW_API Need regress_out(const Shape&, std::int64_t n_keys);
SCW_API Need normalize_pearson_residuals(const Shape&);
/// Shape::n_cols: the genes in use. Sparse rows on the CPU: the density decides which product is quicker.
SCW_API Need pca(const Shape&, std::int64_t n_comps, bool scale = false, bool double_scores = false);
/// Exact search, dense rows, Euclidean, cosine, correlation or inner product. CUDA: rows whose list must be looked for
/// again (n_rescanned, rarely more than a few) are not counted.
SCW_API Need knn(const Shape&, std::int64_t n_neighbors);
/// The graph of n cells with lists of k (method umap). Its edges are between n (k - 1) and twice that, which is taken.
SCW_API Need connectivities(DeviceType device, std::int64_t n_cells, std::int64_t n_neighbors);
/// A symmetric graph, on CUDA without loops and zeros. How many edges remain between the parts of the first level
/// depends on the graph: all are taken.
SCW_API Need leiden(const Shape& graph, std::int64_t n_resolutions = 1);
/// From a spectral start: a connected, symmetric graph; where the cutoff leaves all its edges, 8 bytes an edge less.
SCW_API Need umap(const Shape& graph, std::int64_t n_components);
/// n_functions besides count_nonzero, the median among them. Medians on the CPU take it that a gene may have an entry
/// in every cell, as Wilcoxon ranks.
SCW_API Need aggregate(const Shape&, std::int64_t n_groups, int n_functions, bool count_nonzero = false,
                       bool median = false);
SCW_API Need score_genes(const Shape&);
enum class Test : std::uint8_t { t_test, wilcoxon, logreg };
SCW_API Need rank_genes_groups(const Shape&, Test test, std::int64_t n_groups, bool with_reference = false);

}  // namespace scw::estimate
