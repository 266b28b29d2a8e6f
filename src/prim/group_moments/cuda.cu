// A look at the values (1.8 ms for 1.9e9 floats at 4.3 TB/s), or one pass for the maxima (3.5 ms), then one for the
// sums: exact integers in shared memory, flushed group by group (gene_tiles.cuh). About seven shared-memory atomics an
// entry: near 10 ms for 2e9 entries on an H200, where a read of them is 3.5 ms.
#include <bit>

#include "core/transfer.hpp"
#include "prim/gene_tiles.cuh"
#include "prim/group_moments/cuda.cuh"

namespace scw::prim::cuda {
namespace {

/// Largest finite |x| of each gene as bits, which are in the order of magnitudes, and whether it has other values.
template <class V>
struct Magnitudes {
  using Bits = std::conditional_t<sizeof(V) == 4, unsigned, unsigned long long>;
  static constexpr int kBytesPerGene = sizeof(Bits), kUnroll = 4;
  static constexpr std::int64_t kMaxRows = std::int64_t{1} << 40, kMaxTerms = kMaxRows;
  static constexpr bool kWantsRows = false;
  static constexpr Bits kSign = Bits{1} << (8 * sizeof(V) - 1);
  static constexpr Bits kInfinity = sizeof(V) == 4 ? Bits{0x7F800000u} : static_cast<Bits>(0x7FF0000000000000ull);

  Bits* largest;
  std::uint8_t* non_finite;
  Bits* words = nullptr;
  std::int32_t first = 0, width = 0;
  std::int64_t column = 0;

  __device__ static Bits magnitude(V v) {
    if constexpr (sizeof(V) == 4)
      return __float_as_uint(v) & ~kSign;
    else
      return static_cast<Bits>(__double_as_longlong(v)) & ~kSign;
  }
  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t) {
    words = reinterpret_cast<Bits*>(memory);
    first = f, width = w;
  }
  __device__ void clear() {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kTileThreads) words[j] = 0;
  }
  __device__ void begin_group(std::int32_t) {}
  __device__ void visit(V v, std::int32_t j) {
    const Bits b = magnitude(v);
    if (b >= kInfinity)
      non_finite[first + j] = 1;                           // every writer writes the same
    else if (b > *static_cast<volatile Bits*>(words + j))  // few values are a new maximum: mostly no atomic
      atomicMax(words + j, b);
  }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kTileThreads)
      if (words[j] != 0) atomicMax(largest + first + j, words[j]);
  }

  using Sum = Bits;
  __device__ void begin_column(std::int64_t j) { column = j; }
  __device__ void add(Sum& sum, V v) {
    const Bits b = magnitude(v);
    if (b >= kInfinity)
      non_finite[column] = 1;
    else
      sum = b > sum ? b : sum;
  }
  __device__ void flush(const Sum& sum, std::int32_t, std::int64_t j) const {
    if (sum != 0) atomicMax(largest + j, sum);
  }

  __device__ void finish() const {}
};

constexpr int kExactThreads = 256;

template <class V>
__device__ inline bool is_exact(V v) {
  if constexpr (sizeof(V) == 4) {  // nearly every value: by its exponent
    const unsigned b = __float_as_uint(v);
    if (((b >> 23) & 0xFFu) - 119u <= 23u || (b << 1) == 0) return true;
  }
  return is_exact_at_shared_scale(static_cast<double>(v));
}

/// *inexact = 1 if a value of the rows is; a block a row, or a part of all the entries of a sparse matrix.
template <class V>
__global__ void __launch_bounds__(kExactThreads)
    exact_values_kernel_of(MatrixView<const V> x, const std::int64_t* offsets, std::int64_t n_offsets,
                           unsigned* inexact) {
  constexpr int kUnroll = 8;
  if (offsets != nullptr) x = MatrixView<const V>(x.data + offsets[0], 1, offsets[n_offsets] - offsets[0]);
  const std::int64_t step = std::int64_t{gridDim.x} * kExactThreads * kUnroll;
  for (std::int64_t i = blockIdx.y; i < x.n_rows; i += gridDim.y) {
    const V* const row = x.row(i);
    for (std::int64_t k = std::int64_t{blockIdx.x} * kExactThreads * kUnroll + threadIdx.x; k < x.n_cols; k += step) {
      if (*static_cast<volatile unsigned*>(inexact) != 0) return;
      V v[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        v[u] = k + u * kExactThreads < x.n_cols ? __ldcs(row + k + u * kExactThreads) : V{0};
      bool exact = true;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) exact = exact && is_exact(v[u]);
      if (!exact) *static_cast<volatile unsigned*>(inexact) = 1;
    }
  }
}

template <class V>
void look_for_inexact(const Context& ctx, const CsrView<const V>& x, unsigned* inexact) {
  if (x.n_rows == 0 || x.values.size == 0) return;
  exact_values_kernel_of<V>
      <<<scw::cuda::grid_for(x.values.size, kExactThreads * 8, 132 * 32), kExactThreads, 0,
         scw::cuda::stream_of(ctx)>>>(MatrixView<const V>(x.values.data, 1, 0), x.indptr.data, x.n_rows, inexact);
  SCW_CUDA_LAUNCHED("exact_values");
}
template <class V>
void look_for_inexact(const Context& ctx, const MatrixView<const V>& x, unsigned* inexact) {
  if (x.n_rows == 0 || x.n_cols == 0) return;
  const unsigned across = scw::cuda::grid_for(x.n_cols, kExactThreads * 8, 64);
  const dim3 grid(across, static_cast<unsigned>(std::min<std::int64_t>(x.n_rows, 8192 / across)));
  exact_values_kernel_of<V><<<grid, kExactThreads, 0, scw::cuda::stream_of(ctx)>>>(x, nullptr, 0, inexact);
  SCW_CUDA_LAUNCHED("exact_values");
}

template <class X>
void max_abs(const Context& ctx, const X& x, Span<double> out, Span<std::uint8_t> non_finite) {
  using V = std::remove_cvref_t<decltype(value_at(x, 0))>;
  using Bits = typename Magnitudes<V>::Bits;
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = out.size;
  if (n == 0) return;
  Array<Bits> largest(ctx.workspace, n, "gene maxima", ctx.stream);
  Array<std::uint8_t> flags(ctx.workspace, n, "non-finite genes", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(largest.data(), 0, static_cast<std::size_t>(n) * sizeof(Bits), stream));
  SCW_CUDA(cudaMemsetAsync(flags.data(), 0, static_cast<std::size_t>(n), stream));
  const Magnitudes<V> op{largest.data(), flags.data()};
  run_genes(ctx, x, RowOrder{x.n_rows}, op, op, "gene_max_abs");
  const Array<Bits> host = to_host<Bits>(ctx, std::as_const(largest).view());
  copy_bytes(ctx, non_finite.data, Device{}, flags.data(), ctx.device, static_cast<std::size_t>(n));
  for (std::int64_t j = 0; j < n; ++j) {
    if constexpr (sizeof(V) == 4)
      out[j] = static_cast<double>(std::bit_cast<float>(host[j]));
    else
      out[j] = std::bit_cast<double>(host[j]);
  }
}

}  // namespace

void exact_values(const Context& ctx, const AnyMatrixView& x, bool& exact) {
  const scw::cuda::DeviceScope scope(ctx);
  Array<unsigned> inexact(ctx.workspace, 1, "inexact values", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(inexact.data(), 0, sizeof(unsigned), scw::cuda::stream_of(ctx)));
  std::visit([&](const auto& v) { look_for_inexact(ctx, v, inexact.data()); }, x);
  unsigned seen = 0;
  copy_bytes(ctx, &seen, Device{}, inexact.data(), ctx.device, sizeof(seen));
  exact = seen == 0;
}

void gene_max_abs(const Context& ctx, const AnyMatrixView& x, Span<double> out, Span<std::uint8_t> non_finite) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { max_abs(ctx, v, out, non_finite); }, x);
}

void group_moments(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes, std::int64_t first,
                   const ValueMap& map, GroupMoments& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = n_rows(x), size = checked_mul(out.n_groups, out.n_genes);
  if (size == 0) return;
  SCW_ASSERT(out.n_groups <= INT32_MAX);
  const auto groups = static_cast<std::int32_t>(out.n_groups);
  Array<std::uint64_t> sums(ctx.workspace, checked_mul(size, 4), "group moments", ctx.stream);
  Array<std::int32_t> nonzero(ctx.workspace, size, "group non-zeros", ctx.stream);
  // Whole words: flags are set by 32-bit atomics.
  Array<std::uint32_t> flags(ctx.workspace, out.flags.empty() ? 0 : (size + 3) / 4, "group flags", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(sums.data(), 0, static_cast<std::size_t>(sums.size()) * 8, stream));
  SCW_CUDA(cudaMemsetAsync(nonzero.data(), 0, static_cast<std::size_t>(size) * 4, stream));
  if (!flags.empty()) SCW_CUDA(cudaMemsetAsync(flags.data(), 0, static_cast<std::size_t>(flags.size()) * 4, stream));
  std::vector<std::int16_t> shift(static_cast<std::size_t>(out.n_genes));
  bool shared = !map.expm1_scale && out.flags.empty();
  for (std::size_t j = 0; j < shift.size(); ++j) {
    shift[j] = static_cast<std::int16_t>(out.scale[static_cast<std::int64_t>(j)].shift);
    shared = shared && shift[j] == kSharedShift;
  }
  const Array<std::int16_t> shifts = to_device<std::int16_t>(ctx, Span<const std::int16_t>(shift), "gene scales");
  GroupedRows grouped;
  if (!codes.empty()) {
    std::vector<std::int32_t> moved;
    if (first != 0) {
      moved.resize(static_cast<std::size_t>(codes.size));
      for (std::size_t i = 0; i < moved.size(); ++i) {
        const std::int64_t g = codes[static_cast<std::int64_t>(i)] - first;
        moved[i] = g >= 0 && g < groups ? static_cast<std::int32_t>(g) : -1;
      }
      codes = moved;
    }
    const Array<std::int32_t> on_device = to_device<std::int32_t>(ctx, codes, "group codes");
    grouped = group_rows(ctx, on_device.view(), groups);
  }
  GroupSums to;
  to.sums = sums.data();
  to.nonzero = nonzero.data();
  to.flags = flags.empty() ? nullptr : flags.data();
  to.shifts = shifts.data();
  to.genes = out.n_genes;
  to.shared_scale = shared;
  to.expm1_scale = map.expm1_scale.value_or(1.0);
  const RowOrder order = row_order(grouped, n, groups);
  std::visit([&](const auto& v) { add_group_moments(ctx, v, order, to, map.expm1_scale.has_value(), out.squares); }, x);
  copy_bytes(ctx, out.moments.data(), Device{}, sums.data(), ctx.device, static_cast<std::size_t>(sums.size()) * 8);
  copy_bytes(ctx, out.nonzero.data(), Device{}, nonzero.data(), ctx.device, static_cast<std::size_t>(size) * 4);
  if (!flags.empty())
    copy_bytes(ctx, out.flags.data(), Device{}, flags.data(), ctx.device, static_cast<std::size_t>(size));
}

SCW_REGISTER(exact_values_kernel, cuda, &exact_values);
SCW_REGISTER(gene_max_abs_kernel, cuda, &gene_max_abs);
SCW_REGISTER(group_moments_kernel, cuda, &group_moments);

}  // namespace scw::prim::cuda
