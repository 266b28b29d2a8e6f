// The exact search on tensor cores: which launches there are, and the bound that makes them a proof.
//
// A row is scaled by a power of two (centred, or divided by its norm, where the metric allows) and rounded to half
// precision: x = y + d, |d| <= residual. The tensor cores find s = y_i . y_j - h_j with products that are exact and
// sums whose error is at most error_i + error_j. For distances, |y_i - y_j|^2 / 2 = h_i - s with h = |y|^2 / 2, and by
// the triangle inequality the distance of the exact rows differs from that of the rounded ones by at most residual_i +
// residual_j: a pair has an interval [low, up] in which its distance lies, of a width that is small against the
// distance itself, since the rounding of half precision only moves points, and by little. With `bar` the k-th smallest
// `up` of a row, a pair with low > bar is farther than k others: dropped, whatever the order of the pairs. What is left
// is scored again in double, by the function that the CPU uses. Dot products: the same with |x_i . x_j - y_i . y_j| <=
// |x_i| residual_j + residual_i |y_j|.
//
// Sum of a product of depth K: each step of 16 adds at most 17 terms, each cut to 2^-23 of the largest or better, hence
// at most 1.125 K 2^-23 (|y_i||y_j| + h_j) <= gamma h_i + 2 gamma h_j; gamma = (1.25 K + 32) 2^-23 also covers the
// rounding of h and of the few operations on a score.
//
// Rows with more candidates than fit (distances that half precision cannot tell apart) are searched again with rows of
// two halves, 22 bits: hi hi' + lo hi' + hi lo' is a product of three times the depth, and the term lo lo' that is left
// out is at most 2^-22 (h_i + h_j). What is left then is scanned in double.
//
// Columns are ordered by the nearest of at most kMostCells pivots (two rounds of k-means from a sample) and by the
// distance to it. A row block takes its own cells first, then cells in the order of their distance, and passes over
// tiles that the triangle inequality puts behind the bar of all its rows. No order changes the result.
#pragma once

#include <cuda_fp16.h>

#include "pp/knn/kernel.hpp"
#include "scwarp/core/array.hpp"

namespace scw::pp::cuda {

inline constexpr int kTileColumns = 64;
inline constexpr int kBlockAlign = 256;  // positions are padded to this
inline constexpr int kMostCells = 1024;
inline constexpr float kPadOffset = -1e38f;
inline constexpr int kMostTileNeighbors = 512;

struct alignas(16) PointBound {
  float size;      ///< h_i, or |x_i| for dot products
  float residual;  ///< negative: padding
  float error;     ///< gamma |y_i|^2 / 2
  float norm;      ///< |y_i|, rounded up
};
struct alignas(16) TileBound {
  float residual;     ///< largest of the tile
  float error;        ///< 2 gamma |y|^2 / 2, largest of the tile
  float reach;        ///< distances: largest distance to the pivot of the cell; dot products: largest norm
  std::int32_t cell;  ///< of all columns of the tile
};

/// Rounded rows, on the device: z [n x depth], offset -h_j, or 0 for dot products, kPadOffset for padding.
struct PointArrays {
  std::int64_t n = 0;
  int depth = 0;
  Array<__half> z;
  Array<float> offset;
  Array<PointBound> bound;
};

enum class Packing : std::uint8_t {
  plain,
  split_query,   ///< hi, lo, hi
  split_column,  ///< hi, hi, lo
};

/// What all packings of one search share.
struct PackPlan {
  Metric metric = Metric::euclidean;
  std::int64_t columns = 0;
  const math::RowTerm* terms = nullptr;
  const double* origin = nullptr;               ///< [columns]
  const unsigned long long* largest = nullptr;  ///< bits of the largest |x - origin|
  bool unit() const { return metric == Metric::cosine || metric == Metric::correlation; }
  bool similarity() const { return metric == Metric::inner_product; }
};

/// Depth of packed rows: what the score kernels take.
int packed_depth(std::int64_t columns, bool split);

/// Means of a sample, and the largest |x - origin|. origin: [columns], largest: [1].
void find_origin(const Context& ctx, const MatrixView<const float>& x, bool centred, Array<double>& origin,
                 Array<unsigned long long>& largest);
void find_origin(const Context& ctx, const MatrixView<const double>& x, bool centred, Array<double>& origin,
                 Array<unsigned long long>& largest);

/// Rows ids[0..n) of x (null: rows 0..), padding where the id is -1 or beyond the rows.
PointArrays pack_rows(const Context& ctx, const MatrixView<const float>& x, const PackPlan& plan,
                      const std::int32_t* ids, std::int64_t n, Packing packing);
PointArrays pack_rows(const Context& ctx, const MatrixView<const double>& x, const PackPlan& plan,
                      const std::int32_t* ids, std::int64_t n, Packing packing);

/// Where the columns are.
struct Cells {
  int n_cells = 0;                 ///< 0: no cells, all tiles in one piece
  std::int64_t n_positions = 0;    ///< multiple of kBlockAlign; the tiles in use are fewer: *n_tiles
  Array<std::int32_t> order;       ///< [n_positions]: row at a position, -1: padding
  Array<std::int32_t> n_tiles;     ///< [1]
  Array<std::int32_t> first_tile;  ///< [n_cells + 1]
  PointArrays pivots;              ///< [cells rounded up to tiles]
  Array<TileBound> pivot_tiles;
};

/// Cells of rows packed in their own order; few cells, or none, for few rows.
Cells order_rows(const Context& ctx, const PointArrays& rows, std::int64_t n, bool similarity);

/// Bounds of the tiles of columns that were packed in the order of the cells.
Array<TileBound> bound_tiles(const Context& ctx, const PointArrays& columns, const Cells& cells, bool similarity);

struct ScoreJob {
  const PointArrays* columns = nullptr;
  const Array<TileBound>* tiles = nullptr;
  const Cells* cells = nullptr;  ///< with_cells false: only n_tiles of it is used
  bool with_cells = true;
  const PointArrays* queries = nullptr;  ///< null: the columns themselves
  const std::int32_t* self = nullptr;    ///< of queries: their position among the columns
  int others = 0;                        ///< neighbours that are wanted
  bool similarity = false;
};

/// Candidates of some queries: positions of columns.
struct Found {
  int capacity = 0;
  Array<std::int32_t> positions;  ///< [queries x capacity]
  Array<std::int32_t> counts;     ///< -1: more than fit
};

/// Whether the tensor cores can be used on the current device.
bool has_tile_products();
/// Candidates a row may be left with.
int found_capacity(int others);
/// Candidates of queries [first, first + n), both multiples of kBlockAlign; out has room for n.
void find_candidates(const Context& ctx, const ScoreJob& job, std::int64_t first, std::int64_t n, Found& out);

}  // namespace scw::pp::cuda
