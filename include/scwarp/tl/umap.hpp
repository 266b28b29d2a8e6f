// Kind: dual (every part; the eigenvectors are a driver, prim/eigsh). Determinism tier B: the same bits on every run,
// for any number of threads, in every vector width and on CUDA (IEEE operations in a written order; place_components
// uses the power of the machine's libm).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

enum class UmapInit : std::uint8_t {
  spectral,  ///< eigenvectors of the normalised Laplacian, component by component
  random,    ///< uniform in a cube
  array,     ///< UmapOptions::init_positions
};

struct UmapOptions {
  /// Distance below which the target similarity is 1, in units of the embedding; >= 0. Ignored if a and b are set.
  double min_dist = 0.5;
  /// Scale of the decay of the target similarity beyond min_dist; > 0. Ignored if a and b are set.
  double spread = 1.0;
  /// Dimensions of the embedding; >= 1.
  int n_components = 2;
  /// Epochs; >= 0. Unset: 500 up to 10 000 cells, 200 above. Edges weaker than max weight / epochs are left out.
  std::optional<int> maxiter;
  /// Initial step length, falls linearly to 0; > 0.
  double alpha = 1.0;
  /// Weight of the repulsion; >= 0.
  double gamma = 1.0;
  /// Random cells that push a cell away for each sampled edge; >= 0.
  int negative_sample_rate = 5;
  UmapInit init = UmapInit::spectral;
  /// n_cells x n_components, on ctx.device, finite; read if init is array. Every axis is stretched to [0, 10], equal
  /// rows are moved apart a little.
  MatrixView<const float> init_positions;
  /// Parameters of the curve 1 / (1 + a d^2b); both set: used as they are; else fitted to min_dist and spread.
  std::optional<double> a, b;
};

struct Umap {
  Matrix<float> embedding;  ///< n_cells x n_components
  double a = 0, b = 0;      ///< the curve that was used
  int n_epochs = 0;
  bool symmetric = true;  ///< whether connectivities were; else (A + A^T) / 2 was embedded
};

/// A layout in progress: run(100) and then run(200) gives the bits of run(200).
class SCW_API UmapLayout {
 public:
  /// Prunes and orders the graph and places the cells. Does not keep `connectivities`. Arguments and errors as umap().
  UmapLayout(const Context& ctx, const CsrView<const float>& connectivities, const UmapOptions& options = {});
  UmapLayout(UmapLayout&&) noexcept;
  UmapLayout& operator=(UmapLayout&&) noexcept;
  ~UmapLayout();

  /// Runs the epochs from epoch() to until_epoch (at most n_epochs()). If it is cancelled or fails, the positions are
  /// those after the last finished epoch.
  void run(const Context& ctx, int until_epoch);
  int epoch() const;
  int n_epochs() const;
  double a() const;
  double b() const;
  /// Whether the graph was symmetric.
  bool symmetric() const;
  /// A copy of the positions, n_cells x n_components, in the order of the cells.
  Matrix<float> embedding(const Context& ctx) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Embeds cells in a few dimensions so that neighbours in the graph are near each other.
///
/// connectivities: non-negative, finite weights, n x n, on ctx.device (UMAP's fuzzy graph, or any other). Where it is
/// not symmetric (A + A^T) / 2 is embedded: an edge pulls both of its ends. A stored 0 is no edge. One pass over the
/// graph finds this out by a sum of hashes, which takes a graph that is not symmetric for symmetric with a probability
/// of 2^-64.
///
/// Random numbers come from ctx.rng. Positions: McInnes, Healy, Melville, arXiv:1802.03426, sections 3 and 4,
/// with one change: an epoch is cut into rounds over fixed blocks of cells, and within a round every cell of the block
/// sums the forces along its own edges and moves itself alone (umap-learn moves both ends of an edge, in one sequential
/// order). A cell without edges stays where it is placed.
///
/// Memory beside the graph: 8 bytes per edge and 8 + 12 n_components bytes per cell, on CUDA 4 more per edge for cells
/// that have many (src/tl/umap/cuda.cu); while the start is made and the edges are ordered, 16 bytes per edge (8 where
/// the cutoff leaves all of them) and about 130 per cell; if the graph is not symmetric, up to 32 bytes per entry.
/// Time: O(epochs (edges + cells n_components negative_sample_rate)). Floor on CUDA: src/tl/umap/cuda.cu.
///
/// Throws InvalidArgument (options), ShapeMismatch (not square; init_positions), DataError (negative or non-finite
/// weights or positions), Cancelled.
SCW_API Umap umap(const Context& ctx, const CsrView<const float>& connectivities, const UmapOptions& options = {});

}  // namespace scw::tl
