// The two products with a sparse matrix: logits x w and gradient x' residuals.
// Both gather rows of K numbers (a chunk of the classes) from shared memory, where random rows cost bank conflicts but
// no cache lines: logits take cells, the weights of a range of genes in shared memory; the gradient takes genes of a
// tile of cells, its residuals in shared memory, from entries kept by gene (transpose_kernel, once).
// Floor, float: 8 bytes an entry by cell and 6 by gene, 2 ms for 6e8 at 4.3 TB/s; the gathers, see cuda.cuh, take more.
#pragma once

#include <cstdint>

#include <cub/block/block_scan.cuh>

#include "core/cuda/cuda_check.cuh"
#include "prim/row_ops.cuh"
#include "tl/logistic_regression/kernel.hpp"

namespace scw::tl::cuda::logreg {

inline constexpr int kWide = 1024;    // threads of the gathering kernels: one block a multiprocessor
inline constexpr int kThreads = 256;  // of most others
inline constexpr int kTransposeThreads = 512;

template <class S>
struct Piece;  // 16 bytes: what one load from shared memory takes
template <>
struct Piece<float> {
  using T = float4;
};
template <>
struct Piece<double> {
  using T = double2;
};

/// Classes go through the gathering kernels in chunks of this many, the last one narrower.
template <class S>
inline constexpr int kMostClasses = sizeof(S) == 4 ? 32 : 16;

/// A row of K numbers in shared memory: an odd number of 16-byte pieces, so that random rows meet all banks.
template <class S, int K>
struct Row {
  static constexpr int kEach = 16 / static_cast<int>(sizeof(S));
  static constexpr int kPieces = K / kEach;
  static constexpr int kStride = kPieces | 1;  // in pieces
};
template <class S>
constexpr std::int64_t row_bytes(int k) {
  return (static_cast<std::int64_t>(k) * static_cast<std::int64_t>(sizeof(S)) / 16 | 1) * 16;
}

__device__ inline void multiply_add(float v, const float4& r, float* sum) {
  sum[0] = fmaf(v, r.x, sum[0]);
  sum[1] = fmaf(v, r.y, sum[1]);
  sum[2] = fmaf(v, r.z, sum[2]);
  sum[3] = fmaf(v, r.w, sum[3]);
}
__device__ inline void multiply_add(double v, const double2& r, double* sum) {
  sum[0] = fma(v, r.x, sum[0]);
  sum[1] = fma(v, r.y, sum[1]);
}

/// Sums over the 32 lanes. Halves of the values change sides while there is an even number of them; lane l ends with
/// kLeft of the sums, from index base on (the same in all lanes of a group of kGroup).
template <int K>
struct LaneSums {
  static constexpr int halvings() {
    int h = 0;
    for (int k = K; k % 2 == 0 && h < 5; k /= 2) ++h;
    return h;
  }
  static constexpr int kLeft = K >> halvings();
  static constexpr int kGroup = 32 >> halvings();
};
template <int N, int Offset, class S>
__device__ inline void lane_sums(S* v, int lane, int& base) {
  if constexpr (Offset > 0) {
    if constexpr (N % 2 == 0) {
      const bool upper = (lane & Offset) != 0;
#pragma unroll
      for (int i = 0; i < N / 2; ++i) {
        const S give = upper ? v[i] : v[i + N / 2];
        const S keep = upper ? v[i + N / 2] : v[i];
        v[i] = keep + __shfl_xor_sync(0xFFFFFFFFu, give, Offset);
      }
      if (upper) base += N / 2;
      lane_sums<N / 2, Offset / 2>(v, lane, base);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += __shfl_xor_sync(0xFFFFFFFFu, v[i], Offset);
      lane_sums<N, Offset / 2>(v, lane, base);
    }
  }
}

/// sum over the entries [lane, count) in steps of 32 of value * row(index), then over the lanes.
template <class S, int K, class Index>
__device__ inline void gather(const Index* index, const S* value, std::int64_t count, Index first,
                              const typename Piece<S>::T* rows, S (&sum)[K], int lane, int& base) {
#pragma unroll
  for (int k = 0; k < K; ++k) sum[k] = 0;
  Index at = 0;
  S v = 0;
  if (lane < count) {
    at = index[lane];
    v = value[lane];
  }
  for (std::int64_t k = lane; k < count; k += 32) {
    const auto* const row = rows + static_cast<int>(at - first) * Row<S, K>::kStride;
    const S here = v;
    if (k + 32 < count) {
      at = index[k + 32];
      v = value[k + 32];
    }
#pragma unroll
    for (int p = 0; p < Row<S, K>::kPieces; ++p) multiply_add(here, row[p], sum + p * Row<S, K>::kEach);
  }
  base = 0;
  lane_sums<K, 16>(sum, lane, base);
}

/// Rows of K numbers, one behind the other, to shared memory.
template <class S, int K>
__device__ inline void load_rows(const S* from, std::int64_t n, typename Piece<S>::T* to) {
  const auto* const pieces = reinterpret_cast<const typename Piece<S>::T*>(from);
  for (std::int64_t i = threadIdx.x; i < n * Row<S, K>::kPieces; i += kWide)
    to[i / Row<S, K>::kPieces * Row<S, K>::kStride + i % Row<S, K>::kPieces] = pieces[i];
}

/// end[i] = entries of row i before gene `end_gene`: where the ranges of genes of logits_kernel meet.
template <class S>
__global__ void __launch_bounds__(kThreads) split_kernel(CsrView<const S> x, std::int32_t end_gene, std::int32_t* end) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= x.n_rows) return;
  const std::int32_t* const row = x.indices.data + x.indptr.data[i];
  std::int64_t low = 0, high = x.indptr.data[i + 1] - x.indptr.data[i];
  while (low < high) {
    const std::int64_t mid = (low + high) / 2;
    if (row[mid] < end_gene)
      low = mid + 1;
    else
      high = mid;
  }
  end[i] = static_cast<std::int32_t>(low);
}

/// z (+)= x[:, first : first + n_genes] * weights. begin, end: of these genes in each row (null: of the row).
template <class S, int K>
__global__ void __launch_bounds__(kWide, 1)
    logits_kernel(CsrView<const S> x, const std::int32_t* codes, const std::int32_t* begin, const std::int32_t* end,
                  std::int32_t first, std::int32_t n_genes, const S* weights, S* z) {
  extern __shared__ double2 shared[];
  auto* const rows = reinterpret_cast<typename Piece<S>::T*>(shared);
  load_rows<S, K>(weights + std::int64_t{first} * K, n_genes, rows);
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kWide / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kWide + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    if (codes[i] < 0) continue;
    const std::int64_t row = x.indptr.data[i];
    const std::int64_t from = begin != nullptr ? row + begin[i] : row;
    const std::int64_t to = end != nullptr ? row + end[i] : x.indptr.data[i + 1];
    S sum[K];
    int base = 0;
    gather<S, K>(x.indices.data + from, x.values.data + from, to - from, first, rows, sum, lane, base);
    if (lane % LaneSums<K>::kGroup != 0) continue;
    S* const out = z + i * K + base;
#pragma unroll
    for (int k = 0; k < LaneSums<K>::kLeft; ++k) out[k] = begin != nullptr ? out[k] + sum[k] : sum[k];
  }
}

/// The entries by tile of rows, then by gene; a tile's entries lie where its rows lie in the matrix.
template <class S>
struct Tiles {
  std::int64_t n = 0, rows = 0, n_rows = 0;
  std::int32_t n_genes = 0;
  const std::int64_t* indptr = nullptr;  // of the matrix
  std::uint32_t* starts = nullptr;       // [n x (n_genes + 1)], within the tile
  std::uint16_t* row = nullptr;          // [nnz], within the tile
  S* value = nullptr;                    // [nnz]
  __device__ std::int64_t base(std::int64_t tile) const { return indptr[tile * rows] - indptr[0]; }
};

/// Fills a tile, row after row, so that the rows of a gene come in order; the genes of a row are distinct, so that no
/// two threads place an entry of the same gene. in_shared: counters in shared memory, else in `starts`.
template <class S>
__global__ void __launch_bounds__(kTransposeThreads) transpose_kernel(CsrView<const S> x, Tiles<S> t, bool in_shared) {
  extern __shared__ std::uint32_t counters[];
  using Scan = cub::BlockScan<std::uint32_t, kTransposeThreads>;
  __shared__ typename Scan::TempStorage temp;
  const auto tid = static_cast<std::int32_t>(threadIdx.x);
  const std::int64_t tile = blockIdx.x;
  const std::int64_t first = tile * t.rows;
  const std::int64_t last = first + t.rows < t.n_rows ? first + t.rows : t.n_rows;
  std::uint32_t* const starts = t.starts + tile * (std::int64_t{t.n_genes} + 1);
  // The end of a gene, once all its entries are placed, is the start of the next.
  std::uint32_t* const at = in_shared ? counters : starts + 1;
  for (std::int32_t j = tid; j < t.n_genes; j += kTransposeThreads) at[j] = 0;
  __syncthreads();
  const std::int64_t end = x.indptr.data[last];
  for (std::int64_t k = x.indptr.data[first] + tid; k < end; k += kTransposeThreads)
    atomicAdd(at + x.indices.data[k], 1u);
  __syncthreads();
  std::uint32_t before = 0;
  for (std::int32_t j0 = 0; j0 < t.n_genes; j0 += kTransposeThreads) {
    const std::int32_t j = j0 + tid;
    std::uint32_t offset = 0, total = 0;
    Scan(temp).ExclusiveSum(j < t.n_genes ? at[j] : 0u, offset, total);
    if (j < t.n_genes) at[j] = before + offset;
    before += total;
    __syncthreads();
  }
  const std::int64_t base = t.base(tile);
  for (std::int64_t i = first; i < last; ++i) {
    const std::int64_t row_end = x.indptr.data[i + 1];
    for (std::int64_t k = x.indptr.data[i] + tid; k < row_end; k += kTransposeThreads) {
      const std::int32_t j = x.indices.data[k];
      const std::int64_t slot = base + at[j];
      ++at[j];
      t.row[slot] = static_cast<std::uint16_t>(i - first);
      t.value[slot] = x.values.data[k];
    }
    __syncthreads();
  }
  if (tid == 0) starts[0] = 0;
  if (in_shared)
    for (std::int32_t j = tid; j < t.n_genes; j += kTransposeThreads) starts[j + 1] = at[j];
}

/// slabs[block] = sums of value * residual per gene over the block's tiles, one tile after the other.
template <class S, int K>
__global__ void __launch_bounds__(kWide, 1) gradient_kernel(Tiles<S> t, const S* residuals, double* slabs) {
  extern __shared__ double2 shared[];
  __shared__ std::int32_t next;
  auto* const rows = reinterpret_cast<typename Piece<S>::T*>(shared);
  const int lane = static_cast<int>(threadIdx.x) & 31;
  double* const slab = slabs + std::int64_t{blockIdx.x} * t.n_genes * K;
  for (std::int64_t tile = blockIdx.x; tile < t.n; tile += gridDim.x) {
    const std::int64_t first = tile * t.rows;
    __syncthreads();
    load_rows<S, K>(residuals + first * K, first + t.rows < t.n_rows ? t.rows : t.n_rows - first, rows);
    if (threadIdx.x == 0) next = 0;
    __syncthreads();
    const std::uint32_t* const starts = t.starts + tile * (std::int64_t{t.n_genes} + 1);
    const std::int64_t base = t.base(tile);
    for (;;) {  // which warp takes a gene does not show
      std::int32_t j = 0;
      if (lane == 0) j = atomicAdd(&next, 1);
      j = __shfl_sync(0xFFFFFFFFu, j, 0);
      if (j >= t.n_genes) break;
      S sum[K];
      int k0 = 0;
      const std::int64_t from = base + starts[j];
      gather<S, K>(t.row + from, t.value + from, std::int64_t{starts[j + 1]} - starts[j], std::uint16_t{0}, rows, sum,
                   lane, k0);
      if (lane % LaneSums<K>::kGroup != 0) continue;
      double* const out = slab + std::int64_t{j} * K + k0;
#pragma unroll
      for (int k = 0; k < LaneSums<K>::kLeft; ++k)
        out[k] = tile == blockIdx.x ? static_cast<double>(sum[k]) : out[k] + static_cast<double>(sum[k]);
    }
  }
}

}  // namespace scw::tl::cuda::logreg
