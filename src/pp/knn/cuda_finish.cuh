// Candidates of the tensor-core search scored in double, by the functions that the CPU uses.
#pragma once

#include "core/cuda/cuda_check.cuh"
#include "core/cuda/kernel_attributes.cuh"
#include "pp/knn/cuda_scan.cuh"
#include "pp/knn/cuda_tiles.hpp"

namespace scw::pp::cuda {

struct FinishArgs {
  const math::RowTerm* terms;
  const std::int32_t* query_ids;   // row of a query, -1: padding
  const std::int32_t* column_ids;  // row at a position
  std::int64_t n_queries;
  int k, capacity;
  bool similarity;
  const std::int32_t* found;
  const std::int32_t* counts;
  std::int32_t* ids;
  float* values;
  std::int32_t* open;  // rows that need another search
  int* n_open;
};

inline constexpr int kFinishWarps = 4;

/// One warp per query. Lane l of 8 adds the columns l, l + 8, ..., as accumulator l of dense_key does; an entry's place
/// is the number of nearer ones. Shared memory: 12 bytes x capacity for each warp.
template <class M, class V>
__global__ void __launch_bounds__(kFinishWarps * 32) finish_kernel(M metric, MatrixView<const V> x, FinishArgs a) {
  extern __shared__ double finish_shared[];
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  double* const keys = finish_shared + warp * a.capacity;
  std::int32_t* const ids =
      reinterpret_cast<std::int32_t*>(finish_shared + kFinishWarps * a.capacity) + warp * a.capacity;
  const std::int64_t warps = std::int64_t{gridDim.x} * kFinishWarps;
  for (std::int64_t q = std::int64_t{blockIdx.x} * kFinishWarps + warp; q < a.n_queries; q += warps) {
    const std::int64_t i = a.query_ids[q];
    if (i < 0) continue;
    const int count = a.counts[q];
    if (count < 0) {
      if (lane == 0) a.open[atomicAdd(a.n_open, 1)] = static_cast<std::int32_t>(i);
      continue;
    }
    const V* const row = x.row(i);
    const math::RowTerm term = a.terms[i];
    const int l = lane % math::kLanes;
    static_assert(math::kLanes == 8);
    for (int base = 0; base < count; base += 4) {
      const int c = base + lane / 8;
      const std::int32_t id = c < count ? a.column_ids[a.found[q * a.capacity + c]] : -1;
      math::RowTerm other;
      math::SumAcc acc;
      if (id >= 0) {
        other = a.terms[id];
        const V* const y = x.row(id);
        for (std::int64_t k = l; k < x.n_cols; k += math::kLanes)
          metric.add(acc, static_cast<double>(row[k]), static_cast<double>(y[k]), term, other);
      }
      for (int offset = 4; offset > 0; offset /= 2) acc.s += __shfl_xor_sync(0xFFFFFFFFu, acc.s, offset);
      if (id >= 0 && l == 0) {
        keys[c] = metric.key(acc, term, other, x.n_cols);
        ids[c] = id;
      }
    }
    __syncwarp();
    for (int c = lane; c < count; c += 32) {
      const double key = keys[c];
      const std::int32_t id = ids[c];
      int rank = 0;
      for (int f = 0; f < count; ++f) rank += nearer(keys[f], ids[f], key, id) ? 1 : 0;
      if (rank >= a.k - 1) continue;
      a.ids[i * a.k + 1 + rank] = id;
      a.values[i * a.k + 1 + rank] = static_cast<float>(metric.value(key));
    }
    if (lane == 0) write_self(metric, x, a.terms, i, a.k, a.similarity, a.ids, a.values);
    __syncwarp();
  }
}

template <class M, class V>
void finish(const Context& ctx, const M& metric, const MatrixView<const V>& x, const FinishArgs& args) {
  if (args.n_queries == 0) return;
  const std::size_t bytes =
      static_cast<std::size_t>(kFinishWarps * args.capacity) * (sizeof(double) + sizeof(std::int32_t));
  scw::cuda::allow_shared_memory(ctx, &finish_kernel<M, V>);
  finish_kernel<M, V><<<scw::cuda::grid_for(args.n_queries, kFinishWarps, 1 << 18), kFinishWarps * 32, bytes,
                        scw::cuda::stream_of(ctx)>>>(metric, x, args);
  SCW_CUDA_LAUNCHED("knn finish");
}

}  // namespace scw::pp::cuda
