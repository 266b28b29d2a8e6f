// Sums over cells in slabs whose number depends on the number of cells alone, each in row order, then slab by slab: the
// same bits on every run. A sparse matrix is read twice and its residual written once (prim/dense_tiles.cuh); nothing
// of the size of the result is held besides it. Floor for 1M x 5 000 floats with 600M entries: 20 GB written + 9.6 GB
// read, 7 ms at 4.3 TB/s; dense in place: 60 GB, 14 ms.
#include "pp/regress_out/kernel.hpp"
#include "prim/dense_tiles.cuh"

namespace scw::pp::cuda {
namespace {

constexpr int kBlock = prim::cuda::kTileBlock;
constexpr int kMaxTerms = 4;  // regressors whose coefficients a thread keeps in registers

/// [slabs x p x m] sums of q_ik x_ij, from the first slab of the block on.
struct Partial {
  double* data;
  std::int64_t p, m;
  bool begun;  // sums go on
  __device__ double* at(std::int64_t slab, std::int64_t k) const { return data + (slab * p + k) * m; }
};

/// Sums for the regressors [k0, k0 + kTerms).
template <class V, int kTerms>
struct ProjectTiles {
  MatrixView<const double> q;
  Partial out;
  std::int64_t k0;
  std::int64_t first = 0;
  double sum[prim::cuda::kTileColumns<V>][kTerms] = {};

  __device__ void begin(std::int64_t slab, std::int64_t f) {
    first = f;
#pragma unroll
    for (int c = 0; c < prim::cuda::kTileColumns<V>; ++c) {
      const std::int64_t j = prim::cuda::tile_column<V>(first, c);
      if (j >= out.m || !out.begun) continue;
#pragma unroll
      for (int k = 0; k < kTerms; ++k) sum[c][k] = out.at(slab, k0 + k)[j];
    }
  }
  __device__ V fill(std::int64_t, int) const { return V{0}; }
  __device__ V entry(V v, std::int64_t, std::int32_t) const { return v; }
  __device__ void element(V v, std::int64_t row, int c) {
#pragma unroll
    for (int k = 0; k < kTerms; ++k) sum[c][k] = fma(__ldg(q.row(row) + k0 + k), static_cast<double>(v), sum[c][k]);
  }
  __device__ void end(std::int64_t slab) const {
#pragma unroll
    for (int c = 0; c < prim::cuda::kTileColumns<V>; ++c) {
      const std::int64_t j = prim::cuda::tile_column<V>(first, c);
      if (j >= out.m) continue;
#pragma unroll
      for (int k = 0; k < kTerms; ++k) out.at(slab, k0 + k)[j] = sum[c][k];
    }
  }
};

template <int kTerms, class V>
__global__ void __launch_bounds__(kBlock) project_columns_kernel(MatrixView<const V> x, MatrixView<const double> q,
                                                                 Partial out, std::int64_t k0, std::int64_t rows) {
  const std::int64_t j = std::int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (j >= x.n_cols) return;
  double sum[kTerms];
#pragma unroll
  for (int k = 0; k < kTerms; ++k) sum[k] = out.begun ? out.at(blockIdx.y, k0 + k)[j] : 0.0;
  std::int64_t i = blockIdx.y * rows;
  const std::int64_t end = min(i + rows, x.n_rows);
  constexpr int kUnroll = 8;
  for (; i + kUnroll <= end; i += kUnroll) {
    V v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = __ldcs(x.data + (i + u) * x.ld + j);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
#pragma unroll
      for (int k = 0; k < kTerms; ++k) sum[k] = fma(__ldg(q.row(i + u) + k0 + k), static_cast<double>(v[u]), sum[k]);
  }
  for (; i < end; ++i)
#pragma unroll
    for (int k = 0; k < kTerms; ++k) sum[k] = fma(__ldg(q.row(i) + k0 + k), static_cast<double>(x(i, j)), sum[k]);
#pragma unroll
  for (int k = 0; k < kTerms; ++k) out.at(blockIdx.y, k0 + k)[j] = sum[k];
}

/// coefficients[k, j] = d_k times the slabs' sums, added in order.
__global__ void __launch_bounds__(kBlock)
    add_slabs_kernel(const double* partial, std::int64_t slabs, const double* d, MatrixView<double> coefficients) {
  const std::int64_t size = coefficients.n_rows * coefficients.n_cols;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kBlock + threadIdx.x; t < size;
       t += std::int64_t{gridDim.x} * kBlock) {
    double sum = 0;
#pragma unroll 8
    for (std::int64_t s = 0; s < slabs; ++s) sum += partial[s * size + t];
    coefficients.data[t] = sum * d[t / coefficients.n_cols];
  }
}

/// y = x - sum_k q_ik c_kj: the first kTerms coefficients of a column in registers, any others from memory.
template <int kTerms>
struct Fit {
  MatrixView<const double> q;
  const double* coefficients;
  std::int64_t m;

  __device__ void load(std::int64_t j, double (&c)[kTerms]) const {
#pragma unroll
    for (int k = 0; k < kTerms; ++k) c[k] = coefficients[k * m + j];
  }
  __device__ double residual(double y, std::int64_t row, std::int64_t j, const double (&c)[kTerms]) const {
    const double* const own = q.row(row);
#pragma unroll
    for (int k = 0; k < kTerms; ++k) y = fma(-__ldg(own + k), c[k], y);
    for (std::int64_t k = kTerms; k < q.n_cols; ++k) y = fma(-__ldg(own + k), coefficients[k * m + j], y);
    return y;
  }
};

template <class V, int kTerms>
struct ResidualColumn {
  Fit<kTerms> fit;
  std::int64_t column = 0;
  double c[kTerms] = {};

  __device__ void begin(std::int64_t j) {
    column = j;
    fit.load(j, c);
  }
  __device__ bool takes(std::int64_t) const { return true; }
  __device__ V operator()(V v, std::int64_t row) const {
    return static_cast<V>(fit.residual(static_cast<double>(v), row, column, c));
  }
};

template <class V, int kTerms>
struct ResidualTiles {
  Fit<kTerms> fit;
  MatrixView<V> made;
  std::int64_t first = 0;
  double coefficients[prim::cuda::kTileColumns<V>][kTerms] = {};

  __device__ void begin(std::int64_t, std::int64_t f) {
    first = f;
#pragma unroll
    for (int c = 0; c < prim::cuda::kTileColumns<V>; ++c) {
      const std::int64_t j = prim::cuda::tile_column<V>(first, c);
      if (j < made.n_cols) fit.load(j, coefficients[c]);
    }
  }
  __device__ V fill(std::int64_t, int) const { return V{0}; }
  __device__ V entry(V v, std::int64_t, std::int32_t) const { return v; }
  __device__ V result(V v, std::int64_t row, int c) const {
    const std::int64_t j = prim::cuda::tile_column<V>(first, c);
    return static_cast<V>(fit.residual(static_cast<double>(v), row, j, coefficients[c]));
  }
  __device__ void end(std::int64_t) {}
};

template <class V>
struct CopyTiles {
  MatrixView<V> made;

  __device__ void begin(std::int64_t, std::int64_t) {}
  __device__ V fill(std::int64_t, int) const { return V{0}; }
  __device__ V entry(V v, std::int64_t, std::int32_t) const { return v; }
  __device__ V result(V v, std::int64_t, int) const { return v; }
  __device__ void end(std::int64_t) {}
};

template <class V>
struct SubtractMean {
  const std::int32_t* codes;
  MatrixView<const double> means;
  std::int64_t column = 0;

  __device__ void begin(std::int64_t j) { column = j; }
  __device__ bool takes(std::int64_t row) const { return codes[row] >= 0 && codes[row] < means.n_rows; }
  __device__ V operator()(V v, std::int64_t row) const {
    return static_cast<V>(static_cast<double>(v) - means.row(codes[row])[column]);
  }
};

/// f(integral constant) for n in 1 .. kMaxTerms.
template <class F>
void with_terms(std::int64_t n, const F& f) {
  if (n == 1) return f(std::integral_constant<int, 1>());
  if (n == 2) return f(std::integral_constant<int, 2>());
  if (n == 3) return f(std::integral_constant<int, 3>());
  f(std::integral_constant<int, 4>());
}

template <int kTerms, class V>
void project(const Context& ctx, const CsrView<const V>& x, MatrixView<const double> q, const Partial& out,
             std::int64_t k0, std::int64_t rows) {
  prim::cuda::run_dense_tiles(ctx, x, rows, ProjectTiles<V, kTerms>{q, out, k0}, "regress_out: project");
}
template <int kTerms, class V>
void project(const Context& ctx, const MatrixView<const V>& x, MatrixView<const double> q, const Partial& out,
             std::int64_t k0, std::int64_t rows) {
  const dim3 grid(static_cast<unsigned>((x.n_cols + kBlock - 1) / kBlock),
                  static_cast<unsigned>((x.n_rows + rows - 1) / rows));
  project_columns_kernel<kTerms, V><<<grid, kBlock, 0, scw::cuda::stream_of(ctx)>>>(x, q, out, k0, rows);
  SCW_CUDA_LAUNCHED("regress_out: project");
}

}  // namespace

void projection(const Context& ctx, const AnyMatrixView& x, MatrixView<const double> q, const Slabs& slabs,
                Span<double> partial) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        if (v.n_rows == 0 || v.n_cols == 0) return;
        const std::int64_t p = q.n_cols, m = v.n_cols;
        const Partial out{partial.data + slabs.first * p * m, p, m, slabs.begun};
        for (std::int64_t k0 = 0; k0 < p; k0 += kMaxTerms)
          with_terms(p - k0, [&](auto terms) { project<decltype(terms)::value>(ctx, v, q, out, k0, slabs.rows); });
      },
      x);
}

void coefficients(const Context& ctx, Span<const double> partial, Span<const double> d, MatrixView<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  const std::int64_t size = out.n_rows * out.n_cols;
  if (size == 0) return;
  add_slabs_kernel<<<scw::cuda::grid_for(size, kBlock), kBlock, 0, scw::cuda::stream_of(ctx)>>>(
      partial.data, partial.size / size, d.data, out);
  SCW_CUDA_LAUNCHED("regress_out: add_slabs");
}

void residual(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> q,
              MatrixView<const double> c) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_pointer_t<decltype(v.data)>;
        with_terms(q.n_cols, [&](auto terms) {
          constexpr int kTerms = decltype(terms)::value;
          prim::cuda::update_columns(ctx, v, ResidualColumn<V, kTerms>{{q, c.data, v.n_cols}}, "regress_out: residual");
        });
      },
      x);
}

void residual_to_dense(const Context& ctx, const AnyCsrView& x, MatrixView<const double> q, MatrixView<const double> c,
                       const AnyMutableDenseView& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        with_terms(q.n_cols, [&](auto terms) {
          constexpr int kTerms = decltype(terms)::value;
          const ResidualTiles<V, kTerms> body{{q, c.data, v.n_cols}, std::get<MatrixView<V>>(out)};
          prim::cuda::run_dense_tiles(ctx, v, body, "regress_out: residual");
        });
      },
      x);
}

void subtract_group_means(const Context& ctx, const AnyMutableDenseView& x, Span<const std::int32_t> codes,
                          MatrixView<const double> means) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_pointer_t<decltype(v.data)>;
        prim::cuda::update_columns(ctx, v, SubtractMean<V>{codes.data, means}, "regress_out: subtract means");
      },
      x);
}

void densify(const Context& ctx, const AnyCsrView& x, const AnyMutableDenseView& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        prim::cuda::run_dense_tiles(ctx, v, CopyTiles<V>{std::get<MatrixView<V>>(out)}, "densify");
      },
      x);
}

SCW_REGISTER(projection_kernel, cuda, &projection);
SCW_REGISTER(coefficients_kernel, cuda, &coefficients);
SCW_REGISTER(residual_kernel, cuda, &residual);
SCW_REGISTER(residual_to_dense_kernel, cuda, &residual_to_dense);
SCW_REGISTER(subtract_group_means_kernel, cuda, &subtract_group_means);
SCW_REGISTER(densify_kernel, cuda, &densify);

}  // namespace scw::pp::cuda
