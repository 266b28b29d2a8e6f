// Sums and ranges of the columns. Floor: one read of the matrix.
#include "core/cuda/kernel_attributes.cuh"
#include "pp/pca/tile.cuh"

namespace scw::pp::cuda {
namespace {

constexpr std::int64_t kDenseRows = 512, kSparseRows = 256;  // rows per partial sum
constexpr std::int64_t kWaveChunks = 256;                    // partial sums held at a time
constexpr int kEntryThreads = 512;
static_assert(kPcaBlockRows % kDenseRows == 0 && kPcaBlockRows % kSparseRows == 0);

/// Partial results [chunk x gene]: sums of z (or z^2), stored entries (null: every row counts), range (may be null).
struct Partials {
  double *sum = nullptr, *stored = nullptr, *low = nullptr, *high = nullptr;
};

/// Rows [first + chunk * step, + step) of x for each chunk.
template <class V>
__global__ void __launch_bounds__(kThreads) sum_columns(MatrixView<const V> x, GeneTransform t, bool squares,
                                                        std::int64_t first, std::int64_t step, Partials out) {
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= t.m) return;
  const std::int64_t begin = first + std::int64_t{blockIdx.y} * step, end = min(x.n_rows, begin + step);
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
  const std::int64_t to = blockIdx.y * t.m + p;
  out.sum[to] = total;
  if (out.low != nullptr) {
    out.low[to] = least;
    out.high[to] = greatest;
  }
}

/// The same for sparse rows, one block a chunk: row after row into sums in shared memory. The entries of a row are of
/// different genes, so that no two threads meet between two barriers and every gene sums in the order of the rows.
template <class V>
__global__ void __launch_bounds__(kEntryThreads)
    sum_entries(CsrView<const V> x, GeneTransform t, bool squares, std::int64_t first, Partials out) {
  extern __shared__ double shared[];
  const int m = static_cast<int>(t.m);
  double* const sum = shared;
  V* const low = reinterpret_cast<V*>(sum + m);
  V* const high = low + (out.low != nullptr ? m : 0);
  int* const stored = reinterpret_cast<int*>(high + (out.low != nullptr ? m : 0));
  for (int p = static_cast<int>(threadIdx.x); p < m; p += kEntryThreads) {
    sum[p] = 0;
    stored[p] = 0;
    if (out.low != nullptr) {
      low[p] = static_cast<V>(INFINITY);
      high[p] = -static_cast<V>(INFINITY);
    }
  }
  const std::int64_t begin = first + std::int64_t{blockIdx.x} * kSparseRows, end = min(x.n_rows, begin + kSparseRows);
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t last = x.indptr.data[i + 1];
    __syncthreads();
    for (std::int64_t e = x.indptr.data[i] + threadIdx.x; e < last; e += kEntryThreads) {
      const std::int32_t p = t.position[x.indices.data[e]];
      if (p < 0) continue;
      const V value = x.values.data[e];
      const double z = transformed(t, static_cast<double>(value), p);
      sum[p] += squares ? z * z : z;
      ++stored[p];
      if (out.low != nullptr) {
        low[p] = fmin(low[p], value);
        high[p] = fmax(high[p], value);
      }
    }
  }
  __syncthreads();
  for (int p = static_cast<int>(threadIdx.x); p < m; p += kEntryThreads) {
    const std::int64_t to = std::int64_t{blockIdx.x} * m + p;
    out.sum[to] = sum[p];
    out.stored[to] = stored[p];
    if (out.low == nullptr) continue;
    const bool zeros = stored[p] < end - begin;
    out.low[to] = static_cast<double>(zeros ? fmin(low[p], V{0}) : low[p]);
    out.high[to] = static_cast<double>(zeros ? fmax(high[p], V{0}) : high[p]);
  }
}

/// Adds the chunks in their order.
__global__ void __launch_bounds__(kThreads)
    add_partials(Partials from, std::int64_t chunks, std::int64_t m, double rows, double* out) {
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= m) return;
  double total = out[p], stored = 0;
#pragma unroll 8
  for (std::int64_t c = 0; c < chunks; ++c) total += from.sum[c * m + p];
  out[p] = total;
  if (from.stored != nullptr) {
#pragma unroll 8
    for (std::int64_t c = 0; c < chunks; ++c) stored += from.stored[c * m + p];
  }
  out[m + p] += from.stored != nullptr ? stored : rows;
  if (from.low == nullptr) return;
  double least = out[2 * m + p], greatest = out[3 * m + p];
#pragma unroll 8
  for (std::int64_t c = 0; c < chunks; ++c) {
    least = fmin(least, from.low[c * m + p]);
    greatest = fmax(greatest, from.high[c * m + p]);
  }
  out[2 * m + p] = least;
  out[3 * m + p] = greatest;
}

/// launch(first row, chunks, partials) over all rows, `step` to a chunk.
template <class Launch>
void sum_in_waves(const Context& ctx, std::int64_t n, std::int64_t step, const GeneTransform& t, bool count,
                  Span<double> out, const Launch& launch) {
  const std::int64_t capacity = std::min(kWaveChunks, (n + step - 1) / step), size = checked_mul(capacity, t.m);
  const bool range = out.size == 4 * t.m;
  Array<double> buffer(ctx.workspace, checked_mul(size, 1 + (count ? 1 : 0) + (range ? 2 : 0)), "pca partial sums",
                       ctx.stream);
  Partials partials;
  double* next = buffer.data();
  const auto take = [&] { return std::exchange(next, next + size); };
  partials.sum = take();
  if (count) partials.stored = take();
  if (range) {
    partials.low = take();
    partials.high = take();
  }
  for (std::int64_t first = 0; first < n; first += capacity * step) {
    ctx.check_cancelled("pp.pca");
    const std::int64_t rows = std::min(capacity * step, n - first), chunks = (rows + step - 1) / step;
    launch(first, static_cast<unsigned>(chunks), partials);
    add_partials<<<blocks_for(t.m), kThreads, 0, scw::cuda::stream_of(ctx)>>>(partials, chunks, t.m,
                                                                              static_cast<double>(rows), out.data);
    SCW_CUDA_LAUNCHED("pca: add_partials");
  }
}

template <class V>
void sums(const Context& ctx, const MatrixView<const V>& x, const GeneTransform& t, bool squares, Span<double> out) {
  sum_in_waves(ctx, x.n_rows, kDenseRows, t, false, out,
               [&](std::int64_t first, unsigned chunks, const Partials& partials) {
                 sum_columns<<<dim3(blocks_for(t.m), chunks), kThreads, 0, scw::cuda::stream_of(ctx)>>>(
                     x, t, squares, first, kDenseRows, partials);
                 SCW_CUDA_LAUNCHED("pca: sum_columns");
               });
}

template <class V>
void sums(const Context& ctx, const CsrView<const V>& x, const GeneTransform& t, bool squares, Span<double> out) {
  const bool range = out.size == 4 * t.m;
  const std::int64_t bytes = t.m * static_cast<std::int64_t>(12 + (range ? 2 * sizeof(V) : 0));
  const int most = scw::cuda::allow_shared_memory(ctx, &sum_entries<V>);
  if (bytes > most) {  // more genes than shared memory has room for: dense tiles, whose every entry counts as stored
    GeneTransform plain;
    plain.m = t.m;
    plain.identity = true;
    for_each_tile<V>(ctx, x, t, {}, [&](const Array<V>& tile, std::int64_t, std::int64_t rows) {
      sums(ctx, MatrixView<const V>(tile.data(), rows, t.m), plain, squares, out);
    });
    return;
  }
  sum_in_waves(ctx, x.n_rows, kSparseRows, t, true, out,
               [&](std::int64_t first, unsigned chunks, const Partials& partials) {
                 sum_entries<<<chunks, kEntryThreads, static_cast<std::size_t>(bytes), scw::cuda::stream_of(ctx)>>>(
                     x, t, squares, first, partials);
                 SCW_CUDA_LAUNCHED("pca: sum_entries");
               });
}

}  // namespace

void pca_sums(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, bool squares, Span<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { sums(ctx, v, t, squares, out); }, x);
}

SCW_REGISTER(pca_sums_kernel, cuda, &pca_sums);

}  // namespace scw::pp::cuda
