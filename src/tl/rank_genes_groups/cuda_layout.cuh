// What the kernels of the rank sums share: an entry as one integer (gene, value, group), whose order as a number is the
// order wanted, and the tiles into which the sorted entries of each gene are cut. An entry of float x takes 8 bytes, of
// double x 16: the bytes that each pass over a block of genes moves.
#pragma once

#include <cstdint>

#include "core/cuda/cuda_check.cuh"
#include "prim/radix_sort.hpp"
#include "prim/row_ops.cuh"
#include "tl/rank_genes_groups/kernel.hpp"

namespace scw::tl::cuda::ranks {

using prim::Int128;
using prim::Uint128;
using U64 = unsigned long long;  // the type that atomics take

inline constexpr int kThreads = 256;
inline constexpr int kItems = 16;                // a thread
inline constexpr int kTile = kThreads * kItems;  // entries
inline constexpr int kWords = kTile / 32;

/// Integers that hold the order of a value, its magnitude, and a whole key.
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

template <class V>
__device__ typename Bits<V>::Value sortable_value(V v) {
  return prim::sortable_bits(v == V{0} ? V{0} : v);  // one zero
}

template <class X>
inline constexpr bool kIsCsr = false;
template <class V>
inline constexpr bool kIsCsr<CsrView<V>> = true;

/// Key: (gene within the block, value less the smallest one, group) from the highest bit down.
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
  /// Gene and value: equal keys of these are ties.
  __device__ Key run(Key k) const { return k >> group_bits; }
};

/// The genes [first, first + n) of the matrix as segments of the sorted keys.
struct Segments {
  std::int64_t first = 0;
  std::int32_t n = 0;
  const std::int64_t* begin = nullptr;   // [n + 1], positions in the keys
  const std::int32_t* tile = nullptr;    // [n + 1], tiles before each gene
  std::int32_t* gene_of_tile = nullptr;  // within the block
};

/// At most kTile keys in a row, all of one gene; a block of threads takes one.
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

/// Fills gene_of_tile; a block of threads a gene.
static __global__ void __launch_bounds__(kThreads) map_tiles_kernel(Segments s) {
  for (std::int32_t b = s.tile[blockIdx.x] + static_cast<std::int32_t>(threadIdx.x); b < s.tile[blockIdx.x + 1];
       b += kThreads)
    s.gene_of_tile[b] = static_cast<std::int32_t>(blockIdx.x);
}

}  // namespace scw::tl::cuda::ranks
