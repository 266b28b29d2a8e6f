#include "core/cuda/cuda_check.cuh"
#include "prim/eigh/kernel.hpp"
#include "prim/gemm/kernel.hpp"
#include "scwarp/core/array.hpp"

#include "prim/eigh/body.inl"

namespace scw::prim::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlock = static_cast<int>(kEighDeviceBlock);

/// One block a row, a fixed tree.
__global__ void __launch_bounds__(kThreads)
    residual_norms_rows(MatrixView<const double> w, MatrixView<const double> y, const double* values, double* out) {
  __shared__ double sums[kThreads];
  const std::int64_t i = blockIdx.x;
  double sum = 0;
  for (std::int64_t j = threadIdx.x; j < w.n_cols; j += kThreads) {
    const double r = w(i, j) - values[i] * y(i, j);
    sum += r * r;
  }
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[i] = sqrt(sums[0]);
}

/// Sums over the lanes of N values each (a power of two, at least 32): lane l ends with those of l N / 32 onwards in
/// v[0 .. N / 32).
template <int N, int Half = N / 2, int Bit = 16>
__device__ inline void warp_sums(double (&v)[N]) {
  const bool upper = (threadIdx.x & static_cast<unsigned>(Bit)) != 0;
#pragma unroll
  for (int i = 0; i < Half; ++i) {
    const double keep = upper ? v[i + Half] : v[i], give = upper ? v[i] : v[i + Half];
    v[i] = keep + __shfl_xor_sync(0xffffffffu, give, Bit);
  }
  if constexpr (Bit > 1) warp_sums<N, Half / 2, Bit / 2>(v);
}

constexpr int kProductRows = 8, kProductThreads = 128;

/// w(b, i) = sum over j of a(i, j) v(b, j) for kProductRows rows i and all kBlock vectors a block.
__global__ void __launch_bounds__(kProductThreads)
    block_product(MatrixView<const double> a, MatrixView<const double> v, MatrixView<double> w) {
  constexpr int kSums = kProductRows * kBlock, kWarps = kProductThreads / 32;
  __shared__ double sums[kWarps][kSums];
  const std::int64_t first = std::int64_t{blockIdx.x} * kProductRows, m = a.n_cols;
  double sum[kSums] = {};
  const double* row[kProductRows];
#pragma unroll
  for (int r = 0; r < kProductRows; ++r) row[r] = a.row(min(first + r, a.n_rows - 1));
  for (std::int64_t j = threadIdx.x; j < m; j += kProductThreads) {
    double x[kProductRows];
#pragma unroll
    for (int r = 0; r < kProductRows; ++r) x[r] = row[r][j];
#pragma unroll
    for (int b = 0; b < kBlock; ++b) {
      const double y = v(b, j);
#pragma unroll
      for (int r = 0; r < kProductRows; ++r) sum[r * kBlock + b] = fma(x[r], y, sum[r * kBlock + b]);
    }
  }
  warp_sums(sum);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  constexpr int kEach = kSums / 32;
#pragma unroll
  for (int i = 0; i < kEach; ++i) sums[warp][lane * kEach + i] = sum[i];
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < kSums; e += kProductThreads) {
    double total = 0;
#pragma unroll
    for (int k = 0; k < kWarps; ++k) total += sums[k][e];
    const std::int64_t i = first + e / kBlock;
    if (i < a.n_rows) w(e % kBlock, i) = total;
  }
}

constexpr int kProjectRows = 4;

/// h(j, b) = sum over p of basis(j, p) next(b, p), kProjectRows vectors j a block; copied to coefficients(b, j).
__global__ void __launch_bounds__(kThreads)
    project(MatrixView<const double> basis, MatrixView<const double> next, double* h, MatrixView<double> coefficients) {
  constexpr int kSums = kProjectRows * kBlock, kWarps = kThreads / 32;
  static_assert(kSums == 32);
  __shared__ double sums[kWarps][kSums];
  const std::int64_t first = std::int64_t{blockIdx.x} * kProjectRows;
  double sum[kSums] = {};
  const double* row[kProjectRows];
#pragma unroll
  for (int r = 0; r < kProjectRows; ++r) row[r] = basis.row(min(first + r, basis.n_rows - 1));
#pragma unroll 2
  for (std::int64_t p = threadIdx.x; p < basis.n_cols; p += kThreads) {
    double x[kProjectRows];
#pragma unroll
    for (int r = 0; r < kProjectRows; ++r) x[r] = row[r][p];
#pragma unroll
    for (int b = 0; b < kBlock; ++b) {
      const double y = next(b, p);
#pragma unroll
      for (int r = 0; r < kProjectRows; ++r) sum[r * kBlock + b] = fma(x[r], y, sum[r * kBlock + b]);
    }
  }
  warp_sums(sum);
  sums[threadIdx.x / 32][threadIdx.x % 32] = sum[0];
  __syncthreads();
  if (threadIdx.x >= kSums) return;
  double total = 0;
#pragma unroll
  for (int k = 0; k < kWarps; ++k) total += sums[k][threadIdx.x];
  const std::int64_t j = first + threadIdx.x / kBlock;
  const int b = static_cast<int>(threadIdx.x % kBlock);
  if (j >= basis.n_rows) return;
  h[j * kBlock + b] = total;
  if (coefficients.data != nullptr) coefficients(b, j) = total;
}

/// next -= h' basis, and gram[block][pair] = products of the rows of next over the 32 columns of the block. Warp w
/// takes every eighth vector of the basis, lane l one column.
__global__ void __launch_bounds__(kThreads)
    subtract(MatrixView<const double> basis, const double* h, MatrixView<double> next, double* gram) {
  constexpr int kWarps = kThreads / 32;
  static_assert(kWarps == kBlock);
  __shared__ double parts[kWarps][kBlock][32];
  __shared__ double rows[kBlock][33];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t p = std::int64_t{blockIdx.x} * 32 + lane;
  const bool inside = p < next.n_cols;
  double sum[kBlock] = {};
  if (inside) {
#pragma unroll 4
    for (std::int64_t j = warp; j < basis.n_rows; j += kWarps) {
      const double x = basis(j, p);
#pragma unroll
      for (int b = 0; b < kBlock; ++b) sum[b] = fma(h[j * kBlock + b], x, sum[b]);
    }
  }
#pragma unroll
  for (int b = 0; b < kBlock; ++b) parts[warp][b][lane] = sum[b];
  __syncthreads();
  double value = inside ? next(warp, p) : 0.0;  // of row `warp` from here on
#pragma unroll
  for (int k = 0; k < kWarps; ++k) value -= parts[k][warp][lane];
  rows[warp][lane] = value;
  if (inside) next(warp, p) = value;
  __syncthreads();
  if (threadIdx.x >= kEighPairs) return;
  int i = 0;
  while ((i + 1) * (i + 2) / 2 <= static_cast<int>(threadIdx.x)) ++i;
  const int j = static_cast<int>(threadIdx.x) - i * (i + 1) / 2;
  double total = 0;
#pragma unroll
  for (int k = 0; k < 32; ++k) total = fma(rows[i][k], rows[j][k], total);
  gram[std::int64_t{blockIdx.x} * kEighPairs + threadIdx.x] = total;
}

/// next <- L^-1 next with L L' the Gram matrix of its rows, given in `parts` parts. least: smallest acceptable pivot of
/// the normalised matrix.
__global__ void __launch_bounds__(kThreads) orthonormalise(MatrixView<double> next, const double* gram,
                                                           std::int64_t parts, double least, std::int32_t* trouble) {
  __shared__ double g[kEighPairs];
  __shared__ double inverse[kBlock][kBlock];      // of L
  constexpr int kShares = kThreads / kEighPairs;  // threads to a pair
  __shared__ double shares[kShares][kEighPairs];
  const int pair = static_cast<int>(threadIdx.x) % kEighPairs, share = static_cast<int>(threadIdx.x) / kEighPairs;
  if (share < kShares) {
    double total = 0;
#pragma unroll 8
    for (std::int64_t k = share; k < parts; k += kShares) total += gram[k * kEighPairs + pair];
    shares[share][pair] = total;
  }
  __syncthreads();
  if (threadIdx.x < kEighPairs) {
    double total = 0;
#pragma unroll
    for (int k = 0; k < kShares; ++k) total += shares[k][threadIdx.x];
    g[threadIdx.x] = total;
  }
  __syncthreads();
  if (threadIdx.x == 0 && !inverse_cholesky(g, least, inverse) && blockIdx.x == 0) trouble[0] = 1;
  __syncthreads();
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= next.n_cols) return;
  double x[kBlock];
#pragma unroll
  for (int b = 0; b < kBlock; ++b) x[b] = next(b, p);
#pragma unroll
  for (int i = kBlock - 1; i >= 0; --i) {
    double s = 0;
#pragma unroll
    for (int j = 0; j <= i; ++j) s = fma(inverse[i][j], x[j], s);
    next(i, p) = s;
  }
}

}  // namespace

void residual_norms(const Context& ctx, const MatrixView<const double>& w, const MatrixView<const double>& y,
                    Span<const double> values, Span<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  if (w.n_rows == 0) return;
  residual_norms_rows<<<static_cast<unsigned>(w.n_rows), kThreads, 0, scw::cuda::stream_of(ctx)>>>(w, y, values.data,
                                                                                                   out.data);
  SCW_CUDA_LAUNCHED("residual_norms");
}

void orthogonalise(const Context& ctx, const MatrixView<const double>& basis, const MatrixView<double>& next,
                   const MatrixView<double>& coefficients, Span<std::int32_t> trouble) {
  const scw::cuda::DeviceScope scope(ctx);
  SCW_ASSERT(next.n_rows == kBlock && next.n_cols > 0);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t parts = (next.n_cols + 31) / 32;
  Array<double> h(ctx.workspace, basis.n_rows * kBlock, "eigh coefficients", ctx.stream);
  Array<double> gram(ctx.workspace, parts * kEighPairs, "eigh coefficients", ctx.stream);
  for (int round = 0; round < 2; ++round) {
    if (basis.n_rows > 0) {
      const auto blocks = static_cast<unsigned>((basis.n_rows + kProjectRows - 1) / kProjectRows);
      project<<<blocks, kThreads, 0, stream>>>(basis, next, h.data(), round == 0 ? coefficients : MatrixView<double>());
      SCW_CUDA_LAUNCHED("eigh: project");
    }
    subtract<<<static_cast<unsigned>(parts), kThreads, 0, stream>>>(basis, h.data(), next, gram.data());
    SCW_CUDA_LAUNCHED("eigh: subtract");
    orthonormalise<<<scw::cuda::grid_for(next.n_cols, kThreads, INT32_MAX), kThreads, 0, stream>>>(
        next, gram.data(), parts, kEighLeastPivot[round], trouble.data);
    SCW_CUDA_LAUNCHED("eigh: orthonormalise");
  }
}

void symmetric_product(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& v,
                       const MatrixView<double>& w) {
  if (v.n_rows != kBlock) return gemm_f64_kernel(ctx, v, a, w, {});
  const scw::cuda::DeviceScope scope(ctx);
  block_product<<<static_cast<unsigned>((a.n_rows + kProductRows - 1) / kProductRows), kProductThreads, 0,
                  scw::cuda::stream_of(ctx)>>>(a, v, w);
  SCW_CUDA_LAUNCHED("eigh: block_product");
}

SCW_REGISTER(symmetric_product_kernel, cuda, &symmetric_product);
SCW_REGISTER(residual_norms_kernel, cuda, &residual_norms);
SCW_REGISTER(orthogonalise_kernel, cuda, &orthogonalise);

}  // namespace scw::prim::cuda
