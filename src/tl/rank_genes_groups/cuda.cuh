// Rank sums on CUDA. Genes are taken in blocks whose entries fit the workspace; a block goes through
//   keys    one integer for each stored entry of the block: (gene, value, group), in any order,
//   sort    by (gene, value), radix,
//   walk    tiles of one gene: runs of equal values from head flags, integer accumulators per group in shared memory.
// Nothing depends on the order in which entries are written, added or merged: every sum is an integer.
//
// Floor, float: 16 bytes an entry for the matrix (read twice), 16 for the keys written and their histogram, 16 for each
// 8 bits of (gene, value) sorted (about 37 bits on log-normalised data: 5 passes), 16 for two walks: 128 bytes an
// entry, 57 ms for 1.9e9 entries at 4.3 TB/s.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <thrust/iterator/transform_iterator.h>

#include "core/cuda/cuda_check.cuh"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "prim/radix_sort.hpp"
#include "prim/row_ops.cuh"
#include "tl/rank_genes_groups/kernel.hpp"

namespace scw::tl::cuda {

using prim::Int128;
using prim::Uint128;

namespace ranks {

inline constexpr std::int64_t kBlockBytes = std::int64_t{4} << 30;  // of keys, sorted and unsorted together
inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kItems = 16;
inline constexpr int kTile = kThreads * kItems;  // entries
inline constexpr int kWords = kTile / 32;
inline constexpr int kFillRows = 32;  // rows a block of threads
inline constexpr int kCountThreads = 1024;
inline constexpr int kCountItems = 4;
inline constexpr std::int32_t kMaxSlots = 8192;  // accumulators of a tile

template <class V>
struct Bits;
template <>
struct Bits<float> {
  using Value = std::uint32_t;
  using Magnitude = unsigned int;
  using Key = std::uint64_t;
};
template <>
struct Bits<double> {
  using Value = std::uint64_t;
  using Magnitude = unsigned long long;
  using Key = Uint128;
};

/// (gene, value, group) from the highest bit down; the value relative to the smallest one.
template <class V>
struct Layout {
  using Value = typename Bits<V>::Value;
  using Key = typename Bits<V>::Key;
  int group_bits = 0, value_bits = 0;
  Value low = 0;

  __host__ __device__ int gene_shift() const { return group_bits + value_bits; }
  __device__ Key pack(std::int64_t gene, Value value, std::int32_t group) const {
    return (((static_cast<Key>(gene) << value_bits) | static_cast<Key>(static_cast<Value>(value - low)))
            << group_bits) |
           static_cast<Key>(static_cast<std::uint32_t>(group));
  }
  __device__ std::int32_t group(Key k) const {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(k) & ((1u << group_bits) - 1u));
  }
  __device__ Value value(Key k) const {
    const Key mask = (Key{1} << value_bits) - 1;
    return static_cast<Value>(static_cast<Value>((k >> group_bits) & mask) + low);
  }
  __device__ std::int64_t gene(Key k) const { return static_cast<std::int64_t>(k >> gene_shift()); }
  __device__ Key run(Key k) const { return k >> group_bits; }
};

/// The genes [first, first + n) of the matrix as segments of the sorted keys.
struct Segments {
  std::int64_t first = 0;
  std::int32_t n = 0;
  const std::int64_t* begin = nullptr;  // [n + 1]
  const std::int32_t* tile = nullptr;   // [n + 1], tiles before each gene
  std::int32_t* gene_of_tile = nullptr;
};

struct Tile {
  std::int32_t gene;        // within the block
  std::int64_t begin, end;  // of the gene
  std::int64_t offset;      // of the tile in the gene
  std::int32_t count;       // entries of the tile
};

__device__ inline Tile find_tile(const Segments& s, std::int32_t b) {
  const std::int32_t low = s.gene_of_tile[b];
  Tile t;
  t.gene = low;
  t.begin = s.begin[low];
  t.end = s.begin[low + 1];
  t.offset = static_cast<std::int64_t>(b - s.tile[low]) * kTile;
  const std::int64_t left = t.end - t.begin - t.offset;
  t.count = static_cast<std::int32_t>(left < kTile ? left : kTile);
  return t;
}

/// A block of threads a gene.
__global__ inline void __launch_bounds__(kThreads) map_tiles_kernel(Segments s) {
  for (std::int32_t b = s.tile[blockIdx.x] + static_cast<std::int32_t>(threadIdx.x); b < s.tile[blockIdx.x + 1];
       b += kThreads)
    s.gene_of_tile[b] = static_cast<std::int32_t>(blockIdx.x);
}

using U64 = unsigned long long;

/// 64-bit addition to shared memory in 32-bit halves: native atomics, and the second one only where there is a carry.
__device__ inline void add_wide(std::uint32_t* low, std::uint32_t* high, std::int32_t at, std::uint64_t v) {
  const auto l = static_cast<std::uint32_t>(v);
  const std::uint32_t old = atomicAdd(low + at, l);
  const std::uint32_t h = static_cast<std::uint32_t>(v >> 32) + (old + l < old ? 1u : 0u);
  if (h != 0) atomicAdd(high + at, h);
}
__device__ inline void add_128(U64* low, U64* high, Int128 v) {
  const auto l = static_cast<U64>(static_cast<Uint128>(v));
  const U64 old = l != 0 ? atomicAdd(low, l) : 0;
  const U64 h = static_cast<U64>(static_cast<Uint128>(v) >> 64) + (old + l < old ? 1u : 0u);
  if (h != 0) atomicAdd(high, h);
}
__device__ inline Int128 cube_minus(std::int64_t t) { return static_cast<Int128>(t) * t * t - t; }

__device__ inline std::uint64_t shuffle_up(std::uint64_t v) {
  return __shfl_up_sync(0xFFFFFFFFu, static_cast<U64>(v), 1);
}
__device__ inline Uint128 shuffle_up(Uint128 v) {
  const Uint128 high = shuffle_up(static_cast<std::uint64_t>(v >> 64));
  return (high << 64) | shuffle_up(static_cast<std::uint64_t>(v));
}

/// Position of the first element of [begin, end) for which less(element) is false.
template <class Less>
__device__ std::int64_t partition_point(std::int64_t begin, std::int64_t end, const Less& less) {
  while (begin < end) {
    const std::int64_t mid = begin + (end - begin) / 2;
    if (less(mid))
      begin = mid + 1;
    else
      end = mid;
  }
  return begin;
}
/// The same, searched from `begin` in growing steps: cheap where the answer is near.
template <class Less>
__device__ std::int64_t gallop(std::int64_t begin, std::int64_t end, const Less& less) {
  std::int64_t step = 1, low = begin;
  while (low + step <= end && less(low + step - 1)) {
    low += step;
    step *= 2;
  }
  return partition_point(low, low + step - 1 < end ? low + step - 1 : end, less);
}
/// First element of the run that ends at `at` (same(at) is true), in [begin, at].
template <class Same>
__device__ std::int64_t gallop_back(std::int64_t begin, std::int64_t at, const Same& same) {
  std::int64_t step = 1, high = at;
  while (high - step >= begin && same(high - step)) {
    high -= step;
    step *= 2;
  }
  const std::int64_t low = high - step + 1 > begin ? high - step + 1 : begin;
  return partition_point(low, high, [&](std::int64_t i) { return !same(i); });
}

// ---- Counting -------------------------------------------------------------------------------------------------------

template <class V>
__device__ typename Bits<V>::Value sortable_value(V v) {
  return prim::sortable_bits(v == V{0} ? V{0} : v);  // one zero
}

__device__ inline unsigned int magnitude(float v) { return __float_as_uint(v) & 0x7FFFFFFFu; }
__device__ inline unsigned long long magnitude(double v) {
  return static_cast<unsigned long long>(__double_as_longlong(v)) & 0x7FFFFFFFFFFFFFFFull;
}

template <class X>
inline constexpr bool kIsCsr = false;
template <class V>
inline constexpr bool kIsCsr<CsrView<V>> = true;

/// Of the genes [first, first + width): entries (stored, or for dense rows non-zero) in cells that take part, largest
/// magnitude in any cell (as bits, which are in the same order; beyond infinity for NaN), and the range of the values.
template <class V, class X>
__global__ void __launch_bounds__(kCountThreads)
    count_kernel(X x, const std::int32_t* codes, std::int32_t n_codes, std::int64_t first, std::int32_t width,
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
    const bool takes_part = codes[i] < n_codes;
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

// ---- Keys -----------------------------------------------------------------------------------------------------------

/// end[i] = entries of row i before column `end_col`, searched from begin[i] on.
template <class X>
__global__ void __launch_bounds__(kThreads)
    advance_kernel(X x, const std::int32_t* codes, std::int32_t n_codes, std::int64_t end_col,
                   const std::int32_t* begin, std::int32_t* end) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= x.n_rows) return;
  std::int64_t at = begin[i];
  if (codes[i] < n_codes) {
    const std::int64_t row = prim::cuda::row_begin(x, i);
    const std::int64_t count = prim::cuda::row_count(x, i);
    at = end_col >= x.n_cols
             ? count
             : partition_point(at, count, [&](std::int64_t k) { return x.indices.data[row + k] < end_col; });
  }
  end[i] = static_cast<std::int32_t>(at);
}

/// Keys of the columns [first, last), in any order; the entries of a row stay together. begin, end: of the columns in
/// each row (CSR). *used counts the keys.
template <class V, class X>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(X x, const std::int32_t* codes, std::int32_t n_codes, const std::int32_t* begin,
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
    if (i < x.n_rows && codes[i] < n_codes) {
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

// ---- Sums -----------------------------------------------------------------------------------------------------------

/// Accumulators of a tile in shared memory: `copies` of each group's, so that the lanes of a warp collide less.
struct Slots {
  std::int32_t groups, copies;  // copies 0: straight to global memory
  __device__ std::int32_t at(std::int32_t group) const {
    return group * copies + static_cast<std::int32_t>(threadIdx.x & static_cast<unsigned>(copies - 1));
  }
  __host__ __device__ std::int32_t size() const { return groups * copies; }
};
inline Slots make_slots(std::int32_t groups) {
  if (groups > kMaxSlots) return {groups, 0};
  std::int32_t copies = 8;
  while (copies > 1 && groups * copies > 1024) copies /= 2;
  return {groups, copies};
}

struct Sums {
  U64 *low, *high;        // [n_codes x n_genes], sum of quantised values, 128 bits
  std::uint32_t* stored;  // [n_codes x n_genes], entries
  std::uint32_t* zeros;   // [n_codes x n_genes], entries that are zero
};

/// The keys of a tile are those of one gene; their values need not be in order.
template <class V>
__global__ void __launch_bounds__(kThreads)
    sums_kernel(Segments s, const typename Bits<V>::Key* keys, Layout<V> layout, bool mapped, double expm1_scale,
                const prim::FixedScale* scales, std::int64_t n_genes, Slots slots, Sums out) {
  extern __shared__ std::uint32_t shared[];
  std::uint32_t* const low = shared;
  std::uint32_t* const high = low + slots.size();
  std::uint32_t* const stored = high + slots.size();
  const Tile t = find_tile(s, static_cast<std::int32_t>(blockIdx.x));
  const std::int64_t gene = s.first + t.gene;
  const prim::FixedScale scale = scales[gene];
  for (std::int32_t k = static_cast<std::int32_t>(threadIdx.x); k < 3 * slots.size(); k += kThreads) shared[k] = 0;
  __syncthreads();
  const auto* const tile = keys + t.begin + t.offset;
#pragma unroll 4
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < t.count; i += kThreads) {
    const auto key = tile[i];
    const std::int32_t g = layout.group(key);
    const auto value = static_cast<double>(prim::from_sortable_bits(layout.value(key)));
    const std::int64_t q = scale.quantise(mapped ? math::expm1(value * expm1_scale) : value);
    if (value == 0) atomicAdd(out.zeros + g * n_genes + gene, 1u);
    if (slots.copies > 0) {
      const std::int32_t at = slots.at(g);
      add_wide(low, high, at, static_cast<std::uint64_t>(q));
      atomicAdd(stored + at, 1u);
    } else {
      add_128(out.low + g * n_genes + gene, out.high + g * n_genes + gene, q);
      atomicAdd(out.stored + g * n_genes + gene, 1u);
    }
  }
  __syncthreads();
  for (std::int32_t g = static_cast<std::int32_t>(threadIdx.x); g < slots.groups && slots.copies > 0; g += kThreads) {
    std::uint64_t sum = 0;
    std::uint32_t n = 0;
    for (std::int32_t c = g * slots.copies; c < (g + 1) * slots.copies; ++c) {
      sum += (std::uint64_t{high[c]} << 32) + low[c];
      n += stored[c];
    }
    if (n == 0) continue;
    add_128(out.low + g * n_genes + gene, out.high + g * n_genes + gene, static_cast<std::int64_t>(sum));
    atomicAdd(out.stored + g * n_genes + gene, n);
  }
}

/// Values become bins; zero a bin of its own below the others where zeros_apart.
template <class V>
struct Binning {
  double low, high, n_bins;
  bool zeros_apart;
  SCW_HD typename Bits<V>::Value operator()(double v) const {
    if (zeros_apart && v == 0) return 0;
    const double b = (v - low) * n_bins / (high - low);
    const double last = n_bins - 1;
    return static_cast<typename Bits<V>::Value>(b > 0 ? (b < last ? b : last) : 0.0) + (zeros_apart ? 1u : 0u);
  }
};

template <class V>
__global__ void __launch_bounds__(kThreads)
    bin_kernel(typename Bits<V>::Key* keys, std::int64_t n, Layout<V> from, Layout<V> to, Binning<V> bin) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    const auto k = keys[i];
    keys[i] = to.pack(from.gene(k), bin(static_cast<double>(prim::from_sortable_bits(from.value(k)))), from.group(k));
  }
}

// ---- Ranks ----------------------------------------------------------------------------------------------------------

/// Integer results so far; without a reference the ties have one row.
struct Ranks {
  U64* twice;                 // [n_groups x n_genes]
  U64 *ties_low, *ties_high;  // [n_groups or 1, x n_genes]
};

/// Where each run of a tile begins and ends, from one bit an entry.
struct RunBits {
  std::uint32_t head[kWords];
  std::int64_t before[kWords];  // position in the gene of the last head before the word
  std::int64_t after[kWords];   // of the first head behind it, or the end of the last run
};

/// Ranks among all cells: keys sorted by (gene, value).
template <class V>
__global__ void __launch_bounds__(kThreads)
    rank_all_kernel(Segments s, const typename Bits<V>::Key* keys, Layout<V> layout, typename Bits<V>::Value zero,
                    std::int64_t n_ranked, std::int32_t n_groups, std::int64_t n_genes, Slots slots, Ranks out) {
  using Key = typename Bits<V>::Key;
  __shared__ RunBits runs;
  __shared__ std::int64_t edge[2];  // begin of the run at the tile's first entry, end of the one at its last
  extern __shared__ std::uint32_t shared[];
  std::uint32_t* const low = shared;
  std::uint32_t* const high = low + slots.size();
  const Tile t = find_tile(s, static_cast<std::int32_t>(blockIdx.x));
  const std::int64_t gene = s.first + t.gene;
  const Key* const segment = keys + t.begin;
  const std::int64_t n = t.end - t.begin;
  const std::int64_t n_zero = n_ranked - n;
  const auto tid = static_cast<std::int32_t>(threadIdx.x);
  const int lane = tid & 31;

  Key item[kItems];
#pragma unroll
  for (int k = 0; k < kItems; ++k) {
    const std::int32_t i = k * kThreads + tid;
    item[k] = i < t.count ? segment[t.offset + i] : Key{0};
  }
#pragma unroll
  for (int k = 0; k < kItems; ++k) {
    const std::int32_t i = k * kThreads + tid;
    Key left = shuffle_up(item[k]);
    if (lane == 0 && i < t.count && t.offset + i > 0) left = segment[t.offset + i - 1];
    const bool head = i < t.count && (t.offset + i == 0 || layout.run(left) != layout.run(item[k]));
    const unsigned mask = __ballot_sync(0xFFFFFFFFu, head);
    if (lane == 0) runs.head[i / 32] = mask;
  }
  for (std::int32_t k = tid; k < 2 * slots.size(); k += kThreads) shared[k] = 0;
  if (tid == 0) {
    const Key run = layout.run(segment[t.offset]);
    edge[0] = gallop_back(0, t.offset, [&](std::int64_t i) { return layout.run(segment[i]) == run; });
  } else if (tid == 32) {
    const std::int64_t last = t.offset + t.count - 1;
    const Key run = layout.run(segment[last]);
    edge[1] = gallop(last + 1, n, [&](std::int64_t i) { return layout.run(segment[i]) == run; });
  }
  __syncthreads();
  if (tid < 32) {
    constexpr int kEach = kWords / 32;
    std::int64_t mine = -1;
    for (int w = lane * kEach; w < (lane + 1) * kEach; ++w)
      if (runs.head[w] != 0) mine = t.offset + w * 32 + 31 - __clz(static_cast<int>(runs.head[w]));
    for (int offset = 1; offset < 32; offset *= 2) {
      const std::int64_t other = __shfl_up_sync(0xFFFFFFFFu, mine, offset);
      if (lane >= offset && other > mine) mine = other;
    }
    std::int64_t last = __shfl_up_sync(0xFFFFFFFFu, mine, 1);
    if (lane == 0 || last < 0) last = edge[0];
    for (int w = lane * kEach; w < (lane + 1) * kEach; ++w) {
      runs.before[w] = last;
      if (runs.head[w] != 0) last = t.offset + w * 32 + 31 - __clz(static_cast<int>(runs.head[w]));
    }
  } else if (tid < 64) {
    constexpr int kEach = kWords / 32;
    constexpr std::int64_t kNone = std::int64_t{1} << 62;
    std::int64_t mine = kNone;
    for (int w = (lane + 1) * kEach - 1; w >= lane * kEach; --w)
      if (runs.head[w] != 0) mine = t.offset + w * 32 + __ffs(static_cast<int>(runs.head[w])) - 1;
    for (int offset = 1; offset < 32; offset *= 2) {
      const std::int64_t other = __shfl_down_sync(0xFFFFFFFFu, mine, offset);
      if (lane + offset < 32 && other < mine) mine = other;
    }
    std::int64_t next = __shfl_down_sync(0xFFFFFFFFu, mine, 1);
    if (lane == 31 || next == kNone) next = edge[1];
    for (int w = (lane + 1) * kEach - 1; w >= lane * kEach; --w) {
      runs.after[w] = next;
      if (runs.head[w] != 0) next = t.offset + w * 32 + __ffs(static_cast<int>(runs.head[w])) - 1;
    }
  }
  __syncthreads();

  Int128 ties = 0;
#pragma unroll
  for (int k = 0; k < kItems; ++k) {
    const std::int32_t i = k * kThreads + tid;
    if (i >= t.count) continue;
    const int w = i / 32;
    const std::uint32_t head = runs.head[w];
    const std::uint32_t up_to = head & (0xFFFFFFFFu >> (31 - lane));
    const std::uint32_t beyond = lane == 31 ? 0u : head & (0xFFFFFFFFu << (lane + 1));
    const std::int64_t word = t.offset + w * 32;
    const std::int64_t first = up_to != 0 ? word + 31 - __clz(static_cast<int>(up_to)) : runs.before[w];
    const std::int64_t last = beyond != 0 ? word + __ffs(static_cast<int>(beyond)) - 1 : runs.after[w];
    const auto value = layout.value(item[k]);
    // Ranks first + 1 .. last, behind the implicit zeros or among them: twice their average.
    const auto twice = static_cast<std::uint64_t>(first + last + 1) +
                       static_cast<std::uint64_t>(value > zero ? 2 * n_zero : (value == zero ? n_zero : 0));
    const std::int32_t g = layout.group(item[k]);
    if (g < n_groups) {
      if (slots.copies > 0)
        add_wide(low, high, slots.at(g), twice);
      else
        atomicAdd(out.twice + g * n_genes + gene, static_cast<U64>(twice));
    }
    if (first == word + lane && last - first > 1 && value != zero) ties += cube_minus(last - first);
  }
  if (__syncthreads_or(ties != 0) != 0) {
    auto l = static_cast<U64>(static_cast<Uint128>(ties));
    auto h = static_cast<U64>(static_cast<Uint128>(ties) >> 64);
    for (int offset = 16; offset > 0; offset /= 2) {
      const U64 ol = __shfl_xor_sync(0xFFFFFFFFu, l, offset);
      const U64 oh = __shfl_xor_sync(0xFFFFFFFFu, h, offset);
      const Uint128 sum = ((static_cast<Uint128>(h) << 64) | l) + ((static_cast<Uint128>(oh) << 64) | ol);
      l = static_cast<U64>(sum);
      h = static_cast<U64>(sum >> 64);
    }
    const auto sum = static_cast<Int128>((static_cast<Uint128>(h) << 64) | l);
    if (lane == 0 && sum != 0) add_128(out.ties_low + gene, out.ties_high + gene, sum);
  }
  for (std::int32_t g = tid; g < n_groups && slots.copies > 0; g += kThreads) {
    U64 sum = 0;
    for (std::int32_t c = g * slots.copies; c < (g + 1) * slots.copies; ++c) sum += (U64{high[c]} << 32) + low[c];
    if (sum != 0) atomicAdd(out.twice + g * n_genes + gene, sum);
  }
}

/// Ranks of each group together with the reference: keys sorted by (gene, value, group), references[i] = entries of the
/// reference before key i. Alone, the cells of a group have ranks with the sum n (n + 1) / 2; what the reference adds
/// to a cell is its cells below plus half of its equal ones. Equal keys are handled by the first of them.
template <class V>
__global__ void __launch_bounds__(kThreads)
    rank_reference_kernel(Segments s, const typename Bits<V>::Key* keys, const std::uint32_t* references,
                          Layout<V> layout, typename Bits<V>::Value zero, std::int32_t reference,
                          std::int64_t reference_size, const std::uint32_t* stored, std::int64_t n_genes, Slots slots,
                          Ranks out) {
  extern __shared__ std::uint32_t shared[];
  std::uint32_t* const low = shared;
  std::uint32_t* const high = low + slots.size();
  const Tile t = find_tile(s, static_cast<std::int32_t>(blockIdx.x));
  const std::int64_t gene = s.first + t.gene;
  const std::int64_t zeros = reference_size - stored[reference * n_genes + gene];
  for (std::int32_t k = static_cast<std::int32_t>(threadIdx.x); k < 2 * slots.size(); k += kThreads) shared[k] = 0;
  __syncthreads();
  for (std::int32_t k = static_cast<std::int32_t>(threadIdx.x); k < t.count; k += kThreads) {
    const std::int64_t i = t.begin + t.offset + k;
    const auto key = keys[i];
    if (i > t.begin && keys[i - 1] == key) continue;
    const auto value = layout.value(key);
    if (value == zero) continue;  // with the implicit zeros, later
    const auto run = layout.run(key);
    const std::int64_t end = gallop(i + 1, t.end, [&](std::int64_t m) { return keys[m] == key; });
    const std::int64_t first = gallop_back(t.begin, i, [&](std::int64_t m) { return layout.run(keys[m]) == run; });
    const std::int64_t last = gallop(end, t.end, [&](std::int64_t m) { return layout.run(keys[m]) == run; });
    const std::int64_t below = references[first] - references[t.begin] + (value > zero ? zeros : 0);
    const std::int64_t equal = references[last] - references[first];
    const std::int64_t mine = end - i;
    const std::int32_t g = layout.group(key);
    const auto twice = static_cast<std::uint64_t>(mine) * static_cast<std::uint64_t>(2 * below + equal);
    if (slots.copies > 0)
      add_wide(low, high, slots.at(g), twice);
    else
      atomicAdd(out.twice + g * n_genes + gene, static_cast<U64>(twice));
    const Int128 ties = g == reference ? cube_minus(equal) : cube_minus(mine + equal) - cube_minus(equal);
    if (ties != 0) add_128(out.ties_low + g * n_genes + gene, out.ties_high + g * n_genes + gene, ties);
  }
  __syncthreads();
  for (std::int32_t g = static_cast<std::int32_t>(threadIdx.x); g < slots.groups && slots.copies > 0; g += kThreads) {
    U64 sum = 0;
    for (std::int32_t c = g * slots.copies; c < (g + 1) * slots.copies; ++c) sum += (U64{high[c]} << 32) + low[c];
    if (sum != 0) atomicAdd(out.twice + g * n_genes + gene, sum);
  }
}

/// The run of the zeros, which are not stored, and the results. A thread for a gene and 32 groups.
template <class V>
__global__ void __launch_bounds__(kThreads)
    finish_all_kernel(Segments s, const typename Bits<V>::Key* keys, Layout<V> layout, typename Bits<V>::Value zero,
                      std::int64_t n_ranked, const std::int64_t* sizes, std::int32_t n_groups, std::int64_t n_genes,
                      const std::uint32_t* stored, Ranks ranks, std::int64_t* twice, double* ties) {
  const std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= s.n) return;
  const std::int64_t gene = s.first + at;
  const std::int64_t begin = s.begin[at], end = s.begin[at + 1];
  const std::int64_t first = partition_point(begin, end, [&](std::int64_t i) { return layout.value(keys[i]) < zero; });
  const std::int64_t last = partition_point(first, end, [&](std::int64_t i) { return layout.value(keys[i]) == zero; });
  const std::int64_t t = last - first + n_ranked - (end - begin);
  const std::int64_t rank = 2 * (first - begin) + t + 1;
  const std::int32_t from = static_cast<std::int32_t>(blockIdx.y) * 32;
  for (std::int32_t g = from; g < n_groups && g < from + 32; ++g) {
    const std::int64_t k = g * n_genes + gene;
    twice[k] = static_cast<std::int64_t>(ranks.twice[k]) + (sizes[g] - stored[k]) * rank;
  }
  if (from > 0) return;
  const Uint128 others = (static_cast<Uint128>(ranks.ties_high[gene]) << 64) | ranks.ties_low[gene];
  ties[gene] = prim::to_double(static_cast<Int128>(others) + cube_minus(t));
}

template <class V>
__global__ void __launch_bounds__(kThreads)
    finish_reference_kernel(Segments s, const typename Bits<V>::Key* keys, const std::uint32_t* references,
                            Layout<V> layout, typename Bits<V>::Value zero, std::int32_t reference,
                            const std::int64_t* sizes, std::int32_t n_groups, std::int64_t n_genes,
                            const std::uint32_t* stored, Ranks ranks, std::int64_t* twice, double* ties) {
  const std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= s.n) return;
  const std::int64_t gene = s.first + at;
  const std::int64_t begin = s.begin[at], end = s.begin[at + 1];
  const std::int64_t first = partition_point(begin, end, [&](std::int64_t i) { return layout.value(keys[i]) < zero; });
  const std::int64_t last = partition_point(first, end, [&](std::int64_t i) { return layout.value(keys[i]) == zero; });
  const bool any = end > begin;
  const std::int64_t below = any ? references[first] - references[begin] : 0;
  const std::int64_t equal =
      (any ? references[last] - references[first] : 0) + sizes[reference] - stored[reference * n_genes + gene];
  const auto ties_at = [&](std::int64_t k) {
    return static_cast<Int128>((static_cast<Uint128>(ranks.ties_high[k]) << 64) | ranks.ties_low[k]);
  };
  const Int128 reference_ties = ties_at(reference * n_genes + gene);
  const std::int32_t from = static_cast<std::int32_t>(blockIdx.y) * 32;
  for (std::int32_t g = from; g < n_groups && g < from + 32; ++g) {
    const std::int64_t k = g * n_genes + gene;
    if (g == reference) {
      twice[k] = 0;
      ties[k] = 0;
      continue;
    }
    const std::int64_t lower = partition_point(first, last, [&](std::int64_t i) { return layout.group(keys[i]) < g; });
    const std::int64_t upper = partition_point(lower, last, [&](std::int64_t i) { return layout.group(keys[i]) == g; });
    const std::int64_t mine = upper - lower + sizes[g] - stored[k];
    twice[k] = sizes[g] * (sizes[g] + 1) + static_cast<std::int64_t>(ranks.twice[k]) + mine * (2 * below + equal);
    ties[k] = prim::to_double(ties_at(k) + reference_ties + cube_minus(mine + equal));
  }
}

template <class V>
struct IsReference {
  Layout<V> layout;
  std::int32_t reference;
  __host__ __device__ std::uint32_t operator()(typename Bits<V>::Key k) const {
    return static_cast<std::uint32_t>((static_cast<std::uint32_t>(k) & ((1u << layout.group_bits) - 1u)) ==
                                      static_cast<std::uint32_t>(reference));
  }
};

// ---- Host -----------------------------------------------------------------------------------------------------------

/// Bytes that blocks of keys may take: a share of what a limit leaves.
inline std::int64_t block_bytes(const Context& ctx) {
  const auto* const tracked = dynamic_cast<const TrackedMemory*>(ctx.workspace.get());
  if (tracked == nullptr || tracked->limit_bytes() == 0) return kBlockBytes;
  const auto limit = static_cast<std::int64_t>(tracked->limit_bytes());
  const auto used = static_cast<std::int64_t>(tracked->used_bytes());
  return std::min(kBlockBytes, std::max<std::int64_t>(0, (limit - used) / 10 * 8));
}

template <class T>
Array<T> zeroed(const Context& ctx, std::int64_t n, const char* tag) {
  Array<T> a(ctx.workspace, n, tag, ctx.stream);
  if (n > 0) SCW_CUDA(cudaMemsetAsync(a.data(), 0, static_cast<std::size_t>(n) * sizeof(T), scw::cuda::stream_of(ctx)));
  return a;
}

template <class V, class X>
class Ranker {
  using Key = typename Bits<V>::Key;
  using Value = typename Bits<V>::Value;

 public:
  Ranker(const Context& ctx, const X& x, Span<const std::int32_t> codes, const RankSpec& spec,
         const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out)
      : ctx_(ctx),
        stream_(scw::cuda::stream_of(ctx)),
        x_(x),
        spec_(spec),
        map_(map),
        moments_(moments),
        out_(out),
        n_genes_(moments.n_genes),
        n_codes_(spec.n_groups + 1),
        // Cells outside of all groups take part in ranks against the rest only.
        taking_part_(spec.reference < 0 ? n_codes_ : spec.n_groups),
        n_ranked_(codes.size),
        codes_(to_device<std::int32_t>(ctx, codes, "cell groups")) {
    std::vector<std::int64_t> sizes(static_cast<std::size_t>(n_codes_), 0);
    for (const std::int32_t c : codes) ++sizes[static_cast<std::size_t>(c)];
    if (spec.reference >= 0) reference_size_ = sizes[static_cast<std::size_t>(spec.reference)];
    sizes_ = to_device<std::int64_t>(ctx, sizes, "group sizes");
  }

  void run() {
    if (!count()) return;
    const std::int64_t all = checked_mul(n_codes_, n_genes_);
    const std::int64_t tested = checked_mul(spec_.n_groups, n_genes_);
    const std::int64_t tie_rows = spec_.reference < 0 ? 1 : spec_.n_groups;
    sum_low_ = zeroed<U64>(ctx_, all, "group sums");
    sum_high_ = zeroed<U64>(ctx_, all, "group sums");
    stored_ = zeroed<std::uint32_t>(ctx_, all, "group entries");
    zeros_ = zeroed<std::uint32_t>(ctx_, all, "group zeros");
    twice_ = zeroed<U64>(ctx_, tested, "rank sums");
    ties_low_ = zeroed<U64>(ctx_, checked_mul(tie_rows, n_genes_), "ties");
    ties_high_ = zeroed<U64>(ctx_, checked_mul(tie_rows, n_genes_), "ties");
    twice_out_ = Array<std::int64_t>(ctx_.workspace, tested, "rank sums", ctx_.stream);
    ties_out_ = Array<double>(ctx_.workspace, checked_mul(tie_rows, n_genes_), "ties", ctx_.stream);
    plan();
    for (std::size_t b = 0; b + 1 < blocks_.size(); ++b) {
      ctx_.check_cancelled("tl.rank_genes_groups");
      block(blocks_[b], blocks_[b + 1]);
      ctx_.report("rank_genes_groups", blocks_[b + 1], n_genes_);
    }
    collect();
  }

 private:
  /// Entries and fixed-point scale of every gene; false where a value is not finite.
  bool count() {
    Array<U64> counts = zeroed<U64>(ctx_, n_genes_, "gene entries");
    Array<U64> magnitudes = zeroed<U64>(ctx_, n_genes_, "gene maxima");
    const std::vector<U64> start{~U64{0}, 0};
    Array<U64> range = to_device<U64>(ctx_, start, "value range");
    int sms = 0, shared = 0;  // as many counters as shared memory has room for
    SCW_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, ctx_.device.id));
    SCW_CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, ctx_.device.id));
    SCW_CUDA(cudaFuncSetAttribute(count_kernel<V, X>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
    constexpr std::int64_t kGeneBytes = sizeof(typename Bits<V>::Magnitude) + sizeof(std::uint32_t);
    const std::int64_t most_genes = shared / kGeneBytes;
    const unsigned grid = scw::cuda::grid_for(x_.n_rows, kCountThreads / 32, 2 * sms);
    for (std::int64_t first = 0; first < n_genes_ && x_.n_rows > 0; first += most_genes) {
      const std::int64_t width = std::min(most_genes, n_genes_ - first);
      count_kernel<V, X><<<grid, kCountThreads, static_cast<std::size_t>(width * kGeneBytes), stream_>>>(
          x_, codes_.data(), taking_part_, first, static_cast<std::int32_t>(width), counts.data(), magnitudes.data(),
          range.data());
      SCW_CUDA_LAUNCHED("rank_genes_groups: count");
    }
    const Array<U64> largest = to_host<U64>(ctx_, std::as_const(magnitudes).view());
    for (std::int64_t j = 0; j < n_genes_; ++j) {
      const auto bits = static_cast<typename Bits<V>::Magnitude>(largest[j]);
      const double m = map_(static_cast<double>(std::bit_cast<V>(bits)));
      if (!(m <= std::numeric_limits<double>::max())) {
        out_.bad_gene = j;
        return false;
      }
      moments_.scale[j] = prim::FixedScale::for_max(m);
    }
    scales_ = to_device<prim::FixedScale>(ctx_, std::as_const(moments_.scale).view(), "gene scales");
    entries_ = to_host<U64>(ctx_, std::as_const(counts).view());
    const Array<U64> ends = to_host<U64>(ctx_, std::as_const(range).view());
    layout_.low = ends[0] <= ends[1] ? static_cast<Value>(ends[0]) : Value{0};
    layout_.value_bits = std::max(1, static_cast<int>(std::bit_width(ends[0] <= ends[1] ? ends[1] - ends[0] : U64{0})));
    layout_.group_bits = std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint32_t>(n_codes_ - 1))));
    if (spec_.n_bins > 0) {
      bins_ = layout_;
      bins_.low = 0;
      bins_.value_bits = static_cast<int>(std::bit_width(static_cast<std::uint32_t>(spec_.n_bins)));
    }
    return true;
  }

  /// Blocks of genes: entries that fit, and a gene number that fits beside value and group.
  void plan() {
    const int value_bits = std::max(layout_.value_bits, spec_.n_bins > 0 ? bins_.value_bits : 0);
    const int gene_bits = std::min(30, static_cast<int>(8 * sizeof(Key)) - layout_.group_bits - value_bits);
    const std::int64_t most_genes = std::int64_t{1} << gene_bits;
    const std::int64_t room = block_bytes(ctx_) / static_cast<std::int64_t>(2 * sizeof(Key));
    blocks_ = {0};
    std::int64_t held = 0, most = 0;
    for (std::int64_t j = 0; j < n_genes_; ++j) {
      const auto n = static_cast<std::int64_t>(entries_[j]);
      if (j > blocks_.back() && (held + n > room || j - blocks_.back() == most_genes)) {
        blocks_.push_back(j);
        held = 0;
      }
      held += n;
      most = std::max(most, held);
    }
    if (n_genes_ > 0) blocks_.push_back(n_genes_);
    if (most == 0) return;
    // One key more than there are: the counts of the reference's cells end with their total.
    keys_ = Array<Key>(ctx_.workspace, most + 1, "genes to sort", ctx_.stream);
    spare_ = Array<Key>(ctx_.workspace, most + 1, "sorted genes", ctx_.stream);
    std::size_t bytes = 0, scan_bytes = 0;
    cub::DoubleBuffer<Key> buffer(keys_.data(), spare_.data());
    SCW_CUDA(cub::DeviceRadixSort::SortKeys(nullptr, bytes, buffer, static_cast<std::uint32_t>(most), 0,
                                            static_cast<int>(8 * sizeof(Key)), stream_));
    if (spec_.reference >= 0)
      SCW_CUDA(cub::DeviceScan::ExclusiveSum(
          nullptr, scan_bytes, thrust::make_transform_iterator(keys_.data(), IsReference<V>{}),
          static_cast<std::uint32_t*>(nullptr), static_cast<std::uint32_t>(most + 1), stream_));
    temp_ = Array<unsigned char>(ctx_.workspace, static_cast<std::int64_t>(std::max(bytes, scan_bytes)), "sort",
                                 ctx_.stream);
    used_ = Array<U64>(ctx_.workspace, 1, "keys", ctx_.stream);
    if constexpr (kIsCsr<X>) {
      row_begin_ = zeroed<std::int32_t>(ctx_, x_.n_rows, "row positions");
      row_end_ = Array<std::int32_t>(ctx_.workspace, x_.n_rows, "row positions", ctx_.stream);
    }
  }

  void sort(cub::DoubleBuffer<Key>& keys, std::int64_t n, int begin_bit, int end_bit) {
    if (end_bit <= begin_bit) return;
    auto bytes = static_cast<std::size_t>(temp_.size());
    SCW_CUDA(cub::DeviceRadixSort::SortKeys(temp_.data(), bytes, keys, static_cast<std::uint32_t>(n), begin_bit,
                                            end_bit, stream_));
  }

  void block(std::int64_t first, std::int64_t last) {
    Segments s;
    s.first = first;
    s.n = static_cast<std::int32_t>(last - first);
    std::vector<std::int64_t> begin{0};
    std::vector<std::int32_t> tile{0};
    for (std::int64_t j = first; j < last; ++j) {
      const auto n = static_cast<std::int64_t>(entries_[j]);
      begin.push_back(begin.back() + n);
      tile.push_back(tile.back() + static_cast<std::int32_t>((n + kTile - 1) / kTile));
    }
    const Array<std::int64_t> begins = to_device<std::int64_t>(ctx_, begin, "gene segments");
    const Array<std::int32_t> tiles = to_device<std::int32_t>(ctx_, tile, "gene tiles");
    s.begin = begins.data();
    s.tile = tiles.data();
    const std::int64_t n = begin.back();
    const auto n_tiles = static_cast<unsigned>(tile.back());
    Array<std::int32_t> gene_of_tile(ctx_.workspace, tile.back(), "gene tiles", ctx_.stream);
    s.gene_of_tile = gene_of_tile.data();
    map_tiles_kernel<<<static_cast<unsigned>(s.n), kThreads, 0, stream_>>>(s);
    SCW_CUDA_LAUNCHED("rank_genes_groups: map_tiles");
    const int gene_bits = static_cast<int>(std::bit_width(static_cast<std::uint32_t>(s.n - 1)));
    const bool with_reference = spec_.reference >= 0;

    Layout<V> layout = layout_;
    cub::DoubleBuffer<Key> keys(keys_.data(), spare_.data());
    if (n > 0) {
      fill(s, keys.Current());
      const bool binned = spec_.n_bins > 0;
      // Bins: sums need the genes apart, ranks the bins in order.
      sort(keys, n, binned ? layout.gene_shift() : (with_reference ? 0 : layout.group_bits),
           layout.gene_shift() + gene_bits);
      const Slots slots = make_slots(n_codes_);
      sums_kernel<V><<<n_tiles, kThreads, static_cast<std::size_t>(slots.size()) * 12, stream_>>>(
          s, keys.Current(), layout, map_.expm1_scale.has_value(), map_.expm1_scale.value_or(0), scales_.data(),
          n_genes_, slots, {sum_low_.data(), sum_high_.data(), stored_.data(), zeros_.data()});
      SCW_CUDA_LAUNCHED("rank_genes_groups: sums");
      if (binned) {
        bin_kernel<V><<<scw::cuda::grid_for(n, 8 * kThreads), kThreads, 0, stream_>>>(keys.Current(), n, layout, bins_,
                                                                                      binning());
        SCW_CUDA_LAUNCHED("rank_genes_groups: bins");
        layout = bins_;
        sort(keys, n, with_reference ? 0 : layout.group_bits, layout.gene_shift() + gene_bits);
      }
    }
    const Value zero = spec_.n_bins > 0 ? binning()(0.0) : prim::sortable_bits(V{0});
    const Ranks ranks{twice_.data(), ties_low_.data(), ties_high_.data()};
    const Slots slots = make_slots(spec_.n_groups);
    const std::size_t shared = static_cast<std::size_t>(slots.size()) * 8;
    const dim3 finish(scw::cuda::grid_for(s.n, kThreads), static_cast<unsigned>((spec_.n_groups + 31) / 32));
    if (!with_reference) {
      if (n > 0) {
        rank_all_kernel<V><<<n_tiles, kThreads, shared, stream_>>>(s, keys.Current(), layout, zero, n_ranked_,
                                                                   spec_.n_groups, n_genes_, slots, ranks);
        SCW_CUDA_LAUNCHED("rank_genes_groups: rank_all");
      }
      finish_all_kernel<V><<<finish, kThreads, 0, stream_>>>(s, keys.Current(), layout, zero, n_ranked_, sizes_.data(),
                                                             spec_.n_groups, n_genes_, stored_.data(), ranks,
                                                             twice_out_.data(), ties_out_.data());
      SCW_CUDA_LAUNCHED("rank_genes_groups: finish_all");
      return;
    }
    auto* const references = reinterpret_cast<std::uint32_t*>(keys.Alternate());
    if (n > 0) {
      auto bytes = static_cast<std::size_t>(temp_.size());
      SCW_CUDA(cudaMemsetAsync(keys.Current() + n, 0, sizeof(Key), stream_));  // read, but no part of the sums
      SCW_CUDA(cub::DeviceScan::ExclusiveSum(
          temp_.data(), bytes, thrust::make_transform_iterator(keys.Current(), IsReference<V>{layout, spec_.reference}),
          references, static_cast<std::uint32_t>(n + 1), stream_));
      rank_reference_kernel<V><<<n_tiles, kThreads, shared, stream_>>>(s, keys.Current(), references, layout, zero,
                                                                       spec_.reference, reference_size_, stored_.data(),
                                                                       n_genes_, slots, ranks);
      SCW_CUDA_LAUNCHED("rank_genes_groups: rank_reference");
    }
    finish_reference_kernel<V><<<finish, kThreads, 0, stream_>>>(
        s, keys.Current(), references, layout, zero, spec_.reference, sizes_.data(), spec_.n_groups, n_genes_,
        stored_.data(), ranks, twice_out_.data(), ties_out_.data());
    SCW_CUDA_LAUNCHED("rank_genes_groups: finish_reference");
  }

  void fill(const Segments& s, Key* keys) {
    SCW_CUDA(cudaMemsetAsync(used_.data(), 0, sizeof(U64), stream_));
    if constexpr (kIsCsr<X>) {
      advance_kernel<<<scw::cuda::grid_for(x_.n_rows, kThreads, 1 << 30), kThreads, 0, stream_>>>(
          x_, codes_.data(), taking_part_, s.first + s.n, row_begin_.data(), row_end_.data());
      SCW_CUDA_LAUNCHED("rank_genes_groups: advance");
    }
    fill_kernel<V><<<scw::cuda::grid_for(x_.n_rows, kFillRows, 1 << 30), kThreads, 0, stream_>>>(
        x_, codes_.data(), taking_part_, row_begin_.data(), row_end_.data(), s.first, s.first + s.n, layout_, keys,
        used_.data());
    SCW_CUDA_LAUNCHED("rank_genes_groups: fill");
    row_begin_.swap(row_end_);
  }

  Binning<V> binning() const { return {spec_.low, spec_.high, static_cast<double>(spec_.n_bins), spec_.zeros_apart}; }

  void collect() {
    const auto copy = [&](auto& to, const auto& from) {
      using T = typename std::decay_t<decltype(to)>::value_type;
      copy_bytes(ctx_, to.data(), Device{}, from.data(), ctx_.device,
                 static_cast<std::size_t>(from.size()) * sizeof(T));
    };
    copy(out_.twice_rank_sum, twice_out_);
    copy(out_.ties, ties_out_);
    const Array<U64> low = to_host<U64>(ctx_, std::as_const(sum_low_).view());
    const Array<U64> high = to_host<U64>(ctx_, std::as_const(sum_high_).view());
    const Array<std::uint32_t> stored = to_host<std::uint32_t>(ctx_, std::as_const(stored_).view());
    const Array<std::uint32_t> zeros = to_host<std::uint32_t>(ctx_, std::as_const(zeros_).view());
    parallel_for(ctx_.host(), low.size(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) {
        moments_.moments[k].sum = static_cast<Int128>((static_cast<Uint128>(high[k]) << 64) | low[k]);
        moments_.nonzero[k] = static_cast<std::int32_t>(stored[k] - zeros[k]);
      }
    });
  }

  const Context& ctx_;
  cudaStream_t stream_;
  X x_;
  const RankSpec& spec_;
  const prim::ValueMap& map_;
  prim::GroupMoments& moments_;
  RankSums& out_;
  std::int64_t n_genes_;
  std::int32_t n_codes_, taking_part_;
  std::int64_t n_ranked_, reference_size_ = 0;
  Array<std::int32_t> codes_;
  Array<std::int64_t> sizes_;
  Array<U64> entries_;  // on the host
  Layout<V> layout_, bins_;
  std::vector<std::int64_t> blocks_;
  Array<Key> keys_, spare_;
  Array<unsigned char> temp_;
  Array<U64> used_;
  Array<std::int32_t> row_begin_, row_end_;
  Array<U64> sum_low_, sum_high_, twice_, ties_low_, ties_high_;
  Array<std::uint32_t> stored_, zeros_;
  Array<std::int64_t> twice_out_;
  Array<double> ties_out_;
  Array<prim::FixedScale> scales_;
};

}  // namespace ranks

/// One file an element type, for the time that nvcc takes.
void rank_sums_f64(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes, const RankSpec& spec,
                   const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out);

}  // namespace scw::tl::cuda
