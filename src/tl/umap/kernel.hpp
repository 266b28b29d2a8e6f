#pragma once

#include <memory>
#include <vector>

#include "math/umap_curve.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/core/rng.hpp"
#include "scwarp/tl/umap.hpp"

namespace scw::tl {

/// Cells are dealt to blocks in groups of this many neighbours in the order of the layout.
inline constexpr std::int64_t kUmapLanes = 32;
/// The groups are dealt to this many blocks. Cells of a block do not see each other's moves of the same round.
inline constexpr std::int64_t kUmapBlocks = 4;
/// An epoch has two passes over the edges: umap-learn meets an undirected edge from both ends and moves both ends each
/// time, so a cell that moves itself alone is pulled twice.
inline constexpr int kUmapPasses = 2;

/// Which group belongs to which block: the first 32nd of them, the hubs of the graph, to block 0, so that one round and
/// not every one waits for a cell of hundreds of steps; the others in turn.
struct UmapDeal {
  std::int64_t groups = 0, hubs = 0;

  explicit SCW_HD UmapDeal(std::int64_t n_active)
      : groups((n_active + kUmapLanes - 1) / kUmapLanes), hubs(groups / 32) {}
  SCW_HD std::int64_t blocks() const { return groups < kUmapBlocks ? groups : kUmapBlocks; }
  /// Groups of a block below blocks().
  SCW_HD std::int64_t count(std::int64_t block) const {
    return (block == 0 ? hubs : 0) + (groups - hubs - block + kUmapBlocks - 1) / kUmapBlocks;
  }
  /// The k-th group of a block; at or beyond `groups` for k at or beyond count(block).
  SCW_HD std::int64_t group(std::int64_t block, std::int64_t k) const {
    if (block > 0) return hubs + k * kUmapBlocks + block;
    return k < hubs ? k : hubs + (k - hubs) * kUmapBlocks;
  }
};

/// The pruned graph in the order of the layout: cells with the most expected samples first.
struct UmapGraph {
  std::int64_t n_cells = 0;
  std::int64_t n_active = 0;         ///< cells with edges; they come first
  Span<const std::int64_t> indptr;   ///< n_active + 1
  Span<const std::int32_t> targets;  ///< position of the other cell in this order
  Span<const std::uint32_t> rates;   ///< samples of the edge per pass, in units of 2^-32
};

struct UmapSchedule {
  math::UmapForce force;
  RngKey rng;
  float alpha = 1;
  int n_epochs = 0;
  int negatives = 5;
  int dims = 2;
  int max_width = 16;  ///< widest vectors to use (1, 4, 8, 16), for tests: all give the same bits
};

/// Runs epochs [from, to) on positions y (n_cells x dims, row-major, in the order of the graph). finished: epochs done,
/// kept up to date; on an exception y is as it was after that many epochs.
extern SCW_API Kernel<void(const Context&, const UmapGraph&, const UmapSchedule&, int, int, Span<float>, int&)>
    umap_run_kernel;

// What comes before the layout and after it. All arrays on ctx.device.

struct UmapWeights {
  float most = 0;         ///< the largest weight
  std::int64_t bad = -1;  ///< the first entry that is negative or not finite, or -1
  bool symmetric = true;  ///< if none is bad
};
/// One pass over the graph.
extern SCW_API Kernel<void(const Context&, const CsrView<const float>&, UmapWeights&)> umap_weights_kernel;

/// (A + A^T) / 2, with the entries that A or A^T has; in ctx.workspace.
extern SCW_API Kernel<void(const Context&, const CsrView<const float>&, Csr<float>&)> umap_average_kernel;

/// The rows without loops and without edges below the cutoff or of weight 0, in ctx.workspace; nothing (no indptr)
/// where that is the whole graph.
extern SCW_API Kernel<void(const Context&, const CsrView<const float>&, float, Csr<float>&)> umap_prune_kernel;

struct UmapStart {
  UmapInit init = UmapInit::spectral;
  RngKey random, noise;
  MatrixView<const float> given;  ///< init array
  std::int64_t bad = -1;          ///< out: the first entry of `given` that is not finite, or -1
};
/// Fills y (n x dims; init spectral: holds the spectral layout) and stretches every axis to [0, 10].
extern SCW_API Kernel<void(const Context&, UmapStart&, Matrix<float>&)> umap_start_kernel;

struct UmapOrder {
  std::int64_t n_active = 0;
  Array<std::int32_t> order;  ///< cell at each place of the layout
  Array<std::int64_t> indptr;
  Array<std::int32_t> targets;
  Array<std::uint32_t> rates;
  Array<float> y;  ///< the start in the order of the layout
};
/// Orders the pruned graph whose largest weight is given; results in ctx.memory.
extern SCW_API
    Kernel<void(const Context&, const CsrView<const float>&, float, const MatrixView<const float>&, UmapOrder&)>
        umap_order_kernel;

/// out[order[k]] = y[k]
extern SCW_API Kernel<void(const Context&, Span<const std::int32_t>, Span<const float>, const MatrixView<float>&)>
    umap_unorder_kernel;

// The parts of the spectral start (spectral.cpp).

/// Connected components, numbered by their first vertex.
struct UmapComponents {
  std::vector<std::int64_t> first;  ///< of each component in members, and the end; on the host
  Array<std::int32_t> members;      ///< vertices, component by component, ascending
};
extern SCW_API Kernel<void(const Context&, const CsrView<const float>&, UmapComponents&)> umap_components_kernel;

/// The graph with its vertices in the order of UmapComponents::members: columns count from the start of the component,
/// weights are D^-1/2 W D^-1/2.
struct UmapNormalised {
  Array<std::int64_t> indptr;
  Array<std::int32_t> indices;
  Array<float> values;
  Array<double> root;  ///< sqrt(degree), each component scaled to norm 1: the eigenvector of eigenvalue 1
};
/// Rows of a chunk of the norms: a chunk is summed in row order, the chunks of a component in their order.
inline constexpr std::int64_t kUmapNormChunk = 1024;
extern SCW_API Kernel<void(const Context&, const CsrView<const float>&, const UmapComponents&, UmapNormalised&)>
    umap_normalise_kernel;

/// y = W x for n x q row-major blocks, q a multiple of 8; sums over a row in single precision in its order.
extern SCW_API Kernel<void(const Context&, const CsrView<const float>&, const float*, float*, int)> umap_product_kernel;

/// Queues of ctx.device for components side by side; destroyed with the object. None on the CPU.
class UmapQueues {
 public:
  virtual ~UmapQueues() = default;
  std::vector<StreamHandle> streams;
};
extern SCW_API Kernel<void(const Context&, int, std::unique_ptr<UmapQueues>&)> umap_queues_kernel;

/// out[rows[i]] = middle + scale y[i], where scale is radius / largest |y|, or 0 if all of y is.
extern SCW_API Kernel<void(const Context&, const MatrixView<const float>&, Span<const std::int32_t>, const float*,
                           float, const MatrixView<float>&)>
    umap_put_component_kernel;

/// out[rows[i]] = y[i]
extern SCW_API
    Kernel<void(const Context&, const MatrixView<const float>&, Span<const std::int32_t>, const MatrixView<float>&)>
        umap_put_rows_kernel;

}  // namespace scw::tl
