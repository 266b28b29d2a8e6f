#include "tl/rank_genes_groups/cuda.cuh"

namespace scw::tl::cuda {
namespace {

constexpr int kRangeThreads = 512;

/// Smallest and largest value as sortable bits; rows of a dense matrix, or the stored values as one row.
template <class V>
__global__ void __launch_bounds__(kRangeThreads) range_kernel(MatrixView<const V> x, ranks::U64* range) {
  using ranks::U64;
  U64 low = ~U64{0}, high = 0;
  const std::int64_t stride = std::int64_t{gridDim.x} * kRangeThreads;
  for (std::int64_t i = blockIdx.y; i < x.n_rows; i += gridDim.y) {
#pragma unroll 4
    for (std::int64_t j = std::int64_t{blockIdx.x} * kRangeThreads + threadIdx.x; j < x.n_cols; j += stride) {
      const U64 b = ranks::sortable_value<V>(x.row(i)[j]);
      low = b < low ? b : low;
      high = b > high ? b : high;
    }
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const U64 l = __shfl_xor_sync(0xFFFFFFFFu, low, offset);
    const U64 h = __shfl_xor_sync(0xFFFFFFFFu, high, offset);
    low = l < low ? l : low;
    high = h > high ? h : high;
  }
  if ((threadIdx.x & 31) == 0 && low <= high) {
    atomicMin(range, low);
    atomicMax(range + 1, high);
  }
}

template <class V>
void range(const Context& ctx, const MatrixView<const V>& x, bool with_zero, double& low, double& high) {
  using ranks::U64;
  std::vector<U64> ends{~U64{0}, 0};
  if (with_zero) ends.assign(2, U64{prim::sortable_bits(V{0})});
  Array<U64> device = to_device<U64>(ctx, ends, "value range");
  if (x.n_rows > 0 && x.n_cols > 0) {
    const unsigned across = scw::cuda::grid_for(x.n_cols, 4 * kRangeThreads, 4096);
    const dim3 grid(across, static_cast<unsigned>(std::min<std::int64_t>(x.n_rows, 8192 / across)));
    range_kernel<V><<<grid, kRangeThreads, 0, scw::cuda::stream_of(ctx)>>>(x, device.data());
    SCW_CUDA_LAUNCHED("rank_genes_groups: value_range");
  }
  const Array<U64> host = to_host<U64>(ctx, std::as_const(device).view());
  using Value = typename ranks::Bits<V>::Value;
  low = static_cast<double>(prim::from_sortable_bits(static_cast<Value>(host[0])));
  high = static_cast<double>(prim::from_sortable_bits(static_cast<Value>(host[1])));
}

}  // namespace

void value_range(const Context& ctx, const AnyMatrixView& x, double& low, double& high) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) {
        if constexpr (requires { v.indptr; }) {
          std::int64_t ends[2] = {0, 0};
          if (v.n_rows > 0) {
            const auto at = [&](std::int64_t i, std::int64_t& to) {
              copy_bytes(ctx, &to, Device{}, v.indptr.data + i, ctx.device, sizeof(to));
            };
            at(0, ends[0]);
            at(v.n_rows, ends[1]);
          }
          range(ctx, MatrixView(v.values.data + ends[0], 1, ends[1] - ends[0]), true, low, high);
        } else {
          range(ctx, v, false, low, high);
        }
      },
      x);
}

void rank_sums(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, const RankSpec& spec,
               const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out) {
  const scw::cuda::DeviceScope scope(ctx);
  if (x.is_double(ctx))
    rank_sums_f64(ctx, x, codes, spec, map, moments, out);
  else if (x.is_sparse())
    ranks::Ranker<float, CsrView<const float>>(ctx, x, codes, spec, map, moments, out).run();
  else
    ranks::Ranker<float, MatrixView<const float>>(ctx, x, codes, spec, map, moments, out).run();
}

SCW_REGISTER(value_range_kernel, cuda, &value_range);
SCW_REGISTER(rank_sums_kernel, cuda, &rank_sums);

}  // namespace scw::tl::cuda
