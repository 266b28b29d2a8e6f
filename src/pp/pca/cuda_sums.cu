// Sums and ranges of the columns. Floor: one read of the matrix (dense); sparse rows go through dense tiles.
#include "pp/pca/tile.cuh"

namespace scw::pp::cuda {
namespace {

constexpr std::int64_t kSumRows = 256;     // rows per partial sum
constexpr std::int64_t kWaveChunks = 256;  // partial sums held at a time
static_assert(kPcaBlockRows % kSumRows == 0);

/// sum[chunk, p] = sum over the chunk's rows of z (or z^2); low and high (may be null) its range.
template <class V>
__global__ void __launch_bounds__(kThreads) sum_columns(MatrixView<const V> x, GeneTransform t, bool squares,
                                                        std::int64_t first, double* sum, double* low, double* high) {
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= t.m) return;
  const std::int64_t begin = first + std::int64_t{blockIdx.y} * kSumRows, end = min(x.n_rows, begin + kSumRows);
  const GeneColumn z_of(t, {}, p);
  const V* at = x.row(begin) + z_of.column;
  double total = 0, least = static_cast<double>(INFINITY), greatest = -static_cast<double>(INFINITY);
#pragma unroll 8
  for (std::int64_t i = begin; i < end; ++i, at += x.ld) {
    const double z = z_of(static_cast<double>(*at));
    total += squares ? z * z : z;
    least = fmin(least, z);
    greatest = fmax(greatest, z);
  }
  const std::int64_t out = blockIdx.y * t.m + p;
  sum[out] = total;
  if (low != nullptr) {
    low[out] = least;
    high[out] = greatest;
  }
}

/// Adds the chunks in their order.
__global__ void __launch_bounds__(kThreads)
    add_partials(const double* sum, const double* low, const double* high, std::int64_t chunks, std::int64_t m,
                 double rows, double* out) {
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= m) return;
  double total = out[p];
#pragma unroll 8
  for (std::int64_t c = 0; c < chunks; ++c) total += sum[c * m + p];
  out[p] = total;
  out[m + p] += rows;
  if (low == nullptr) return;
  double least = out[2 * m + p], greatest = out[3 * m + p];
#pragma unroll 8
  for (std::int64_t c = 0; c < chunks; ++c) {
    least = fmin(least, low[c * m + p]);
    greatest = fmax(greatest, high[c * m + p]);
  }
  out[2 * m + p] = least;
  out[3 * m + p] = greatest;
}

template <class V>
void sum_rows(const Context& ctx, const MatrixView<const V>& x, const GeneTransform& t, bool squares,
              Array<double>& partial, std::int64_t capacity, Span<double> out) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const bool range = out.size == 4 * t.m;
  double* const sum = partial.data();
  double* const low = range ? sum + capacity * t.m : nullptr;
  double* const high = range ? low + capacity * t.m : nullptr;
  for (std::int64_t first = 0; first < x.n_rows; first += capacity * kSumRows) {
    ctx.check_cancelled("pp.pca");
    const std::int64_t rows = std::min(capacity * kSumRows, x.n_rows - first);
    const std::int64_t chunks = (rows + kSumRows - 1) / kSumRows;
    sum_columns<<<dim3(blocks_for(t.m), static_cast<unsigned>(chunks)), kThreads, 0, stream>>>(x, t, squares, first,
                                                                                               sum, low, high);
    SCW_CUDA_LAUNCHED("pca: sum_columns");
    add_partials<<<blocks_for(t.m), kThreads, 0, stream>>>(sum, low, high, chunks, t.m, static_cast<double>(rows),
                                                           out.data);
    SCW_CUDA_LAUNCHED("pca: add_partials");
  }
}

Array<double> partial_sums(const Context& ctx, std::int64_t chunks, const GeneTransform& t, Span<double> out) {
  return {ctx.workspace, checked_mul(chunks * (out.size == 4 * t.m ? 3 : 1), t.m), "pca partial sums", ctx.stream};
}

template <class V>
void sums(const Context& ctx, const MatrixView<const V>& x, const GeneTransform& t, bool squares, Span<double> out) {
  const std::int64_t capacity = std::min(kWaveChunks, (x.n_rows + kSumRows - 1) / kSumRows);
  Array<double> partial = partial_sums(ctx, capacity, t, out);
  sum_rows(ctx, x, t, squares, partial, capacity, out);
}

template <class V>
void sums(const Context& ctx, const CsrView<const V>& x, const GeneTransform& t, bool squares, Span<double> out) {
  constexpr std::int64_t capacity = kPcaBlockRows / kSumRows;
  Array<double> partial = partial_sums(ctx, capacity, t, out);
  GeneTransform plain;  // the tile holds z
  plain.m = t.m;
  plain.identity = true;
  for_each_tile<V>(ctx, x, t, {}, [&](const Array<V>& tile, std::int64_t, std::int64_t rows) {
    sum_rows(ctx, MatrixView<const V>(tile.data(), rows, t.m), plain, squares, partial, capacity, out);
  });
}

}  // namespace

void pca_sums(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, bool squares, Span<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { sums(ctx, v, t, squares, out); }, x);
}

SCW_REGISTER(pca_sums_kernel, cuda, &pca_sums);

}  // namespace scw::pp::cuda
