// The best of the clusters that a row of the graph leads to, by a warp or a block.
#pragma once

#include <cstdint>

#include "tl/leiden/cuda_level.cuh"

namespace scw::tl::cuda {

inline constexpr unsigned kAll = 0xFFFFFFFFu;

__device__ inline std::int64_t warp_sum(std::int64_t x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAll, static_cast<long long>(x), offset);
  return x;
}
__device__ inline void add(std::int64_t* at, std::int64_t x) {
  atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(x));
}

/// The next `count` places of a counter.
__device__ inline std::int64_t draw(std::int64_t* at, int count) {
  return static_cast<std::int64_t>(
      atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(count)));
}

/// Appends `item` of the lanes that `keep`; all lanes of the warp must call.
__device__ inline void append(bool keep, std::int32_t item, std::int32_t* list, unsigned long long* count) {
  const unsigned mask = __ballot_sync(kAll, keep);
  if (mask == 0) return;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  unsigned long long at = 0;
  if (lane == 0) at = atomicAdd(count, static_cast<unsigned long long>(__popc(mask)));
  at = __shfl_sync(kAll, at, 0);
  if (keep) list[at + static_cast<unsigned long long>(__popc(mask & ((1u << lane) - 1)))] = item;
}

/// For a row of up to 32 * Chunks entries: own = weight to the number `own_number`, best over the other numbers >= 0.
/// number(u): of a neighbour; consider(best, number, weight): a candidate. The same in all lanes.
template <int Chunks, class Best, class W, class Number, class Consider>
__device__ inline Best warp_best(const DeviceGraph<W>& graph, std::int64_t begin, int degree, std::int32_t own_number,
                                 const Number& number, const Consider& consider, std::int64_t& own) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  std::int32_t c[Chunks];
  Weight<W> w[Chunks];
  std::int64_t mine = 0;
  bool other = false;
#pragma unroll
  for (int q = 0; q < Chunks; ++q) {
    const int i = q * 32 + lane;
    c[q] = -1;
    w[q] = 0;
    if (i < degree) {
      c[q] = number(graph.to[begin + i]);
      w[q] = graph.weight_at(begin + i);
    }
    if (c[q] == own_number)
      mine += static_cast<std::int64_t>(w[q]);
    else
      other = other || c[q] >= 0;
  }
  own = warp_sum(mine);
  Best best = Best::none();
  if (!__any_sync(kAll, other)) return best;
  std::int64_t sum[Chunks];
#pragma unroll
  for (int q = 0; q < Chunks; ++q) sum[q] = 0;
#pragma unroll
  for (int q = 0; q < Chunks; ++q) {
    const int count = degree - q * 32 < 32 ? degree - q * 32 : 32;
    for (int j = 0; j < count; ++j) {
      const std::int32_t cj = __shfl_sync(kAll, c[q], j);
      std::int64_t wj = 0;
      if constexpr (sizeof(Weight<W>) == 4)
        wj = static_cast<std::int64_t>(__shfl_sync(kAll, w[q], j));
      else
        wj = __shfl_sync(kAll, static_cast<long long>(w[q]), j);
#pragma unroll
      for (int p = 0; p < Chunks; ++p) sum[p] += c[p] == cj ? wj : 0;
    }
  }
#pragma unroll
  for (int q = 0; q < Chunks; ++q)
    if (c[q] >= 0 && c[q] != own_number) consider(best, c[q], sum[q]);
  for (int offset = 16; offset > 0; offset /= 2) best.merge(best.shuffled(offset));
  return best;
}

/// The same for a row of up to kWarpDegree entries.
template <class Best, class W, class Number, class Consider>
__device__ inline Best small_row_best(const DeviceGraph<W>& graph, std::int64_t begin, int degree,
                                      std::int32_t own_number, const Number& number, const Consider& consider,
                                      std::int64_t& own) {
  if (degree <= 32) return warp_best<1, Best>(graph, begin, degree, own_number, number, consider, own);
  if (degree <= 64) return warp_best<2, Best>(graph, begin, degree, own_number, number, consider, own);
  return warp_best<4, Best>(graph, begin, degree, own_number, number, consider, own);
}

struct TableView {
  std::int32_t* keys;
  std::int64_t* sums;
  std::int64_t slots;
};

/// The same for any row, by a block of kThreads with a table of at least 2 * degree slots; the result is thread 0's.
template <class Best, class W, class Number, class Consider>
__device__ inline Best large_row_best(const DeviceGraph<W>& graph, std::int64_t begin, std::int64_t degree,
                                      std::int32_t own_number, const Number& number, const Consider& consider,
                                      TableView table, std::int64_t& own) {
  __shared__ Best bests[kWarps];
  __shared__ std::int64_t owns[kWarps];
  std::int64_t slots = 256;
  while (slots < 2 * degree) slots *= 2;
  const auto mask = static_cast<std::uint64_t>(slots - 1);
  for (std::int64_t s = threadIdx.x; s < slots; s += kThreads) {
    table.keys[s] = -1;
    table.sums[s] = 0;
  }
  __syncthreads();
  std::int64_t mine = 0;
  for (std::int64_t i = threadIdx.x; i < degree; i += kThreads) {
    const std::int32_t c = number(graph.to[begin + i]);
    if (c == own_number) {
      mine += static_cast<std::int64_t>(graph.weight_at(begin + i));
      continue;
    }
    if (c < 0) continue;
    std::uint64_t slot = mix(static_cast<std::uint32_t>(c)) & mask;
    while (true) {
      const std::int32_t old = atomicCAS(table.keys + slot, -1, c);
      if (old == -1 || old == c) break;
      slot = (slot + 1) & mask;
    }
    add(table.sums + slot, static_cast<std::int64_t>(graph.weight_at(begin + i)));
  }
  __syncthreads();
  Best best = Best::none();
  for (std::int64_t s = threadIdx.x; s < slots; s += kThreads)
    if (table.keys[s] >= 0) consider(best, table.keys[s], table.sums[s]);
  for (int offset = 16; offset > 0; offset /= 2) best.merge(best.shuffled(offset));
  mine = warp_sum(mine);
  if ((threadIdx.x & 31) == 0) {
    bests[threadIdx.x / 32] = best;
    owns[threadIdx.x / 32] = mine;
  }
  __syncthreads();
  own = 0;
  best = Best::none();
  if (threadIdx.x == 0)
    for (int i = 0; i < kWarps; ++i) {
      best.merge(bests[i]);
      own += owns[i];
    }
  __syncthreads();
  return best;
}

/// f(vertex, table) for each of the `count` vertices of list, a block each. Launch with tables.blocks blocks.
template <class F>
__device__ inline void for_large_rows(const std::int32_t* list, const unsigned long long* count,
                                      const std::int64_t* offsets, TableView global, const F& f) {
  __shared__ std::int32_t keys[kSharedSlots];
  __shared__ std::int64_t sums[kSharedSlots];
  const TableView mine{global.keys + std::int64_t{blockIdx.x} * global.slots,
                       global.sums + std::int64_t{blockIdx.x} * global.slots, global.slots};
  for (unsigned long long i = blockIdx.x; i < *count; i += gridDim.x) {
    const std::int32_t v = list[i];
    const bool shared = offsets[v + 1] - offsets[v] <= kSharedDegree;
    f(v, shared ? TableView{keys, sums, kSharedSlots} : mine);
  }
}

}  // namespace scw::tl::cuda
