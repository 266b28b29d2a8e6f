// What the CUDA kernels of pp.pca share: values of z, and dense tiles of rows, shifted and scaled while they are
// filled.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "core/cuda/cuda_check.cuh"
#include "pp/pca/kernel.hpp"
#include "prim/gemm/kernel.hpp"
#include "scwarp/core/array.hpp"

#include "pp/pca/body.inl"

namespace scw::pp::cuda {

inline constexpr int kThreads = 256;
inline constexpr std::int64_t kTileBytes = std::int64_t{512} << 20;

inline unsigned blocks_for(std::int64_t n) { return scw::cuda::grid_for(n, kThreads); }

template <class V>
V value_of(const CsrView<const V>&);
template <class V>
V value_of(const MatrixView<const V>&);
template <class View>
using ValueOf = decltype(value_of(std::declval<View>()));

template <class T>
__device__ inline T filled(const GeneTransform& t, const RowShift& r, std::int64_t p) {
  if (r.fill != nullptr) return static_cast<T>(r.fill[p]);
  return static_cast<T>(transformed(t, 0.0, p) - (r.shift != nullptr ? r.shift[p] : 0.0));
}
template <class T>
__device__ inline T shifted(const GeneTransform& t, const RowShift& r, double x, std::int64_t p) {
  return static_cast<T>(transformed(t, x, p) - (r.shift != nullptr ? r.shift[p] : 0.0));
}

/// What a thread keeps in registers to take one gene through many rows; (*this)(x) == transformed(t, x, p) - shift.
struct GeneColumn {
  std::int64_t column = 0;
  double center = 0, inverse_scale = 1, max_value = 0, shift = 0;
  bool scaled = false;

  __device__ GeneColumn() {}
  __device__ GeneColumn(const GeneTransform& t, const RowShift& r, std::int64_t p)
      : column(t.identity ? p : t.column[p]), scaled(t.center != nullptr) {
    if (scaled) {
      center = t.center[p];
      inverse_scale = t.inverse_scale[p];
      max_value = t.max_value;
    }
    if (r.shift != nullptr) shift = r.shift[p];
  }
  __device__ double operator()(double x) const {
    if (!scaled) return x - shift;
    const double z = (x - center) * inverse_scale;
    return (z > max_value ? max_value : (z < -max_value ? -max_value : z)) - shift;
  }
};

/// tile[i, p] = z - shift for rows first + i; one block a row.
template <class V, class T>
__global__ void __launch_bounds__(kThreads)
    fill_tile(MatrixView<const V> x, GeneTransform t, RowShift r, std::int64_t first, T* tile) {
  const V* const row = x.row(first + blockIdx.x);
  T* const out = tile + blockIdx.x * t.m;
  for (std::int64_t p = threadIdx.x; p < t.m; p += kThreads)
    out[p] = shifted<T>(t, r, static_cast<double>(row[t.identity ? p : t.column[p]]), p);
}
template <class V, class T>
__global__ void __launch_bounds__(kThreads)
    fill_tile(CsrView<const V> x, GeneTransform t, RowShift r, std::int64_t first, T* tile) {
  T* const out = tile + blockIdx.x * t.m;
  for (std::int64_t p = threadIdx.x; p < t.m; p += kThreads) out[p] = filled<T>(t, r, p);
  __syncthreads();
  const std::int64_t i = first + blockIdx.x, end = x.indptr.data[i + 1];
  for (std::int64_t e = x.indptr.data[i] + threadIdx.x; e < end; e += kThreads) {
    const std::int32_t p = t.position[x.indices.data[e]];
    if (p >= 0) out[p] = shifted<T>(t, r, static_cast<double>(x.values.data[e]), p);
  }
}

inline std::int64_t tile_rows(std::int64_t n, std::int64_t m, std::int64_t value_bytes) {
  std::int64_t rows = kPcaBlockRows;  // divides the blocks' starts, so that tiles do not depend on the blocks
  while (rows > 256 && rows * m * value_bytes > kTileBytes) rows /= 2;
  return std::min(rows, n);
}

/// body(tile, first, rows) for the tiles of x, filled.
template <class T, class View, class Body>
void for_each_tile(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r, const Body& body) {
  if (x.n_rows == 0) return;
  const std::int64_t step = tile_rows(x.n_rows, t.m, sizeof(T));
  Array<T> tile(ctx.workspace, checked_mul(step, t.m), "pca tile", ctx.stream);
  for (std::int64_t first = 0; first < x.n_rows; first += step) {
    ctx.check_cancelled("pp.pca");
    const std::int64_t rows = std::min(step, x.n_rows - first);
    fill_tile<<<static_cast<unsigned>(rows), kThreads, 0, scw::cuda::stream_of(ctx)>>>(x, t, r, first, tile.data());
    SCW_CUDA_LAUNCHED("pca: fill_tile");
    body(tile, first, rows);
  }
}

}  // namespace scw::pp::cuda
