// Rows rounded for the tensor cores, with the bounds of cuda_tiles.hpp.
#include "core/cuda/cuda_check.cuh"
#include "pp/knn/cuda_tiles.hpp"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

/// One block per column: mean of every step-th row.
template <class V>
__global__ void __launch_bounds__(kThreads) origin_kernel(MatrixView<const V> x, std::int64_t step, double* origin) {
  __shared__ double sums[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  for (std::int64_t k = blockIdx.x; k < x.n_cols; k += gridDim.x) {
    double sum = 0;
    const std::int64_t used = (x.n_rows + step - 1) / step;
    for (std::int64_t i = t; i < used; i += kThreads) sum += static_cast<double>(x(i * step, k));
    sums[t] = sum;
    for (int half = kThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) origin[k] = sums[0] / static_cast<double>(used);
    __syncthreads();
  }
}

/// Largest |x - origin|, as the bits of a double (which order as the numbers do). One warp per row.
template <class V>
__global__ void __launch_bounds__(kThreads)
    largest_kernel(MatrixView<const V> x, const double* origin, unsigned long long* largest) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * kThreads / 32;
  unsigned long long most = 0;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const V* const row = x.row(i);
    for (std::int64_t k = lane; k < x.n_cols; k += 32) {
      const double v = math::magnitude(static_cast<double>(row[k]) - origin[k]);
      const auto bits = static_cast<unsigned long long>(math::bits_of(v));
      most = bits > most ? bits : most;
    }
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const unsigned long long other = __shfl_xor_sync(kAllLanes, most, offset);
    most = other > most ? other : most;
  }
  if (lane == 0 && most > 0) atomicMax(largest, most);
}

/// Power of two that puts the largest value below 2^15.
__device__ inline double scale_for(unsigned long long largest) {
  const auto exponent = static_cast<std::int64_t>(largest >> 52);
  if (largest == 0 || exponent > 2046) return 1.0;
  const std::int64_t wanted = 1023 + 14 - (exponent - 1023);
  return math::from_bits(static_cast<std::uint64_t>(wanted > 2046 ? 2046 : wanted) << 52);
}

struct PackArgs {
  const math::RowTerm* terms;
  const double* origin;
  const unsigned long long* largest;
  const std::int32_t* ids;
  std::int64_t n;
  int depth;
  Packing packing;
  bool unit, similarity;
  double gamma;
  __half* z;
  float* offset;
  PointBound* bound;
};

__device__ inline double warp_sum(double v) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

/// One warp per row.
template <class V>
__global__ void __launch_bounds__(kThreads) pack_kernel(MatrixView<const V> x, PackArgs a) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * kThreads / 32;
  const double scale = a.unit ? 0x1.0p14 : scale_for(*a.largest);
  const bool split = a.packing != Packing::plain;
  const int part = split ? static_cast<int>((x.n_cols + 15) / 16 * 16) : 0;  // where the second and third copies begin
  const __half zero = __float2half_rn(0.0f);
  for (std::int64_t p = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; p < a.n; p += warps) {
    const std::int64_t i = a.ids != nullptr ? a.ids[p] : p;
    __half* const z = a.z + p * a.depth;
    if (i < 0 || i >= x.n_rows) {
      for (int k = lane; k < a.depth; k += 32) z[k] = zero;
      if (lane == 0) {
        a.offset[p] = kPadOffset;
        a.bound[p] = {0.0f, -1.0f, 0.0f, 0.0f};
      }
      continue;
    }
    const V* const row = x.row(i);
    const double norm = a.unit ? a.terms[i].scale : 1.0;
    const double shift = a.unit ? a.terms[i].shift : 0.0;
    const double times = norm > 0 ? scale / norm : 0.0;
    double square = 0, lost = 0, spread = 0;
    const int depth = split ? part : a.depth;
    for (int k = lane; k < depth; k += 32) {
      double v = 0;
      if (k < x.n_cols) {
        const double from = a.origin[k] + shift, raw = static_cast<double>(row[k]);
        v = (raw - from) * times;
        const double about = (math::magnitude(raw) + math::magnitude(from)) * times;
        spread += about * about;
      }
      const __half hi = __double2half(v);
      double kept = static_cast<double>(__half2float(hi));
      if (split) {
        const __half lo = __double2half(v - kept);
        kept += static_cast<double>(__half2float(lo));
        const bool query = a.packing == Packing::split_query;
        z[k] = hi;
        z[part + k] = query ? lo : hi;
        z[2 * part + k] = query ? hi : lo;
      } else {
        z[k] = hi;
      }
      square += kept * kept;
      lost += (v - kept) * (v - kept);
    }
    if (split)
      for (int k = 3 * part + lane; k < a.depth; k += 32) z[k] = zero;
    square = warp_sum(square);
    lost = warp_sum(lost);
    spread = warp_sum(spread);
    if (lane == 0) {
      // A row without a direction is one unit from all others: as if it had a dimension of its own.
      const double full = a.unit && !(norm > 0) ? scale * scale : square;
      const double residual = sqrt(lost) + 0x1.0p-50 * sqrt(spread);
      const auto up = [](double v) { return __double2float_ru(v * (1.0 + 0x1.0p-40)); };
      a.offset[p] = a.similarity ? 0.0f : -__double2float_rn(0.5 * full);
      a.bound[p] = {a.similarity ? up(sqrt(square) + residual) : __double2float_rn(0.5 * full), up(residual),
                    up(a.gamma * 0.5 * full), up(sqrt(square))};
    }
  }
}

template <class V>
void find_origin_of(const Context& ctx, const MatrixView<const V>& x, bool centred, Array<double>& origin,
                    Array<unsigned long long>& largest) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  origin = Array<double>(ctx.workspace, x.n_cols, "neighbour origin", ctx.stream);
  largest = Array<unsigned long long>(ctx.workspace, 1, "neighbour origin", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(largest.data(), 0, sizeof(unsigned long long), stream));
  if (x.n_cols == 0) return;
  SCW_CUDA(cudaMemsetAsync(origin.data(), 0, static_cast<std::size_t>(x.n_cols) * sizeof(double), stream));
  if (centred) {
    const std::int64_t step = std::max<std::int64_t>(1, x.n_rows / 4096);
    origin_kernel<<<scw::cuda::grid_for(x.n_cols, 1, 4096), kThreads, 0, stream>>>(x, step, origin.data());
    SCW_CUDA_LAUNCHED("origin");
  }
  largest_kernel<<<scw::cuda::grid_for(x.n_rows, kThreads / 32, 2048), kThreads, 0, stream>>>(x, origin.data(),
                                                                                              largest.data());
  SCW_CUDA_LAUNCHED("largest");
}

template <class V>
PointArrays pack_rows_of(const Context& ctx, const MatrixView<const V>& x, const PackPlan& plan,
                         const std::int32_t* ids, std::int64_t n, Packing packing) {
  PointArrays out;
  out.n = n;
  const bool split = packing != Packing::plain;
  out.depth = packed_depth(x.n_cols, split);
  out.z = Array<__half>(ctx.workspace, checked_mul(n, out.depth), "neighbour rows", ctx.stream);
  out.offset = Array<float>(ctx.workspace, n, "neighbour rows", ctx.stream);
  out.bound = Array<PointBound>(ctx.workspace, n, "neighbour rows", ctx.stream);
  const double gamma = (1.25 * out.depth + 32) * 0x1.0p-23 * 1.01 + (split ? 0x1.0p-20 : 0.0);
  const PackArgs args{plan.terms,
                      plan.origin,
                      plan.largest,
                      ids,
                      n,
                      out.depth,
                      packing,
                      plan.unit(),
                      plan.similarity(),
                      gamma,
                      out.z.data(),
                      out.offset.data(),
                      out.bound.data()};
  pack_kernel<<<scw::cuda::grid_for(n, kThreads / 32, 1 << 16), kThreads, 0, scw::cuda::stream_of(ctx)>>>(x, args);
  SCW_CUDA_LAUNCHED("pack");
  return out;
}

}  // namespace

int packed_depth(std::int64_t columns, bool split) {
  const std::int64_t depth = (columns + 15) / 16 * 16 * (split ? 3 : 1);
  for (const std::int64_t fixed : {32, 64, 128})
    if (depth <= fixed) return static_cast<int>(fixed);
  if (depth > (std::int64_t{1} << 30)) throw NotSupported("pp.neighbors: too many columns for the search on CUDA");
  return static_cast<int>((depth + 31) / 32 * 32);
}

void find_origin(const Context& ctx, const MatrixView<const float>& x, bool centred, Array<double>& origin,
                 Array<unsigned long long>& largest) {
  find_origin_of(ctx, x, centred, origin, largest);
}
void find_origin(const Context& ctx, const MatrixView<const double>& x, bool centred, Array<double>& origin,
                 Array<unsigned long long>& largest) {
  find_origin_of(ctx, x, centred, origin, largest);
}

PointArrays pack_rows(const Context& ctx, const MatrixView<const float>& x, const PackPlan& plan,
                      const std::int32_t* ids, std::int64_t n, Packing packing) {
  return pack_rows_of(ctx, x, plan, ids, n, packing);
}
PointArrays pack_rows(const Context& ctx, const MatrixView<const double>& x, const PackPlan& plan,
                      const std::int32_t* ids, std::int64_t n, Packing packing) {
  return pack_rows_of(ctx, x, plan, ids, n, packing);
}

}  // namespace scw::pp::cuda
