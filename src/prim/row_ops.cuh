// row_reduce and for_each_value on CUDA: one warp per row, the fixed tree of row_ops.hpp. Bound by memory.
#pragma once

#include <cstdint>

#include "core/cuda/cuda_check.cuh"
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
__device__ inline V& value_at(const CsrView<V>& x, std::int64_t k) {
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
__device__ inline V& value_at(const MatrixView<V>& x, std::int64_t k) {
  return x.data[k];
}

template <class X, class Map>
__global__ void __launch_bounds__(kRowBlock) row_reduce_kernel(X x, Map map, Span<double> out) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kRowBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kRowBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = row_begin(x, i);
    const std::int64_t count = row_count(x, i);
    double sum = 0;
    for (std::int64_t k = begin + lane; k < begin + count; k += 32) sum += map(value_at(x, k), column_of(x, i, k));
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, offset);
    if (lane == 0) out.data[i] = sum;
  }
}

template <class X, class Map, class Update>
__global__ void __launch_bounds__(kRowBlock) reduce_then_update_kernel(X x, Map map, Update update, Span<double> out) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kRowBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kRowBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = row_begin(x, i);
    const std::int64_t end = begin + row_count(x, i);
    double sum = 0;
    for (std::int64_t k = begin + lane; k < end; k += 32) sum += map(value_at(x, k), column_of(x, i, k));
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, offset);
    if (lane == 0) out.data[i] = sum;
    __syncwarp();  // update reads out[i]
    for (std::int64_t k = begin + lane; k < end; k += 32)
      value_at(x, k) = update(value_at(x, k), i, column_of(x, i, k));
  }
}

template <class X, class Update>
__global__ void __launch_bounds__(kRowBlock) for_each_value_kernel(X x, Update update) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kRowBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kRowBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = row_begin(x, i);
    const std::int64_t end = begin + row_count(x, i);
    for (std::int64_t k = begin + lane; k < end; k += 32)
      value_at(x, k) = update(value_at(x, k), i, column_of(x, i, k));
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

/// row_reduce and for_each_value in one pass: update(value, i, column) may read out[i].
template <class X, class Map, class Update>
void reduce_then_update(const Context& ctx, const X& x, const Map& map, const Update& update, Span<double> out) {
  if (x.n_rows == 0) return;
  reduce_then_update_kernel<<<scw::cuda::grid_for(x.n_rows, kRowBlock / 32), kRowBlock, 0, scw::cuda::stream_of(ctx)>>>(
      x, map, update, out);
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
