// Logistic regression on CUDA: the objective and the L-BFGS of cpu.cpp.
//
// Logits: a warp a cell; the weights of a range of genes lie in shared memory and the lanes gather from there.
// Gradient: cells are cut into tiles whose residuals fit shared memory, the entries of a tile are kept by gene (built
// once), and a warp takes a gene of a tile; sums of a tile are short chains in the type of x, tiles are added in
// double, in order. Every sum has a fixed order. Weights are held in double and gathered in the type of x.
//
// Floor of one evaluation with float x: the entries once by cell (8 bytes) and once by gene (6 bytes), 2 ms for 6e8 at
// 4.3 TB/s; the gathers, 4 bytes an entry, class and pass, take 3.3 ms for 20 classes at 128 bytes a clock and
// multiprocessor, times the bank conflicts of random rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <cub/block/block_scan.cuh>

#include "core/transfer.hpp"
#include "math/elementary.hpp"
#include "prim/cublas.cuh"
#include "tl/logistic_regression/kernel.hpp"

namespace scw::tl::cuda {

namespace logreg {

constexpr const char* kOp = "tl.logistic_regression";
inline constexpr int kWide = 1024;    // threads of the gathering kernels: one block a multiprocessor
inline constexpr int kThreads = 256;  // of the others
inline constexpr int kTransposeThreads = 512;
inline constexpr int kVectorBlocks = 64;  // blocks of a kernel on parameter vectors, partial sums of a dot product
inline constexpr int kRowBlocks = 512;    // blocks of a kernel on rows
inline constexpr int kStatBlocks = 128;
inline constexpr std::size_t kHistory = 10;
inline constexpr std::int64_t kDenseRows = 4096;  // rows whose products are added in the type of x

template <class S>
struct Piece;  // 16 bytes
template <>
struct Piece<float> {
  using T = float4;
};
template <>
struct Piece<double> {
  using T = double2;
};

/// Classes go through the gathering kernels in chunks, the last one narrower.
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

/// The entries of each tile of rows, by gene; a tile takes the place of its rows.
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

/// Row after row, so that the rows of a gene come in order; the genes of a row are distinct.
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

/// Where classes lie: chunks of `most`, the last one of `last`. Parameters: chunk by chunk, gene by gene, the intercept
/// behind the genes. Logits: chunk by chunk, cell by cell.
struct Classes {
  int n_logits = 0, most = 0, last = 0, n_chunks = 0;
  std::int64_t n_genes = 0, n_rows = 0;
  __host__ __device__ int width(int chunk) const { return chunk + 1 < n_chunks ? most : last; }
  __host__ __device__ std::int64_t logits(int chunk) const { return n_rows * chunk * most; }
  __host__ __device__ std::int64_t parameters(int chunk) const { return (n_genes + 1) * chunk * most; }
  __host__ __device__ std::int64_t logit(std::int64_t row, int k) const {
    const int c = k / most;
    return logits(c) + row * width(c) + k % most;
  }
  __host__ __device__ std::int64_t parameter(std::int64_t gene, int k) const {
    const int c = k / most;
    return parameters(c) + gene * width(c) + k % most;
  }
  __host__ __device__ int padded() const { return (n_chunks - 1) * most + last; }
  __host__ __device__ std::int64_t n_parameters() const { return (n_genes + 1) * padded(); }
  __device__ std::int64_t gene_of(std::int64_t parameter) const {
    const auto c = static_cast<int>(parameter / ((n_genes + 1) * most));
    return (parameter - parameters(c)) / width(c);
  }
};

template <class T>
__device__ inline T block_sum(T v, T* shared) {  // the same in thread 0; kThreads threads
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  T sum = 0;
  for (int w = 0; w < kThreads / 32; ++w) sum += shared[w];
  return sum;
}

/// Logits become probabilities minus the indicator of the class; losses[block] = sum of -log p(class).
template <class S>
__global__ void __launch_bounds__(kThreads)
    residuals_kernel(Classes classes, const std::int32_t* codes, const double* w, S* z, double* losses) {
  __shared__ double shared[kThreads / 32];
  double loss = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < classes.n_rows;
       i += std::int64_t{kRowBlocks} * kThreads) {
    const std::int32_t label = codes[i];
    const auto logit = [&](int k) {
      return static_cast<double>(z[classes.logit(i, k)]) + w[classes.parameter(classes.n_genes, k)];
    };
    if (label < 0) {
      for (int k = 0; k < classes.padded(); ++k) z[classes.logit(i, k)] = 0;
      continue;
    }
    if (classes.n_logits == 1) {
      const double m = logit(0);
      const double margin = label == 1 ? m : -m;
      const double e = math::exp(-fabs(margin));
      const double p_wrong = margin >= 0 ? e / (1 + e) : 1 / (1 + e);
      loss += math::log1p(e) + (margin < 0 ? -margin : 0.0);
      z[classes.logit(i, 0)] = static_cast<S>(label == 1 ? -p_wrong : p_wrong);
    } else {
      double top = logit(0);
      for (int k = 1; k < classes.n_logits; ++k) top = fmax(top, logit(k));
      double total = 0;
      for (int k = 0; k < classes.n_logits; ++k) total += math::exp(logit(k) - top);
      loss += math::log_positive(total) + top - logit(label);
      for (int k = 0; k < classes.n_logits; ++k) {
        const double p = math::exp(logit(k) - top) / total;
        z[classes.logit(i, k)] = static_cast<S>(k == label ? p - 1.0 : p);
      }
    }
    for (int k = classes.n_logits; k < classes.padded(); ++k) z[classes.logit(i, k)] = 0;
  }
  const double sum = block_sum(loss, shared);
  if (threadIdx.x == 0) losses[blockIdx.x] = sum;
}

/// parts[block x width] = sums of the residuals of a chunk over the block's rows.
template <class S>
__global__ void __launch_bounds__(kThreads)
    residual_sums_kernel(const S* residuals, std::int64_t n_rows, int width, double* parts) {
  __shared__ double shared[kThreads];
  const int slots = kThreads / width;
  const int k = static_cast<int>(threadIdx.x) % width, slot = static_cast<int>(threadIdx.x) / width;
  double sum = 0;
  if (slot < slots)
    for (std::int64_t i = std::int64_t{blockIdx.x} * slots + slot; i < n_rows; i += std::int64_t{kRowBlocks} * slots)
      sum += static_cast<double>(residuals[i * width + k]);
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (slot > 0) return;
  for (int s = 1; s < slots; ++s) sum += shared[s * width + k];
  parts[blockIdx.x * width + k] = sum;
}

/// Gradient of a chunk from its slabs and the sums of its residuals.
template <class T>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const T* slabs, std::int64_t n_slabs, const double* parts, std::int64_t n_genes, int width,
                 bool fit_intercept, double n_used, double penalty, const double* w, double* gradient) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= (n_genes + 1) * width) return;
  double sum = 0;
  if (i < n_genes * width) {
    for (std::int64_t b = 0; b < n_slabs; ++b) sum += static_cast<double>(slabs[b * n_genes * width + i]);
    gradient[i] = fma(penalty, w[i], sum / n_used);
  } else {
    for (int b = 0; b < kRowBlocks && fit_intercept; ++b) sum += parts[b * width + (i - n_genes * width)];
    gradient[i] = sum / n_used;
  }
}

// ---- Parameter vectors ----------------------------------------------------------------------------------------------

/// The sum of kVectorBlocks partial sums, in every thread, in a fixed order.
__device__ inline double sum_parts(const double* parts) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  double v = parts[lane] + parts[lane + 32];
  static_assert(kVectorBlocks == 64);
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

/// Sums over the parameters of the objective: w.w without the intercept, gradient.direction, largest |gradient|.
__global__ inline void __launch_bounds__(kThreads)
    stats_kernel(Classes classes, const double* w, const double* gradient, const double* direction, double* parts) {
  __shared__ double shared[kThreads / 32];
  const std::int64_t n = classes.n_parameters();
  double squares = 0, slope = 0, largest = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{kStatBlocks} * kThreads) {
    if (classes.gene_of(i) < classes.n_genes) squares = fma(w[i], w[i], squares);
    slope = fma(gradient[i], direction[i], slope);
    const double g = fabs(gradient[i]);
    if (!(g <= largest)) largest = g;  // NaN stays
  }
  squares = block_sum(squares, shared);
  slope = block_sum(slope, shared);
  for (int offset = 16; offset > 0; offset /= 2) {
    const double other = __shfl_xor_sync(0xFFFFFFFFu, largest, offset);
    if (!(other <= largest)) largest = other;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int k = 1; k < kThreads / 32; ++k)
    if (!(shared[k] <= largest)) largest = shared[k];
  parts[blockIdx.x] = squares;
  parts[kStatBlocks + blockIdx.x] = slope;
  parts[2 * kStatBlocks + blockIdx.x] = largest;
}

struct Evaluation {
  double value, slope, largest;
  double start_slope;  // of the direction at its start
};

__global__ inline void evaluation_kernel(const double* parts, const double* losses, const double* start_slope,
                                         double n_used, double penalty, Evaluation* out) {
  if (threadIdx.x != 0) return;
  double squares = 0, slope = 0, largest = 0, loss = 0, start = 0;
  for (int b = 0; b < kStatBlocks; ++b) {
    squares += parts[b];
    slope += parts[kStatBlocks + b];
    if (!(parts[2 * kStatBlocks + b] <= largest)) largest = parts[2 * kStatBlocks + b];
  }
  for (int b = 0; b < kRowBlocks; ++b) loss += losses[b];
  for (int b = 0; b < kVectorBlocks; ++b) start += start_slope[b];
  *out = {loss / n_used + 0.5 * penalty * squares, slope, largest, start};
}

/// One step of the two loops: v changes by a multiple of u that a dot product gives (its parts_in), and the parts of
/// the next dot product, v.probe, come out.
enum class Loop { start, backward, scale, forward };
struct LoopStep {
  Loop kind = Loop::start;
  const double* parts_in = nullptr;
  double* parts_out = nullptr;
  const double* u = nullptr;
  const double* probe = nullptr;
  const double* rho = nullptr;     // 1 / (s.y) of the pair
  double* alpha = nullptr;         // of the pair
  const double* scaled = nullptr;  // scale: y.y / diagonal of the last pair; null: none
};

__global__ inline void __launch_bounds__(kThreads) loop_kernel(std::int64_t n, LoopStep s, double* v) {
  __shared__ double shared[kThreads / 32];
  double factor = 1;
  if (s.kind == Loop::backward || s.kind == Loop::forward) {
    factor = *s.rho * sum_parts(s.parts_in);
    if (s.kind == Loop::backward) {
      if (blockIdx.x == 0 && threadIdx.x == 0) *s.alpha = factor;
      factor = -factor;
    } else {
      factor = *s.alpha - factor;
    }
  } else if (s.kind == Loop::scale && s.scaled != nullptr) {
    const double curvature = *s.rho * *s.scaled;
    factor = curvature > 0 ? 1 / curvature : 1.0;
  }
  double dot = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{kVectorBlocks} * kThreads) {
    double x = 0;
    if (s.kind == Loop::start)
      x = -s.u[i];
    else if (s.kind == Loop::scale)
      x = factor * (v[i] / s.u[i]);
    else
      x = fma(factor, s.u[i], v[i]);
    v[i] = x;
    if (s.probe != nullptr) dot = fma(x, s.probe[i], dot);
  }
  dot = block_sum(dot, shared);
  if (threadIdx.x == 0) s.parts_out[blockIdx.x] = dot;
}

/// next = w + step * direction, also in the type of the gathers.
template <class S>
__global__ void __launch_bounds__(kThreads)
    step_kernel(std::int64_t n, const double* w, double step, const double* direction, double* next, S* gathered) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * kThreads) {
    const double v = fma(step, direction[i], w[i]);
    next[i] = v;
    gathered[i] = static_cast<S>(v);
  }
}

/// s = next - w, y = next_gradient - gradient, and the parts of s.y and y.y / diagonal.
__global__ inline void __launch_bounds__(kThreads)
    pair_kernel(std::int64_t n, const double* w, const double* next, const double* gradient,
                const double* next_gradient, const double* diagonal, double* s, double* y, double* parts) {
  __shared__ double shared[kThreads / 32];
  double sy = 0, yy = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{kVectorBlocks} * kThreads) {
    const double ds = next[i] - w[i], dy = next_gradient[i] - gradient[i];
    s[i] = ds;
    y[i] = dy;
    sy = fma(ds, dy, sy);
    yy = fma(dy, dy / diagonal[i], yy);
  }
  sy = block_sum(sy, shared);
  yy = block_sum(yy, shared);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sy;
    parts[kVectorBlocks + blockIdx.x] = yy;
  }
}
/// scalars: rho and y.y / diagonal of a pair.
__global__ inline void pair_scalars_kernel(const double* parts, double* scalars) {
  if (threadIdx.x != 0) return;
  double sy = 0, yy = 0;
  for (int b = 0; b < kVectorBlocks; ++b) {
    sy += parts[b];
    yy += parts[kVectorBlocks + b];
  }
  scalars[0] = sy > 0 ? 1 / sy : 0.0;
  scalars[1] = yy;
}

// ---- The diagonal ---------------------------------------------------------------------------------------------------

/// Sums of squares per gene, a warp a gene.
template <class S>
__global__ void __launch_bounds__(kThreads) squares_kernel(Tiles<S> t, double* squares) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t j = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (j >= t.n_genes) return;
  double sum = 0;
  for (std::int64_t tile = 0; tile < t.n; ++tile) {
    const std::uint32_t* const starts = t.starts + tile * (std::int64_t{t.n_genes} + 1);
    const std::int64_t base = t.base(tile);
    for (std::int64_t k = base + starts[j] + lane; k < base + starts[j + 1]; k += 32) {
      const auto v = static_cast<double>(t.value[k]);
      sum = fma(v, v, sum);
    }
  }
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
  if (lane == 0) squares[j] = sum;
}
/// The same of dense rows: parts[blockIdx.y x n_genes].
template <class S>
__global__ void __launch_bounds__(kThreads) squares_dense_kernel(MatrixView<const S> x, double* parts) {
  const std::int64_t j = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (j >= x.n_cols) return;
  double sum = 0;
  for (std::int64_t i = blockIdx.y; i < x.n_rows; i += gridDim.y) {
    const auto v = static_cast<double>(x.row(i)[j]);
    sum = fma(v, v, sum);
  }
  parts[blockIdx.y * x.n_cols + j] = sum;
}

/// end[i] = entries of row i before gene `end_gene`.
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

// ---- Host -----------------------------------------------------------------------------------------------------------

template <class X>
inline constexpr bool kIsCsr = false;
template <class S>
inline constexpr bool kIsCsr<CsrView<S>> = true;

inline cublasStatus_t gemm_batched(cublasHandle_t h, cublasOperation_t b_op, int m, int n, int k, const float* a,
                                   int lda, long long a_step, const float* b, int ldb, long long b_step, float* c,
                                   int ldc, long long c_step, int count) {
  const float one = 1, zero = 0;
  return cublasSgemmStridedBatched(h, CUBLAS_OP_N, b_op, m, n, k, &one, a, lda, a_step, b, ldb, b_step, &zero, c, ldc,
                                   c_step, count);
}
inline cublasStatus_t gemm_batched(cublasHandle_t h, cublasOperation_t b_op, int m, int n, int k, const double* a,
                                   int lda, long long a_step, const double* b, int ldb, long long b_step, double* c,
                                   int ldc, long long c_step, int count) {
  const double one = 1, zero = 0;
  return cublasDgemmStridedBatched(h, CUBLAS_OP_N, b_op, m, n, k, &one, a, lda, a_step, b, ldb, b_step, &zero, c, ldc,
                                   c_step, count);
}

template <class S, class X>
class Problem {
 public:
  Problem(const Context& ctx, const X& x, Span<const std::int32_t> codes, std::int32_t n_classes,
          const LogisticRegressionOptions& o)
      : ctx_(ctx), stream_(scw::cuda::stream_of(ctx)), x_(x), fit_intercept_(o.fit_intercept) {
    constexpr int kMost = kMostClasses<S>;
    classes_.n_logits = n_classes == 2 ? 1 : n_classes;
    classes_.most = kMost;
    classes_.n_chunks = (classes_.n_logits + kMost - 1) / kMost;
    const int rest = classes_.n_logits - (classes_.n_chunks - 1) * kMost;
    classes_.last = rest <= 4 ? 4 : rest <= 8 ? 8 : rest <= 16 ? 16 : rest <= 20 ? 20 : 32;
    classes_.n_genes = x.n_cols;
    classes_.n_rows = x.n_rows;
    for (const std::int32_t c : codes) n_used_ += c >= 0 ? 1 : 0;
    penalty_ = 1.0 / (o.c * n_used_);
    SCW_CUDA(cudaDeviceGetAttribute(&sms_, cudaDevAttrMultiProcessorCount, ctx.device.id));
    SCW_CUDA(cudaDeviceGetAttribute(&shared_, cudaDevAttrMaxSharedMemoryPerBlockOptin, ctx.device.id));
    shared_ -= 1024;  // static variables
    codes_ = to_device<std::int32_t>(ctx, codes, "classes");
    logits_ = make<S>(checked_mul(x.n_rows, classes_.padded()), "logits");
    gathered_ = make<S>(size(), "weights");
    losses_ = make<double>(kRowBlocks, "losses");
    sums_ = make<double>(std::int64_t{kRowBlocks} * kMost, "residual sums");
    stats_ = make<double>(3 * kStatBlocks, "objective");
    evaluation_ = make<Evaluation>(1, "objective");
    if constexpr (kIsCsr<X>)
      prepare_sparse();
    else
      slabs_dense_ = make<S>(checked_mul(dense_batches() + 1, checked_mul(classes_.n_genes, widest())), "gradients");
  }

  std::int64_t size() const { return classes_.n_parameters(); }
  const Classes& classes() const { return classes_; }
  S* gathered() { return gathered_.data(); }
  template <class T>
  Array<T> make(std::int64_t n, const char* tag) const {
    return Array<T>(ctx_.workspace, n, tag, ctx_.stream);
  }

  /// Objective and gradient at w, whose copy is in gathered(); waits for the device.
  Evaluation evaluate(const double* w, const double* direction, const double* start_slope, double* gradient) {
    for (int c = 0; c < classes_.n_chunks; ++c) logits(c);
    residuals_kernel<S>
        <<<kRowBlocks, kThreads, 0, stream_>>>(classes_, codes_.data(), w, logits_.data(), losses_.data());
    SCW_CUDA_LAUNCHED("logistic_regression: residuals");
    for (int c = 0; c < classes_.n_chunks; ++c) {
      const int width = classes_.width(c);
      S* const residuals = logits_.data() + classes_.logits(c);
      residual_sums_kernel<S><<<kRowBlocks, kThreads, 0, stream_>>>(residuals, classes_.n_rows, width, sums_.data());
      SCW_CUDA_LAUNCHED("logistic_regression: residual_sums");
      const std::int64_t n = (classes_.n_genes + 1) * width;
      const auto merge = [&](const auto* slabs, std::int64_t n_slabs) {
        merge_kernel<<<scw::cuda::grid_for(n, kThreads, 1 << 30), kThreads, 0, stream_>>>(
            slabs, n_slabs, sums_.data(), classes_.n_genes, width, fit_intercept_, n_used_, penalty_,
            w + classes_.parameters(c), gradient + classes_.parameters(c));
        SCW_CUDA_LAUNCHED("logistic_regression: merge");
      };
      if constexpr (kIsCsr<X>) {
        by_width(width, [&]<int K>() {
          if constexpr (K <= kMostClasses<S>) {
            SCW_CUDA(cudaFuncSetAttribute(gradient_kernel<S, K>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_));
            gradient_kernel<S, K>
                <<<n_slabs_, kWide, static_cast<std::size_t>(tiles_.rows * row_bytes<S>(K)), stream_>>>(
                    tiles_, residuals, slabs_.data());
          }
        });
        SCW_CUDA_LAUNCHED("logistic_regression: gradient");
        merge(slabs_.data(), n_slabs_);
      } else {
        dense_gradient(residuals, width);
        merge(slabs_dense_.data(), dense_batches() + (x_.n_rows % kDenseRows != 0 ? 1 : 0));
      }
    }
    stats_kernel<<<kStatBlocks, kThreads, 0, stream_>>>(classes_, w, gradient, direction, stats_.data());
    SCW_CUDA_LAUNCHED("logistic_regression: stats");
    evaluation_kernel<<<1, 32, 0, stream_>>>(stats_.data(), losses_.data(), start_slope, n_used_, penalty_,
                                             evaluation_.data());
    SCW_CUDA_LAUNCHED("logistic_regression: evaluation");
    Evaluation e{};
    copy_bytes(ctx_, &e, Device{}, evaluation_.data(), ctx_.device, sizeof e);
    return e;
  }

  /// For each parameter about the diagonal of the Hessian with equal class probabilities.
  Array<double> diagonal() {
    const std::int64_t n_genes = classes_.n_genes;
    Array<double> squares;
    std::int64_t n_parts = 1;
    if constexpr (kIsCsr<X>) {
      squares = make<double>(n_genes, "squares");
      if (n_genes > 0)
        squares_kernel<S>
            <<<scw::cuda::grid_for(n_genes, kThreads / 32, 1 << 30), kThreads, 0, stream_>>>(tiles_, squares.data());
    } else {
      n_parts = std::min<std::int64_t>(128, x_.n_rows);
      squares = make<double>(n_parts * n_genes, "squares");
      if (n_genes > 0)
        squares_dense_kernel<S>
            <<<dim3(scw::cuda::grid_for(n_genes, kThreads), static_cast<unsigned>(n_parts)), kThreads, 0, stream_>>>(
                x_, squares.data());
    }
    SCW_CUDA_LAUNCHED("logistic_regression: squares");
    const Array<double> parts = to_host<double>(ctx_, std::as_const(squares).view());
    const double p = 1.0 / static_cast<double>(classes_.n_logits == 1 ? 2 : classes_.n_logits);
    const double curvature = p * (1 - p);
    std::vector<double> out(static_cast<std::size_t>(size()));
    for (std::int64_t j = 0; j <= n_genes; ++j) {
      double sum = 0;
      for (std::int64_t b = 0; b < n_parts && j < n_genes; ++b) sum += parts[b * n_genes + j];
      if (!(sum <= std::numeric_limits<double>::max()))
        throw DataError(std::string(kOp) + ": gene " + std::to_string(j) + " has NaN or infinite values");
      const double d = j < n_genes ? curvature * sum / n_used_ + penalty_ : curvature;
      for (int k = 0; k < classes_.padded(); ++k) out[static_cast<std::size_t>(classes_.parameter(j, k))] = d;
    }
    return to_device<double>(ctx_, out, "diagonal");
  }

 private:
  int widest() const { return classes_.n_chunks > 1 ? classes_.most : classes_.last; }
  std::int64_t dense_batches() const { return classes_.n_rows / kDenseRows; }

  template <class F>
  static void by_width(int width, const F& f) {
    switch (width) {
      case 4:
        f.template operator()<4>();
        break;
      case 8:
        f.template operator()<8>();
        break;
      case 16:
        f.template operator()<16>();
        break;
      case 20:
        f.template operator()<20>();
        break;
      default:
        f.template operator()<32>();
        break;
    }
  }

  void prepare_sparse() {
    std::int64_t ends[2] = {0, 0};
    copy_bytes(ctx_, ends, Device{}, x_.indptr.data, ctx_.device, sizeof(std::int64_t));
    copy_bytes(ctx_, ends + 1, Device{}, x_.indptr.data + x_.n_rows, ctx_.device, sizeof(std::int64_t));
    const std::int64_t nnz = ends[1] - ends[0];
    // Tiles: as many rows as fit, and as many tiles as multiprocessors (times a whole number).
    const std::int64_t most = std::min<std::int64_t>(shared_ / row_bytes<S>(widest()), 1 << 16);
    const std::int64_t at_least = (x_.n_rows + most - 1) / most;
    const std::int64_t wanted = (at_least + sms_ - 1) / sms_ * sms_;
    tiles_.rows = std::min(most, std::max<std::int64_t>(32, (x_.n_rows + wanted - 1) / wanted));
    tiles_.n = (x_.n_rows + tiles_.rows - 1) / tiles_.rows;
    tiles_.n_rows = x_.n_rows;
    tiles_.n_genes = x_.n_cols;
    tiles_.indptr = x_.indptr.data;
    starts_ = make<std::uint32_t>(checked_mul(tiles_.n, std::int64_t{x_.n_cols} + 1), "gene starts");
    tile_rows_ = make<std::uint16_t>(nnz, "entries by gene");
    tile_values_ = make<S>(nnz, "entries by gene");
    tiles_.starts = starts_.data();
    tiles_.row = tile_rows_.data();
    tiles_.value = tile_values_.data();
    const std::int64_t counters = std::int64_t{x_.n_cols} * 4;
    const bool in_shared = counters <= shared_ - 8192;
    if (in_shared)
      SCW_CUDA(cudaFuncSetAttribute(transpose_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(counters)));
    transpose_kernel<S><<<static_cast<unsigned>(tiles_.n), kTransposeThreads,
                          in_shared ? static_cast<std::size_t>(counters) : 0, stream_>>>(x_, tiles_, in_shared);
    SCW_CUDA_LAUNCHED("logistic_regression: transpose");
    n_slabs_ = static_cast<unsigned>(std::min<std::int64_t>(tiles_.n, sms_));
    slabs_ = make<double>(checked_mul(n_slabs_, checked_mul(classes_.n_genes, widest())), "gradients");
    // Where in each row the ranges of genes end whose weights fit shared memory.
    range_ = static_cast<std::int32_t>(std::min<std::int64_t>(shared_ / row_bytes<S>(widest()), x_.n_cols));
    n_ranges_ = range_ > 0 ? (std::int64_t{x_.n_cols} + range_ - 1) / range_ : 0;
    splits_ = make<std::int32_t>(checked_mul(std::max<std::int64_t>(0, n_ranges_ - 1), x_.n_rows), "row positions");
    for (std::int64_t r = 0; r + 1 < n_ranges_; ++r) {
      split_kernel<S><<<scw::cuda::grid_for(x_.n_rows, kThreads, 1 << 30), kThreads, 0, stream_>>>(
          x_, static_cast<std::int32_t>((r + 1) * range_), splits_.data() + r * x_.n_rows);
      SCW_CUDA_LAUNCHED("logistic_regression: split");
    }
  }

  void logits(int chunk) {
    const int width = classes_.width(chunk);
    const S* const weights = gathered_.data() + classes_.parameters(chunk);
    S* const z = logits_.data() + classes_.logits(chunk);
    if constexpr (kIsCsr<X>) {
      if (n_ranges_ == 0)
        SCW_CUDA(cudaMemsetAsync(z, 0, static_cast<std::size_t>(x_.n_rows * width) * sizeof(S), stream_));
      for (std::int64_t r = 0; r < n_ranges_; ++r) {
        const auto first = static_cast<std::int32_t>(r * range_);
        const std::int32_t n = std::min(range_, x_.n_cols - first);
        by_width(width, [&]<int K>() {
          if constexpr (K <= kMostClasses<S>) {
            SCW_CUDA(cudaFuncSetAttribute(logits_kernel<S, K>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_));
            logits_kernel<S, K>
                <<<static_cast<unsigned>(sms_), kWide, static_cast<std::size_t>(n * row_bytes<S>(K)), stream_>>>(
                    x_, codes_.data(), r > 0 ? splits_.data() + (r - 1) * x_.n_rows : nullptr,
                    r + 1 < n_ranges_ ? splits_.data() + r * x_.n_rows : nullptr, first, n, weights, z);
          }
        });
        SCW_CUDA_LAUNCHED("logistic_regression: logits");
      }
    } else {
      // Row-major z = x w is column-major z' = w' x'.
      const scw::cuda::BlasHandle handle(ctx_);
      constexpr std::int64_t kMostRows = 1 << 20;
      for (std::int64_t i = 0; i < x_.n_rows && x_.n_cols > 0; i += kMostRows)
        SCW_CUBLAS(gemm_batched(handle, CUBLAS_OP_N, width, static_cast<int>(std::min(kMostRows, x_.n_rows - i)),
                                static_cast<int>(x_.n_cols), weights, width, 0, x_.row(i), static_cast<int>(x_.ld), 0,
                                z + i * width, width, 0, 1));
    }
  }

  /// Blocks of rows apart, to be added in double.
  void dense_gradient(const S* residuals, int width) {
    if constexpr (!kIsCsr<X>) {
      if (x_.n_cols == 0) return;
      const scw::cuda::BlasHandle handle(ctx_);
      const std::int64_t batches = dense_batches(), rest = x_.n_rows - batches * kDenseRows;
      const std::int64_t step = x_.n_cols * width;
      const auto part = [&](std::int64_t first, std::int64_t rows, S* out, std::int64_t count) {
        if (rows == 0 || count == 0) return;
        SCW_CUBLAS(gemm_batched(handle, CUBLAS_OP_T, width, static_cast<int>(x_.n_cols), static_cast<int>(rows),
                                residuals + first * width, width, kDenseRows * width, x_.row(first),
                                static_cast<int>(x_.ld), kDenseRows * x_.ld, out, width, step,
                                static_cast<int>(count)));
      };
      part(0, kDenseRows, slabs_dense_.data(), batches);
      part(batches * kDenseRows, rest, slabs_dense_.data() + batches * step, 1);
    }
  }

  const Context& ctx_;
  cudaStream_t stream_;
  X x_;
  bool fit_intercept_;
  Classes classes_;
  double n_used_ = 0, penalty_ = 0;
  int sms_ = 0, shared_ = 0;
  Array<std::int32_t> codes_;
  Array<S> logits_, gathered_;
  Array<double> losses_, sums_, stats_;
  Array<Evaluation> evaluation_;
  // CSR
  Tiles<S> tiles_;
  Array<std::uint32_t> starts_;
  Array<std::uint16_t> tile_rows_;
  Array<S> tile_values_;
  Array<double> slabs_;
  unsigned n_slabs_ = 0;
  Array<std::int32_t> splits_;
  std::int32_t range_ = 0;
  std::int64_t n_ranges_ = 0;
  // dense
  Array<S> slabs_dense_;
};

template <class S, class X>
void minimise(const Context& ctx, const X& x, Span<const std::int32_t> codes, std::int32_t n_classes,
              const LogisticRegressionOptions& o, LogisticRegression& out) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  Problem<S, X> problem(ctx, x, codes, n_classes, o);
  const std::int64_t n = problem.size();
  const auto make = [&] {
    Array<double> a = problem.template make<double>(n, "L-BFGS vectors");
    SCW_CUDA(cudaMemsetAsync(a.data(), 0, static_cast<std::size_t>(n) * sizeof(double), stream));
    return a;
  };
  const Array<double> diagonal = problem.diagonal();
  Array<double> w = make(), gradient = make(), direction = make(), next = make(), next_gradient = make();
  Array<double> parts = problem.template make<double>(2 * kVectorBlocks, "partial sums");
  Array<double> pair_parts = problem.template make<double>(2 * kVectorBlocks, "partial sums");
  Array<double> alpha = problem.template make<double>(static_cast<std::int64_t>(kHistory), "L-BFGS scalars");
  struct Pair {
    Array<double> s, y, scalars;  // scalars: 1 / (s.y), y.y / diagonal
  };
  std::vector<Pair> pairs;
  int side = 0;
  const auto loop = [&](LoopStep step) {
    step.parts_in = parts.data() + side * kVectorBlocks;
    side ^= 1;
    step.parts_out = parts.data() + side * kVectorBlocks;
    loop_kernel<<<kVectorBlocks, kThreads, 0, stream>>>(n, step, direction.data());
    SCW_CUDA_LAUNCHED("logistic_regression: loop");
  };
  const auto move = [&](double step) {
    step_kernel<S><<<scw::cuda::grid_for(n, kThreads, 1024), kThreads, 0, stream>>>(n, w.data(), step, direction.data(),
                                                                                    next.data(), problem.gathered());
    SCW_CUDA_LAUNCHED("logistic_regression: step");
  };
  SCW_CUDA(cudaMemsetAsync(parts.data(), 0, 2 * kVectorBlocks * sizeof(double), stream));

  move(0);  // all 0
  Evaluation now = problem.evaluate(w.data(), direction.data(), parts.data(), gradient.data());
  out.max_gradient = now.largest;
  // What the rounding of the gathered weights and logits may move the objective by.
  constexpr double kNoise = sizeof(S) == 4 ? 1e-7 : 1e-12;
  for (out.n_iterations = 0; !(out.max_gradient <= o.tol) && out.n_iterations < o.max_iter; ++out.n_iterations) {
    ctx.check_cancelled(kOp);
    ctx.report("logistic regression", out.n_iterations, o.max_iter);
    // direction = -H gradient by the two loops, H0 = gamma / diagonal.
    const std::size_t m = pairs.size();
    loop({.kind = Loop::start, .u = gradient.data(), .probe = m > 0 ? pairs[m - 1].s.data() : nullptr});
    for (std::size_t h = m; h-- > 0;)
      loop({.kind = Loop::backward,
            .u = pairs[h].y.data(),
            .probe = h > 0 ? pairs[h - 1].s.data() : nullptr,
            .rho = pairs[h].scalars.data(),
            .alpha = alpha.data() + h});
    loop({.kind = Loop::scale,
          .u = diagonal.data(),
          .probe = m > 0 ? pairs[0].y.data() : gradient.data(),
          .rho = m > 0 ? pairs[m - 1].scalars.data() : nullptr,
          .scaled = m > 0 ? pairs[m - 1].scalars.data() + 1 : nullptr});
    for (std::size_t h = 0; h < m; ++h)
      loop({.kind = Loop::forward,
            .u = pairs[h].s.data(),
            .probe = h + 1 < m ? pairs[h + 1].y.data() : gradient.data(),
            .rho = pairs[h].scalars.data(),
            .alpha = alpha.data() + h});
    const double* const start_slope = parts.data() + side * kVectorBlocks;

    double step = 1.0, low = 0, high = std::numeric_limits<double>::infinity();
    Evaluation trial{};
    bool found = false, downhill = true;
    for (int t = 0; t < 40 && downhill; ++t) {
      move(step);
      trial = problem.evaluate(next.data(), direction.data(), start_slope, next_gradient.data());
      const double slope = trial.start_slope;
      downhill = slope < 0;
      if (!downhill) break;  // rounding: as good as it gets
      // As in cpu.cpp: near the optimum the slope decides.
      const bool decreased = trial.value <= now.value + 1e-4 * step * slope ||
                             (trial.value <= now.value + kNoise * std::abs(now.value) && trial.slope <= -0.8 * slope);
      if (!decreased) {
        high = step;
      } else if (trial.slope < 0.9 * slope) {
        low = step;
      } else {
        found = true;
        break;
      }
      step = std::isinf(high) ? 2 * low : (low + high) / 2;
    }
    if (!downhill || (!found && !(trial.value < now.value))) break;

    Pair pair;
    if (pairs.size() == kHistory) {
      pair = std::move(pairs.front());
      pairs.erase(pairs.begin());
    } else {
      pair = {make(), make(), problem.template make<double>(2, "L-BFGS scalars")};
    }
    if (step * (trial.slope - trial.start_slope) > 0) {
      pair_kernel<<<kVectorBlocks, kThreads, 0, stream>>>(n, w.data(), next.data(), gradient.data(),
                                                          next_gradient.data(), diagonal.data(), pair.s.data(),
                                                          pair.y.data(), pair_parts.data());
      SCW_CUDA_LAUNCHED("logistic_regression: pair");
      pair_scalars_kernel<<<1, 32, 0, stream>>>(pair_parts.data(), pair.scalars.data());
      SCW_CUDA_LAUNCHED("logistic_regression: pair_scalars");
      pairs.push_back(std::move(pair));
    }
    w.swap(next);
    gradient.swap(next_gradient);
    now = trial;
    out.max_gradient = now.largest;
  }
  ctx.report("logistic regression", o.max_iter, o.max_iter);
  out.converged = out.max_gradient <= o.tol;

  const Classes& classes = problem.classes();
  const Array<double> host = to_host<double>(ctx, std::as_const(w).view());
  out.coefficients = Matrix<double>(host_memory(), classes.n_logits, classes.n_genes, "coefficients");
  for (int k = 0; k < classes.n_logits; ++k) {
    for (std::int64_t j = 0; j < classes.n_genes; ++j)
      out.coefficients.data[k * classes.n_genes + j] = host[classes.parameter(j, k)];
    out.intercepts.push_back(host[classes.parameter(classes.n_genes, k)]);
  }
}

}  // namespace logreg

/// One file an element type, for the time that nvcc takes.
void logistic_regression_f64(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                             std::int32_t n_classes, const LogisticRegressionOptions& o, LogisticRegression& out);

}  // namespace scw::tl::cuda
