// CSR rows as dense tiles in shared memory: what makes a sparse matrix dense, or needs its zeros as well, reads the
// entries once and writes whole lines. A block takes a tile of columns and a slab of rows, a few rows at a time: the
// tile is filled, the entries of the rows are put in their places (one warp a row), and every thread then has the same
// few columns of every row, in row order, so that sums over rows have a fixed order.
//
// A Body is copied by every thread and has
//   begin(slab, first)                  before the first row; first: the tile's first column;
//   V fill(row, c)                      what an implicit zero of tile_column(first, c) becomes;
//   V entry(value, row, column)         what a stored entry becomes;
//   element(value, row, c)              for each of the thread's columns c, rows in order;
//   end(slab)                           after the last row.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cuda/cuda_check.cuh"
#include "scwarp/core/views.hpp"

namespace scw::prim::cuda {

inline constexpr int kTileBlock = 256;
inline constexpr int kTileRows = kTileBlock / 32;
/// Columns of a tile that a thread has: kTileColumns<V> of them, kTileBlock apart.
template <class V>
inline constexpr int kTileColumns = sizeof(V) == 4 ? 4 : 2;

/// Where thread-owned column c of a block lies in the matrix.
template <class V>
__device__ inline std::int64_t tile_column(std::int64_t first, int c) {
  return first + c * kTileBlock + static_cast<int>(threadIdx.x);
}

/// First of the sorted columns[begin, end) that is >= bound, found by a warp together.
__device__ inline std::int64_t warp_lower_bound(const std::int32_t* columns, std::int64_t begin, std::int64_t end,
                                                std::int64_t bound) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  while (end - begin > 32) {
    const std::int64_t at = begin + (end - begin) * (lane + 1) / 33;
    const int left = __popc(__ballot_sync(0xFFFFFFFFu, columns[at] < bound));
    const std::int64_t low = __shfl_sync(0xFFFFFFFFu, at, std::max(left - 1, 0));
    const std::int64_t high = __shfl_sync(0xFFFFFFFFu, at, std::min(left, 31));
    if (left > 0) begin = low + 1;
    if (left < 32) end = high;
  }
  const bool less = begin + lane < end && columns[begin + lane] < bound;
  return begin + __popc(__ballot_sync(0xFFFFFFFFu, less));
}

template <class V, class Body>
__global__ void __launch_bounds__(kTileBlock, 3)
    dense_tiles_kernel(CsrView<const V> x, std::int64_t tiles, std::int64_t slab_rows, Body body) {
  constexpr int kColumns = kTileColumns<V>;
  constexpr int kWidth = kColumns * kTileBlock;
  constexpr int kUnroll = 4;
  __shared__ V tile[kTileRows][kWidth];
  const std::int64_t first = std::int64_t{blockIdx.x} % tiles * kWidth;
  const std::int64_t slab = std::int64_t{blockIdx.x} / tiles;
  const std::int64_t last_row = min((slab + 1) * slab_rows, x.n_rows);
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;

  // Entries of the warp's next row, under way while the rows before it are worked on.
  std::int64_t k = 0, end = 0;
  std::int32_t j[kUnroll];
  V v[kUnroll];
  const auto load = [&] {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t e = k + u * 32 + lane;
      j[u] = e < end ? __ldcs(x.indices.data + e) : -1;
      v[u] = e < end ? __ldcs(x.values.data + e) : V{0};
    }
  };
  const auto fetch = [&](std::int64_t row) {
    k = end = 0;
    if (row < last_row) {
      end = x.indptr.data[row + 1];
      k = x.indptr.data[row];
      if (first > 0) k = warp_lower_bound(x.indices.data, k, end, first);
    }
    load();
  };

  body.begin(slab, first);
  fetch(slab * slab_rows + warp);
  for (std::int64_t base = slab * slab_rows; base < last_row; base += kTileRows) {
    const int rows = static_cast<int>(min(std::int64_t{kTileRows}, last_row - base));
#pragma unroll
    for (int r = 0; r < kTileRows; ++r)
      if (r < rows)
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          tile[r][c * kTileBlock + static_cast<int>(threadIdx.x)] = body.fill(base + r, c);
    __syncthreads();
    for (;;) {
      bool inside = false;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        inside = j[u] >= 0 && j[u] < first + kWidth;
        if (inside) tile[warp][j[u] - first] = body.entry(v[u], base + warp, j[u]);
      }
      if (__ballot_sync(0xFFFFFFFFu, inside) != 0xFFFFFFFFu) break;  // the last ones are beyond the tile or the row
      k += kUnroll * 32;
      load();
    }
    __syncthreads();
    fetch(base + kTileRows + warp);
#pragma unroll 2  // what a body reads for a row would take too many registers for all of them
    for (int r = 0; r < kTileRows; ++r)
      if (r < rows)
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          body.element(tile[r][c * kTileBlock + static_cast<int>(threadIdx.x)], base + r, c);
    __syncthreads();
  }
  body.end(slab);
}

/// Slabs of slab_rows rows, a multiple of kTileRows except for the last.
template <class V, class Body>
void run_dense_tiles(const Context& ctx, const CsrView<const V>& x, std::int64_t slab_rows, const Body& body,
                     const char* name) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  constexpr std::int64_t kWidth = kTileColumns<V> * kTileBlock;
  const std::int64_t tiles = (x.n_cols + kWidth - 1) / kWidth;
  const std::int64_t blocks = tiles * ((x.n_rows + slab_rows - 1) / slab_rows);
  dense_tiles_kernel<V, Body>
      <<<static_cast<unsigned>(blocks), kTileBlock, 0, scw::cuda::stream_of(ctx)>>>(x, tiles, slab_rows, body);
  SCW_CUDA_LAUNCHED(name);
}

/// update(value, row, c) for every element of dense rows, in place, by threads that own one column each:
/// begin(column) first. Rows go by in blocks of kColumnRows, several loads in flight.
inline constexpr int kColumnRows = 64;

template <class V, class Update>
__global__ void __launch_bounds__(kTileBlock)
    update_columns_kernel(MatrixView<V> x, std::int64_t tiles, Update update) {
  const std::int64_t j = std::int64_t{blockIdx.x} % tiles * kTileBlock + threadIdx.x;
  const std::int64_t begin = std::int64_t{blockIdx.x} / tiles * kColumnRows;
  const std::int64_t end = min(begin + kColumnRows, x.n_rows);
  if (j >= x.n_cols) return;
  update.begin(j);
  constexpr int kUnroll = 8;
  std::int64_t i = begin;
  for (; i + kUnroll <= end; i += kUnroll) {
    V v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = __ldcs(x.data + (i + u) * x.ld + j);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (update.takes(i + u)) __stcs(x.data + (i + u) * x.ld + j, update(v[u], i + u));
  }
  for (; i < end; ++i)
    if (update.takes(i)) x.data[i * x.ld + j] = update(x.data[i * x.ld + j], i);
}

template <class V, class Update>
void update_columns(const Context& ctx, const MatrixView<V>& x, const Update& update, const char* name) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  const std::int64_t tiles = (x.n_cols + kTileBlock - 1) / kTileBlock;
  const std::int64_t blocks = tiles * ((x.n_rows + kColumnRows - 1) / kColumnRows);
  update_columns_kernel<V, Update>
      <<<static_cast<unsigned>(blocks), kTileBlock, 0, scw::cuda::stream_of(ctx)>>>(x, tiles, update);
  SCW_CUDA_LAUNCHED(name);
}

}  // namespace scw::prim::cuda
