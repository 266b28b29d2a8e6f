// Kind: dual. Determinism tier A: the same bits on CPU and CUDA, for any number of threads.
//
// Graphs of up to 8192 vertices, and levels of a hierarchy of that size, are clustered vertex by vertex on the host,
// whatever the device: one core is quicker on them than launches are. Larger levels are worked on in synchronous rounds
// (src/tl/leiden/rules.hpp) with integer gains, whose outcome does not depend on an order: threads and warps alike.
#pragma once

#include <cstdint>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

struct LeidenOptions {
  /// Resolution gamma, 0 to 1e6; larger values give more and smaller clusters. The search uses it rounded to 21
  /// significant bits (below 1: to 2^-22), the reported modularity as given.
  double resolution = 1.0;
  /// Passes of local moving, refinement and aggregation, each over all levels; -1: until a pass moves no vertex. From
  /// the ninth pass on the refinement draws the same random numbers every time, so that the search comes to rest.
  int n_iterations = -1;
  /// Off: every stored entry that is not zero counts as an edge of weight 1.
  bool use_weights = true;
  /// Temperature of the refinement, in units of edge weight, > 0: a vertex joins one of the communities that do not
  /// lower the quality with probability proportional to exp(gain / theta). Small values are greedy.
  double theta = 0.05;
  /// Independent runs, of which the one of highest quality is kept; 0: as many (1 to 4) as together have 2^18 stored
  /// entries, so that the outcome on small graphs depends less on luck.
  int n_starts = 0;
};

struct Leiden {
  /// [n] cluster of each vertex, on ctx.device; 0 is the largest cluster, equal sizes are ordered by smallest vertex.
  Array<std::int32_t> labels;
  std::int32_t n_clusters = 0;
  /// [n_clusters] on the host, descending: the histogram of the labels.
  Array<std::int64_t> cluster_sizes;
  /// Q = 1/(2W) sum_ij [A_ij - resolution k_i k_j / (2W)] [c_i = c_j]; 0 for a graph without edges.
  double modularity = 0;
  /// Passes done, the last of which moved nothing if converged.
  int n_iterations = 0;
  bool converged = false;
};

/// Clusters a weighted undirected graph by modularity: Traag, Waltman & van Eck 2019, Sci Rep 9:5233 (algorithm A.2).
///
/// graph: square, weights >= 0 and finite, indices sorted in a row, on ctx.device. Both (i, j) and (j, i) are expected
/// to be stored; a graph that is not symmetric is clustered as A + A^T. Entries that are 0 are no edges. A stored (i,
/// i) is a loop: it adds to the strength of i and of its cluster, A_ii once (a loop of weight A_ii / 2 of an edge
/// list).
///
/// Weights are rounded once to integers (41 bits for their sum), so that gains are compared exactly; ties go to the
/// present cluster, then to the smaller id. Every cluster is connected; vertices without edges are clusters of their
/// own. Random numbers: ctx.rng. Memory on the CPU: about 24 bytes a stored entry and (150 + 16 n_threads) bytes a
/// vertex. On CUDA 187 bytes a vertex, 8 or 12 for each edge of the next level, and 32 for each of the edges that are
/// sorted at once while it is made: at most 2^28 (8 GiB) or what fits a quarter of the free memory or ctx.block_bytes,
/// but all of one community of the level; the matrix itself is read throughout, unless it has loops or zeros (a copy
/// of 8 bytes an entry), weights that are not float (4) or is not symmetric (A + A^T, 16 an entry of it). Floor: one
/// read of the graph per pass and round of level 0, in which 8 bytes an entry come from memory. Throws InvalidArgument
/// (options), ShapeMismatch (not square), DataError (negative or non-finite weights, bad indices).
SCW_API Leiden leiden(const Context& ctx, const AnyCsrView& graph, const LeidenOptions& options = {});

/// One clustering per resolution (options.resolution is not used), each equal to a call of its own; the runs share
/// the preparation of the graph and go in parallel when there are at least as many of them as threads.
SCW_API std::vector<Leiden> leiden(const Context& ctx, const AnyCsrView& graph, Span<const double> resolutions,
                                   const LeidenOptions& options = {});

/// The quality of a given clustering: Leiden::modularity for `labels` [n], any non-negative integers. Host data.
SCW_API double modularity(const Context& ctx, const AnyCsrView& graph, Span<const std::int32_t> labels,
                          double resolution = 1.0, bool use_weights = true);

}  // namespace scw::tl
