// The options of the main job, as the program takes them. Defaults of an operation's own options equal scanpy's. What
// the job does beyond scanpy's defaults: it filters (min_genes, min_cells, max_pct_mt), chooses n_top_genes genes,
// scales them for the PCA (max_value) and tabulates the fractions of expressing cells.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace scw::pipeline {

struct RunOptions {
  // Quality control and filters
  std::vector<std::string> mt_prefix = {"MT-", "mt-"};  ///< gene names that start so are mitochondrial: var["mt"]
  std::vector<std::int64_t> percent_top = {50, 100, 200, 500};  ///< larger than the number of genes: left out
  std::optional<std::int64_t> min_genes = 200;                  ///< keep cells with at least so many genes
  std::optional<std::int64_t> max_genes;
  std::optional<double> min_counts, max_counts;  ///< counts per cell
  std::optional<std::int64_t> min_cells = 3;  ///< keep genes found in at least so many cells (after the cell filters)
  std::optional<double> max_pct_mt = 20;      ///< keep cells with at most this percentage of mitochondrial counts
  bool keep_counts = true;                    ///< copy of the counts in layers["counts"]

  // Normalisation
  std::optional<double> target_sum;  ///< unset: median counts per cell

  // Variable genes
  std::string flavor = "seurat";    ///< seurat, cell_ranger, seurat_v3, seurat_v3_paper
  std::int64_t n_top_genes = 2000;  ///< 0: by the cutoffs of min_mean, max_mean, min_disp (not for seurat_v3)
  double min_mean = 0.0125, max_mean = 3, min_disp = 0.5;
  std::optional<std::string> batch_key;  ///< obs column: variable genes are chosen per batch and combined

  // Regression and scaling
  std::vector<std::string> regress_out;  ///< obs columns; inside the PCA, X stays as it is; with explicit scaling X is
                                         ///< regressed first (dense, variable genes only)
  std::string scaling = "implicit";      ///< implicit: inside the PCA, X stays as it is; explicit: X is scaled (dense,
                                         ///< variable genes only); none
  std::optional<double> max_value = 10;  ///< clip scaled values

  // PCA
  std::int64_t n_comps = 50;

  // Neighbours
  int n_neighbors = 15;
  std::optional<std::int64_t> n_pcs;  ///< unset: all components
  std::string metric = "euclidean";
  std::string knn_algorithm = "auto";   ///< auto, brute, nn_descent
  std::string connectivities = "umap";  ///< umap, gauss, jaccard

  // UMAP
  bool umap = true;
  double min_dist = 0.5, spread = 1.0;
  int umap_components = 2;
  std::optional<int> umap_epochs;      ///< unset: 500 up to 10 000 cells, else 200
  std::string umap_init = "spectral";  ///< spectral, pca, random

  // Leiden
  std::vector<double> resolution = {1.0};  ///< several: obs["leiden_0.5"] and so on; one: obs["leiden"]
  int leiden_iterations = -1;              ///< -1: until nothing moves

  // Markers
  /// wilcoxon, t-test, t-test_overestim_var, logreg, none. scanpy has t-test; ranks do not mind that the data are not
  /// normal.
  std::string markers = "wilcoxon";
  bool tie_correct = false;                    ///< wilcoxon
  std::optional<std::string> markers_groupby;  ///< obs column; unset: the clustering of the resolution nearest 1
  bool pts = true;                             ///< also the fraction of expressing cells, inside and outside a group
  std::optional<std::int64_t> n_marker_genes;  ///< unset: all genes

  // File
  std::string compression = "auto";  ///< as io::write_options takes it

  std::uint64_t seed = 0;
};

}  // namespace scw::pipeline
