// Entries above their clip value are rare: one read of the matrix against a table of limits in shared memory, and
// 128-bit sums in global memory for the few. Bound by memory.
#include "pp/highly_variable_genes/kernel.hpp"

#include "core/transfer.hpp"
#include "pp/highly_variable_genes/body.inl"
#include "prim/gene_tiles.cuh"

namespace scw::pp::cuda {
namespace {

constexpr std::int64_t kWords = 6;  // of a ClippedSum
static_assert(sizeof(ClippedSum) == kWords * sizeof(std::uint64_t));

struct ClipTarget {
  std::uint64_t* sums;  // [n_groups x genes] ClippedSum
  MatrixView<const double> clip;
  const prim::FixedScale* scale;

  __device__ void add(std::int32_t group, std::int64_t gene, double value) const {
    std::uint64_t* const to = sums + (group * clip.n_cols + gene) * kWords;
    const std::int64_t q = scale[gene].quantise(value);
    const auto a = static_cast<std::uint64_t>(q < 0 ? -q : q);
    prim::cuda::add_128(to, q);
    prim::cuda::add_128(to + 2, a * a, __umul64hi(a, a));
    atomicAdd(reinterpret_cast<unsigned long long*>(to + 4), 1ull);
  }
};

/// The largest V that is not above the clip value: x > clip and x > limit are the same for every V.
template <class V>
__device__ inline V limit_of(double clip) {
  if constexpr (sizeof(V) == 4)
    return __double2float_rd(clip);
  else
    return clip;
}

template <class V>
struct ClipSearch {
  static constexpr int kBytesPerGene = sizeof(V), kUnroll = 4;
  static constexpr std::int64_t kMaxRows = std::int64_t{1} << 40;
  static constexpr bool kWantsRows = false;

  ClipTarget target;
  V* limits = nullptr;
  std::int32_t first = 0, width = 0, group = 0;

  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t) {
    limits = reinterpret_cast<V*>(memory);
    first = f, width = w;
  }
  __device__ void clear() {}
  __device__ void begin_group(std::int32_t g) {
    group = g;
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += prim::cuda::kTileThreads)
      limits[j] = limit_of<V>(target.clip(g, first + j));
  }
  __device__ void visit(V v, std::int32_t j) const {
    if (v > limits[j]) target.add(group, first + j, static_cast<double>(v));
  }
  __device__ void flush(std::int32_t) const {}
  __device__ void finish() const {}
};

/// Dense rows: one thread an entry.
template <class V>
__global__ void __launch_bounds__(256)
    clip_dense_kernel(MatrixView<const V> x, Span<const std::int32_t> codes, ClipTarget target) {
  const std::int64_t j = std::int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (j >= x.n_cols) return;
  for (std::int64_t i = blockIdx.y; i < x.n_rows; i += gridDim.y) {
    const std::int32_t g = codes.empty() ? 0 : codes[i];
    if (g < 0 || g >= target.clip.n_rows) continue;
    const auto v = static_cast<double>(__ldcs(x.data + i * x.ld + j));
    if (v > target.clip(g, j)) target.add(g, j, v);
  }
}

template <class V>
void search(const Context& ctx, const CsrView<const V>& x, Span<const std::int32_t> codes, const ClipTarget& target) {
  const auto groups = static_cast<std::int32_t>(target.clip.n_rows);
  prim::cuda::GroupedRows grouped;
  if (!codes.empty()) grouped = prim::cuda::group_rows(ctx, codes, groups);
  prim::cuda::run_gene_tiles(ctx, x, prim::cuda::row_order(grouped, x.n_rows, groups), ClipSearch<V>{target},
                             "clipped_sums");
}
template <class V>
void search(const Context& ctx, const MatrixView<const V>& x, Span<const std::int32_t> codes,
            const ClipTarget& target) {
  const dim3 grid(static_cast<unsigned>((x.n_cols + 255) / 256),
                  static_cast<unsigned>(std::min<std::int64_t>(x.n_rows, 2048)));
  clip_dense_kernel<<<grid, 256, 0, scw::cuda::stream_of(ctx)>>>(x, codes, target);
  SCW_CUDA_LAUNCHED("clipped_sums");
}

constexpr int kZerosThreads = 256;
constexpr std::int64_t kZerosChunk = 512;  // totals that one block goes through before it adds to the sums

/// One thread a gene and chunk of totals; all threads of a block read the same total.
__global__ void __launch_bounds__(kZerosThreads)
    expected_zeros_blocks(Span<const double> totals, Span<const std::int64_t> weights, Span<const double> shares,
                          prim::FixedScale scale, std::int64_t* sums) {
  const std::int64_t j = std::int64_t{blockIdx.x} * kZerosThreads + threadIdx.x;
  if (j >= shares.size) return;
  const double share = shares[j];
  std::int64_t sum = 0;
  for (std::int64_t first = blockIdx.y * kZerosChunk; first < totals.size; first += gridDim.y * kZerosChunk) {
    const std::int64_t last = first + kZerosChunk < totals.size ? first + kZerosChunk : totals.size;
    for (std::int64_t k = first; k < last; ++k) sum += zeros_term(share, totals[k], weights[k], scale);
  }
  atomicAdd(reinterpret_cast<unsigned long long*>(sums + j), static_cast<unsigned long long>(sum));
}

}  // namespace

void clipped_sums(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> groups,
                  MatrixView<const double> clip, Span<const prim::FixedScale> scale, Span<ClippedSum> sums) {
  const scw::cuda::DeviceScope scope(ctx);
  Array<ClippedSum> device_sums(ctx.workspace, sums.size, "clipped sums", ctx.stream);
  Array<prim::FixedScale> device_scale(ctx.workspace, scale.size, "gene scales", ctx.stream);
  const auto bytes = static_cast<std::size_t>(sums.size) * sizeof(ClippedSum);
  if (sums.size == 0) return;
  SCW_CUDA(cudaMemsetAsync(device_sums.data(), 0, bytes, scw::cuda::stream_of(ctx)));
  copy_bytes(ctx, device_scale.data(), ctx.device, scale.data, Device{},
             static_cast<std::size_t>(scale.size) * sizeof(prim::FixedScale));
  const ClipTarget target{reinterpret_cast<std::uint64_t*>(device_sums.data()), clip, device_scale.data()};
  x.for_each(ctx, [&](std::int64_t first_row, const AnyMatrixView& block) {
    std::visit(
        [&](const auto& v) {
          if (v.n_rows > 0) search(ctx, v, groups.empty() ? groups : groups.subspan(first_row, v.n_rows), target);
        },
        block);
  });
  copy_bytes(ctx, sums.data, Device{}, device_sums.data(), ctx.device, bytes);
}

// Bound by arithmetic: some 35 double operations a pair of gene and distinct total, without FMA (tier A).
void expected_zeros(const Context& ctx, Span<const double> totals, Span<const std::int64_t> weights,
                    Span<const double> shares, int shift, Span<std::int64_t> sums) {
  const scw::cuda::DeviceScope scope(ctx);
  if (sums.size == 0) return;
  const Array<double> device_totals = to_device<double>(ctx, totals, "cell totals");
  const Array<std::int64_t> device_weights = to_device<std::int64_t>(ctx, weights, "cells of each total");
  const Array<double> device_shares = to_device<double>(ctx, shares, "gene shares");
  Array<std::int64_t> device_sums(ctx.workspace, sums.size, "expected zeros", ctx.stream);
  const auto bytes = static_cast<std::size_t>(sums.size) * sizeof(std::int64_t);
  SCW_CUDA(cudaMemsetAsync(device_sums.data(), 0, bytes, scw::cuda::stream_of(ctx)));
  if (totals.size > 0) {
    const dim3 grid(
        static_cast<unsigned>((shares.size + kZerosThreads - 1) / kZerosThreads),
        static_cast<unsigned>(std::min<std::int64_t>((totals.size + kZerosChunk - 1) / kZerosChunk, 32768)));
    expected_zeros_blocks<<<grid, kZerosThreads, 0, scw::cuda::stream_of(ctx)>>>(
        device_totals.view(), device_weights.view(), device_shares.view(), prim::FixedScale(shift), device_sums.data());
    SCW_CUDA_LAUNCHED("expected_zeros");
  }
  copy_bytes(ctx, sums.data, Device{}, device_sums.data(), ctx.device, bytes);
}

SCW_REGISTER(clipped_sums_kernel, cuda, &clipped_sums);
SCW_REGISTER(expected_zeros_kernel, cuda, &expected_zeros);

}  // namespace scw::pp::cuda
