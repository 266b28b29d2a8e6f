// Sums of the N largest values of each cell. A block takes a row: radix selection finds the value of rank N, the values
// above it are sorted, and one thread adds them in descending order, as cpu.cpp does, because that order shows in the
// sum of fractions. Rows are read some six times, from the caches.
#include <algorithm>
#include <numeric>

#include "pp/calculate_qc_metrics/top.cuh"
#include "prim/row_ops.cuh"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::size_t kSharedBytes = std::size_t{32} << 10;  // more keys than that are sorted in global memory

struct Top {
  std::int64_t n;
  double* out;
};

/// Integers in the order of the values.
template <class V>
struct Key;
template <>
struct Key<float> {
  using Bits = std::uint32_t;
  __device__ static Bits of(float v) {
    const Bits b = __float_as_uint(v);
    return (b >> 31) != 0 ? ~b : b | 0x80000000u;
  }
  __device__ static double value(Bits k) { return __uint_as_float((k >> 31) != 0 ? k & 0x7FFFFFFFu : ~k); }
};
template <>
struct Key<double> {
  using Bits = std::uint64_t;
  __device__ static Bits of(double v) {
    const auto b = static_cast<Bits>(__double_as_longlong(v));
    return (b >> 63) != 0 ? ~b : b | 0x8000000000000000ull;
  }
  __device__ static double value(Bits k) {
    return __longlong_as_double(static_cast<long long>((k >> 63) != 0 ? k & 0x7FFFFFFFFFFFFFFFull : ~k));
  }
};

/// Descending, by all threads of the block; n a power of two.
template <class Bits>
__device__ void sort_descending(Bits* keys, std::int64_t n) {
  for (std::int64_t size = 2; size <= n; size *= 2)
    for (std::int64_t stride = size / 2; stride > 0; stride /= 2) {
      for (std::int64_t i = threadIdx.x; i < n / 2; i += kThreads) {
        const std::int64_t a = 2 * i - (i & (stride - 1)), b = a + stride;
        const Bits first = keys[a], second = keys[b];
        if (((a & size) == 0) == (first < second)) {
          keys[a] = second;
          keys[b] = first;
        }
      }
      __syncthreads();
    }
}

/// Zeros that a sparse row of whole numbers does not store come before its negative values.
template <class X, class V>
__device__ inline typename Key<V>::Bits key_of(V v, bool clamp) {
  return Key<V>::of(clamp && v < V{0} ? V{0} : v);
}

template <class X>
__global__ void __launch_bounds__(kThreads)
    top_kernel(X x, Span<const Top> tops, const double* totals, bool clamp, void* buffer, std::int64_t capacity) {
  using V = std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))>;
  using Bits = typename Key<V>::Bits;
  extern __shared__ __align__(16) unsigned char top_memory[];
  __shared__ unsigned bins[256];
  __shared__ std::int64_t wanted;
  __shared__ unsigned digit, collected;
  Bits* const keys =
      buffer != nullptr ? static_cast<Bits*>(buffer) + blockIdx.x * capacity : reinterpret_cast<Bits*>(top_memory);

  for (std::int64_t i = blockIdx.x; i < x.n_rows; i += gridDim.x) {
    const std::int64_t begin = prim::cuda::row_begin(x, i), count = prim::cuda::row_count(x, i);
    const std::int64_t most = min(tops.data[tops.size - 1].n, count);
    Bits threshold = 0;
    std::int64_t above = count;  // entries that are taken as they are
    if (most < count) {
      Bits known = 0;
      if (threadIdx.x == 0) wanted = most;
      for (int shift = static_cast<int>(sizeof(Bits)) * 8 - 8; shift >= 0; shift -= 8) {
        bins[threadIdx.x] = 0;
        __syncthreads();
        for (std::int64_t k = threadIdx.x; k < count; k += kThreads) {
          const Bits key = key_of<X>(prim::cuda::value_at(x, begin + k), clamp);
          if ((key & known) == threshold) atomicAdd(bins + ((key >> shift) & 255u), 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
          unsigned b = 255;
          std::int64_t left = wanted;
          for (; left > bins[b]; --b) left -= bins[b];
          wanted = left;
          digit = b;
        }
        __syncthreads();
        threshold |= static_cast<Bits>(digit) << shift;
        known |= static_cast<Bits>(255) << shift;
      }
      above = most - wanted;
    }
    std::int64_t padded = 1;
    while (padded < most) padded *= 2;
    if (threadIdx.x == 0) collected = 0;
    for (std::int64_t k = above + threadIdx.x; k < padded; k += kThreads) keys[k] = k < most ? threshold : 0;
    __syncthreads();
    for (std::int64_t k = threadIdx.x; k < count; k += kThreads) {
      const Bits key = key_of<X>(prim::cuda::value_at(x, begin + k), clamp);
      if (most == count || key > threshold) keys[atomicAdd(&collected, 1u)] = key;
    }
    __syncthreads();
    sort_descending(keys, padded);
    if (threadIdx.x == 0) {
      double sum = 0;
      std::int64_t k = 0;
      for (std::int64_t t = 0; t < tops.size; ++t) {
        for (const std::int64_t end = min(tops.data[t].n, most); k < end; ++k) sum += Key<V>::value(keys[k]);
        tops.data[t].out[i] = sum / totals[i] * 100.0;
      }
    }
    __syncthreads();
  }
}

}  // namespace

template <class X>
void top_shares(const Context& ctx, const X& x, const std::vector<std::int64_t>& tops, bool whole, QcMetrics& out) {
  using Bits = typename Key<std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))>>::Bits;
  if (x.n_rows == 0) return;
  std::vector<std::size_t> order(tops.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return tops[a] < tops[b]; });
  std::vector<Top> sorted;
  for (const std::size_t o : order) sorted.push_back({tops[o], out.pct_top[o].data()});
  Array<Top> device_tops(ctx.workspace, static_cast<std::int64_t>(sorted.size()), "qc: tops", ctx.stream);
  copy_bytes(ctx, device_tops.data(), ctx.device, sorted.data(), Device{}, sorted.size() * sizeof(Top));

  std::int64_t capacity = 1;
  while (capacity < sorted.back().n) capacity *= 2;
  const auto key_bytes = static_cast<std::size_t>(checked_mul(capacity, sizeof(Bits)));
  const bool shared = key_bytes <= kSharedBytes;
  int processors = 0;
  SCW_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, ctx.device.id));
  const std::int64_t blocks = std::min<std::int64_t>(x.n_rows, std::int64_t{processors} * (shared ? 8 : 2));
  Array<Bits> buffer;
  if (!shared) buffer = Array<Bits>(ctx.workspace, checked_mul(blocks, capacity), "qc: sorted values", ctx.stream);
  constexpr bool sparse = requires { x.indptr; };
  top_kernel<<<static_cast<unsigned>(blocks), kThreads, shared ? key_bytes : 0, scw::cuda::stream_of(ctx)>>>(
      x, std::as_const(device_tops).view(), out.total.data(), whole && sparse, buffer.data(), capacity);
  SCW_CUDA_LAUNCHED("qc: top");
}

SCW_TOP_SHARES(, CsrView<const float>);
SCW_TOP_SHARES(, CsrView<const double>);
SCW_TOP_SHARES(, MatrixView<const float>);
SCW_TOP_SHARES(, MatrixView<const double>);

}  // namespace scw::pp::cuda
