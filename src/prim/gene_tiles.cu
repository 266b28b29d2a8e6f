#include "prim/gene_tiles.cuh"

namespace scw::prim::cuda {
namespace {

constexpr int kThreads = 256;

/// The group of a row, or n_groups for none.
__device__ inline std::int32_t group_of(Span<const std::int32_t> codes, std::int64_t i, std::int32_t n_groups) {
  if (i >= codes.size) return n_groups;
  const std::int32_t c = codes.data[i];
  return c >= 0 && c < n_groups ? c : n_groups;
}

/// begin[g] += rows of group g (one atomic for the lanes of a warp that share a group).
__global__ void count_groups(Span<const std::int32_t> codes, std::int32_t n_groups, unsigned long long* begin) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const unsigned lane = threadIdx.x & 31;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i - lane < codes.size; i += step) {
    const std::int32_t g = group_of(codes, i, n_groups);
    const unsigned same = __match_any_sync(0xFFFFFFFFu, g);
    if (g < n_groups && lane == static_cast<unsigned>(__ffs(static_cast<int>(same)) - 1))
      atomicAdd(begin + g, static_cast<unsigned long long>(__popc(same)));
  }
}

/// Counts become starts (n + 1 of them), and a copy to count upwards from. One block.
__global__ void __launch_bounds__(1024) start_groups(std::int64_t* begin, unsigned long long* cursor, std::int32_t n) {
  __shared__ std::int64_t sums[1024];
  std::int64_t before = 0;
  for (std::int32_t base = 0; base < n; base += 1024) {
    const std::int32_t g = base + static_cast<std::int32_t>(threadIdx.x);
    const std::int64_t own = g < n ? begin[g] : 0;
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned offset = 1; offset < 1024; offset *= 2) {
      const std::int64_t left = threadIdx.x >= offset ? sums[threadIdx.x - offset] : 0;
      __syncthreads();
      sums[threadIdx.x] += left;
      __syncthreads();
    }
    if (g < n) {
      begin[g] = before + sums[threadIdx.x] - own;
      cursor[g] = static_cast<unsigned long long>(begin[g]);
    }
    before += sums[1023];
    __syncthreads();
  }
  if (threadIdx.x == 0) begin[n] = before;
}

__global__ void place_rows(Span<const std::int32_t> codes, std::int32_t n_groups, unsigned long long* cursor,
                           std::int32_t* rows) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const unsigned lane = threadIdx.x & 31;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i - lane < codes.size; i += step) {
    const std::int32_t g = group_of(codes, i, n_groups);
    const unsigned same = __match_any_sync(0xFFFFFFFFu, g);
    const int leader = __ffs(static_cast<int>(same)) - 1;
    unsigned long long at = 0;
    if (g < n_groups && static_cast<int>(lane) == leader)
      at = atomicAdd(cursor + g, static_cast<unsigned long long>(__popc(same)));
    at = __shfl_sync(0xFFFFFFFFu, at, leader) + static_cast<unsigned>(__popc(same & ((1u << lane) - 1)));
    if (g < n_groups) rows[at] = static_cast<std::int32_t>(i);
  }
}

__global__ void split_rows_kernel(std::int64_t n_rows, const std::int64_t* indptr, const std::int32_t* indices,
                                  std::int32_t width, Span<std::int32_t> splits) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t k = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; k < splits.size; k += step) {
    const std::int64_t t = k / n_rows, row = k - t * n_rows;
    const std::int64_t bound = (t + 1) * width;
    const std::int32_t* const columns = indices + indptr[row];
    std::int64_t low = 0, high = indptr[row + 1] - indptr[row];
    while (low < high) {
      const std::int64_t mid = (low + high) / 2;
      if (columns[mid] < bound)
        low = mid + 1;
      else
        high = mid;
    }
    splits.data[k] = static_cast<std::int32_t>(low);
  }
}

Array<std::int64_t> counted(const Context& ctx, Span<const std::int32_t> codes, std::int32_t n_groups) {
  Array<std::int64_t> begin(ctx.workspace, checked_add(n_groups, 1), "group starts", ctx.stream);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  SCW_CUDA(cudaMemsetAsync(begin.data(), 0, static_cast<std::size_t>(begin.size()) * sizeof(std::int64_t), stream));
  if (codes.size > 0) {
    count_groups<<<scw::cuda::grid_for(codes.size, kThreads, 4096), kThreads, 0, stream>>>(
        codes, n_groups, reinterpret_cast<unsigned long long*>(begin.data()));
    SCW_CUDA_LAUNCHED("count_groups");
  }
  return begin;
}

}  // namespace

GroupedRows group_rows(const Context& ctx, Span<const std::int32_t> codes, std::int32_t n_groups) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  GroupedRows out;
  out.begin = counted(ctx, codes, n_groups);
  out.rows = Array<std::int32_t>(ctx.workspace, codes.size, "rows by group", ctx.stream);
  Array<std::int64_t> cursor(ctx.workspace, n_groups, "group cursors", ctx.stream);
  auto* const at = reinterpret_cast<unsigned long long*>(cursor.data());
  start_groups<<<1, 1024, 0, stream>>>(out.begin.data(), at, n_groups);
  SCW_CUDA_LAUNCHED("start_groups");
  if (codes.size > 0) {
    place_rows<<<scw::cuda::grid_for(codes.size, kThreads, 4096), kThreads, 0, stream>>>(codes, n_groups, at,
                                                                                         out.rows.data());
    SCW_CUDA_LAUNCHED("place_rows");
  }
  return out;
}

std::vector<std::int64_t> group_sizes(const Context& ctx, Span<const std::int32_t> codes, std::int32_t n_groups) {
  const Array<std::int64_t> counts = counted(ctx, codes, n_groups);
  std::vector<std::int64_t> out(static_cast<std::size_t>(n_groups));
  copy_bytes(ctx, out.data(), Device{}, counts.data(), ctx.device, out.size() * sizeof(std::int64_t));
  return out;
}

void split_rows(const Context& ctx, std::int64_t n_rows, Span<const std::int64_t> indptr,
                Span<const std::int32_t> indices, std::int32_t width, Span<std::int32_t> splits) {
  split_rows_kernel<<<scw::cuda::grid_for(splits.size, kThreads), kThreads, 0, scw::cuda::stream_of(ctx)>>>(
      n_rows, indptr.data, indices.data, width, splits);
  SCW_CUDA_LAUNCHED("split_rows");
}

int multiprocessors(const Context& ctx) {
  int n = 0;
  SCW_CUDA(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, ctx.device.id));
  return n;
}

int shared_bytes(const Context& ctx) {
  int n = 0;
  SCW_CUDA(cudaDeviceGetAttribute(&n, cudaDevAttrMaxSharedMemoryPerBlockOptin, ctx.device.id));
  return n;
}

}  // namespace scw::prim::cuda
