#include <cub/device/device_radix_sort.cuh>
#include <utility>

#include "core/transfer.hpp"
#include "pp/normalize_total/kernel.hpp"
#include "prim/row_ops.cuh"

#include "pp/normalize_total/body.inl"

namespace scw::pp::cuda {

void row_totals(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> excluded, Span<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        if (excluded.empty()) return prim::cuda::row_reduce(ctx, v, EveryValue{}, out);
        prim::cuda::row_reduce(ctx, v, KeptValue{excluded.data}, out);
      },
      x);
}

void dominant_genes(const Context& ctx, const AnyMatrixView& x, Span<const double> totals, double max_fraction,
                    Span<std::uint8_t> flags) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) { prim::cuda::visit_values(ctx, v, FlagDominant{totals.data, max_fraction, flags.data}); }, x);
}

void scale_rows(const Context& ctx, const AnyMutableMatrixView& x, Span<const double> counts, double target) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { prim::cuda::for_each_value(ctx, v, ScaleRow{counts.data, target}); }, x);
}

// Floor: one read and one write of the values, which stay in registers between the sum and the product.
void normalize_rows(const Context& ctx, const AnyMutableMatrixView& x, double target, Span<double> counts) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) { prim::cuda::reduce_then_update(ctx, v, EveryValue{}, ScaleToTarget{target}, counts); }, x);
}

namespace {

/// Adds the number of positive counts to *n; kept (unless null) gets them, and 0 for the others (NaN among them).
__global__ void keep_positive_kernel(Span<const double> counts, double* kept, unsigned long long* n) {
  unsigned mine = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < counts.size;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const bool positive = counts.data[i] > 0;
    if (kept != nullptr) kept[i] = positive ? counts.data[i] : 0.0;
    mine += positive ? 1 : 0;
  }
  for (int offset = 16; offset > 0; offset /= 2) mine += __shfl_down_sync(0xFFFFFFFFu, mine, offset);
  if ((threadIdx.x & 31) == 0 && mine > 0) atomicAdd(n, static_cast<unsigned long long>(mine));
}

}  // namespace

void positive_counts(const Context& ctx, Span<const double> counts, bool want_median, PositiveCounts& out) {
  const scw::cuda::DeviceScope scope(ctx);
  if (counts.size == 0) return;
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  Array<unsigned long long> n(ctx.workspace, 1, "positive counts", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(n.data(), 0, sizeof(unsigned long long), stream));
  Array<double> kept(ctx.workspace, want_median ? counts.size : 0, "positive counts", ctx.stream);
  keep_positive_kernel<<<scw::cuda::grid_for(counts.size, 256, 1024), 256, 0, stream>>>(counts, kept.data(), n.data());
  SCW_CUDA_LAUNCHED("keep_positive");
  out.n = static_cast<std::int64_t>(to_host<unsigned long long>(ctx, std::as_const(n).view())[0]);
  if (!want_median || out.n == 0) return;
  Array<double> sorted(ctx.workspace, counts.size, "positive counts", ctx.stream);
  std::size_t bytes = 0;
  const auto sort = [&](void* scratch) {
    SCW_CUDA(cub::DeviceRadixSort::SortKeysDescending(scratch, bytes, kept.data(), sorted.data(), counts.size, 0, 64,
                                                      stream));
  };
  sort(nullptr);
  Array<unsigned char> scratch(ctx.workspace, static_cast<std::int64_t>(bytes), "sort", ctx.stream);
  sort(scratch.data());
  const std::int64_t from_top = out.n - 1 - out.n / 2, middle = 2 - out.n % 2;  // one value or two beside each other
  const auto values = to_host<double>(ctx, {std::as_const(sorted).data() + from_top, middle}, "median");
  out.median = middle == 1 ? values[0] : (values[1] + values[0]) / 2;
}

SCW_REGISTER(row_totals_kernel, cuda, &row_totals);
SCW_REGISTER(dominant_genes_kernel, cuda, &dominant_genes);
SCW_REGISTER(scale_rows_kernel, cuda, &scale_rows);
SCW_REGISTER(normalize_rows_kernel, cuda, &normalize_rows);
SCW_REGISTER(positive_counts_kernel, cuda, &positive_counts);

}  // namespace scw::pp::cuda
