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
// A Body that makes a dense matrix has, in place of element, that matrix (made) and
//   V result(value, row, c)             what goes there; not called beyond its last column.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/cuda/cuda_check.cuh"
#include "prim/packs.cuh"
#include "scwarp/core/views.hpp"

namespace scw::prim::cuda {

inline constexpr int kTileBlock = 256;
inline constexpr int kTileRows = kTileBlock / 32;
/// Columns of a tile that a thread has, side by side.
template <class V>
inline constexpr int kTileColumns = kPackWidth<V>;
/// Rows whose entries in the tile are found together.
inline constexpr int kTileBatch = kTileBlock / 2;

/// Where thread-owned column c of a block lies in the matrix.
template <class V>
__device__ inline std::int64_t tile_column(std::int64_t first, int c) {
  return first + static_cast<int>(threadIdx.x) * kTileColumns<V> + c;
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

/// First of the sorted columns[begin, end) that is >= bound.
__device__ inline std::int64_t lower_bound(const std::int32_t* columns, std::int64_t begin, std::int64_t end,
                                           std::int64_t bound) {
  while (begin < end) {
    const std::int64_t middle = begin + (end - begin) / 2;
    if (columns[middle] < bound)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

template <class V, class Body>
__global__ void __launch_bounds__(kTileBlock, 3)
    dense_tiles_kernel(CsrView<const V> x, std::int64_t tiles, std::int64_t slab_rows, bool packed, Body body) {
  constexpr int kColumns = kTileColumns<V>;
  constexpr int kWidth = kColumns * kTileBlock;
  constexpr int kUnroll = 5;
  using OwnColumns = Pack<V, kColumns>;
  __shared__ OwnColumns tile[kTileRows][kTileBlock];
  __shared__ std::int64_t bounds[2][kTileBatch];  // where the entries of a row in the tile begin and end
  const std::int64_t first = std::int64_t{blockIdx.x} % tiles * kWidth;
  const std::int64_t slab = std::int64_t{blockIdx.x} / tiles;
  const std::int64_t last_row = min((slab + 1) * slab_rows, x.n_rows);
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  const auto own = static_cast<int>(threadIdx.x);

  // Entries of the warp's next row, under way while the rows before it are worked on.
  std::int64_t k = 0, end = 0;
  std::int32_t j[kUnroll];
  V v[kUnroll];
  const auto load = [&] {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t e = k + u * 32 + lane;
      j[u] = e < end ? __ldcs(x.indices.data + e) : 0;
      v[u] = e < end ? __ldcs(x.values.data + e) : V{0};
    }
  };
  const auto fetch = [&](int in_batch) {
    k = end = 0;
    if (in_batch < kTileBatch) {
      k = bounds[0][in_batch];
      end = bounds[1][in_batch];
    }
    load();
  };

  body.begin(slab, first);
  for (std::int64_t batch = slab * slab_rows; batch < last_row; batch += kTileBatch) {
    {
      const int side = own / kTileBatch, in_batch = own % kTileBatch;
      const std::int64_t row = batch + in_batch, bound = first + side * kWidth;
      std::int64_t at = 0;
      if (row < last_row) {
        at = x.indptr.data[row + (bound >= x.n_cols ? 1 : 0)];
        if (bound > 0 && bound < x.n_cols) at = lower_bound(x.indices.data, at, x.indptr.data[row + 1], bound);
      }
      bounds[side][in_batch] = at;
    }
    __syncthreads();
    fetch(warp);
    for (std::int64_t base = batch; base < min(batch + kTileBatch, last_row); base += kTileRows) {
      const int rows = static_cast<int>(min(std::int64_t{kTileRows}, last_row - base));
#pragma unroll
      for (int r = 0; r < kTileRows; ++r) {
        if (r >= rows) break;
        OwnColumns zeros;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) zeros.v[c] = body.fill(base + r, c);
        tile[r][own] = zeros;
      }
      __syncthreads();
      for (;;) {
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          const auto place = static_cast<unsigned>(j[u] - static_cast<std::int32_t>(first));
          if (k + u * 32 + lane < end && place < kWidth)
            tile[warp][place / kColumns].v[place % kColumns] = body.entry(v[u], base + warp, j[u]);
        }
        if (k + kUnroll * 32 >= end) break;
        k += kUnroll * 32;
        load();
      }
      __syncthreads();
      fetch(static_cast<int>(base - batch) + kTileRows + warp);
#pragma unroll 2  // what a body reads for a row would take too many registers for all of them
      for (int r = 0; r < kTileRows; ++r) {
        if (r >= rows) continue;
        OwnColumns values = tile[r][own];
        if constexpr (requires { body.made; }) {
          const std::int64_t column = tile_column<V>(first, 0);
          V* const to = body.made.row(base + r) + column;
#pragma unroll
          for (int c = 0; c < kColumns; ++c)
            if (column + c < x.n_cols) values.v[c] = body.result(values.v[c], base + r, c);
          if (packed) {
            if (column < x.n_cols) store_pack<kColumns>(to, values);
          } else {
#pragma unroll
            for (int c = 0; c < kColumns; ++c)
              if (column + c < x.n_cols) __stcs(to + c, values.v[c]);
          }
        } else {
#pragma unroll
          for (int c = 0; c < kColumns; ++c) body.element(values.v[c], base + r, c);
        }
      }
      __syncthreads();
    }
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
  bool packed = false;
  if constexpr (requires { body.made; }) packed = in_packs(body.made);
  dense_tiles_kernel<V, Body>
      <<<static_cast<unsigned>(blocks), kTileBlock, 0, scw::cuda::stream_of(ctx)>>>(x, tiles, slab_rows, packed, body);
  SCW_CUDA_LAUNCHED(name);
}
/// The same for a Body that makes a matrix and does not see slabs.
template <class V, class Body>
void run_dense_tiles(const Context& ctx, const CsrView<const V>& x, const Body& body, const char* name) {
  run_dense_tiles(ctx, x, kTileBatch, body, name);
}

/// update(value, row) for every element of dense rows, in place, by threads that own kWide neighbouring columns each,
/// with a copy of update for each of them: begin(column) first. Rows go by in blocks of kColumnRows, several loads in
/// flight.
inline constexpr int kColumnRows = 64;

template <int kWide, class V, class Update>
__global__ void __launch_bounds__(kTileBlock)
    update_columns_kernel(MatrixView<V> x, std::int64_t tiles, Update update) {
  const std::int64_t j = (std::int64_t{blockIdx.x} % tiles * kTileBlock + threadIdx.x) * kWide;
  const std::int64_t begin = std::int64_t{blockIdx.x} / tiles * kColumnRows;
  const std::int64_t end = min(begin + kColumnRows, x.n_rows);
  if (j >= x.n_cols) return;
  Update own[kWide];
#pragma unroll
  for (int c = 0; c < kWide; ++c) {
    own[c] = update;
    own[c].begin(j + c);
  }
  constexpr int kUnroll = kWide == 1 ? 8 : 4;
  V* const column = x.data + j;
  for (std::int64_t i = begin; i < end; i += kUnroll) {
    Pack<V, kWide> p[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < end) p[u] = load_pack<kWide>(column + (i + u) * x.ld);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u >= end || !update.takes(i + u)) continue;
#pragma unroll
      for (int c = 0; c < kWide; ++c) p[u].v[c] = own[c](p[u].v[c], i + u);
      store_pack<kWide>(column + (i + u) * x.ld, p[u]);
    }
  }
}

template <class V, class Update>
void update_columns(const Context& ctx, const MatrixView<V>& x, const Update& update, const char* name) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  const auto launch = [&](auto wide) {
    constexpr int kWide = decltype(wide)::value;
    const std::int64_t tiles = (x.n_cols + kTileBlock * kWide - 1) / (kTileBlock * kWide);
    const std::int64_t blocks = tiles * ((x.n_rows + kColumnRows - 1) / kColumnRows);
    update_columns_kernel<kWide, V, Update>
        <<<static_cast<unsigned>(blocks), kTileBlock, 0, scw::cuda::stream_of(ctx)>>>(x, tiles, update);
    SCW_CUDA_LAUNCHED(name);
  };
  if (in_packs(x)) return launch(std::integral_constant<int, kPackWidth<V>>());
  launch(std::integral_constant<int, 1>());
}

}  // namespace scw::prim::cuda
