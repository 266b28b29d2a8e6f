// CUDA kernels of pp.pca. Everything runs over dense tiles of rows, centred and scaled while they are filled: a tile
// costs one write of its size, the products with it a hundred times that.
#include <algorithm>
#include <type_traits>

#include "pp/pca/kernel.hpp"
#include "prim/cublas.cuh"
#include "prim/gemm/kernel.hpp"

#include "pp/pca/body.inl"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kTileBytes = std::int64_t{512} << 20;
constexpr std::int64_t kSumRows = 256;      // rows per partial sum
constexpr std::int64_t kPanelGenes = 1024;  // rows of the covariance per product: the lower triangle is left out

std::int64_t tile_rows(std::int64_t n, std::int64_t m, std::int64_t value_bytes) {
  std::int64_t rows = kPcaBlockRows;  // divides the blocks' starts, so that tiles do not depend on the blocks
  while (rows > 256 && rows * m * value_bytes > kTileBytes) rows /= 2;
  return std::min(rows, n);
}

template <class T>
__device__ inline T filled(const GeneTransform& t, const RowShift& r, std::int64_t p) {
  if (r.fill != nullptr) return static_cast<T>(r.fill[p]);
  return static_cast<T>(transformed(t, 0.0, p) - (r.shift != nullptr ? r.shift[p] : 0.0));
}
template <class T>
__device__ inline T shifted(const GeneTransform& t, const RowShift& r, double x, std::int64_t p) {
  return static_cast<T>(transformed(t, x, p) - (r.shift != nullptr ? r.shift[p] : 0.0));
}

/// tile[i, p] = z - shift for rows first + i; one block a row.
template <class V, class T>
__global__ void __launch_bounds__(kThreads)
    fill_tile(MatrixView<const V> x, GeneTransform t, RowShift r, std::int64_t first, T* tile) {
  const V* const row = x.row(first + blockIdx.x);
  T* const out = tile + blockIdx.x * t.m;
  for (std::int64_t p = threadIdx.x; p < t.m; p += kThreads)
    out[p] = shifted<T>(t, r, static_cast<double>(row[t.identity ? p : t.column[p]]), p);
}
template <class V, class T>
__global__ void __launch_bounds__(kThreads)
    fill_tile(CsrView<const V> x, GeneTransform t, RowShift r, std::int64_t first, T* tile) {
  T* const out = tile + blockIdx.x * t.m;
  for (std::int64_t p = threadIdx.x; p < t.m; p += kThreads) out[p] = filled<T>(t, r, p);
  __syncthreads();
  const std::int64_t i = first + blockIdx.x, end = x.indptr.data[i + 1];
  for (std::int64_t e = x.indptr.data[i] + threadIdx.x; e < end; e += kThreads) {
    const std::int32_t p = t.position[x.indices.data[e]];
    if (p >= 0) out[p] = shifted<T>(t, r, static_cast<double>(x.values.data[e]), p);
  }
}

/// fill(tile, first, rows) for the tiles of x, filled.
template <class T, class View, class Body>
void for_each_tile(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r, const Body& body) {
  if (x.n_rows == 0) return;
  const std::int64_t step = tile_rows(x.n_rows, t.m, sizeof(T));
  Array<T> tile(ctx.workspace, checked_mul(step, t.m), "pca tile", ctx.stream);
  for (std::int64_t first = 0; first < x.n_rows; first += step) {
    ctx.check_cancelled("pp.pca");
    const std::int64_t rows = std::min(step, x.n_rows - first);
    fill_tile<<<static_cast<unsigned>(rows), kThreads, 0, scw::cuda::stream_of(ctx)>>>(x, t, r, first, tile.data());
    SCW_CUDA_LAUNCHED("pca: fill_tile");
    body(tile, first, rows);
  }
}

template <class V>
V value_of(const CsrView<const V>&);
template <class V>
V value_of(const MatrixView<const V>&);
template <class View>
using ValueOf = decltype(value_of(std::declval<View>()));

void gemm(const Context& ctx, const MatrixView<const float>& a, const MatrixView<const float>& b,
          const MatrixView<float>& c, const prim::GemmOptions& o) {
  prim::gemm_f32_kernel(ctx, a, b, c, o);
}
void gemm(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& b,
          const MatrixView<double>& c, const prim::GemmOptions& o) {
  prim::gemm_f64_kernel(ctx, a, b, c, o);
}

/// partial[chunk, p] = sum over the chunk's rows of the tile's column p (or of its squares).
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_columns(const T* tile, std::int64_t rows, std::int64_t m, bool squares, double* partial) {
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= m) return;
  const std::int64_t begin = std::int64_t{blockIdx.y} * kSumRows, end = min(rows, begin + kSumRows);
  double sum = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const double z = static_cast<double>(tile[i * m + p]);
    sum += squares ? z * z : z;
  }
  partial[blockIdx.y * m + p] = sum;
}
__global__ void __launch_bounds__(kThreads)
    add_partials(const double* partial, std::int64_t chunks, std::int64_t m, double rows, double* out) {
  const std::int64_t p = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (p >= m) return;
  double sum = out[p];
  for (std::int64_t c = 0; c < chunks; ++c) sum += partial[c * m + p];
  out[p] = sum;
  out[m + p] += rows;
}

/// c += product on and above the diagonal of a panel that starts at row `first`; product is [rows x (m - first)].
__global__ void __launch_bounds__(kThreads)
    add_panel(const float* product, std::int64_t first, std::int64_t rows, MatrixView<double> c) {
  const std::int64_t width = c.n_cols - first;
  const std::int64_t j = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, i = blockIdx.y;
  if (j < width && j >= i && i < rows) c(first + i, first + j) += static_cast<double>(product[i * width + j]);
}

__global__ void __launch_bounds__(kThreads) end_covariance(MatrixView<double> c, CovarianceEnd e) {
  const std::int64_t j = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, i = blockIdx.y;
  if (j >= c.n_cols || j < i) return;
  const double add = e.add != nullptr ? e.n * e.add[i] * e.add[j] : 0.0;
  const double value = (c(i, j) - e.n * e.left[i] * e.right[j] + add) / e.divisor;
  c(i, j) = value;
  c(j, i) = value;
  if (i == j) e.diagonal[i] = value;
}

/// y[i, b] += offset[b]; y_sum[b] += sum of the column. One block a column, a fixed tree.
__global__ void __launch_bounds__(kThreads)
    offset_and_sum(double* y, std::int64_t rows, std::int64_t width, const double* offset, double* y_sum) {
  __shared__ double sums[kThreads];
  const std::int64_t b = blockIdx.x;
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < rows; i += kThreads) sum += y[i * width + b] += offset[b];
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) y_sum[b] += sums[0];
}

template <class T, class S>
__global__ void __launch_bounds__(kThreads)
    write_scores(const T* product, std::int64_t rows, const double* offset, std::int64_t first, MatrixView<S> out) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t e = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; e < rows * out.n_cols; e += stride) {
    const std::int64_t i = e / out.n_cols, c = e % out.n_cols;
    out(first + i, c) = static_cast<S>(static_cast<double>(product[e]) + offset[c]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) convert(const double* x, std::int64_t n, T* out) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t e = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; e < n; e += stride)
    out[e] = static_cast<T>(x[e]);
}

unsigned blocks_for(std::int64_t n) { return scw::cuda::grid_for(n, kThreads); }

template <class View>
void sums(const Context& ctx, const View& x, const GeneTransform& t, bool squares, Span<double> out) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  Array<double> partial(ctx.workspace, checked_mul(kPcaBlockRows / kSumRows, t.m), "pca partial sums", ctx.stream);
  // Every row counts, stored or not: the fill of a tile is z(0).
  for_each_tile<ValueOf<View>>(ctx, x, t, {}, [&](const auto& tile, std::int64_t, std::int64_t rows) {
    const std::int64_t chunks = (rows + kSumRows - 1) / kSumRows;
    sum_columns<<<dim3(blocks_for(t.m), static_cast<unsigned>(chunks)), kThreads, 0, stream>>>(tile.data(), rows, t.m,
                                                                                               squares, partial.data());
    SCW_CUDA_LAUNCHED("pca: sum_columns");
    add_partials<<<blocks_for(t.m), kThreads, 0, stream>>>(partial.data(), chunks, t.m, static_cast<double>(rows),
                                                           out.data);
    SCW_CUDA_LAUNCHED("pca: add_partials");
  });
}

template <class View>
void covariance(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
                const MatrixView<double>& c) {
  using V = ValueOf<View>;
  const std::int64_t m = t.m;
  constexpr bool in_place = std::is_same_v<V, double>;
  Array<V> product(ctx.workspace, in_place ? 0 : checked_mul(std::min(kPanelGenes, m), m), "pca product", ctx.stream);
  for_each_tile<V>(ctx, x, t, r, [&](const Array<V>& tile, std::int64_t, std::int64_t rows) {
    for (std::int64_t first = 0; first < m; first += kPanelGenes) {
      const std::int64_t panel = std::min(kPanelGenes, m - first), width = m - first;
      const MatrixView<const V> left(tile.data() + first, rows, panel, m), right(tile.data() + first, rows, width, m);
      if constexpr (in_place) {
        gemm(ctx, left, right, MatrixView<V>(c.row(first) + first, panel, width, c.ld), {true, false, 1, 1});
      } else {
        gemm(ctx, left, right, MatrixView<V>(product.data(), panel, width), {true, false, 1, 0});
        add_panel<<<dim3(blocks_for(width), static_cast<unsigned>(panel)), kThreads, 0, scw::cuda::stream_of(ctx)>>>(
            product.data(), first, panel, c);
        SCW_CUDA_LAUNCHED("pca: add_panel");
      }
    }
  });
}

template <class View>
void apply(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
           const MatrixView<const double>& v, Span<const double> offset, const MatrixView<double>& w,
           Span<double> y_sum) {
  const std::int64_t b = v.n_rows;
  Array<double> y(ctx.workspace, kPcaBlockRows * b, "pca products", ctx.stream);
  for_each_tile<double>(ctx, x, t, r, [&](const Array<double>& tile, std::int64_t, std::int64_t rows) {
    const MatrixView<const double> d(tile.data(), rows, t.m);
    const MatrixView<double> out(y.data(), rows, b);
    gemm(ctx, d, v, out, {false, true, 1, 0});
    offset_and_sum<<<static_cast<unsigned>(b), kThreads, 0, scw::cuda::stream_of(ctx)>>>(y.data(), rows, b, offset.data,
                                                                                         y_sum.data);
    SCW_CUDA_LAUNCHED("pca: offset_and_sum");
    gemm(ctx, out, d, w, {true, false, 1, 1});
  });
}

template <class View, class S>
void scores(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
            const MatrixView<const double>& components, Span<const double> offset, const MatrixView<S>& out) {
  using V = ValueOf<View>;
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t k = components.n_cols;
  Array<V> narrow(ctx.workspace, checked_mul(t.m, k), "pca components", ctx.stream);
  Array<V> product(ctx.workspace, checked_mul(kPcaBlockRows, k), "pca scores", ctx.stream);
  convert<<<blocks_for(t.m * k), kThreads, 0, stream>>>(components.data, t.m * k, narrow.data());
  SCW_CUDA_LAUNCHED("pca: convert");
  for_each_tile<V>(ctx, x, t, r, [&](const Array<V>& tile, std::int64_t first, std::int64_t rows) {
    gemm(ctx, MatrixView<const V>(tile.data(), rows, t.m), MatrixView<const V>(narrow.data(), t.m, k),
         MatrixView<V>(product.data(), rows, k), {});
    write_scores<<<blocks_for(rows * k), kThreads, 0, stream>>>(product.data(), rows, offset.data, first, out);
    SCW_CUDA_LAUNCHED("pca: write_scores");
  });
}

}  // namespace

void pca_sums(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, bool squares, Span<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { sums(ctx, v, t, squares, out); }, x);
}

void pca_covariance(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
                    const CovarianceMode& mode, const MatrixView<double>& c) {
  const scw::cuda::DeviceScope scope(ctx);
  if (mode.first_block)
    SCW_CUDA(cudaMemsetAsync(c.data, 0, static_cast<std::size_t>(c.n_rows * c.ld) * sizeof(double),
                             scw::cuda::stream_of(ctx)));
  std::visit([&](const auto& v) { covariance(ctx, v, t, r, c); }, x);
}

void pca_covariance_end(const Context& ctx, const MatrixView<double>& c, const CovarianceEnd& e) {
  const scw::cuda::DeviceScope scope(ctx);
  end_covariance<<<dim3(blocks_for(c.n_cols), static_cast<unsigned>(c.n_rows)), kThreads, 0,
                   scw::cuda::stream_of(ctx)>>>(c, e);
  SCW_CUDA_LAUNCHED("pca: end_covariance");
}

void pca_apply(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
               const MatrixView<const double>& v, Span<const double> offset, const MatrixView<double>& w,
               Span<double> y_sum) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& rows) { apply(ctx, rows, t, r, v, offset, w, y_sum); }, x);
}

void pca_scores(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
                const MatrixView<const double>& components, Span<const double> offset, const ScoresView& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& rows, const auto& o) { scores(ctx, rows, t, r, components, offset, o); }, x, out);
}

SCW_REGISTER(pca_sums_kernel, cuda, &pca_sums);
SCW_REGISTER(pca_covariance_kernel, cuda, &pca_covariance);
SCW_REGISTER(pca_covariance_end_kernel, cuda, &pca_covariance_end);
SCW_REGISTER(pca_apply_kernel, cuda, &pca_apply);
SCW_REGISTER(pca_scores_kernel, cuda, &pca_scores);

}  // namespace scw::pp::cuda
