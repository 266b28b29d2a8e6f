// Per-gene sums of rows on CUDA: exact, in one read of the matrix, without sorting and without 64-bit atomics in shared
// memory (which do not exist in hardware).
//
// Sparse rows. A block of 1024 threads, one per multiprocessor, holds 32-bit accumulators for a range of genes (a tile,
// as many as fit its shared memory) and walks a slab of rows: one native shared-memory atomic per word and entry, about
// 1.4 ms a word for 2e9 entries. Words are flushed into 64- or 128-bit integers in global memory before they can
// overflow. With more than one tile, the place of each tile in every row is found first by binary search (columns are
// sorted), so that each entry is still read once. Integers are added in any order, so nothing depends on the schedule.
//
// Dense rows. A thread owns a column and keeps its sums in registers.
//
// Rows can be visited by group (RowOrder); sums are then flushed between groups.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/cuda/cuda_check.cuh"
#include "core/cuda/kernel_attributes.cuh"
#include "prim/packs.cuh"
#include "scwarp/core/array.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim::cuda {

inline constexpr int kTileThreads = 1024;
inline constexpr int kColumnThreads = 128;
/// Rows whose ends a warp looks up together.
inline constexpr int kRowBatch = 8;
/// Entries that a warp takes at a time where row boundaries do not matter.
inline constexpr std::int64_t kPiece = 2048;

/// Rows to visit: all of them, as one group, or those listed, group by group.
struct RowOrder {
  std::int64_t n = 0;                   // rows of the matrix
  const std::int32_t* rows = nullptr;   // null: all rows
  const std::int64_t* begin = nullptr;  // [n_groups + 1] where each group starts in `rows`
  std::int32_t n_groups = 1;

  __device__ std::int64_t size() const { return rows != nullptr ? begin[n_groups] : n; }
  __device__ std::int64_t row(std::int64_t p) const { return rows != nullptr ? rows[p] : p; }
  /// The group that position p < size() belongs to, and where it ends.
  __device__ std::int32_t group(std::int64_t p, std::int64_t& end) const {
    if (rows == nullptr) {
      end = n;
      return 0;
    }
    std::int32_t low = 0, high = n_groups;  // begin[low] <= p < begin[high]
    while (high - low > 1) {
      const std::int32_t mid = low + (high - low) / 2;
      (begin[mid] <= p ? low : high) = mid;
    }
    end = begin[high];
    return low;
  }
};

/// Owns what a RowOrder points to. The order of rows inside a group is left to chance; sums of integers do not see it.
struct GroupedRows {
  Array<std::int32_t> rows;
  Array<std::int64_t> begin;
};

/// codes: group of each row, [0, n_groups), any other: row left out; on ctx.device.
GroupedRows group_rows(const Context& ctx, Span<const std::int32_t> codes, std::int32_t n_groups);
/// Rows in each group, on the host.
std::vector<std::int64_t> group_sizes(const Context& ctx, Span<const std::int32_t> codes, std::int32_t n_groups);

inline RowOrder row_order(const GroupedRows& grouped, std::int64_t n_rows, std::int32_t n_groups) {
  return grouped.begin.empty() ? RowOrder{n_rows}
                               : RowOrder{n_rows, grouped.rows.data(), grouped.begin.data(), n_groups};
}

struct GeneTiles {
  int count = 1;
  std::int32_t width = 0;                // genes of a tile
  const std::int32_t* splits = nullptr;  // [count - 1][n_rows] where tile t + 1 starts in a row; null for one tile
};

/// splits[t][i] = entries of row i left of column (t + 1) * width.
void split_rows(const Context& ctx, std::int64_t n_rows, Span<const std::int64_t> indptr,
                Span<const std::int32_t> indices, std::int32_t width, Span<std::int32_t> splits);

int multiprocessors(const Context& ctx);
/// Shared memory that a block may ask for.
int shared_bytes(const Context& ctx);

/// 128-bit integer in memory, low word first.
__device__ inline void add_128(std::uint64_t* to, std::uint64_t low, std::uint64_t high) {
  auto* const word = reinterpret_cast<unsigned long long*>(to);
  if (low != 0) {
    const unsigned long long before = atomicAdd(word, low);
    high += before + low < before ? 1u : 0u;
  }
  if (high != 0) atomicAdd(word + 1, high);
}
__device__ inline void add_128(std::uint64_t* to, std::int64_t value) {
  add_128(to, static_cast<std::uint64_t>(value), value < 0 ? ~std::uint64_t{0} : 0u);
}

/// op.visit(value, column - first) for the entries begin <= k < end, by one warp.
template <int kUnroll, class V, class Op>
__device__ inline void visit_entries(const CsrView<const V>& x, std::int64_t begin, std::int64_t end,
                                     std::int32_t first, Op& op) {
  const V* const values = x.values.data;
  const std::int32_t* const columns = x.indices.data;
  std::int64_t k = begin + (threadIdx.x & 31);
  for (; k + (kUnroll - 1) * 32 < end; k += kUnroll * 32) {
    V v[kUnroll];
    std::int32_t j[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      v[u] = __ldcs(values + k + u * 32);
      j[u] = __ldcs(columns + k + u * 32);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) op.visit(v[u], j[u] - first);
  }
  if (k >= end) return;
  V v[kUnroll];  // what is left, in flight together as well
  std::int32_t j[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const bool inside = u == 0 || k + u * 32 < end;
    v[u] = inside ? __ldcs(values + k + u * 32) : V{0};
    j[u] = inside ? __ldcs(columns + k + u * 32) : 0;
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u)
    if (u == 0 || k + u * 32 < end) op.visit(v[u], j[u] - first);
}

/// First row whose entries start at or after `entry`.
template <class V>
__device__ inline std::int64_t row_at(const CsrView<const V>& x, std::int64_t entry) {
  std::int64_t low = 0, high = x.n_rows;
  while (low < high) {
    const std::int64_t mid = low + (high - low) / 2;
    if (x.indptr.data[mid] < entry)
      low = mid + 1;
    else
      high = mid;
  }
  return low;
}

// An Op is a struct with
//   kBytesPerGene, kMaxRows (before a flush), kUnroll, kWantsRows (end_row is called; needs one tile);
//   attach(memory, first, width, capacity)  before anything else, by every thread;
//   clear()                                 all threads together: words to zero;
//   begin_group(g); visit(value, column - first); end_row(row); flush(g) (which clears); finish().
template <class V, class Op>
__global__ void __launch_bounds__(kTileThreads, 1)
    gene_tiles_kernel(CsrView<const V> x, RowOrder order, GeneTiles tiles, Op op) {
  extern __shared__ __align__(16) unsigned char tile_memory[];
  const auto tile = static_cast<std::int32_t>(blockIdx.x % static_cast<unsigned>(tiles.count));
  const std::int64_t slab = blockIdx.x / static_cast<unsigned>(tiles.count);
  const std::int64_t slabs = gridDim.x / static_cast<unsigned>(tiles.count);
  const std::int32_t first = tile * tiles.width;
  op.attach(tile_memory, first, min(tiles.width, x.n_cols - first), tiles.width);
  op.clear();

  std::int64_t p = 0, last = 0;
  if (order.rows != nullptr) {
    p = order.size() * slab / slabs;
    last = order.size() * (slab + 1) / slabs;
  } else {  // slabs of equal numbers of entries
    const std::int64_t base = x.indptr.data[0], nnz = x.indptr.data[x.n_rows] - base;
    p = slab == 0 ? 0 : row_at(x, base + nnz * slab / slabs);
    last = slab + 1 == slabs ? x.n_rows : row_at(x, base + nnz * (slab + 1) / slabs);
  }
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  while (p < last) {
    std::int64_t end = 0;
    const std::int32_t group = order.group(p, end);
    end = min(min(end, last), p + Op::kMaxRows);
    op.begin_group(group);
    __syncthreads();
    if (!Op::kWantsRows && order.rows == nullptr && tiles.count == 1) {
      const std::int64_t stop = x.indptr.data[end];
      for (std::int64_t k = x.indptr.data[p] + warp * kPiece; k < stop; k += kTileThreads / 32 * kPiece)
        visit_entries<Op::kUnroll>(x, k, min(k + kPiece, stop), first, op);
    } else {
      for (std::int64_t base = p + warp * kRowBatch; base < end; base += kTileThreads / 32 * kRowBatch) {
        std::int64_t row = 0, row_begin = 0, row_end = 0;
        if (lane < kRowBatch && base + lane < end) {
          row = order.row(base + lane);
          const std::int64_t start = x.indptr.data[row];
          row_begin = tile == 0 ? start : start + tiles.splits[(tile - 1) * x.n_rows + row];
          row_end = tile + 1 == tiles.count ? x.indptr.data[row + 1] : start + tiles.splits[tile * x.n_rows + row];
        }
        const int rows = static_cast<int>(min(std::int64_t{kRowBatch}, end - base));
        for (int r = 0; r < rows; ++r) {
          visit_entries<Op::kUnroll>(x, __shfl_sync(0xFFFFFFFFu, row_begin, r), __shfl_sync(0xFFFFFFFFu, row_end, r),
                                     first, op);
          if constexpr (Op::kWantsRows) op.end_row(__shfl_sync(0xFFFFFFFFu, row, r));
        }
      }
    }
    __syncthreads();
    op.flush(group);
    __syncthreads();
    p = end;
  }
  op.finish();
}

/// How many tiles the genes need, and their width, a multiple of 32.
inline GeneTiles plan_tiles(const Context& ctx, std::int32_t genes, int bytes_per_gene) {
  const int capacity = std::max(32, (shared_bytes(ctx) - 64) / bytes_per_gene / 32 * 32);
  GeneTiles t;
  t.count = static_cast<int>(std::max<std::int64_t>(1, (std::int64_t{genes} + capacity - 1) / capacity));
  t.width = (genes + t.count - 1) / t.count;
  t.width = (t.width + 31) / 32 * 32;
  return t;
}

template <class Op, class V>
void run_gene_tiles(const Context& ctx, const CsrView<const V>& x, const RowOrder& order, const Op& op,
                    const char* name) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  GeneTiles tiles = plan_tiles(ctx, x.n_cols, Op::kBytesPerGene);
  Array<std::int32_t> splits;
  if (tiles.count > 1) {
    splits = Array<std::int32_t>(ctx.workspace, checked_mul(tiles.count - 1, x.n_rows), "gene tiles", ctx.stream);
    split_rows(ctx, x.n_rows, x.indptr, x.indices, tiles.width, splits.view());
    tiles.splits = splits.data();
  }
  const auto bytes = static_cast<std::size_t>(tiles.width) * Op::kBytesPerGene + 16;
  scw::cuda::allow_shared_memory(ctx, &gene_tiles_kernel<V, Op>);
  const std::int64_t slabs =
      std::clamp<std::int64_t>((x.n_rows + 31) / 32, 1, std::max(1, multiprocessors(ctx) / tiles.count));
  gene_tiles_kernel<V, Op>
      <<<static_cast<unsigned>(slabs * tiles.count), kTileThreads, bytes, scw::cuda::stream_of(ctx)>>>(x, order, tiles,
                                                                                                       op);
  SCW_CUDA_LAUNCHED(name);
}

// A dense Op: Sum (zero when value-initialised); kMaxTerms (before a flush); begin_column(column); add(sum, value);
// flush(sum, group, column); finish(). With kPacks, a thread has several neighbouring columns where rows are aligned.
template <int kWide, class V, class Op>
__global__ void __launch_bounds__(kColumnThreads) gene_columns_kernel(MatrixView<const V> x, RowOrder order, Op op) {
  const std::int64_t j = (std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x) * kWide;
  if (j < x.n_cols) {
    Op own[kWide];
#pragma unroll
    for (int c = 0; c < kWide; ++c) {
      own[c] = op;
      own[c].begin_column(j + c);
    }
    const V* const column = x.data + j;
    const std::int64_t size = order.size();
    std::int64_t p = size * blockIdx.y / gridDim.y;
    const std::int64_t last = size * (blockIdx.y + 1) / gridDim.y;
    while (p < last) {
      std::int64_t end = 0;
      const std::int32_t group = order.group(p, end);
      end = min(min(end, last), p + Op::kMaxTerms);
      typename Op::Sum sum[kWide] = {};
      constexpr int kUnroll = kWide == 1 ? 8 : 4;
      for (; p + kUnroll <= end; p += kUnroll) {
        Pack<V, kWide> v[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) v[u] = load_pack<kWide>(column + order.row(p + u) * x.ld);
#pragma unroll
        for (int u = 0; u < kUnroll; ++u)
#pragma unroll
          for (int c = 0; c < kWide; ++c) own[c].add(sum[c], v[u].v[c]);
      }
      for (; p < end; ++p) {
        const Pack<V, kWide> v = load_pack<kWide>(column + order.row(p) * x.ld);
#pragma unroll
        for (int c = 0; c < kWide; ++c) own[c].add(sum[c], v.v[c]);
      }
#pragma unroll
      for (int c = 0; c < kWide; ++c) own[c].flush(sum[c], group, j + c);
    }
#pragma unroll
    for (int c = 0; c < kWide; ++c) own[c].finish();
  }
}

template <class Op, class V>
void run_gene_columns(const Context& ctx, const MatrixView<const V>& x, const RowOrder& order, const Op& op,
                      const char* name) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  const auto launch = [&](auto wide) {
    constexpr int kWide = decltype(wide)::value;
    const std::int64_t blocks = (x.n_cols + kColumnThreads * kWide - 1) / (kColumnThreads * kWide);
    const std::int64_t wanted = std::int64_t{multiprocessors(ctx)} * (2048 / kColumnThreads) * 2;
    const std::int64_t slabs =
        std::clamp<std::int64_t>(std::min((wanted + blocks - 1) / blocks, (x.n_rows + 63) / 64), 1, 65535);
    gene_columns_kernel<kWide, V, Op><<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(slabs)),
                                        kColumnThreads, 0, scw::cuda::stream_of(ctx)>>>(x, order, op);
    SCW_CUDA_LAUNCHED(name);
  };
  if constexpr (requires { Op::kPacks; })
    if (in_packs(x)) return launch(std::integral_constant<int, kPackWidth<V>>());
  launch(std::integral_constant<int, 1>());
}

/// Both layouts under one name.
template <class SparseOp, class DenseOp, class V>
void run_genes(const Context& ctx, const CsrView<const V>& x, const RowOrder& order, const SparseOp& sparse,
               const DenseOp&, const char* name) {
  run_gene_tiles(ctx, x, order, sparse, name);
}
template <class SparseOp, class DenseOp, class V>
void run_genes(const Context& ctx, const MatrixView<const V>& x, const RowOrder& order, const SparseOp&,
               const DenseOp& dense, const char* name) {
  run_gene_columns(ctx, x, order, dense, name);
}

}  // namespace scw::prim::cuda
