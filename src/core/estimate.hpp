// What the estimates of the operations share.
#pragma once

#include <algorithm>

#include "scwarp/core/array.hpp"
#include "scwarp/estimate.hpp"

namespace scw::estimate {

inline constexpr std::int64_t kSharedBytes = 232448;   // of a block on Hopper and Blackwell
inline constexpr std::int64_t kMultiprocessors = 132;  // of an H200: only in small terms

inline bool on_cuda(const Shape& s) { return s.device == DeviceType::cuda; }
inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t threads(const Shape& s) { return std::max(1, s.n_threads); }
inline std::int64_t dense_bytes(const Shape& s) { return checked_mul(checked_mul(s.n_rows, s.n_cols), s.value_bytes); }

/// Where the tiles of genes start in sparse rows (prim/gene_tiles.cuh), for sums of this many bytes a gene.
inline std::int64_t gene_splits(const Shape& s, std::int64_t bytes_per_gene) {
  if (!s.sparse) return 0;
  const std::int64_t room = (kSharedBytes - 64) / bytes_per_gene / 32 * 32;
  return (std::max<std::int64_t>(1, ceil_div(s.n_cols, room)) - 1) * 4 * s.n_rows;
}
/// Rows in the order of their groups: starts, rows, and the cursors while they are placed.
inline std::int64_t grouped_rows(std::int64_t rows, std::int64_t groups) { return 4 * rows + 8 * (2 * groups + 1); }

/// Scratch of cub::DeviceRadixSort: histograms, look-back of its tiles, and unless the sort may overwrite its input a
/// second buffer.
inline std::int64_t sort_scratch(std::int64_t n, std::int64_t item_bytes, bool overwrites) {
  return (overwrites ? 0 : n * item_bytes) +
         std::min<std::int64_t>(n, std::int64_t{1} << 28) * std::max<std::int64_t>(8, item_bytes) / 40 + (1 << 16);
}

}  // namespace scw::estimate
