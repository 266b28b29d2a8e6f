// The layout on CUDA: a warp per group of cells, the same blocks of cells and passes as on the CPU, and the same bits.
//
// Floor at 1M cells of a 15-neighbour graph, two dimensions, 200 epochs: about 9e9 forces, each a gather of 8 bytes (a
// sector of 32) from the second-level cache and about 90 instructions without contraction: 60 to 90 ms for both.
// Positions are kept twice: a round reads the old places and writes the new ones of its block to the other copy, so it
// needs no second launch, and what a round can do before it reads positions (which edges are due) overlaps with the end
// of the round before (programmatic dependent launch, in code for compute capability 9 and later).
#include <algorithm>

#include "core/cuda/cuda_check.cuh"
#include "core/cuda/kernel_attributes.cuh"
#include "core/transfer.hpp"
#include "tl/umap/kernel.hpp"

#include "tl/umap/body.inl"

namespace scw::tl::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr std::int64_t kRoom = 1024;  // edges of a group whose due ones are listed in shared memory
static_assert(kUmapLanes == 32);

/// The two copies of the positions. A cell of a block below `moved` is at its new place.
struct Positions {
  static constexpr std::uint32_t kLanes = kUmapLanes, kBlocks = kUmapBlocks;
  const float *old, *fresh;
  std::uint32_t moved, hubs;  // hubs: of UmapDeal

  template <int D>
  __device__ void load(std::uint32_t cell, float* at) const {
    const std::uint32_t group = cell / kLanes;
    const std::uint32_t block = group < hubs ? 0 : (group - hubs) % kBlocks;
    const float* const from = (block < moved ? fresh : old) + std::uint64_t{cell} * D;
    // From the second-level cache: the copies change from round to round, and hits in the first level are rare.
    if constexpr (D == 2) {
      const float2 v = __ldcg(reinterpret_cast<const float2*>(from));
      at[0] = v.x;
      at[1] = v.y;
    } else {
      for (int k = 0; k < D; ++k) at[k] = __ldcg(from + k);
    }
  }
};

/// The random cells of a step, in the order of umap_step.
struct Draws {
  math::Philox4 words{};
  std::uint32_t draw = 0;
  __device__ std::uint32_t next(const UmapPass& p, std::int64_t i) {
    if (draw % 4 == 0)
      words = math::random_words(p.rng, static_cast<std::uint64_t>(i) + (std::uint64_t{p.number} << 32), draw / 4);
    ++draw;
    const std::uint32_t cell = math::bounded(words.v[0], static_cast<std::uint32_t>(p.graph.n_cells));
    words.v[0] = words.v[1];
    words.v[1] = words.v[2];
    words.v[2] = words.v[3];
    return cell;
  }
};

/// What a step reads: the other end of its edge and, unless N is -1 (p.negatives of them), its random cells.
template <int D, int N>
struct Others {
  float at[D];
  float away[N > 0 ? N : 1][D];

  __device__ void load(const UmapPass& p, const Positions& y, std::int64_t i, std::int32_t target, Draws& draws) {
    y.load<D>(static_cast<std::uint32_t>(target), at);
    if constexpr (N > 0)
      for (int t = 0; t < N; ++t) y.load<D>(draws.next(p, i), away[t]);
  }
};

/// One due edge: umap_step's operations.
template <int D, int N>
__device__ void step(const UmapPass& p, const Positions& y, std::int64_t i, Others<D, N>& others, Draws& draws,
                     float* here) {
  float d2 = 0;
  for (int k = 0; k < D; ++k) d2 += (here[k] - others.at[k]) * (here[k] - others.at[k]);
  float f = p.force.attraction(d2);
  for (int k = 0; k < D; ++k) here[k] += math::clip4(f * (here[k] - others.at[k])) * p.alpha;
  float push[D];
  for (int k = 0; k < D; ++k) push[k] = 0;
  const int negatives = N >= 0 ? N : p.negatives;
  for (int t = 0; t < negatives; ++t) {
    if constexpr (N < 0) y.load<D>(draws.next(p, i), others.away[0]);
    const float* const other = others.away[N > 0 ? t : 0];
    d2 = 0;
    for (int k = 0; k < D; ++k) d2 += (here[k] - other[k]) * (here[k] - other[k]);
    f = p.force.repulsion(d2);
    for (int k = 0; k < D; ++k) push[k] += math::clip4(f * (here[k] - other[k]));
  }
  for (int k = 0; k < D; ++k) here[k] += push[k] * p.alpha;
}

/// A round of a block: the cells of its groups from `y` to y.fresh. long_lists: room for the due edges of groups with
/// more than kRoom edges, at the places of their edges.
template <int D, int N>
__global__ void __launch_bounds__(kThreads)
    round_kernel(UmapPass p, int block, Positions y, float* fresh, std::int32_t* long_lists) {
  __shared__ std::int32_t room[kWarps][kRoom];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t group =
      UmapDeal(p.graph.n_active).group(block, std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32);
  const std::int64_t first_cell = group * kUmapLanes;
  if (first_cell >= p.graph.n_active) return;
  const std::int64_t i = first_cell + lane;
  const bool active = i < p.graph.n_active;
  const std::int64_t begin = p.graph.indptr[active ? i : p.graph.n_active];
  const std::int64_t end = p.graph.indptr[active ? i + 1 : p.graph.n_active];

  // The due edges of the group, in their order, side by side: its edges are one stretch of the graph.
  const std::int64_t group_begin = __shfl_sync(0xFFFFFFFFu, begin, 0);
  const std::int64_t group_end = __shfl_sync(0xFFFFFFFFu, end, 31);
  std::int32_t* const list = group_end - group_begin <= kRoom ? room[threadIdx.x / 32] : long_lists + group_begin;
  const unsigned below = (1u << lane) - 1;
  int total = 0;
  int offset = -1;
  constexpr int kAhead = 4;
  for (std::int64_t at = group_begin; at < group_end; at += 32 * kAhead) {
    std::uint32_t rate[kAhead];
    std::int32_t target[kAhead];
    for (int u = 0; u < kAhead; ++u) {
      const std::int64_t e = at + 32 * u + lane;
      rate[u] = e < group_end ? __ldcs(p.graph.rates.data + e) : 0;  // rate 0 is never due
      target[u] = e < group_end ? __ldcs(p.graph.targets.data + e) : 0;
    }
    for (int u = 0; u < kAhead; ++u) {
      const std::int64_t from = at + 32 * u;
      const bool due = umap_due(from + lane, rate[u], p.number);
      const unsigned mask = __ballot_sync(0xFFFFFFFFu, due);
      if (begin >= from && begin < from + 32) offset = total + __popc(mask & ((1u << (begin - from)) - 1));
      if (due) list[total + __popc(mask & below)] = target[u];
      total += __popc(mask);
    }
  }
  if (offset < 0) offset = total;  // lanes without a cell
  const int next = __shfl_down_sync(0xFFFFFFFFu, offset, 1);
  const int count = (lane == 31 ? total : next) - offset;
  __syncwarp();

#if __CUDA_ARCH__ >= 900
  // The round before is over; the next one may begin, but not the one after it, which would write our lists.
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  if (!active) return;
  float here[D];
  for (int k = 0; k < D; ++k) here[k] = __ldcg(y.old + i * D + k);
  // The cell with the most steps is what a round waits for: the loads of a step are under way during the one before.
  Draws draws;
  Others<D, N> coming;
  if (count > 0) coming.load(p, y, i, list[offset], draws);
  for (int s = 0; s < count; ++s) {
    Others<D, N> now = coming;
    if (s + 1 < count) coming.load(p, y, i, list[offset + s + 1], draws);
    step<D, N>(p, y, i, now, draws, here);
  }
  for (int k = 0; k < D; ++k) fresh[i * D + k] = here[k];
}

/// The end of the edges of the last group that has more than kRoom of them.
__global__ void long_groups_kernel(UmapGraph graph, std::int64_t n_groups, unsigned long long* end) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t g = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; g < n_groups; g += stride) {
    const std::int64_t last = (g + 1) * kUmapLanes < graph.n_active ? (g + 1) * kUmapLanes : graph.n_active;
    const std::int64_t stop = graph.indptr[last];
    if (stop - graph.indptr[g * kUmapLanes] > kRoom) atomicMax(end, static_cast<unsigned long long>(stop));
  }
}

using Round = void (*)(UmapPass, int, Positions, float*, std::int32_t*);

template <int D>
Round round_for(int negatives) {
  if (negatives == 2) return &round_kernel<D, 2>;
  if (negatives == 3) return &round_kernel<D, 3>;
  return &round_kernel<D, -1>;
}

// Any number of dimensions: a thread per cell, moved positions aside until the round is over.

/// Cell of the layout that thread t of a block of cells moves.
__device__ std::int64_t cell_of(std::int64_t t, std::int64_t n_active, std::int64_t block) {
  return UmapDeal(n_active).group(block, t / kUmapLanes) * kUmapLanes + t % kUmapLanes;
}

__global__ void __launch_bounds__(kThreads)
    step_kernel(UmapPass p, std::int64_t block, std::int64_t n_slots, const float* y, float* moved, float* pushed) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; t < n_slots; t += stride) {
    const std::int64_t i = cell_of(t, p.graph.n_active, block);
    if (i < p.graph.n_active) umap_step<0>(p, i, y, moved + t * p.dims, pushed + t * p.dims);
  }
}

__global__ void __launch_bounds__(kThreads) commit_kernel(std::int64_t n_active, int dims, std::int64_t block,
                                                          std::int64_t n_slots, const float* moved, float* y) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; t < n_slots; t += stride) {
    const std::int64_t i = cell_of(t, n_active, block);
    if (i >= n_active) continue;
    for (int k = 0; k < dims; ++k) y[i * dims + k] = moved[t * dims + k];
  }
}

/// Queues the rounds of an epoch in two or three dimensions. `other` holds the positions as well.
void queue_rounds(const Context& ctx, const UmapGraph& graph, const UmapSchedule& schedule, int epoch, float* y,
                  float* other, std::int32_t* long_lists, bool overlap) {
  const UmapDeal deal(graph.n_active);
  for (int half = 0; half < kUmapPasses; ++half) {
    const UmapPass pass = umap_pass(graph, schedule, epoch, half);
    const Round round = schedule.dims == 2 ? round_for<2>(pass.negatives) : round_for<3>(pass.negatives);
    float* const old = half == 0 ? y : other;
    float* const fresh = half == 0 ? other : y;
    for (int block = 0; block < deal.blocks(); ++block) {
      cudaLaunchAttribute attribute{};
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
      cudaLaunchConfig_t config{};
      config.gridDim = dim3(static_cast<unsigned>((deal.count(block) + kWarps - 1) / kWarps));
      config.blockDim = dim3(kThreads);
      config.stream = scw::cuda::stream_of(ctx);
      config.attrs = &attribute;
      config.numAttrs = overlap ? 1 : 0;
      SCW_CUDA(cudaLaunchKernelEx(
          &config, round, pass, block,
          Positions{old, fresh, static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(deal.hubs)}, fresh,
          long_lists));
    }
  }
}

}  // namespace

void umap_run(const Context& ctx, const UmapGraph& graph, const UmapSchedule& schedule, int from, int to, Span<float> y,
              int& finished) {
  const scw::cuda::DeviceScope scope(ctx);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const int dims = schedule.dims;
  const bool paired = dims == 2 || dims == 3;
  const UmapDeal deal(graph.n_active);
  const std::int64_t slots = (graph.n_active > 0 ? deal.count(0) : 0) * kUmapLanes;  // of the largest block
  const std::int64_t size = paired ? y.size : checked_mul(slots, dims);
  Array<float> moved(ctx.workspace, size, "umap moved positions", ctx.stream);
  Array<float> pushed(ctx.workspace, paired ? 0 : size, "umap pushes", ctx.stream);
  // Where a round waits for the one before: not in PTX of an older capability, whatever the device.
  const bool overlap = paired && scw::cuda::compiled_for(round_for<2>(-1)) >= 90;
  if (paired && y.size > 0)
    SCW_CUDA(cudaMemcpyAsync(moved.data(), y.data, static_cast<std::size_t>(y.size) * sizeof(float),
                             cudaMemcpyDeviceToDevice, stream));
  std::int64_t listed = 0;
  if (paired && graph.n_active > 0) {
    Array<unsigned long long> end(ctx.workspace, 1, "umap sampled edges", ctx.stream);
    SCW_CUDA(cudaMemsetAsync(end.data(), 0, sizeof(unsigned long long), stream));
    long_groups_kernel<<<scw::cuda::grid_for(deal.groups, kThreads), kThreads, 0, stream>>>(graph, deal.groups,
                                                                                            end.data());
    SCW_CUDA_LAUNCHED("umap_long_groups");
    listed = static_cast<std::int64_t>(to_host<unsigned long long>(ctx, end.view())[0]);
  }
  Array<std::int32_t> long_lists(ctx.workspace, listed, "umap sampled edges", ctx.stream);
  // The queue may not run far ahead of what a user can stop: about a tenth of a second.
  const int ahead =
      static_cast<int>(std::clamp<std::int64_t>(50'000'000 / std::max<std::int64_t>(graph.n_active, 1), 1, 64));
  for (int epoch = from; epoch < to; ++epoch) {
    // Nothing of this epoch has been queued yet: what is there is whole epochs.
    ctx.check_cancelled("tl.umap");
    if (paired) {
      queue_rounds(ctx, graph, schedule, epoch, y.data, moved.data(), long_lists.data(), overlap);
    } else {
      for (int half = 0; half < kUmapPasses; ++half) {
        const UmapPass pass = umap_pass(graph, schedule, epoch, half);
        for (std::int64_t block = 0; block < deal.blocks(); ++block) {
          const unsigned grid = scw::cuda::grid_for(slots, kThreads);
          step_kernel<<<grid, kThreads, 0, stream>>>(pass, block, slots, y.data, moved.data(), pushed.data());
          SCW_CUDA_LAUNCHED("umap_step");
          commit_kernel<<<grid, kThreads, 0, stream>>>(graph.n_active, dims, block, slots, moved.data(), y.data);
          SCW_CUDA_LAUNCHED("umap_commit");
        }
      }
    }
    finished = epoch + 1;
    if (finished % ahead == 0 || finished == to) {
      ctx.synchronize();
      ctx.report("umap", finished, schedule.n_epochs);
    }
  }
}

SCW_REGISTER(umap_run_kernel, cuda, &umap_run);

}  // namespace scw::tl::cuda
