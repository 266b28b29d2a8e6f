// Sums of the N largest values of each cell.
//
// Counts: a warp takes a row and counts its values below 256 in shared memory; the few above are sorted. Whole numbers
// add up to the same in any order. One read of the values (floor), about one shared-memory atomic an entry.
//
// Other values, and rows with many large counts: a block takes a row; radix selection finds the value of rank N, the
// values above it are sorted, and one thread adds them in descending order, as cpu.cpp does, because that order shows
// in the sum of fractions. Rows are read some six times, from the caches.
#include <algorithm>
#include <numeric>

#include "pp/calculate_qc_metrics/top.cuh"
#include "prim/row_ops.cuh"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::size_t kSharedBytes = std::size_t{32} << 10;  // more keys than that are sorted in global memory

constexpr int kWarps = kThreads / 32;
constexpr int kBins = 256, kLarge = 256;  // of a warp

struct Top {
  std::int64_t n;
  double* out;
};

/// Rows that the pass over counts leaves to the general one.
struct Leftover {
  std::int32_t* rows = nullptr;  // null: all rows
  unsigned* n = nullptr;
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

/// Whole numbers; tops in ascending order.
template <class X>
__global__ void __launch_bounds__(kThreads)
    count_top_kernel(X x, Span<const Top> tops, const double* totals, bool clamp, Leftover leftover) {
  __shared__ unsigned all_bins[kWarps][kBins];
  __shared__ std::int32_t all_large[kWarps][kLarge];
  __shared__ unsigned all_n_large[kWarps];
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  unsigned* const bins = all_bins[warp];
  std::int32_t* const large = all_large[warp];
  constexpr unsigned all = 0xFFFFFFFFu;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kWarps + warp; i < x.n_rows; i += std::int64_t{gridDim.x} * kWarps) {
    for (int b = lane; b < kBins; b += 32) bins[b] = 0;
    if (lane == 0) all_n_large[warp] = 0;
    __syncwarp();
    const std::int64_t begin = prim::cuda::row_begin(x, i), end = begin + prim::cuda::row_count(x, i);
    bool negative = false;
    const auto put = [&](auto v) {
      const auto n = static_cast<std::int32_t>(v);
      if (n > 0 && n < kBins) {
        atomicAdd(bins + n, 1u);
      } else if (n >= kBins) {
        const unsigned at = atomicAdd(all_n_large + warp, 1u);
        if (at < kLarge) large[at] = n;
      }
      negative = negative || n < 0;
    };
    std::int64_t k = begin + lane;
    for (; k + 96 < end; k += 128) {
      std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))> v[4];
#pragma unroll
      for (int u = 0; u < 4; ++u) v[u] = __ldcs(&prim::cuda::value_at(x, k + 32 * u));
#pragma unroll
      for (int u = 0; u < 4; ++u) put(v[u]);
    }
    for (; k < end; k += 32) put(__ldcs(&prim::cuda::value_at(x, k)));
    __syncwarp();
    const unsigned n_large = all_n_large[warp];
    if (n_large > kLarge || (!clamp && __any_sync(all, negative))) {
      if (lane == 0) leftover.rows[atomicAdd(leftover.n, 1u)] = static_cast<std::int32_t>(i);
      __syncwarp();
      continue;
    }
    std::int64_t large_sum = 0;
    if (n_large > 0) {
      unsigned padded = 1;
      while (padded < n_large) padded *= 2;
      for (unsigned j = n_large + static_cast<unsigned>(lane); j < padded; j += 32) large[j] = 0;
      __syncwarp();
      for (unsigned size = 2; size <= padded; size *= 2)
        for (unsigned stride = size / 2; stride > 0; stride /= 2) {
          for (unsigned j = static_cast<unsigned>(lane); j < padded / 2; j += 32) {
            const unsigned a = 2 * j - (j & (stride - 1)), b = a + stride;
            const std::int32_t first = large[a], second = large[b];
            if (((a & size) == 0) == (first < second)) {
              large[a] = second;
              large[b] = first;
            }
          }
          __syncwarp();
        }
      for (unsigned j = static_cast<unsigned>(lane); j < n_large; j += 32) large_sum += large[j];
      for (int offset = 16; offset > 0; offset /= 2) large_sum += __shfl_xor_sync(all, large_sum, offset);
    }
    // Lane l has bins 8 l to 8 l + 7: how many values are there, and in the lanes above.
    std::int64_t count = 0, sum = 0;
    for (int b = 0; b < kBins / 32; ++b) {
      const std::int64_t n = bins[lane * (kBins / 32) + b];
      count += n;
      sum += n * (lane * (kBins / 32) + b);
    }
    std::int64_t from_here = count, sum_from_here = sum;
    for (int offset = 1; offset < 32; offset *= 2) {
      const std::int64_t c = __shfl_down_sync(all, from_here, offset), s = __shfl_down_sync(all, sum_from_here, offset);
      if (lane + offset < 32) {
        from_here += c;
        sum_from_here += s;
      }
    }
    for (std::int64_t t = 0; t < tops.size; ++t) {
      const Top top = tops.data[t];
      std::int64_t result = 0;
      bool mine = lane == 0;
      if (top.n <= n_large) {
        for (std::int64_t j = lane; j < top.n; j += 32) result += large[j];
        for (int offset = 16; offset > 0; offset /= 2) result += __shfl_xor_sync(all, result, offset);
      } else {
        const std::int64_t wanted = top.n - n_large, above = from_here - count;
        mine = wanted > above && (lane == 0 || wanted <= from_here);
        if (mine) {
          result = large_sum + sum_from_here - sum;
          std::int64_t left = wanted - above;
          for (int b = kBins / 32 - 1; b >= 0 && left > 0; --b) {
            const std::int64_t taken = min(left, std::int64_t{bins[lane * (kBins / 32) + b]});
            result += taken * (lane * (kBins / 32) + b);
            left -= taken;
          }
        }
      }
      if (mine) top.out[i] = static_cast<double>(result) / totals[i] * 100.0;
    }
    __syncwarp();
  }
}

template <class X>
__global__ void __launch_bounds__(kThreads) top_kernel(X x, Span<const Top> tops, const double* totals, bool clamp,
                                                       void* buffer, std::int64_t capacity, Leftover leftover) {
  using V = std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))>;
  using Bits = typename Key<V>::Bits;
  extern __shared__ __align__(16) unsigned char top_memory[];
  __shared__ unsigned bins[256];
  __shared__ std::int64_t wanted;
  __shared__ unsigned digit, collected;
  Bits* const keys =
      buffer != nullptr ? static_cast<Bits*>(buffer) + blockIdx.x * capacity : reinterpret_cast<Bits*>(top_memory);

  const std::int64_t n = leftover.rows != nullptr ? *leftover.n : x.n_rows;
  for (std::int64_t r = blockIdx.x; r < n; r += gridDim.x) {
    const std::int64_t i = leftover.rows != nullptr ? leftover.rows[r] : r;
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
        if (threadIdx.x < 32) {  // lane l has bins 8 l to 8 l + 7; those of the lanes above come first
          const int lane = static_cast<int>(threadIdx.x);
          unsigned own = 0;
          for (int b = 0; b < 8; ++b) own += bins[lane * 8 + b];
          unsigned from_here = own;
          for (int offset = 1; offset < 32; offset *= 2) {
            const unsigned c = __shfl_down_sync(0xFFFFFFFFu, from_here, offset);
            if (lane + offset < 32) from_here += c;
          }
          std::int64_t left = wanted - (from_here - own);
          __syncwarp();
          if (left > 0 && left <= own) {
            unsigned b = static_cast<unsigned>(lane) * 8 + 7;
            for (; left > bins[b]; --b) left -= bins[b];
            wanted = left;
            digit = b;
          }
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

  int processors = 0;
  SCW_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, ctx.device.id));
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const Span<const Top> ascending = std::as_const(device_tops).view();
  constexpr bool sparse = requires { x.indptr; };
  Leftover leftover;
  Array<std::int32_t> rows;
  Array<unsigned> n_rows;
  if (whole) {
    rows = Array<std::int32_t>(ctx.workspace, x.n_rows, "qc: rows with large counts", ctx.stream);
    n_rows = Array<unsigned>(ctx.workspace, 1, "qc: rows with large counts", ctx.stream);
    leftover = {rows.data(), n_rows.data()};
    SCW_CUDA(cudaMemsetAsync(n_rows.data(), 0, sizeof(unsigned), stream));
    count_top_kernel<<<scw::cuda::grid_for(x.n_rows, kWarps, std::int64_t{processors} * 32), kThreads, 0, stream>>>(
        x, ascending, out.total.data(), sparse, leftover);
    SCW_CUDA_LAUNCHED("qc: top of counts");
    unsigned left = 0;
    copy_bytes(ctx, &left, Device{}, n_rows.data(), ctx.device, sizeof(left));
    if (left == 0) return;
  }

  std::int64_t capacity = 1;
  while (capacity < sorted.back().n) capacity *= 2;
  const auto key_bytes = static_cast<std::size_t>(checked_mul(capacity, sizeof(Bits)));
  const bool shared = key_bytes <= kSharedBytes;
  const std::int64_t blocks = std::min<std::int64_t>(x.n_rows, std::int64_t{processors} * (shared ? 8 : 2));
  Array<Bits> buffer;
  if (!shared) buffer = Array<Bits>(ctx.workspace, checked_mul(blocks, capacity), "qc: sorted values", ctx.stream);
  top_kernel<<<static_cast<unsigned>(blocks), kThreads, shared ? key_bytes : 0, stream>>>(
      x, ascending, out.total.data(), whole && sparse, buffer.data(), capacity, leftover);
  SCW_CUDA_LAUNCHED("qc: top");
}

SCW_TOP_SHARES(, CsrView<const float>);
SCW_TOP_SHARES(, CsrView<const double>);
SCW_TOP_SHARES(, MatrixView<const float>);
SCW_TOP_SHARES(, MatrixView<const double>);

}  // namespace scw::pp::cuda
