// Kind: driver. Same bits for any number of threads (Philox streams per cell; no libm).
#pragma once

#include <cstdint>
#include <string>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw::datasets {

struct SimulateOptions {
  std::int64_t n_cells = 5000;   ///< >= 0
  std::int32_t n_genes = 20000;  ///< >= 50; the first 13 are the mitochondrial ones (13 protein genes, as in human)
  int n_clusters = 8;            ///< >= 1; sizes fall off as (rank)^-0.6, clusters come in lineages of three
  int n_batches = 1;             ///< >= 1; each has its own gene effects (sd 0.2 in log) and depth
  double doublet_rate = 0.05;    ///< in [0, 1): share of cells that are the sum of two
  double damaged_rate = 0.04;    ///< in [0, 1): share of cells with 15 to 55 % mitochondrial counts and little depth
  double mean_counts = 3000;     ///< > 0: mean UMI counts of an intact single cell
};

struct Simulated {
  Csr<float> counts;                 ///< cells x genes, whole numbers
  Array<std::int32_t> cluster;       ///< [n_cells] planted cluster; of a doublet, that of its first cell
  Array<std::int32_t> batch;         ///< [n_cells]
  Array<std::uint8_t> is_doublet;    ///< [n_cells]
  Array<std::uint8_t> is_damaged;    ///< [n_cells]
  Array<std::int32_t> marker_of;     ///< [n_genes] cluster of which the gene is a planted marker, or -1
  std::int32_t n_mitochondrial = 0;  ///< genes 0 .. n_mitochondrial - 1
};

/// Counts with planted structure, on the host. Expression of a gene: log-normal base (sd 2.2) x lineage and cluster
/// effects x batch effect; a cell draws its UMIs one by one from the profile of its cluster and batch, a share of them
/// from one of four programmes that run across clusters, and a share from the mitochondrial genes. At the defaults a
/// cell has about 1 500 genes. Depends on ctx.rng alone. Time O(UMIs), memory: the result, and 8 bytes x genes x
/// (clusters x batches + 5). Throws InvalidArgument.
SCW_API Simulated simulate(const Context& ctx, const SimulateOptions& options = {});

/// Names of the simulated genes and cells: "MT-ND1", "MK03-01" (first marker of cluster 3), "GENE00042"; "CELL0000001".
SCW_API std::string simulated_gene_name(const Simulated& data, std::int64_t gene);
SCW_API std::string simulated_cell_name(std::int64_t cell);

}  // namespace scw::datasets
