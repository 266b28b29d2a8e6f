// Sums over cells in slabs whose number depends on the number of cells alone, each in row order, then slab by slab: the
// same bits on every run. A sparse matrix is read twice and its residual written once (prim/dense_tiles.cuh); nothing
// of the size of the result is held besides it. Floor for 1M x 5 000 floats with 600M entries: 20 GB written + 9.6 GB
// read, 7 ms at 4.3 TB/s; dense in place: 60 GB, 14 ms.
#include "core/transfer.hpp"
#include "pp/regress_out/kernel.hpp"
#include "prim/dense_tiles.cuh"

namespace scw::pp::cuda {
namespace {

constexpr int kBlock = prim::cuda::kTileBlock;
constexpr int kMaxTerms = 4;  // regressors whose coefficients a thread keeps in registers
constexpr std::int64_t kMinSlab = 1024;
constexpr std::int64_t kMaxSlabs = 256;

std::int64_t slab_rows(std::int64_t n) {
  const std::int64_t rows = std::max(kMinSlab, (n + kMaxSlabs - 1) / kMaxSlabs);
  return (rows + prim::cuda::kTileRows - 1) / prim::cuda::kTileRows * prim::cuda::kTileRows;
}

/// [slabs x p x m] sums of q_ik x_ij.
struct Partial {
  double* data;
  std::int64_t p, m;
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

  __device__ void begin(std::int64_t, std::int64_t f) { first = f; }
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
  double sum[kTerms] = {};
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
    add_slabs_kernel(Partial partial, std::int64_t slabs, const double* d, double* coefficients) {
  const std::int64_t size = partial.p * partial.m;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kBlock + threadIdx.x; t < size;
       t += std::int64_t{gridDim.x} * kBlock) {
    double sum = 0;
#pragma unroll 8
    for (std::int64_t s = 0; s < slabs; ++s) sum += partial.data[s * size + t];
    coefficients[t] = sum * d[t / partial.m];
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
  MatrixView<V> out;
  std::int64_t first = 0;
  double coefficients[prim::cuda::kTileColumns<V>][kTerms] = {};

  __device__ void begin(std::int64_t, std::int64_t f) {
    first = f;
#pragma unroll
    for (int c = 0; c < prim::cuda::kTileColumns<V>; ++c) {
      const std::int64_t j = prim::cuda::tile_column<V>(first, c);
      if (j < out.n_cols) fit.load(j, coefficients[c]);
    }
  }
  __device__ V fill(std::int64_t, int) const { return V{0}; }
  __device__ V entry(V v, std::int64_t, std::int32_t) const { return v; }
  __device__ void element(V v, std::int64_t row, int c) const {
    const std::int64_t j = prim::cuda::tile_column<V>(first, c);
    if (j < out.n_cols)
      __stcs(out.row(row) + j, static_cast<V>(fit.residual(static_cast<double>(v), row, j, coefficients[c])));
  }
  __device__ void end(std::int64_t) {}
};

template <class V>
struct CopyTiles {
  MatrixView<V> out;
  std::int64_t first = 0;

  __device__ void begin(std::int64_t, std::int64_t f) { first = f; }
  __device__ V fill(std::int64_t, int) const { return V{0}; }
  __device__ V entry(V v, std::int64_t, std::int32_t) const { return v; }
  __device__ void element(V v, std::int64_t row, int c) const {
    const std::int64_t j = prim::cuda::tile_column<V>(first, c);
    if (j < out.n_cols) __stcs(out.row(row) + j, v);
  }
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
void project(const Context& ctx, const MatrixView<V>& x, MatrixView<const double> q, const Partial& out,
             std::int64_t k0, std::int64_t rows) {
  const dim3 grid(static_cast<unsigned>((x.n_cols + kBlock - 1) / kBlock),
                  static_cast<unsigned>((x.n_rows + rows - 1) / rows));
  project_columns_kernel<kTerms, V>
      <<<grid, kBlock, 0, scw::cuda::stream_of(ctx)>>>(MatrixView<const V>(x), q, out, k0, rows);
  SCW_CUDA_LAUNCHED("regress_out: project");
}

/// d q^T x, [p x m].
template <class X>
Array<double> coefficients_of(const Context& ctx, const X& x, MatrixView<const double> q, Span<const double> d) {
  const std::int64_t p = q.n_cols, m = x.n_cols, rows = slab_rows(x.n_rows);
  const std::int64_t slabs = (x.n_rows + rows - 1) / rows;
  Array<double> partial(ctx.workspace, checked_mul(slabs, checked_mul(p, m)), "projections", ctx.stream);
  Array<double> coefficients(ctx.workspace, checked_mul(p, m), "coefficients", ctx.stream);
  const Array<double> factors = to_device<double>(ctx, d, "regressor norms");
  const Partial out{partial.data(), p, m};
  for (std::int64_t k0 = 0; k0 < p; k0 += kMaxTerms)
    with_terms(p - k0, [&](auto terms) { project<decltype(terms)::value>(ctx, x, q, out, k0, rows); });
  add_slabs_kernel<<<scw::cuda::grid_for(p * m, kBlock), kBlock, 0, scw::cuda::stream_of(ctx)>>>(
      out, slabs, factors.data(), coefficients.data());
  SCW_CUDA_LAUNCHED("regress_out: add_slabs");
  return coefficients;
}

}  // namespace

void remove_projection(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> q,
                       Span<const double> d) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_pointer_t<decltype(v.data)>;
        if (v.n_rows == 0 || v.n_cols == 0) return;
        const Array<double> c = coefficients_of(ctx, v, q, d);
        with_terms(q.n_cols, [&](auto terms) {
          constexpr int kTerms = decltype(terms)::value;
          prim::cuda::update_columns(ctx, v, ResidualColumn<V, kTerms>{{q, c.data(), v.n_cols}},
                                     "regress_out: residual");
        });
      },
      x);
}

void residual_to_dense(const Context& ctx, const AnyCsrView& x, MatrixView<const double> q, Span<const double> d,
                       const AnyMutableDenseView& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        if (v.n_rows == 0 || v.n_cols == 0) return;
        const Array<double> c = coefficients_of(ctx, v, q, d);
        with_terms(q.n_cols, [&](auto terms) {
          constexpr int kTerms = decltype(terms)::value;
          constexpr std::int64_t kSlabRows = 64;
          const ResidualTiles<V, kTerms> body{{q, c.data(), v.n_cols}, std::get<MatrixView<V>>(out)};
          prim::cuda::run_dense_tiles(ctx, v, kSlabRows, body, "regress_out: residual");
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
        constexpr std::int64_t kSlabRows = 64;
        prim::cuda::run_dense_tiles(ctx, v, kSlabRows, CopyTiles<V>{std::get<MatrixView<V>>(out)}, "densify");
      },
      x);
}

SCW_REGISTER(remove_projection_kernel, cuda, &remove_projection);
SCW_REGISTER(residual_to_dense_kernel, cuda, &residual_to_dense);
SCW_REGISTER(subtract_group_means_kernel, cuda, &subtract_group_means);
SCW_REGISTER(densify_kernel, cuda, &densify);

}  // namespace scw::pp::cuda
