// Bound by memory: dense in place, one read and one write (9.4 ms for 1M x 5 000 floats at 4.3 TB/s); to dense, one
// read of the entries and one write of the result (5.8 ms with 600M of them); sparse in place, the entries once (1.7
// ms).
#include "pp/scale/kernel.hpp"
#include "prim/dense_tiles.cuh"

#include "pp/scale/body.inl"

namespace scw::pp::cuda {
namespace {

constexpr int kBlock = 256;

struct Limits {
  double low, high;
  const std::uint8_t* mask;  // null: all rows
  __device__ bool takes(std::int64_t row) const { return mask == nullptr || mask[row] != 0; }
};

/// Correctly rounded a / b, the bits of IEEE division, in a product and two fused multiply-adds with b's reciprocal
/// (Brisebarre, Muller & Raina, IEEE Trans. Comput. 53, 2004, section 1): where nothing can over- or underflow, which
/// is when both exponents are within 500; else divides.
struct Divisor {
  double b = 1, reciprocal = 1;
  bool moderate = true;

  static constexpr unsigned kLow = (1023u - 500u) << 20, kSpan = 1000u << 20;
  __device__ static bool is_moderate(double x) {
    return (static_cast<unsigned>(__double2hiint(x)) & 0x7FFFFFFFu) - kLow < kSpan;
  }
  __device__ void set(double divisor) {
    b = divisor;
    reciprocal = 1.0 / divisor;
    moderate = is_moderate(divisor);
  }
  __device__ double operator()(double a) const {
    if (moderate && is_moderate(a)) {
      const double q = a * reciprocal;
      return fma(fma(-q, b, a), reciprocal, q);
    }
    return a / b;
  }
};

template <class V>
struct ScaleColumn {
  const double* means;  // null: not centred
  const double* stds;
  Limits limits;
  double mean = 0;
  Divisor std = {};

  __device__ void begin(std::int64_t j) {
    mean = means != nullptr ? means[j] : 0.0;
    std.set(stds[j]);
  }
  __device__ bool takes(std::int64_t row) const { return limits.takes(row); }
  __device__ V operator()(V v, std::int64_t) const {
    return static_cast<V>(clip_to(std(static_cast<double>(v) - mean), limits.low, limits.high));
  }
};

/// Entries of all rows: no need to know where one ends.
template <class V>
__global__ void __launch_bounds__(kBlock)
    scale_entries_kernel(CsrView<V> x, const double* stds, double low, double high) {
  constexpr int kUnroll = 4;
  const std::int64_t last = x.indptr.data[x.n_rows];
  const std::int64_t step = std::int64_t{gridDim.x} * kBlock * kUnroll;
  for (std::int64_t k = x.indptr.data[0] + std::int64_t{blockIdx.x} * kBlock * kUnroll + threadIdx.x; k < last;
       k += step) {
    V v[kUnroll];
    std::int32_t j[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t e = k + u * kBlock;
      v[u] = e < last ? x.values.data[e] : V{0};
      j[u] = e < last ? __ldcs(x.indices.data + e) : 0;
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t e = k + u * kBlock;
      if (e < last)
        x.values.data[e] = static_cast<V>(scaled_value(static_cast<double>(v[u]), 0.0, stds[j[u]], low, high));
    }
  }
}

template <class V>
__global__ void __launch_bounds__(kBlock) scale_rows_kernel(CsrView<V> x, const double* stds, Limits limits) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kBlock / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kBlock + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    if (!limits.takes(i)) continue;
    for (std::int64_t k = x.indptr.data[i] + lane; k < x.indptr.data[i + 1]; k += 32)
      x.values.data[k] = static_cast<V>(
          scaled_value(static_cast<double>(x.values.data[k]), 0.0, stds[x.indices.data[k]], limits.low, limits.high));
  }
}

template <class V>
void apply(const Context& ctx, const MatrixView<V>& x, const ScaleArguments& a) {
  prim::cuda::update_columns(ctx, x, ScaleColumn<V>{a.mean, a.std, {a.low, a.high, a.mask.data}}, "scale: dense");
}
template <class V>
void apply(const Context& ctx, const CsrView<V>& x, const ScaleArguments& a) {
  if (x.n_rows == 0 || x.values.size == 0) return;
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  if (a.mask.empty())
    scale_entries_kernel<V>
        <<<scw::cuda::grid_for(x.values.size, kBlock * 4, 132 * 32), kBlock, 0, stream>>>(x, a.std, a.low, a.high);
  else
    scale_rows_kernel<V>
        <<<scw::cuda::grid_for(x.n_rows, kBlock / 32), kBlock, 0, stream>>>(x, a.std, {a.low, a.high, a.mask.data});
  SCW_CUDA_LAUNCHED("scale: sparse");
}

/// For prim/dense_tiles.cuh: the division is done for stored entries only, zeros come from a table.
template <class V>
struct ScaleTiles {
  const double* means;
  const double* stds;
  Limits limits;
  MatrixView<V> made;
  V zero[prim::cuda::kTileColumns<V>] = {};

  __device__ double mean(std::int64_t j) const { return means != nullptr ? means[j] : 0.0; }
  __device__ void begin(std::int64_t, std::int64_t first) {
#pragma unroll
    for (int c = 0; c < prim::cuda::kTileColumns<V>; ++c) {
      const std::int64_t j = prim::cuda::tile_column<V>(first, c);
      if (j < made.n_cols) zero[c] = static_cast<V>(scaled_value(0.0, mean(j), stds[j], limits.low, limits.high));
    }
  }
  __device__ V fill(std::int64_t row, int c) const { return limits.takes(row) ? zero[c] : V{0}; }
  __device__ V entry(V v, std::int64_t row, std::int32_t j) const {
    return limits.takes(row)
               ? static_cast<V>(scaled_value(static_cast<double>(v), mean(j), stds[j], limits.low, limits.high))
               : v;
  }
  __device__ V result(V v, std::int64_t, int) const { return v; }
  __device__ void end(std::int64_t) {}
};

}  // namespace

void scale(const Context& ctx, const AnyMutableMatrixView& x, const ScaleArguments& a) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { apply(ctx, v, a); }, x);
}

void scale_to_dense(const Context& ctx, const AnyCsrView& x, const ScaleArguments& a, const AnyMutableMatrixView& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        const ScaleTiles<V> body{a.mean, a.std, {a.low, a.high, a.mask.data}, std::get<MatrixView<V>>(out)};
        prim::cuda::run_dense_tiles(ctx, v, body, "scale: to dense");
      },
      x);
}

SCW_REGISTER(scale_kernel, cuda, &scale);
SCW_REGISTER(scale_to_dense_kernel, cuda, &scale_to_dense);

}  // namespace scw::pp::cuda
