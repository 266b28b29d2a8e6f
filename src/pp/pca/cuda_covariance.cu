// The covariance of pp.pca. Float values go through the tensor cores: with x = h + l, h and l in half precision (22
// bits together, columns scaled by powers of two), R' R = M + M' + l' l where M = h' h / 2 + l' h; l' l is 2^-24 of the
// whole and left out. Tensor cores round their sums towards zero: they get kChunkRows rows at a time (a bias of 1e-6),
// the chunks are added in float, kPcaFlushRows rows in double. Floor: 4 n m^2 / 790 TFLOP/s: 0.13 s for 1M x 5000.
#include <cuda_fp16.h>

#include "pp/pca/tile.cuh"
#include "prim/cublas.cuh"

namespace scw::pp::cuda {
namespace {

constexpr std::int64_t kChunkRows = 1024;
constexpr std::int64_t kPanelGenes = 1024;    // double: rows of the covariance per product
constexpr int kSplitRows = 8;                 // dense: rows a thread converts
constexpr std::int64_t kSegmentGenes = 8192;  // sparse: genes of a row assembled at a time
constexpr int kSide = 32, kSideThreads = 8;   // square tiles that are read twice, once across
static_assert(kPcaBlockRows % kChunkRows == 0 && kPcaFlushRows % kChunkRows == 0);

/// low in .x, high in .y.
__device__ inline __half2 split(double x, double unit) {
  const float f = static_cast<float>(x * unit);
  const __half high = __float2half_rn(f);
  return {__float2half_rn(f - __half2float(high)), high};
}

/// Three matrices of rows x ld halves one after the other: l, h, h / 2.
struct SplitRows {
  __half* data;
  std::int64_t rows, ld;
  /// Genes p and p + 1 of row i; p is even.
  __device__ void write(std::int64_t i, std::int64_t p, __half2 a, __half2 b) const {
    __half* const out = data + i * ld + p;
    const std::int64_t next = rows * ld;
    *reinterpret_cast<__half2*>(out) = {a.x, b.x};
    const __half2 high{a.y, b.y};
    *reinterpret_cast<__half2*>(out + next) = high;
    *reinterpret_cast<__half2*>(out + 2 * next) = __hmul2(high, __float2half2_rn(0.5f));
  }
};

template <class V>
__global__ void __launch_bounds__(kThreads) split_dense(MatrixView<const V> x, GeneTransform t, RowShift r,
                                                        const double* unit, std::int64_t first, SplitRows out) {
  const std::int64_t p = 2 * (std::int64_t{blockIdx.x} * kThreads + threadIdx.x);
  if (p >= out.ld) return;
  const bool has_a = p < t.m, has_b = p + 1 < t.m;
  const GeneColumn a = has_a ? GeneColumn(t, r, p) : GeneColumn(), b = has_b ? GeneColumn(t, r, p + 1) : GeneColumn();
  const double unit_a = has_a ? unit[p] : 0, unit_b = has_b ? unit[p + 1] : 0;
  const std::int64_t begin = std::int64_t{blockIdx.y} * kSplitRows, end = min(out.rows, begin + kSplitRows);
#pragma unroll
  for (std::int64_t j = 0; j < kSplitRows; ++j) {
    const std::int64_t i = begin + j;
    if (i >= end) break;
    const V* const row = x.row(first + i);
    const double x_a = has_a ? a(static_cast<double>(row[a.column])) : 0;
    const double x_b = has_b ? b(static_cast<double>(row[b.column])) : 0;
    out.write(i, p, split(x_a, unit_a), split(x_b, unit_b));
  }
}

__global__ void __launch_bounds__(kThreads)
    split_fill(RowShift r, const double* unit, std::int64_t m, std::int64_t padded, __half2* fill) {
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p < padded) fill[p] = p < m ? split(r.fill[p], unit[p]) : split(0.0, 1.0);
}

/// One block a row.
template <class V>
__global__ void __launch_bounds__(kThreads)
    split_sparse(CsrView<const V> x, GeneTransform t, RowShift r, const double* unit, const __half2* fill,
                 std::int64_t first, SplitRows out) {
  extern __shared__ __half2 segment[];
  const std::int64_t i = blockIdx.x, begin = x.indptr.data[first + i], end = x.indptr.data[first + i + 1];
  for (std::int64_t from = 0; from < out.ld; from += kSegmentGenes) {
    const int size = static_cast<int>(min(kSegmentGenes, out.ld - from));
    for (int q = static_cast<int>(threadIdx.x); q < size; q += kThreads) segment[q] = fill[from + q];
    __syncthreads();
    for (std::int64_t e = begin + threadIdx.x; e < end; e += kThreads) {
      const std::int64_t p = t.position[x.indices.data[e]];
      if (p >= from && p < from + size)
        segment[p - from] = split(shifted<double>(t, r, static_cast<double>(x.values.data[e]), p), unit[p]);
    }
    __syncthreads();
    for (int q = 2 * static_cast<int>(threadIdx.x); q < size; q += 2 * kThreads)
      out.write(i, from + q, segment[q], segment[q + 1]);
    __syncthreads();
  }
}

/// c += (M + M') / unit unit' on and above the diagonal. Blocks of kSide x kSideThreads threads.
__global__ void __launch_bounds__(kSide* kSideThreads)
    flush(const float* partial, std::int64_t ld, const double* unit, MatrixView<double> c) {
  __shared__ float across[kSide][kSide + 1];
  if (blockIdx.x < blockIdx.y) return;
  const std::int64_t row = std::int64_t{blockIdx.y} * kSide, column = std::int64_t{blockIdx.x} * kSide;
  const int lane = static_cast<int>(threadIdx.x), m = static_cast<int>(c.n_rows);
  for (int s = static_cast<int>(threadIdx.y); s < kSide; s += kSideThreads)
    if (column + s < m && row + lane < m) across[s][lane] = partial[(column + s) * ld + row + lane];
  __syncthreads();
  const std::int64_t k = column + lane;
  for (int s = static_cast<int>(threadIdx.y); s < kSide; s += kSideThreads) {
    const std::int64_t j = row + s;
    if (j >= m || k >= m || k < j) continue;
    const double sum = static_cast<double>(partial[j * ld + k]) + static_cast<double>(across[lane][s]);
    c(j, k) += sum / (unit[j] * unit[k]);
  }
}

/// Blocks of kSide x kSideThreads threads.
__global__ void __launch_bounds__(kSide* kSideThreads) end_covariance(MatrixView<double> c, CovarianceEnd e) {
  __shared__ double across[kSide][kSide + 1];
  if (blockIdx.x < blockIdx.y) return;
  const std::int64_t row = std::int64_t{blockIdx.y} * kSide, column = std::int64_t{blockIdx.x} * kSide;
  const std::int64_t m = c.n_cols;
  const int lane = static_cast<int>(threadIdx.x);
  for (int s = static_cast<int>(threadIdx.y); s < kSide; s += kSideThreads) {
    const std::int64_t i = row + s, j = column + lane;
    if (i >= m || j >= m || j < i) continue;
    const double add = e.add != nullptr ? e.n * e.add[i] * e.add[j] : 0.0;
    const double value = (c(i, j) - e.n * e.left[i] * e.right[j] + add) / e.divisor;
    c(i, j) = value;
    across[s][lane] = value;
    if (i == j) e.diagonal[i] = value;
  }
  __syncthreads();
  for (int s = static_cast<int>(threadIdx.y); s < kSide; s += kSideThreads) {
    const std::int64_t j = column + s, i = row + lane;
    if (i < m && j < m && i < j) c(j, i) = across[lane][s];
  }
}

dim3 side_blocks(std::int64_t m) {
  const auto side = static_cast<unsigned>((m + kSide - 1) / kSide);
  return {side, side};
}

/// Fills `out` from rows of x.
void split_rows(const Context& ctx, const MatrixView<const float>& x, const GeneTransform& t, const RowShift& r,
                const CovarianceMode& mode, const __half2*, std::int64_t first, const SplitRows& out) {
  const dim3 blocks(blocks_for(out.ld / 2), static_cast<unsigned>((out.rows + kSplitRows - 1) / kSplitRows));
  split_dense<<<blocks, kThreads, 0, scw::cuda::stream_of(ctx)>>>(x, t, r, mode.unit, first, out);
  SCW_CUDA_LAUNCHED("pca: split_dense");
}
void split_rows(const Context& ctx, const CsrView<const float>& x, const GeneTransform& t, const RowShift& r,
                const CovarianceMode& mode, const __half2* fill, std::int64_t first, const SplitRows& out) {
  const auto bytes = static_cast<std::size_t>(std::min(kSegmentGenes, out.ld)) * sizeof(__half2);
  split_sparse<<<static_cast<unsigned>(out.rows), kThreads, bytes, scw::cuda::stream_of(ctx)>>>(x, t, r, mode.unit,
                                                                                                fill, first, out);
  SCW_CUDA_LAUNCHED("pca: split_sparse");
}

template <class View>
void float_covariance(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
                      const CovarianceMode& mode, const MatrixView<double>& c) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t ld = pca_padded(t.m);
  SCW_ASSERT(mode.unit != nullptr && mode.partial != nullptr && mode.first_row % kPcaBlockRows == 0);
  Array<__half> tile(ctx.workspace, checked_mul(3 * std::min(kChunkRows, x.n_rows), ld), "pca tile", ctx.stream);
  Array<std::uint32_t> fill_bits(ctx.workspace, ld, "pca tile", ctx.stream);
  auto* const fill = reinterpret_cast<__half2*>(fill_bits.data());
  split_fill<<<blocks_for(ld), kThreads, 0, stream>>>(r, mode.unit, t.m, ld, fill);
  SCW_CUDA_LAUNCHED("pca: split_fill");
  const scw::cuda::BlasHandle handle(ctx);
  const int size = static_cast<int>(ld);
  const float one = 1;
  for (std::int64_t first = 0; first < x.n_rows; first += kChunkRows) {
    ctx.check_cancelled("pp.pca");
    const SplitRows out{tile.data(), std::min(kChunkRows, x.n_rows - first), ld};
    split_rows(ctx, x, t, r, mode, fill, first, out);
    // Column-major: partial(j, k) (+)= sum over i of left(j, i) right(k, i), left = [l, h], right = [h, h / 2].
    const std::int64_t row = mode.first_row + first;
    const float beta = row % kPcaFlushRows == 0 ? 0.0f : 1.0f;
    SCW_CUBLAS(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_T, size, size, static_cast<int>(2 * out.rows), &one,
                            tile.data(), CUDA_R_16F, size, tile.data() + out.rows * ld, CUDA_R_16F, size, &beta,
                            mode.partial, CUDA_R_32F, size, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    if ((row + out.rows) % kPcaFlushRows == 0 || row + out.rows == mode.n_rows) {
      flush<<<side_blocks(t.m), dim3(kSide, kSideThreads), 0, stream>>>(mode.partial, ld, mode.unit, c);
      SCW_CUDA_LAUNCHED("pca: flush");
    }
  }
}

template <class View>
void covariance(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
                const CovarianceMode& mode, const MatrixView<double>& c) {
  if constexpr (std::is_same_v<ValueOf<View>, float>) {
    float_covariance(ctx, x, t, r, mode, c);
  } else {
    const std::int64_t m = t.m;
    for_each_tile<double>(ctx, x, t, r, [&](const Array<double>& tile, std::int64_t, std::int64_t rows) {
      for (std::int64_t first = 0; first < m; first += kPanelGenes) {
        const std::int64_t panel = std::min(kPanelGenes, m - first), width = m - first;
        const MatrixView<const double> left(tile.data() + first, rows, panel, m), right(left.data, rows, width, m);
        prim::gemm_f64_kernel(ctx, left, right, MatrixView<double>(c.row(first) + first, panel, width, c.ld),
                              {true, false, 1, 1});
      }
    });
  }
}

}  // namespace

void pca_covariance(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
                    const CovarianceMode& mode, const MatrixView<double>& c) {
  const scw::cuda::DeviceScope scope(ctx);
  if (mode.first_block)
    SCW_CUDA(cudaMemsetAsync(c.data, 0, static_cast<std::size_t>(c.n_rows * c.ld) * sizeof(double),
                             scw::cuda::stream_of(ctx)));
  std::visit([&](const auto& v) { covariance(ctx, v, t, r, mode, c); }, x);
}

void pca_covariance_end(const Context& ctx, const MatrixView<double>& c, const CovarianceEnd& e) {
  const scw::cuda::DeviceScope scope(ctx);
  end_covariance<<<side_blocks(c.n_cols), dim3(kSide, kSideThreads), 0, scw::cuda::stream_of(ctx)>>>(c, e);
  SCW_CUDA_LAUNCHED("pca: end_covariance");
}

SCW_REGISTER(pca_covariance_kernel, cuda, &pca_covariance);
SCW_REGISTER(pca_covariance_end_kernel, cuda, &pca_covariance_end);

}  // namespace scw::pp::cuda
