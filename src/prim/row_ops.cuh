// row_reduce and for_each_value on CUDA: one warp per row, the fixed tree of row_ops.hpp. Bound by memory. Updates in
// place load several values before they store the first: the compiler may not move loads across stores.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/cuda/cuda_check.cuh"
#include "prim/packs.cuh"
#include "scwarp/core/views.hpp"

namespace scw::prim::cuda {

inline constexpr int kRowBlock = 256;

template <class V>
__device__ inline std::int64_t row_begin(const CsrView<V>& x, std::int64_t i) {
  return x.indptr.data[i];
}
template <class V>
__device__ inline std::int64_t row_count(const CsrView<V>& x, std::int64_t i) {
  return x.indptr.data[i + 1] - x.indptr.data[i];
}
template <class V>
__device__ inline std::int32_t column_of(const CsrView<V>& x, std::int64_t, std::int64_t k) {
  return x.indices.data[k];
}
template <class V>
__host__ __device__ inline V& value_at(const CsrView<V>& x, std::int64_t k) {
  return x.values.data[k];
}

template <class V>
__device__ inline std::int64_t row_begin(const MatrixView<V>& x, std::int64_t i) {
  return i * x.ld;
}
template <class V>
__device__ inline std::int64_t row_count(const MatrixView<V>& x, std::int64_t) {
  return x.n_cols;
}
template <class V>
__device__ inline std::int32_t column_of(const MatrixView<V>& x, std::int64_t i, std::int64_t k) {
  return static_cast<std::int32_t>(k - i * x.ld);
}
template <class V>
__host__ __device__ inline V& value_at(const MatrixView<V>& x, std::int64_t k) {
  return x.data[k];
}

inline constexpr int kReduceUnroll = 8;

template <class X, class Map>
__global__ void __launch_bounds__(kRowBlock) row_reduce_kernel(X x, Map map, Span<double> out) {
  using V = std::remove_cvref_t<decltype(value_at(x, 0))>;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kRowBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kRowBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = row_begin(x, i);
    const std::int64_t count = row_count(x, i);
    const std::int64_t end = begin + count;
    double sum = 0;  // a lane's values in order, see row_ops.hpp; kReduceUnroll loads are under way together
    for (std::int64_t k = begin + lane; k < end; k += 32 * kReduceUnroll) {
      V v[kReduceUnroll];
#pragma unroll
      for (int u = 0; u < kReduceUnroll; ++u) v[u] = k + 32 * u < end ? value_at(x, k + 32 * u) : V{0};
#pragma unroll
      for (int u = 0; u < kReduceUnroll; ++u)
        if (k + 32 * u < end) sum += map(v[u], column_of(x, i, k + 32 * u));
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, offset);
    if (lane == 0) out.data[i] = sum;
  }
}

/// What update does with the values of row i. An update with for_row(i) computes once what the row's values share.
template <class Update>
__device__ inline auto of_row(const Update& update, std::int64_t i) {
  if constexpr (requires { update.for_row(i); })
    return update.for_row(i);
  else
    return [&update, i](auto value, std::int32_t column) { return update(value, i, column); };
}

/// The values [begin, end) of row i, by one warp.
template <class X, class Update>
__device__ inline void update_row(const X& x, std::int64_t i, std::int64_t begin, std::int64_t end,
                                  const Update& update) {
  using V = std::remove_cvref_t<decltype(value_at(x, 0))>;
  constexpr int kUnroll = 4;
  const auto own = of_row(update, i);
  for (std::int64_t k = begin + (threadIdx.x & 31); k < end; k += 32 * kUnroll) {
    V v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = k + 32 * u < end ? value_at(x, k + 32 * u) : V{0};
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (k + 32 * u < end) value_at(x, k + 32 * u) = own(v[u], column_of(x, i, k + 32 * u));
  }
}

/// Values that a lane keeps between the two looks at a row, in registers: 3 072 floats or 1 536 doubles of a row. What
/// a longer row has beyond them is read again, from the cache: few rows are under way.
template <class V>
inline constexpr int kHeld = 384 / sizeof(V);
inline constexpr int kHoldGroup = 16;  // loads under way together, and the step in which short rows end early
inline constexpr int kHoldBlock = 64;

template <class X, class Map, class Update>
__global__ void __launch_bounds__(kHoldBlock, 7)
    reduce_then_update_kernel(X x, Map map, Update update, Span<double> out) {
  using V = std::remove_cvref_t<decltype(value_at(x, 0))>;
  constexpr int kCount = kHeld<V>;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kHoldBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kHoldBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = row_begin(x, i) + lane;
    const std::int64_t count = row_count(x, i);
    const int held = static_cast<int>(min(count, std::int64_t{32 * kCount}));
    V v[kCount];
#pragma unroll
    for (int g = 0; g < kCount; g += kHoldGroup) {
      if (32 * g >= held) break;
#pragma unroll
      for (int u = g; u < g + kHoldGroup; ++u)
        v[u] = 32 * u + lane < held ? __ldcs(&value_at(x, begin + 32 * u)) : V{0};
    }
    double sum = 0;  // a lane's values in order, see row_ops.hpp
#pragma unroll
    for (int g = 0; g < kCount; g += kHoldGroup) {
      if (32 * g >= held) break;
#pragma unroll
      for (int u = g; u < g + kHoldGroup; ++u)
        if (32 * u + lane < held) sum += map(v[u], column_of(x, i, begin + 32 * u));
    }
    for (std::int64_t k = 32 * kCount; k + lane < count; k += 32)
      sum += map(value_at(x, begin + k), column_of(x, i, begin + k));
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, offset);
    sum = __shfl_sync(0xFFFFFFFFu, sum, 0);
    if (lane == 0) out.data[i] = sum;
    const auto own = update.given(sum);
#pragma unroll
    for (int g = 0; g < kCount; g += kHoldGroup) {
      if (32 * g >= held) break;
#pragma unroll
      for (int u = g; u < g + kHoldGroup; ++u)
        if (32 * u + lane < held) __stcs(&value_at(x, begin + 32 * u), own(v[u], column_of(x, i, begin + 32 * u)));
    }
    for (std::int64_t k = 32 * kCount; k + lane < count; k += 32)
      value_at(x, begin + k) = own(value_at(x, begin + k), column_of(x, i, begin + k));
  }
}

template <class X, class Update>
__global__ void __launch_bounds__(kRowBlock) for_each_value_kernel(X x, Update update) {
  const std::int64_t warps = std::int64_t{gridDim.x} * (kRowBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kRowBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = row_begin(x, i);
    update_row(x, i, begin, begin + row_count(x, i), update);
  }
}

inline constexpr int kMapUnroll = 4;
inline constexpr std::int64_t kMapBlocks = 132 * 32;  // each starts with a wait for the ends of the rows

/// value = map(value) from data[first] to data[last - 1], in packs where they are aligned. With offsets, first and last
/// are offsets[0] and offsets[n_rows].
template <class V, class Map>
__global__ void __launch_bounds__(kRowBlock)
    map_values_kernel(V* data, std::int64_t first, std::int64_t last, const std::int64_t* offsets, std::int64_t n_rows,
                      Map map) {
  constexpr int kWide = kPackWidth<V>, kUnroll = kMapUnroll;
  if (offsets != nullptr) {
    first = offsets[0];
    last = offsets[n_rows];
  }
  const auto address = reinterpret_cast<std::uintptr_t>(data + first);
  const std::int64_t head = min(static_cast<std::int64_t>((16 - address % 16) % 16 / sizeof(V)), last - first);
  const std::int64_t packs = (last - first - head) / kWide;
  V* const aligned = data + first + head;
  const std::int64_t step = std::int64_t{gridDim.x} * kRowBlock * kUnroll;
  for (std::int64_t p = std::int64_t{blockIdx.x} * kRowBlock * kUnroll + threadIdx.x; p < packs; p += step) {
    Pack<V, kWide> pack[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (p + u * kRowBlock < packs) pack[u] = load_pack<kWide>(aligned + (p + u * kRowBlock) * kWide);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (p + u * kRowBlock >= packs) continue;
#pragma unroll
      for (int w = 0; w < kWide; ++w) pack[u].v[w] = map(pack[u].v[w]);
      store_pack(aligned + (p + u * kRowBlock) * kWide, pack[u]);
    }
  }
  if (blockIdx.x == 0 && threadIdx.x < 2 * kWide) {  // the ends that are not aligned
    const std::int64_t tail = first + head + packs * kWide;
    const auto t = static_cast<std::int64_t>(threadIdx.x);
    const std::int64_t k = t < kWide ? first + t : tail + t - kWide;
    if (t < kWide ? t < head : k < last) data[k] = map(data[k]);
  }
}

template <class X, class Visit>
__global__ void __launch_bounds__(kRowBlock) visit_values_kernel(X x, Visit visit) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kRowBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kRowBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = row_begin(x, i);
    const std::int64_t end = begin + row_count(x, i);
    for (std::int64_t k = begin + lane; k < end; k += 32) visit(value_at(x, k), i, column_of(x, i, k));
  }
}

template <class X, class Map>
void row_reduce(const Context& ctx, const X& x, const Map& map, Span<double> out) {
  if (x.n_rows == 0) return;
  row_reduce_kernel<<<scw::cuda::grid_for(x.n_rows, kRowBlock / 32), kRowBlock, 0, scw::cuda::stream_of(ctx)>>>(x, map,
                                                                                                                out);
  SCW_CUDA_LAUNCHED("row_reduce");
}

template <class X, class Update>
void for_each_value(const Context& ctx, const X& x, const Update& update) {
  if (x.n_rows == 0) return;
  for_each_value_kernel<<<scw::cuda::grid_for(x.n_rows, kRowBlock / 32), kRowBlock, 0, scw::cuda::stream_of(ctx)>>>(
      x, update);
  SCW_CUDA_LAUNCHED("for_each_value");
}

/// A map of values as an update of for_each_value.
template <class Map>
struct Anywhere {
  Map map;
  template <class V>
  __device__ V operator()(V v, std::int64_t, std::int32_t) const {
    return map(v);
  }
};

/// value = map(value) for every stored value.
template <class V, class Map>
void map_values(const Context& ctx, const CsrView<V>& x, const Map& map) {
  if (x.n_rows == 0 || x.values.size == 0) return;
  constexpr std::int64_t per_block = std::int64_t{kRowBlock} * kMapUnroll * 16 / sizeof(V);
  map_values_kernel<<<scw::cuda::grid_for(x.values.size, per_block, kMapBlocks), kRowBlock, 0,
                      scw::cuda::stream_of(ctx)>>>(x.values.data, 0, 0, x.indptr.data, x.n_rows, map);
  SCW_CUDA_LAUNCHED("map_values");
}
template <class V, class Map>
void map_values(const Context& ctx, const MatrixView<V>& x, const Map& map) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  if (x.ld != x.n_cols) return for_each_value(ctx, x, Anywhere<Map>{map});
  constexpr std::int64_t per_block = std::int64_t{kRowBlock} * kMapUnroll * 16 / sizeof(V);
  const std::int64_t n = x.n_rows * x.n_cols;
  map_values_kernel<<<scw::cuda::grid_for(n, per_block), kRowBlock, 0, scw::cuda::stream_of(ctx)>>>(x.data, 0, n,
                                                                                                    nullptr, 0, map);
  SCW_CUDA_LAUNCHED("map_values");
}

/// row_reduce and for_each_value in one pass: value = update.given(out[i])(value, column) in row i.
template <class X, class Map, class Update>
void reduce_then_update(const Context& ctx, const X& x, const Map& map, const Update& update, Span<double> out) {
  if (x.n_rows == 0) return;
  const unsigned grid = scw::cuda::grid_for(x.n_rows, kHoldBlock / 32);
  reduce_then_update_kernel<<<grid, kHoldBlock, 0, scw::cuda::stream_of(ctx)>>>(x, map, update, out);
  SCW_CUDA_LAUNCHED("reduce_then_update");
}

template <class X, class Visit>
void visit_values(const Context& ctx, const X& x, const Visit& visit) {
  if (x.n_rows == 0) return;
  visit_values_kernel<<<scw::cuda::grid_for(x.n_rows, kRowBlock / 32), kRowBlock, 0, scw::cuda::stream_of(ctx)>>>(
      x, visit);
  SCW_CUDA_LAUNCHED("visit_values");
}

}  // namespace scw::prim::cuda
