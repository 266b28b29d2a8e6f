// The covariance of pp.pca. Float values become integers of 24 bits, each gene scaled to its largest value, and these
// three digits a, b, c of base 256. Of the product
//   a a' 2^32 + (a b' + b a') 2^24 + (a c' + c a' + b b') 2^16 + (b c' + c b') 2^8 + c c'
// all but c c' (2^-32 of the largest) is computed from products of 8-bit integers on the tensor cores, without any
// rounding (Ootomo, Ozaki & Yokota 2024, Int. J. High Perform. Comput. Appl. 38:297). Floating-point tensor cores cut
// off each product where the sum ends: variances from half-precision pairs, 1024 rows to a sum, were off by 4e-5.
// Floor: 9 n m^2 operations, 0.17 s for 1M x 5000 at the 1.3e15 a second that cuBLAS reaches.
#include "pp/pca/tile.cuh"
#include "prim/cublas.cuh"

namespace scw::pp::cuda {
namespace {

constexpr std::int64_t kChunkRows = 16384;   // rows of a product: the sums are read and written once for each
constexpr std::int64_t kSparseRows = 2048;   // sparse rows made dense at a time: they stay in the L2 cache
constexpr std::int64_t kPanelGenes = 1024;   // double: rows of the covariance per product
constexpr int kSide = 32, kSideThreads = 8;  // square tiles that are read twice, once across

constexpr std::int64_t kSymmetricGenes = 2048;  // from here on a quarter of the symmetric products is left out

constexpr int kDigits = 3;
constexpr int kPairs[kPcaProducts][2] = {{0, 0}, {0, 1}, {0, 2}, {1, 1}, {1, 2}};  // the digits of each product

/// Rows of a chunk as digits: out[digit][gene][row], gene by gene so that the products run along contiguous memory.
struct DigitRows {
  std::int8_t* data;
  std::int64_t genes, ld;  // padded
};

constexpr int kSplitGenes = 64, kSplitRows = 128, kSplitWords = kSplitRows / 4;

/// A block takes kSplitRows rows (those from `rows` on count as zero) of kSplitGenes genes across, four rows a word.
template <class V>
__global__ void __launch_bounds__(kThreads)
    split_rows(MatrixView<const V> x, GeneTransform t, RowShift r, const double* unit, std::int64_t first,
               std::int64_t rows, DigitRows out, std::int64_t to) {
  constexpr int kGroups = kThreads / kSplitGenes, kEach = kSplitWords / kGroups;
  __shared__ std::uint32_t words[kDigits][kSplitGenes][kSplitWords + 1];
  const std::int64_t first_gene = std::int64_t{blockIdx.x} * kSplitGenes,
                     block_row = std::int64_t{blockIdx.y} * kSplitRows;
  const int gene = static_cast<int>(threadIdx.x) % kSplitGenes, group = static_cast<int>(threadIdx.x) / kSplitGenes;
  const std::int64_t p = first_gene + gene;
  const bool used = p < t.m;
  const GeneColumn z_of = used ? GeneColumn(t, r, p) : GeneColumn();
  const double factor = used ? unit[p] : 0.0;
#pragma unroll 2
  for (int w = 0; w < kEach; ++w) {
    const int word = group * kEach + w;
    std::uint32_t digits[kDigits] = {};
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const std::int64_t i = block_row + 4 * word + q;
      const double z = used && i < rows ? z_of(static_cast<double>(x.row(first + i)[z_of.column])) : 0.0;
      std::int32_t rest = __double2int_rn(z * factor);
#pragma unroll
      for (int d = kDigits - 1; d >= 0; --d) {
        const std::int32_t digit = d > 0 ? static_cast<std::int8_t>(rest & 255) : rest;
        rest = (rest - digit) >> 8;
        digits[d] |= (static_cast<std::uint32_t>(digit) & 255u) << (8 * q);
      }
    }
#pragma unroll
    for (int d = 0; d < kDigits; ++d) words[d][gene][word] = digits[d];
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  static_assert(kSplitWords == 32);
  for (int g = warp; g < kSplitGenes && first_gene + g < out.genes; g += kThreads / 32)
#pragma unroll
    for (int d = 0; d < kDigits; ++d) {
      std::int8_t* const line = out.data + (d * out.genes + first_gene + g) * out.ld + to + block_row;
      reinterpret_cast<std::uint32_t*>(line)[lane] = words[d][g][lane];
    }
}

/// c += the sum of the products / (unit unit') on and above the diagonal. Blocks of kSide x kSideThreads threads.
__global__ void __launch_bounds__(kSide* kSideThreads)
    flush(const std::int32_t* partial, std::int64_t ld, const double* unit, MatrixView<double> c) {
  __shared__ double across[kSide][kSide + 1];
  if (blockIdx.x < blockIdx.y) return;
  const std::int64_t row = std::int64_t{blockIdx.y} * kSide, column = std::int64_t{blockIdx.x} * kSide;
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t m = c.n_rows, size = ld * ld;
  // The products of two different digits count twice, once transposed.
  const auto mixed = [&](std::int64_t j, std::int64_t k) {
    const std::int32_t* const at = partial + j * ld + k;
    return static_cast<double>(at[size]) * 0x1p24 + static_cast<double>(at[2 * size]) * 0x1p16 +
           static_cast<double>(at[4 * size]) * 0x1p8;
  };
  for (int s = static_cast<int>(threadIdx.y); s < kSide; s += kSideThreads)
    if (column + s < m && row + lane < m) across[s][lane] = mixed(column + s, row + lane);
  __syncthreads();
  const std::int64_t k = column + lane;
  for (int s = static_cast<int>(threadIdx.y); s < kSide; s += kSideThreads) {
    const std::int64_t j = row + s;
    if (j >= m || k >= m || k < j) continue;
    const std::int32_t* const at = partial + j * ld + k;
    const double equal = static_cast<double>(at[0]) * 0x1p32 + static_cast<double>(at[3 * size]) * 0x1p16;
    c(j, k) += (equal + (mixed(j, k) + across[lane][s])) / (unit[j] * unit[k]);
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

/// Digits of rows [first, first + rows) of x.
void split(const Context& ctx, const MatrixView<const float>& x, const GeneTransform& t, const RowShift& r,
           const double* unit, std::int64_t first, std::int64_t rows, const DigitRows& out, std::int64_t to,
           Array<float>&) {
  const dim3 blocks(static_cast<unsigned>((out.genes + kSplitGenes - 1) / kSplitGenes),
                    static_cast<unsigned>((rows + kSplitRows - 1) / kSplitRows));
  split_rows<<<blocks, kThreads, 0, scw::cuda::stream_of(ctx)>>>(x, t, r, unit, first, rows, out, to);
  SCW_CUDA_LAUNCHED("pca: split_rows");
}
void split(const Context& ctx, const CsrView<const float>& x, const GeneTransform& t, const RowShift& r,
           const double* unit, std::int64_t first, std::int64_t rows, const DigitRows& out, std::int64_t to,
           Array<float>& tile) {
  GeneTransform plain;  // the tile holds z - shift
  plain.m = t.m;
  plain.identity = true;
  for (std::int64_t done = 0; done < rows; done += kSparseRows) {
    const std::int64_t count = std::min(kSparseRows, rows - done);
    fill_tile<<<static_cast<unsigned>(count), kThreads, 0, scw::cuda::stream_of(ctx)>>>(x, t, r, first + done,
                                                                                        tile.data());
    SCW_CUDA_LAUNCHED("pca: fill_tile");
    split(ctx, MatrixView<const float>(tile.data(), count, t.m), plain, {}, unit, 0, count, out, to + done, tile);
  }
}

template <class View>
void float_covariance(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
                      const CovarianceMode& mode, const MatrixView<double>& c) {
  static_assert(kSparseRows % kSplitRows == 0 && kChunkRows % kSparseRows == 0 && kPcaFlushRows % kPcaBlockRows == 0);
  SCW_ASSERT(mode.unit != nullptr && mode.partial != nullptr && mode.first_row % kPcaBlockRows == 0);
  const auto padded_rows = [](std::int64_t rows) { return (rows + kSplitRows - 1) / kSplitRows * kSplitRows; };
  const std::int64_t genes = pca_padded(t.m), capacity = padded_rows(std::min(kChunkRows, x.n_rows));
  Array<std::int8_t> digits(ctx.workspace, checked_mul(kDigits * capacity, genes), "pca digits", ctx.stream);
  Array<float> tile(ctx.workspace, std::is_same_v<View, CsrView<const float>> ? kSparseRows * t.m : 0, "pca tile",
                    ctx.stream);
  const DigitRows out{digits.data(), genes, capacity};
  const scw::cuda::BlasHandle handle(ctx);
  const std::int64_t half = genes / 256 * 128;
  const std::int32_t one = 1;
  for (std::int64_t first = 0; first < x.n_rows;) {
    ctx.check_cancelled("pp.pca");
    const std::int64_t row = mode.first_row + first;
    const std::int64_t rows = std::min({kChunkRows, x.n_rows - first, kPcaFlushRows - row % kPcaFlushRows});
    split(ctx, x, t, r, mode.unit, first, rows, out, 0, tile);
    const std::int32_t beta = row % kPcaFlushRows == 0 ? 0 : 1;
    for (std::int64_t i = 0; i < kPcaProducts; ++i) {
      // Column-major: partial(j, k) (+)= sum over the rows of left(., j) right(., k), for j >= k if that is all of it.
      const auto product = [&](std::int64_t j, std::int64_t k, std::int64_t n_k) {
        SCW_CUBLAS(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(genes - j), static_cast<int>(n_k),
                                static_cast<int>(padded_rows(rows)), &one,
                                out.data + (kPairs[i][0] * genes + j) * capacity, CUDA_R_8I, static_cast<int>(capacity),
                                out.data + (kPairs[i][1] * genes + k) * capacity, CUDA_R_8I, static_cast<int>(capacity),
                                &beta, mode.partial + (i * genes + k) * genes + j, CUDA_R_32I, static_cast<int>(genes),
                                CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT));
      };
      if (kPairs[i][0] == kPairs[i][1] && genes >= kSymmetricGenes) {
        product(0, 0, half);
        product(half, half, genes - half);
      } else {
        product(0, 0, genes);
      }
    }
    first += rows;
    if ((row + rows) % kPcaFlushRows == 0 || row + rows == mode.n_rows) {
      flush<<<side_blocks(t.m), dim3(kSide, kSideThreads), 0, scw::cuda::stream_of(ctx)>>>(mode.partial, genes,
                                                                                           mode.unit, c);
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
