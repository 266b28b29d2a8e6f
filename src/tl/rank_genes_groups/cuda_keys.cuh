// Which entries belong to which gene: counts and the range of values of all genes in one pass by rows, then the keys of
// a block of genes in any order: the sort follows, so that 32 rows find their place by one atomic. Cells take part
// whose code is below `taking_part`. Floor, float: 24 bytes an entry (the matrix read twice, the keys written), 11 ms
// for 1.9e9 entries at 4.3 TB/s.
#pragma once

#include "tl/rank_genes_groups/cuda_layout.cuh"

namespace scw::tl::cuda::ranks {

inline constexpr int kWarps = kThreads / 32;
inline constexpr int kFillRows = 32;  // rows that a block of threads takes, one a lane of the warp that places them
inline constexpr int kCountThreads = 1024;
inline constexpr int kCountItems = 4;

__device__ inline unsigned int magnitude(float v) { return __float_as_uint(v) & 0x7FFFFFFFu; }
__device__ inline unsigned long long magnitude(double v) {
  return static_cast<unsigned long long>(__double_as_longlong(v)) & 0x7FFFFFFFFFFFFFFFull;
}

/// Of the genes [first, first + width): entries (stored, or for dense rows non-zero) in cells that take part, largest
/// magnitude in any cell (as bits, which are in the same order; beyond infinity for NaN), and the range of the values.
template <class V, class X>
__global__ void __launch_bounds__(kCountThreads)
    count_kernel(X x, const std::int32_t* codes, std::int32_t taking_part, std::int64_t first, std::int32_t width,
                 U64* counts, U64* magnitudes, U64* range) {
  using Magnitude = typename Bits<V>::Magnitude;
  extern __shared__ U64 counters[];
  auto* const largest = reinterpret_cast<Magnitude*>(counters);
  auto* const entries = reinterpret_cast<std::uint32_t*>(largest + width);
  for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kCountThreads) {
    largest[j] = 0;
    entries[j] = 0;
  }
  __syncthreads();
  using Value = typename Bits<V>::Value;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kCountThreads / 32);
  Value lowest = static_cast<Value>(~Value{0}), highest = 0;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kCountThreads + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const bool takes_part = codes[i] < taking_part;
    const std::int64_t begin = prim::cuda::row_begin(x, i);
    const std::int64_t end = begin + prim::cuda::row_count(x, i);
    for (std::int64_t k0 = begin + lane; k0 < end; k0 += 32 * kCountItems) {
      V v[kCountItems];  // all loads before the first use
      std::int64_t gene[kCountItems];
#pragma unroll
      for (int u = 0; u < kCountItems; ++u) {
        const std::int64_t k = k0 + 32 * u;
        v[u] = k < end ? prim::cuda::value_at(x, k) : V{0};
        gene[u] = k < end ? prim::cuda::column_of(x, i, k) - first : -1;
      }
#pragma unroll
      for (int u = 0; u < kCountItems; ++u) {
        const std::int64_t j = gene[u];
        if (j < 0 || j >= width || (!kIsCsr<X> && v[u] == V{0})) continue;
        const Magnitude m = magnitude(v[u]);
        if (m > largest[j]) atomicMax(largest + j, m);
        if (!takes_part) continue;
        const Value b = sortable_value<V>(v[u]);
        lowest = b < lowest ? b : lowest;
        highest = b > highest ? b : highest;
        atomicAdd(entries + j, 1u);
      }
    }
  }
  U64 low = lowest <= highest ? U64{lowest} : ~U64{0}, high = highest;
  for (int offset = 16; offset > 0; offset /= 2) {
    const U64 l = __shfl_xor_sync(0xFFFFFFFFu, low, offset);
    const U64 h = __shfl_xor_sync(0xFFFFFFFFu, high, offset);
    low = l < low ? l : low;
    high = h > high ? h : high;
  }
  if (lane == 0 && low <= high) {
    atomicMin(range, low);
    atomicMax(range + 1, high);
  }
  __syncthreads();
  for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kCountThreads) {
    if (entries[j] != 0) atomicAdd(counts + first + j, static_cast<U64>(entries[j]));
    if (largest[j] != 0) atomicMax(magnitudes + first + j, static_cast<U64>(largest[j]));
  }
}

/// end[i] = entries of row i before column `end_col`, searched from begin[i] on.
template <class X>
__global__ void __launch_bounds__(kThreads)
    advance_kernel(X x, const std::int32_t* codes, std::int32_t taking_part, std::int64_t end_col,
                   const std::int32_t* begin, std::int32_t* end) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= x.n_rows) return;
  std::int64_t at = begin[i];
  if (codes[i] < taking_part) {
    const std::int64_t row = prim::cuda::row_begin(x, i);
    const std::int64_t count = prim::cuda::row_count(x, i);
    at = end_col >= x.n_cols
             ? count
             : partition_point(at, count, [&](std::int64_t k) { return x.indices.data[row + k] < end_col; });
  }
  end[i] = static_cast<std::int32_t>(at);
}

/// Keys of the columns [first, last), in any order; the entries of a row stay together. begin, end: of the columns in
/// each row (CSR; not read for dense rows). *used counts the keys.
template <class V, class X>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(X x, const std::int32_t* codes, std::int32_t taking_part, const std::int32_t* begin,
                const std::int32_t* end, std::int64_t first, std::int64_t last, Layout<V> layout,
                typename Bits<V>::Key* keys, U64* used) {
  __shared__ std::uint32_t length[kFillRows];
  __shared__ U64 start[kFillRows];
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t base = std::int64_t{blockIdx.x} * kFillRows;
  for (int r = warp; r < kFillRows; r += kWarps) {
    const std::int64_t i = base + r;
    std::uint32_t n = 0;
    if (i < x.n_rows && codes[i] < taking_part) {
      if constexpr (kIsCsr<X>) {
        n = static_cast<std::uint32_t>(end[i] - begin[i]);
      } else {
        for (std::int64_t j = first + lane; j < last; j += 32) n += x.row(i)[j] != V{0} ? 1u : 0u;
        for (int offset = 16; offset > 0; offset /= 2) n += __shfl_xor_sync(0xFFFFFFFFu, n, offset);
      }
    }
    if (lane == 0) length[r] = n;
  }
  __syncthreads();
  if (warp == 0) {
    U64 sum = length[lane];
    for (int offset = 1; offset < 32; offset *= 2) {
      const U64 left = __shfl_up_sync(0xFFFFFFFFu, sum, offset);
      if (lane >= offset) sum += left;
    }
    U64 from = 0;
    if (lane == 31 && sum > 0) from = atomicAdd(used, sum);
    from = __shfl_sync(0xFFFFFFFFu, from, 31);
    start[lane] = from + sum - length[lane];
  }
  __syncthreads();
  for (int r = warp; r < kFillRows; r += kWarps) {
    if (length[r] == 0) continue;
    const std::int64_t i = base + r;
    const std::int32_t group = codes[i];
    typename Bits<V>::Key* out = keys + start[r];
    if constexpr (kIsCsr<X>) {
      const std::int64_t at = prim::cuda::row_begin(x, i) + begin[i];
#pragma unroll 4
      for (std::uint32_t k = static_cast<std::uint32_t>(lane); k < length[r]; k += 32)
        out[k] = layout.pack(x.indices.data[at + k] - first, sortable_value<V>(x.values.data[at + k]), group);
    } else {
      const V* const row = x.row(i);
      for (std::int64_t j0 = first; j0 < last; j0 += 32) {
        const std::int64_t j = j0 + lane;
        const V v = j < last ? row[j] : V{0};
        const unsigned set = __ballot_sync(0xFFFFFFFFu, v != V{0});
        if (v != V{0}) out[__popc(set & ((1u << lane) - 1u))] = layout.pack(j - first, sortable_value<V>(v), group);
        out += __popc(set);
      }
    }
  }
}

}  // namespace scw::tl::cuda::ranks
