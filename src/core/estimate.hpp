// What the estimates of the operations share.
#pragma once

#include <algorithm>

#include "core/block_stream.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/estimate.hpp"

namespace scw::estimate {

inline constexpr std::int64_t kSharedBytes = 232448;   // of a block on Hopper and Blackwell
inline constexpr std::int64_t kMultiprocessors = 132;  // of an H200: only in small terms

inline bool on_cuda(const Shape& s) { return s.device == DeviceType::cuda; }
inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t threads(const Shape& s) { return std::max(1, s.n_threads); }
inline std::int64_t dense_bytes(const Shape& s) { return checked_mul(checked_mul(s.n_rows, s.n_cols), s.value_bytes); }

/// A block of the rows of a matrix in a file.
inline Shape block_of(const Shape& s) {
  Shape b = s;
  b.in_file = false;
  const std::int64_t all = s.sparse ? s.nnz * (s.value_bytes + 4) + 8 * s.n_rows : dense_bytes(s);
  const std::int64_t target = s.block_bytes > 0 ? s.block_bytes : detail::kBlockBytes;
  if (all <= target) return b;
  const double part = static_cast<double>(target) / static_cast<double>(all);
  b.n_rows = std::max<std::int64_t>(1, static_cast<std::int64_t>(part * static_cast<double>(s.n_rows)));
  b.nnz = ceil_div(s.nnz, s.n_rows) * b.n_rows;
  return b;
}
inline bool streams(const Shape& s) { return s.in_file && !on_cuda(s); }
/// What a block's values and column indices take.
inline std::int64_t block_bytes(const Shape& s) {
  const Shape b = block_of(s);
  return b.sparse ? b.nnz * (b.value_bytes + 4) : dense_bytes(b);
}
/// An operation that holds `more` beside the blocks of a file, and the blocks.
inline Need from_file(const Shape& s, Need n, std::int64_t more = 0) {
  if (streams(s)) n.peak += block_bytes(s) + more;
  return n;
}
/// Blocks of a matrix on the host that take turns on the device (core/block_stream.hpp).
struct Rooms {
  Shape block;             ///< what a kernel sees at once: all of a resident matrix
  std::int64_t bytes = 0;  ///< of the two blocks
};
inline bool streams_to_device(const Shape& s) { return s.in_file && on_cuda(s); }
/// An eighth of what a limit leaves beside `held` bytes.
inline std::int64_t device_block_bytes(const Shape& s, std::int64_t held) {
  if (s.block_bytes > 0) return s.block_bytes;
  if (s.limit_bytes == 0) return detail::kBlockBytes;
  return std::clamp((s.limit_bytes - held) / 8, detail::kMinBlockBytes, detail::kBlockBytes);
}
/// Rows of the largest block where `target` bytes are given.
inline std::int64_t largest_block_rows(const Shape& s, std::int64_t target) {
  const std::int64_t per_row =
      s.sparse ? ceil_div(s.nnz * (s.value_bytes + 4), s.n_rows) + 8 : s.n_cols * s.value_bytes;
  const std::int64_t rows = std::clamp<std::int64_t>(target / std::max<std::int64_t>(1, per_row), 1, s.n_rows);
  if (rows <= detail::kAlignedRows || rows == s.n_rows) return rows;
  const std::int64_t step = rows / detail::kAlignedRows * detail::kAlignedRows;
  return std::max(step, s.n_rows - ceil_div(s.n_rows - rows, step) * step);  // the last block is not rounded
}
/// Beside `held` bytes; values: without the column indices. held may be a little above what is held in truth, and the
/// blocks then larger, by whole tiles: the larger of two cases is taken.
inline Rooms rooms(const Shape& s, std::int64_t held, RowParts parts = RowParts::all) {
  Rooms r{s, 0};
  r.block.in_file = false;
  if (!streams_to_device(s) || s.n_rows == 0) return r;
  const std::int64_t rows = std::max(largest_block_rows(s, device_block_bytes(s, held)),
                                     largest_block_rows(s, device_block_bytes(s, held - held / 64)));
  r.block.n_rows = rows;
  r.block.nnz = s.sparse ? ceil_div(s.nnz, s.n_rows) * rows : rows * s.n_cols;
  if (rows == s.n_rows) r.block.nnz = s.nnz;
  const std::int64_t room = s.sparse ? 8 * (rows + 1) + r.block.nnz * (s.value_bytes + (parts == RowParts::all ? 4 : 0))
                                     : rows * s.n_cols * s.value_bytes;
  r.bytes = (rows < s.n_rows ? 2 : 1) * room;
  return r;
}
/// The rows of a dense result that are on the device at once (prim/dense_by_blocks.hpp): all of a resident matrix.
inline std::int64_t dense_result_bytes(const Shape& s, std::int64_t held) {
  if (!streams_to_device(s)) return dense_bytes(s);
  const std::int64_t row = std::max<std::int64_t>(1, s.n_cols * s.value_bytes);
  return std::clamp<std::int64_t>(device_block_bytes(s, held) / row, 1, std::max<std::int64_t>(1, s.n_rows)) * row;
}

/// Columns of all rows that are put together from a file for work on genes (prim/column_tiles.hpp): as a matrix.
inline Shape column_tile(const Shape& s) {
  Shape t = s;
  t.in_file = false;
  const std::int64_t most = s.block_bytes > 0 ? s.block_bytes : std::int64_t{2} << 30;
  if (s.sparse) {
    t.nnz = std::min(s.nnz, std::max(most / (s.value_bytes + 4), ceil_div(s.nnz, std::max<std::int64_t>(1, s.n_cols))));
  } else {
    t.n_cols =
        std::min(s.n_cols, std::max<std::int64_t>(1, most / std::max<std::int64_t>(1, s.n_rows * s.value_bytes)));
  }
  return t;
}
inline std::int64_t column_tile_bytes(const Shape& s) {
  const Shape t = column_tile(s);
  return t.sparse ? t.nnz * (t.value_bytes + 4) + 16 * t.n_rows + 8 : dense_bytes(t);
}
/// Peak of work on one gene after the other that takes `work` for a tile and holds `kept` all the time.
inline std::int64_t genes_from_file(const Shape& s, std::int64_t kept, std::int64_t work) {
  return kept + column_tile_bytes(s) + std::max(block_bytes(s), work);
}

/// The entries of genes put in order on the CPU (prim/gene_entries.hpp): blocks of genes, whose last gene may be as
/// long as there are cells; of dense rows strips of 16 genes.
inline std::int64_t sorted_genes(const Shape& s) {
  const std::int64_t entry = s.value_bytes == 4 ? 8 : 16;
  if (!s.sparse) return std::min(threads(s), ceil_div(s.n_cols, 16)) * entry * 17 * s.n_rows;
  const std::int64_t block = std::max<std::int64_t>(1 << 16, ceil_div(s.nnz, 128));
  const std::int64_t longest = std::min(s.n_rows, s.nnz);
  const std::int64_t n_blocks = std::max<std::int64_t>(1, std::min(s.n_cols, ceil_div(s.nnz, block)));
  return 8 * (s.n_cols + 1) + 4 * n_blocks * s.n_rows +
         std::min(threads(s), n_blocks) * entry * (std::min(block + longest, s.nnz) + longest);
}

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
