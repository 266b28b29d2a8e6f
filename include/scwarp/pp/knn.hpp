// Kind: dual (exact search), CPU driver (nn_descent). Determinism tier A: the kept neighbours are scored again in
// double in a fixed order, ties go to the lower index, so indices and distances have the same bits for any number of
// threads, any blocking and either backend.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pp {

enum class Metric : std::uint8_t {
  euclidean,      ///< sqrt(sum (x-y)^2)
  sqeuclidean,    ///< sum (x-y)^2
  manhattan,      ///< sum |x-y|
  chebyshev,      ///< max |x-y|
  minkowski,      ///< (sum |x-y|^p)^(1/p)
  canberra,       ///< sum |x-y| / (|x|+|y|), 0/0 = 0
  cosine,         ///< 1 - x.y / (|x||y|); 1 if a vector is zero
  correlation,    ///< cosine of the vectors minus their means
  inner_product,  ///< x.y, a similarity: the largest are the nearest
  jensenshannon,  ///< sqrt of the Jensen-Shannon divergence (natural log) of the vectors divided by their sums
  hellinger,      ///< sqrt(1 - sum sqrt(x y)), vectors as they are (usually probabilities)
  haversine,      ///< great-circle angle of (latitude, longitude) in radians
  hamming,        ///< share of differing entries
  jaccard,        ///< 1 - |both non-zero| / |either non-zero|, 0 for two zero vectors
  braycurtis,     ///< sum |x-y| / sum (|x|+|y|), as scikit-learn
};

/// The metric of a name of scanpy, scikit-learn or cuVS: "l2", "cityblock", "linf", ... Throws InvalidArgument.
SCW_API Metric parse_metric(std::string_view name);
SCW_API std::string_view to_string(Metric metric);

enum class KnnAlgorithm : std::uint8_t {
  automatic,   ///< brute where it is the faster one or the data are small (see KnnOptions::brute_work), else nn_descent
  brute,       ///< exact
  nn_descent,  ///< approximate, on the CPU; recall measured on a sample and repaired, see KnnOptions::min_recall
};

/// "auto", "brute", "nn_descent". Throws InvalidArgument.
SCW_API KnnAlgorithm parse_knn_algorithm(std::string_view name);
SCW_API std::string_view to_string(KnnAlgorithm algorithm);

struct KnnOptions {
  /// Neighbours per cell, the cell itself included; 1 <= n_neighbors <= n_cells.
  int n_neighbors = 15;
  Metric metric = Metric::euclidean;
  /// Exponent of minkowski, >= 1; ignored by other metrics.
  double p = 2.0;
  KnnAlgorithm algorithm = KnnAlgorithm::automatic;
  /// automatic: brute while n_cells^2 x n_columns is at most this.
  double brute_work = 2e12;
  /// nn_descent: recall that is asked for, in (0, 1]. Where a sample shows less, more rounds follow; where they do not
  /// help, the search is repeated exactly.
  double min_recall = 0.98;
  /// nn_descent: cells whose neighbours are compared with the exact ones; > 0.
  std::int64_t recall_sample = 1000;
  /// nn_descent: random projection trees of the start; >= 1.
  int n_trees = 6;
  /// nn_descent: rounds over the neighbours of neighbours after the trees; >= 0.
  int max_rounds = 2;
};

struct KnnResult {
  std::int64_t n = 0;  ///< cells
  int k = 0;           ///< neighbours per cell, itself included
  /// [n x k] row-major: the cell itself, then the others by increasing distance (inner_product: decreasing
  /// similarity), ties by index. Duplicates of a cell come after the cell.
  Array<std::int32_t> indices;
  /// [n x k]; 0 for the cell itself (inner_product: its own similarity).
  Array<float> distances;
  KnnAlgorithm algorithm = KnnAlgorithm::brute;  ///< what ran
  Metric metric = Metric::euclidean;
  double recall = 1.0;            ///< brute: 1; nn_descent: measured on recall_sample cells
  std::int64_t recall_cells = 0;  ///< cells of that measurement; 0 for brute
  int rounds = 0;                 ///< nn_descent: rounds run
  std::int64_t n_rescanned = 0;   ///< cells whose list could not be proven complete from float scores
};

/// The n_neighbors nearest cells of every cell. x: cells x columns on ctx.device, dense (all metrics) or CSR
/// (euclidean, sqeuclidean, manhattan, chebyshev, minkowski, canberra, cosine, inner_product, hellinger, jaccard);
/// dense and CSR give the same bits.
///
/// euclidean, sqeuclidean, cosine, correlation, inner_product: scores by matrix tiles (CPU: float; CUDA: half precision
/// on tensor cores, dense data and up to 512 neighbours) with a proven error bound, candidates within it are scored
/// again in double; rows with more candidates than fit are searched again with more digits (CUDA), then scanned
/// exactly. Other metrics: all pairs in double. Cost: n^2 x columns / 2 multiply-adds (CPU tiles), n^2 x columns
/// (others); CUDA passes over tiles that the triangle inequality excludes, which with clusters are most of them. Memory
/// on the CPU: the result, n x columns floats (dense) and n x (3 k + 48) x 8 bytes of candidates. CUDA: the result, n x
/// columns rounded up to 32, 64, 128 or a multiple of 32 x 2 bytes, at most 512 MiB of found and 256 MiB of listed
/// candidates, n x 52 bytes; a second search: three times the columns. nn_descent: Dong, Charikar, Li: "Efficient
/// k-nearest neighbor graph construction for generic similarity measures", WWW 2011, started from random projection
/// trees whose leaves are searched exactly; the five metrics above only.
///
/// Throws InvalidArgument (options), NotSupported (metric x layout x device), DataError naming the first cell with a
/// value that is not finite (jensenshannon, hellinger: or negative).
SCW_API KnnResult knn(const Context& ctx, const AnyMatrixView& x, const KnnOptions& options = {});

/// All distances, [n x n] floats on ctx.device, diagonal 0: for small n. x dense.
SCW_API Matrix<float> pairwise_distances(const Context& ctx, const AnyMatrixView& x, Metric metric = Metric::euclidean,
                                         double p = 2.0);

}  // namespace scw::pp
