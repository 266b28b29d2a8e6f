#pragma once

#include "math/umap_curve.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/core/rng.hpp"
#include "scwarp/tl/umap.hpp"

namespace scw::tl {

/// Cells are dealt to blocks in groups of this many neighbours in the order of the layout.
inline constexpr std::int64_t kUmapLanes = 32;
/// Groups g, g + kUmapBlocks, ... form a block. Cells of a block do not see each other's moves of the same round.
inline constexpr std::int64_t kUmapBlocks = 4;
/// An epoch has two passes over the edges: umap-learn meets an undirected edge from both ends and moves both ends each
/// time, so a cell that moves itself alone is pulled twice.
inline constexpr int kUmapPasses = 2;

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

}  // namespace scw::tl
