// Scores of pp.pca. Float: plain FP32 products fused with the centring, so that nothing but the matrix is read; floor
// n m 64 FMA: 11 ms for 1M x 5000 x 50 dense; sparse rows: 256 bytes of components from the L2 for each entry.
#include "pp/pca/tile.cuh"

namespace scw::pp::cuda {
namespace {

constexpr int kColumns = 64;  // components of a group
constexpr int kRows = 256;    // dense: rows of a block
constexpr int kInner = 8;     // dense: genes at a time
constexpr int kDenseThreads = 128;
constexpr int kEachRows = 16, kRowStride = 16;  // dense: rows of a thread

std::int64_t padded_genes(std::int64_t m) { return (m + kInner - 1) / kInner * kInner; }
std::int64_t groups_of(std::int64_t k) { return (k + kColumns - 1) / kColumns; }

/// out[group][p][c] = components[p][group * kColumns + c], 0 beyond.
__global__ void __launch_bounds__(kThreads)
    pack_components(MatrixView<const double> components, std::int64_t genes, std::int64_t total, float* out) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t e = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; e < total; e += stride) {
    const std::int64_t p = e / kColumns % genes, c = e / kColumns / genes * kColumns + e % kColumns;
    out[e] = p < components.n_rows && c < components.n_cols ? static_cast<float>(components(p, c)) : 0.0f;
  }
}

/// A block takes kRows rows to one group of components; a thread 16 rows (16 apart) to 8 components (4 and 4),
/// which keeps the arithmetic ahead of the reads from shared memory.
template <class S>
__global__ void __launch_bounds__(kDenseThreads, 2)
    dense_scores(MatrixView<const float> x, GeneTransform t, RowShift r, const float* components, std::int64_t genes,
                 const double* offset, MatrixView<S> out) {
  __shared__ float rows[kRows][kInner + 1];
  alignas(16) __shared__ float weights[kInner][kColumns];
  const int id = static_cast<int>(threadIdx.x), tx = id % 8, ty = id / 8, gene = id % kInner, lane_row = id / kInner;
  constexpr int kLoads = kRows * kInner / kDenseThreads, kRowStep = kDenseThreads / kInner;
  const std::int64_t first = std::int64_t{blockIdx.x} * kRows;
  const int count = static_cast<int>(min(std::int64_t{kRows}, x.n_rows - first));
  const float* const group = components + blockIdx.y * genes * kColumns;

  float next[kLoads];
  GeneColumn column;
  const auto load = [&](std::int64_t from) {
    const std::int64_t p = from + gene;
    if (p < t.m) column = GeneColumn(t, r, p);
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      const int i = lane_row + j * kRowStep;
      next[j] = p < t.m && i < count ? x.row(first + i)[column.column] : 0.0f;
    }
  };
  float sum[kEachRows][8] = {};
  load(0);
  for (std::int64_t from = 0; from < genes; from += kInner) {
    const bool used = from + gene < t.m;
#pragma unroll
    for (int j = 0; j < kLoads; ++j)
      rows[lane_row + j * kRowStep][gene] = used ? static_cast<float>(column(static_cast<double>(next[j]))) : 0.0f;
    const float4* const source = reinterpret_cast<const float4*>(group + from * kColumns);
#pragma unroll
    for (int j = 0; j < kInner * kColumns / 4 / kDenseThreads; ++j)
      reinterpret_cast<float4*>(&weights[0][0])[id + j * kDenseThreads] = source[id + j * kDenseThreads];
    __syncthreads();
    if (from + kInner < genes) load(from + kInner);
#pragma unroll
    for (int k = 0; k < kInner; ++k) {
      float a[kEachRows], b[8];
#pragma unroll
      for (int i = 0; i < kEachRows; ++i) a[i] = rows[ty + kRowStride * i][k];
      *reinterpret_cast<float4*>(b) = *reinterpret_cast<const float4*>(&weights[k][4 * tx]);
      *reinterpret_cast<float4*>(b + 4) = *reinterpret_cast<const float4*>(&weights[k][32 + 4 * tx]);
#pragma unroll
      for (int i = 0; i < kEachRows; ++i)
#pragma unroll
        for (int c = 0; c < 8; ++c) sum[i][c] = fmaf(a[i], b[c], sum[i][c]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kEachRows; ++i) {
    const int row = ty + kRowStride * i;
    if (row >= count) continue;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const std::int64_t j = std::int64_t{blockIdx.y} * kColumns + (c < 4 ? 4 * tx + c : 28 + 4 * tx + c);
      if (j < out.n_cols) out(first + row, j) = static_cast<S>(static_cast<double>(sum[i][c]) + offset[j]);
    }
  }
}

/// One warp a row and group; lane c has components c and c + 32. Entries in float, 32 at a time; those sums in double.
template <class S>
__global__ void __launch_bounds__(kThreads)
    sparse_scores(CsrView<const float> x, GeneTransform t, RowShift r, const float* components, std::int64_t genes,
                  const double* offset, MatrixView<S> out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (i >= x.n_rows) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const float* const group = components + blockIdx.y * genes * kColumns + lane;
  const std::int64_t begin = x.indptr.data[i], end = x.indptr.data[i + 1];
  double low = 0, high = 0;
  for (std::int64_t from = begin; from < end; from += 32) {
    const std::int64_t e = from + lane;
    std::int32_t p = e < end ? t.position[x.indices.data[e]] : -1;
    const float value = p >= 0 ? shifted<float>(t, r, static_cast<double>(x.values.data[e]), p) : 0.0f;
    float a = 0, b = 0;
    unsigned used = __ballot_sync(0xffffffffu, p >= 0);
    while (used != 0) {
      const int source = __ffs(static_cast<int>(used)) - 1;
      used &= used - 1;
      const float* const row = group + std::int64_t{__shfl_sync(0xffffffffu, p, source)} * kColumns;
      const float v = __shfl_sync(0xffffffffu, value, source);
      a = fmaf(v, row[0], a);
      b = fmaf(v, row[32], b);
    }
    low += static_cast<double>(a);
    high += static_cast<double>(b);
  }
  const std::int64_t j = std::int64_t{blockIdx.y} * kColumns + lane;
  if (j < out.n_cols) out(i, j) = static_cast<S>(low + offset[j]);
  if (j + 32 < out.n_cols) out(i, j + 32) = static_cast<S>(high + offset[j + 32]);
}

template <class S>
__global__ void __launch_bounds__(kThreads) write_scores(const double* product, std::int64_t rows, const double* offset,
                                                         std::int64_t first, MatrixView<S> out) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t e = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; e < rows * out.n_cols; e += stride) {
    const std::int64_t i = e / out.n_cols, c = e % out.n_cols;
    out(first + i, c) = static_cast<S>(product[e] + offset[c]);
  }
}

template <class S>
void launch(const Context& ctx, const MatrixView<const float>& x, const GeneTransform& t, const RowShift& r,
            const float* components, Span<const double> offset, const MatrixView<S>& out) {
  const dim3 blocks(static_cast<unsigned>((x.n_rows + kRows - 1) / kRows),
                    static_cast<unsigned>(groups_of(out.n_cols)));
  dense_scores<<<blocks, kDenseThreads, 0, scw::cuda::stream_of(ctx)>>>(x, t, r, components, padded_genes(t.m),
                                                                        offset.data, out);
  SCW_CUDA_LAUNCHED("pca: dense_scores");
}
template <class S>
void launch(const Context& ctx, const CsrView<const float>& x, const GeneTransform& t, const RowShift& r,
            const float* components, Span<const double> offset, const MatrixView<S>& out) {
  SCW_ASSERT(r.fill == nullptr);
  constexpr std::int64_t rows = kThreads / 32;
  const dim3 blocks(static_cast<unsigned>((x.n_rows + rows - 1) / rows), static_cast<unsigned>(groups_of(out.n_cols)));
  sparse_scores<<<blocks, kThreads, 0, scw::cuda::stream_of(ctx)>>>(x, t, r, components, padded_genes(t.m), offset.data,
                                                                    out);
  SCW_CUDA_LAUNCHED("pca: sparse_scores");
}

template <class View, class S>
void scores(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
            const MatrixView<const double>& components, Span<const double> offset, const MatrixView<S>& out) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t k = components.n_cols;
  if (x.n_rows == 0) return;
  if constexpr (std::is_same_v<ValueOf<View>, float>) {
    const std::int64_t total = checked_mul(groups_of(k) * kColumns, padded_genes(t.m));
    Array<float> packed(ctx.workspace, total, "pca components", ctx.stream);
    pack_components<<<blocks_for(total), kThreads, 0, stream>>>(components, padded_genes(t.m), total, packed.data());
    SCW_CUDA_LAUNCHED("pca: pack_components");
    launch(ctx, x, t, r, packed.data(), offset, out);
  } else {
    Array<double> product(ctx.workspace, checked_mul(kPcaBlockRows, k), "pca scores", ctx.stream);
    for_each_tile<double>(ctx, x, t, r, [&](const Array<double>& tile, std::int64_t first, std::int64_t rows) {
      prim::gemm_f64_kernel(ctx, MatrixView<const double>(tile.data(), rows, t.m), components,
                            MatrixView<double>(product.data(), rows, k), {});
      write_scores<<<blocks_for(rows * k), kThreads, 0, stream>>>(product.data(), rows, offset.data, first, out);
      SCW_CUDA_LAUNCHED("pca: write_scores");
    });
  }
}

}  // namespace

void pca_scores(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
                const MatrixView<const double>& components, Span<const double> offset, const ScoresView& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& rows, const auto& o) { scores(ctx, rows, t, r, components, offset, o); }, x, out);
}

SCW_REGISTER(pca_scores_kernel, cuda, &pca_scores);

}  // namespace scw::pp::cuda
