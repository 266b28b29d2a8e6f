// Order of the columns for the tensor-core search: cells of pivots, inside a cell by distance to its pivot.
#include <cub/device/device_radix_sort.cuh>

#include "core/cuda/cuda_check.cuh"
#include "pp/knn/cuda_mma.cuh"
#include "pp/knn/cuda_tiles.hpp"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarpRows = 32;
constexpr int kDistanceBits = 20;
constexpr std::int64_t kRowsPerCell = 1024;
constexpr std::int64_t kLeastCells = 8;
constexpr std::int64_t kFewRows = 2048;  // below: no cells
constexpr int kMeanMembers = 256;

/// The first pivots: rows at equal steps.
__global__ void __launch_bounds__(kThreads)
    seed_kernel(const __half* z, std::int64_t n, int depth, int cells, __half* pivots) {
  const std::int64_t q = blockIdx.x;
  const std::int64_t i = q * n / cells + (n / cells) / 2;
  for (int k = static_cast<int>(threadIdx.x); k < depth; k += kThreads)
    pivots[q * depth + k] = z[(i < n ? i : n - 1) * depth + k];
}

/// Pivots: means of a sample of the members of the last assignment.
__global__ void __launch_bounds__(kThreads)
    mean_kernel(const __half* z, int depth, const std::int32_t* members, const std::int32_t* start, __half* pivots) {
  const std::int64_t q = blockIdx.x;
  const std::int32_t begin = start[q], count = start[q + 1] - start[q];
  if (count == 0) return;  // keeps its pivot
  const std::int32_t step = (count + kMeanMembers - 1) / kMeanMembers;
  for (int k = static_cast<int>(threadIdx.x); k < depth; k += kThreads) {
    float sum = 0;
    int used = 0;
    for (std::int32_t m = 0; m < count; m += step, ++used)
      sum += __half2float(z[std::int64_t{members[begin + m]} * depth + k]);
    pivots[q * depth + k] = __float2half_rn(sum / static_cast<float>(used));
  }
}

/// Bounds of the pivots, which are points of their own: nothing is lost by rounding them. One block per tile.
__global__ void __launch_bounds__(kTileColumns)
    pivot_bounds_kernel(const __half* pivots, int depth, int cells, double gamma, float* offset, TileBound* tiles) {
  __shared__ float largest[kTileColumns];
  const int t = static_cast<int>(threadIdx.x), q = static_cast<int>(blockIdx.x) * kTileColumns + t;
  double square = 0;
  if (q < cells)
    for (int k = 0; k < depth; ++k) {
      const double v = static_cast<double>(__half2float(pivots[std::int64_t{q} * depth + k]));
      square += v * v;
    }
  offset[q] = q < cells ? -__double2float_rn(0.5 * square) : kPadOffset;
  largest[t] = __double2float_ru(gamma * square);
  __syncthreads();
  if (t == 0) {
    float most = 0;
    for (const float v : largest) most = fmaxf(most, v);
    tiles[blockIdx.x] = {0.0f, most, 0.0f, 0};
  }
}

/// Nearest pivot of every row: key = cell, then the leading bits of the distance. One warp for 32 rows. KS: depth / 16,
/// or 0 for any.
template <int KS>
__global__ void __launch_bounds__(kThreads)
    assign_kernel(const __half* z, const PointBound* bound, std::int64_t n, int depth, const __half* pivots,
                  const float* offset, int cells, std::uint32_t* keys, std::int32_t* ids, int* sizes) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32 * kWarpRows;
  if (row >= n) return;  // z has rows up to a multiple of kBlockAlign
  unsigned a[KS > 0 ? KS : 1][2][4];
  if constexpr (KS > 0)
    for (int s = 0; s < KS; ++s)
      for (int m = 0; m < 2; ++m) load_rows(a[s][m], z, row + 16 * m, depth, 16 * s, lane);
  float best[4] = {-3e38f, -3e38f, -3e38f, -3e38f};
  int cell[4] = {0, 0, 0, 0};
  const int steps = KS > 0 ? KS : depth / 16;
  for (int q = 0; q < cells; q += 8) {
    const int column = q + 2 * (lane % 4);
    const float c0 = offset[column], c1 = offset[column + 1];  // padded to tiles
    float d[2][4] = {{c0, c1, c0, c1}, {c0, c1, c0, c1}};
    const __half* const b = pivots + std::int64_t{q + lane / 4} * depth + 2 * (lane % 4);
#pragma unroll
    for (int s = 0; s < steps; ++s) {
      const unsigned b0 = *reinterpret_cast<const unsigned*>(b + 16 * s);
      const unsigned b1 = *reinterpret_cast<const unsigned*>(b + 16 * s + 8);
      for (int m = 0; m < 2; ++m) {
        if constexpr (KS == 0) load_rows(a[0][m], z, row + 16 * m, depth, 16 * s, lane);
        multiply_add(d[m], a[KS > 0 ? s : 0][m], b0, b1);
      }
    }
    for (int m = 0; m < 2; ++m)
      for (int e = 0; e < 4; ++e) {
        const int r = 2 * m + e / 2;
        if (d[m][e] > best[r]) {
          best[r] = d[m][e];
          cell[r] = column + (e & 1);
        }
      }
  }
  for (int r = 0; r < 4; ++r) {
    for (int offset_lanes = 1; offset_lanes < 4; offset_lanes *= 2) {
      const float other = __shfl_xor_sync(kAllLanes, best[r], offset_lanes);
      const int other_cell = __shfl_xor_sync(kAllLanes, cell[r], offset_lanes);
      if (other > best[r] || (other == best[r] && other_cell < cell[r])) {
        best[r] = other;
        cell[r] = other_cell;
      }
    }
    const std::int64_t i = row + 8 * r + lane / 4;
    if (lane % 4 != 0 || i >= n) continue;
    const float half = fmaxf(bound[i].size - best[r], 0.0f);
    keys[i] = (static_cast<std::uint32_t>(cell[r]) << kDistanceBits) | (__float_as_uint(half) >> (31 - kDistanceBits));
    ids[i] = static_cast<std::int32_t>(i);
    atomicAdd(sizes + cell[r], 1);
  }
}

/// start: first member of each cell; first_tile: the same in tiles, every cell in tiles of its own. One block.
__global__ void __launch_bounds__(kMostCells)
    starts_kernel(const int* sizes, int cells, std::int32_t* start, std::int32_t* first_tile, std::int32_t* n_tiles) {
  __shared__ std::int32_t members[kMostCells], tiles[kMostCells];
  const int t = static_cast<int>(threadIdx.x);
  const int size = t < cells ? sizes[t] : 0;
  members[t] = size;
  tiles[t] = (size + kTileColumns - 1) / kTileColumns;
  for (int offset = 1; offset < kMostCells; offset *= 2) {
    __syncthreads();
    const std::int32_t m = t >= offset ? members[t - offset] : 0, k = t >= offset ? tiles[t - offset] : 0;
    __syncthreads();
    members[t] += m;
    tiles[t] += k;
  }
  if (t < cells) {
    start[t + 1] = members[t];
    first_tile[t + 1] = tiles[t];
  }
  if (t == 0) start[0] = first_tile[0] = 0;
  if (t == cells - 1) *n_tiles = tiles[t];
}

__global__ void __launch_bounds__(kThreads)
    place_kernel(const std::uint32_t* keys, const std::int32_t* ids, std::int64_t n, const std::int32_t* start,
                 const std::int32_t* first_tile, std::int32_t* order) {
  for (std::int64_t m = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; m < n;
       m += std::int64_t{gridDim.x} * kThreads) {
    const std::uint32_t cell = keys[m] >> kDistanceBits;
    order[std::int64_t{first_tile[cell]} * kTileColumns + m - start[cell]] = ids[m];
  }
}

/// Without cells: rows as they are.
__global__ void __launch_bounds__(kThreads)
    identity_kernel(std::int64_t n, std::int64_t positions, std::int32_t* order, std::int32_t* n_tiles) {
  for (std::int64_t m = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; m < positions;
       m += std::int64_t{gridDim.x} * kThreads)
    order[m] = m < n ? static_cast<std::int32_t>(m) : -1;
  if (blockIdx.x == 0 && threadIdx.x == 0) *n_tiles = static_cast<std::int32_t>((n + kTileColumns - 1) / kTileColumns);
}

/// To the next number with two bits after the leading one.
__device__ inline float rounded_up(float v) {
  return v > 0 ? __uint_as_float((__float_as_uint(v) + 0x001FFFFFu) & 0xFFE00000u) : v;
}

struct BoundArgs {
  const __half* z;
  const PointBound* bound;
  int depth;
  const std::int32_t* n_tiles;
  int cells;
  const std::int32_t* first_tile;
  const __half* pivots;
  bool similarity;
  TileBound* out;
};

/// One warp per tile.
__global__ void __launch_bounds__(kThreads) tile_bounds_kernel(BoundArgs a) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * kThreads / 32;
  for (std::int64_t tile = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; tile < *a.n_tiles; tile += warps) {
    int low = 0, high = a.cells - 1;  // last cell that begins at or before the tile and is not empty
    while (low < high) {
      const int mid = (low + high + 1) / 2;
      if (a.first_tile[mid] <= tile)
        low = mid;
      else
        high = mid - 1;
    }
    TileBound out{0.0f, 0.0f, 0.0f, a.cells > 0 ? low : 0};
    for (int c = 0; c < kTileColumns; ++c) {
      const std::int64_t p = tile * kTileColumns + c;
      const PointBound b = a.bound[p];
      if (b.residual < 0) continue;
      float reach = b.norm;
      if (!a.similarity && a.cells > 0) {
        float square = 0;
        for (int k = lane; k < a.depth; k += 32) {
          const float v = __half2float(a.z[p * a.depth + k]) - __half2float(a.pivots[std::int64_t{low} * a.depth + k]);
          square = __fmaf_rn(v, v, square);
        }
        for (int offset = 16; offset > 0; offset /= 2) square += __shfl_xor_sync(kAllLanes, square, offset);
        reach = rough_root(square) * (1.0f + 1e-5f + 1e-7f * static_cast<float>(a.depth / 32));
      }
      out.residual = fmaxf(out.residual, b.residual);
      out.error = fmaxf(out.error, 2.0f * b.error);
      out.reach = fmaxf(out.reach, reach);
    }
    // Few different bounds: thresholds are made anew only where the bound is another.
    out.residual = rounded_up(out.residual);
    out.error = rounded_up(out.error);
    if (lane == 0) a.out[tile] = out;
  }
}

template <class T>
Array<T> scratch(const Context& ctx, std::int64_t n) {
  return Array<T>(ctx.workspace, n, "neighbour cells", ctx.stream);
}

void assign(const Context& ctx, const PointArrays& rows, std::int64_t n, const PointArrays& pivots, int cells,
            std::uint32_t* keys, std::int32_t* ids, int* sizes) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  SCW_CUDA(cudaMemsetAsync(sizes, 0, static_cast<std::size_t>(cells) * sizeof(int), stream));
  const unsigned grid = scw::cuda::grid_for(n, kThreads, std::int64_t{1} << 30);
  const auto run = [&](auto kernel) {
    kernel<<<grid, kThreads, 0, stream>>>(rows.z.data(), rows.bound.data(), n, rows.depth, pivots.z.data(),
                                          pivots.offset.data(), cells, keys, ids, sizes);
  };
  switch (rows.depth) {
    case 32:
      run(&assign_kernel<2>);
      break;
    case 64:
      run(&assign_kernel<4>);
      break;
    default:
      run(&assign_kernel<0>);
  }
  SCW_CUDA_LAUNCHED("knn assign");
}

}  // namespace

Cells order_rows(const Context& ctx, const PointArrays& rows, std::int64_t n, bool similarity) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const auto padded = [](std::int64_t v, std::int64_t to) { return (v + to - 1) / to * to; };
  Cells out;
  out.n_tiles = scratch<std::int32_t>(ctx, 1);
  if (similarity || n < kFewRows) {
    out.n_positions = padded(n, kBlockAlign);
    out.order = scratch<std::int32_t>(ctx, out.n_positions);
    identity_kernel<<<scw::cuda::grid_for(out.n_positions, kThreads, 4096), kThreads, 0, stream>>>(
        n, out.n_positions, out.order.data(), out.n_tiles.data());
    SCW_CUDA_LAUNCHED("knn identity");
    return out;
  }
  const int cells = static_cast<int>(std::clamp<std::int64_t>(n / kRowsPerCell, kLeastCells, kMostCells));
  const int depth = rows.depth;
  out.n_cells = cells;
  out.n_positions = padded(n + std::int64_t{cells} * (kTileColumns - 1), kBlockAlign);
  out.order = scratch<std::int32_t>(ctx, out.n_positions);
  out.first_tile = scratch<std::int32_t>(ctx, cells + 1);
  const std::int64_t pivot_rows = padded(cells, kTileColumns);
  out.pivots.n = pivot_rows;
  out.pivots.depth = depth;
  out.pivots.z = scratch<__half>(ctx, checked_mul(pivot_rows, depth));
  out.pivots.offset = scratch<float>(ctx, pivot_rows);
  out.pivot_tiles = scratch<TileBound>(ctx, pivot_rows / kTileColumns);
  SCW_CUDA(
      cudaMemsetAsync(out.pivots.z.data(), 0, static_cast<std::size_t>(pivot_rows * depth) * sizeof(__half), stream));
  SCW_CUDA(cudaMemsetAsync(out.order.data(), 0xFF, static_cast<std::size_t>(out.n_positions) * sizeof(std::int32_t),
                           stream));

  auto keys = scratch<std::uint32_t>(ctx, n), sorted_keys = scratch<std::uint32_t>(ctx, n);
  auto ids = scratch<std::int32_t>(ctx, n), sorted_ids = scratch<std::int32_t>(ctx, n);
  auto sizes = scratch<int>(ctx, cells);
  auto start = scratch<std::int32_t>(ctx, cells + 1);
  std::size_t bytes = 0;
  constexpr int kKeyBits = kDistanceBits + 10;
  SCW_CUDA(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys.data(), sorted_keys.data(), ids.data(),
                                           sorted_ids.data(), n, 0, kKeyBits, stream));
  auto space = scratch<std::uint8_t>(ctx, static_cast<std::int64_t>(bytes));

  const double gamma = (1.25 * depth + 32) * 0x1.0p-23 * 1.01;
  seed_kernel<<<static_cast<unsigned>(cells), kThreads, 0, stream>>>(rows.z.data(), n, depth, cells,
                                                                     out.pivots.z.data());
  SCW_CUDA_LAUNCHED("knn seed");
  for (int round = 0; round < 2; ++round) {
    if (round > 0) {
      mean_kernel<<<static_cast<unsigned>(cells), kThreads, 0, stream>>>(rows.z.data(), depth, sorted_ids.data(),
                                                                         start.data(), out.pivots.z.data());
      SCW_CUDA_LAUNCHED("knn mean");
    }
    pivot_bounds_kernel<<<static_cast<unsigned>(pivot_rows / kTileColumns), kTileColumns, 0, stream>>>(
        out.pivots.z.data(), depth, cells, gamma, out.pivots.offset.data(), out.pivot_tiles.data());
    SCW_CUDA_LAUNCHED("knn pivot bounds");
    assign(ctx, rows, n, out.pivots, cells, keys.data(), ids.data(), sizes.data());
    SCW_CUDA(cub::DeviceRadixSort::SortPairs(space.data(), bytes, keys.data(), sorted_keys.data(), ids.data(),
                                             sorted_ids.data(), n, 0, kKeyBits, stream));
    starts_kernel<<<1, kMostCells, 0, stream>>>(sizes.data(), cells, start.data(), out.first_tile.data(),
                                                out.n_tiles.data());
    SCW_CUDA_LAUNCHED("knn starts");
  }
  place_kernel<<<scw::cuda::grid_for(n, kThreads, 1 << 16), kThreads, 0, stream>>>(
      sorted_keys.data(), sorted_ids.data(), n, start.data(), out.first_tile.data(), out.order.data());
  SCW_CUDA_LAUNCHED("knn place");
  return out;
}

Array<TileBound> bound_tiles(const Context& ctx, const PointArrays& columns, const Cells& cells, bool similarity) {
  auto out = scratch<TileBound>(ctx, cells.n_positions / kTileColumns);
  const BoundArgs args{columns.z.data(),      columns.bound.data(), columns.depth,
                       cells.n_tiles.data(),  cells.n_cells,        cells.first_tile.data(),
                       cells.pivots.z.data(), similarity,           out.data()};
  tile_bounds_kernel<<<scw::cuda::grid_for(out.size(), kThreads / 32, 1 << 16), kThreads, 0,
                       scw::cuda::stream_of(ctx)>>>(args);
  SCW_CUDA_LAUNCHED("knn tile bounds");
  return out;
}

}  // namespace scw::pp::cuda
