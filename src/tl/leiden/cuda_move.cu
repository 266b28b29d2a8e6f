// Local moving on CUDA, in the rounds of MoveRound. A warp per vertex adds up the weights to its neighbours' clusters
// by comparing every entry of the row with every other (23 entries: some 200 instructions, no memory but the row, the
// labels and the strengths of clusters, which lie in the L2 cache); rows above kWarpDegree go to blocks with hash
// tables. Floor of a round: 8 bytes an entry of the active rows from memory and 32 an entry from the L2 cache.
#include <climits>

#include "math/philox.hpp"
#include "tl/leiden/cuda_rows.cuh"

namespace scw::tl::cuda {
namespace {

struct MoveState {
  std::int32_t* label;
  std::int32_t* target;
  std::uint8_t* flag;
  std::uint8_t* state;
  std::int64_t* here;
  std::int64_t* there;
  std::int64_t* cluster_strength;
  std::int64_t* entering;
  std::int64_t* leaving;
  std::uint64_t* first_in;
  std::uint64_t* first_out;
  unsigned long long* counters;
};
/// state of a vertex in a round
constexpr std::uint8_t kStays = 0, kWaits = 1, kTakesPart = 2, kMoves = 3;

struct MoveBest {
  std::int64_t high;
  std::uint64_t low;
  std::int64_t weight;
  std::int32_t cluster;  // INT_MAX: none

  __device__ static MoveBest none() { return {0, 0, 0, INT_MAX}; }
  __device__ Wide score() const { return (static_cast<Wide>(high) << 64) | static_cast<Wide>(low); }
  __device__ void merge(const MoveBest& o) {
    if (o.cluster == INT_MAX) return;
    const bool more = o.high > high || (o.high == high && o.low > low);
    const bool same = o.high == high && o.low == low;
    if (cluster == INT_MAX || more || (same && o.cluster < cluster)) *this = o;
  }
  __device__ MoveBest shuffled(int offset) const {
    MoveBest o;
    o.high = __shfl_xor_sync(kAll, static_cast<long long>(high), offset);
    o.low = __shfl_xor_sync(kAll, static_cast<unsigned long long>(low), offset);
    o.weight = __shfl_xor_sync(kAll, static_cast<long long>(weight), offset);
    o.cluster = __shfl_xor_sync(kAll, cluster, offset);
    return o;
  }
};

template <class W>
struct Evaluate {
  DeviceGraph<W> graph;
  Quality quality;
  MoveState s;

  /// best(number, consider, own): of the row of v.
  template <class RowBest>
  __device__ void operator()(std::int32_t v, bool writes, const RowBest& row_best) const {
    const std::int32_t here = s.label[v];
    const std::int64_t k = graph.strength[v];
    std::int64_t own = 0;
    const MoveBest best = row_best(
        here, [&](std::int32_t u) { return s.label[u]; },
        [&](MoveBest& b, std::int32_t c, std::int64_t w) {
          const Wide score = quality.score(w, k, s.cluster_strength[c]);
          b.merge({static_cast<std::int64_t>(score >> 64), static_cast<std::uint64_t>(score), w, c});
        },
        own);
    if (!writes) return;
    Wide least = quality.score(own, k, s.cluster_strength[here] - k);
    std::int32_t target = -1;
    std::int64_t there = own;
    if (least < 0 && s.cluster_strength[graph.n + v] == 0) {
      target = static_cast<std::int32_t>(graph.n) + v;
      there = 0;
      least = 0;
    }
    if (best.cluster != INT_MAX && (best.score() > least || (best.score() == least && target >= 0))) {
      target = best.cluster;
      there = best.weight;
    }
    s.target[v] = target;
    s.here[v] = own;
    s.there[v] = there;
  }
};

template <class W>
__global__ void __launch_bounds__(kThreads)
    evaluate_kernel(Evaluate<W> evaluate, const std::int32_t* list, std::int64_t count, std::int32_t* large) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, count) {
    const std::int32_t v = list[i];
    const std::int64_t begin = evaluate.graph.offsets[v], degree = evaluate.graph.offsets[v + 1] - begin;
    if (degree > kWarpDegree) {
      if (lane == 0) large[atomicAdd(evaluate.s.counters + kLarge, 1ull)] = v;
      continue;
    }
    evaluate(v, lane == 0, [&](std::int32_t own_number, const auto& number, const auto& consider, std::int64_t& own) {
      return small_row_best<MoveBest>(evaluate.graph, begin, static_cast<int>(degree), own_number, number, consider,
                                      own);
    });
  }
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    evaluate_large_kernel(Evaluate<W> evaluate, const std::int32_t* list, TableView tables) {
  for_large_rows(
      list, evaluate.s.counters + kLarge, evaluate.graph.offsets, tables, [&](std::int32_t v, const TableView& table) {
        const std::int64_t begin = evaluate.graph.offsets[v];
        evaluate(v, threadIdx.x == 0,
                 [&](std::int32_t own_number, const auto& number, const auto& consider, std::int64_t& own) {
                   return large_row_best<MoveBest>(evaluate.graph, begin, evaluate.graph.offsets[v + 1] - begin,
                                                   own_number, number, consider, table, own);
                 });
      });
}

/// The first step of MoveRound, and the sums for the second.
template <class W>
__global__ void __launch_bounds__(kThreads)
    conflicts_kernel(DeviceGraph<W> graph, MoveState s, MoveRound round, const std::int32_t* list, std::int64_t count) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, count) {
    const std::int32_t v = list[i];
    const std::int32_t to = s.target[v];
    if (to < 0) {
      if (lane == 0) s.state[v] = kStays;
      continue;
    }
    const std::int32_t from = s.label[v];
    bool waits = !round.takes_part(v);
    const std::int64_t end = graph.offsets[v + 1];
    for (std::int64_t e = graph.offsets[v]; e < end && !__any_sync(kAll, waits); e += 32) {
      if (e + lane >= end) continue;
      const std::int32_t u = graph.to[e + lane];
      const std::int32_t u_to = s.target[u];
      if (u_to >= 0) waits = round.waits(from, to, s.label[u], u_to);
    }
    waits = __any_sync(kAll, waits);
    if (lane != 0) continue;
    s.state[v] = waits ? kWaits : kTakesPart;
    if (waits) continue;
    const std::uint64_t turn = round.turn(v);
    add(s.entering + to, graph.strength[v]);
    add(s.leaving + from, graph.strength[v]);
    atomicMax(reinterpret_cast<unsigned long long*>(s.first_in + to), static_cast<unsigned long long>(turn));
    atomicMax(reinterpret_cast<unsigned long long*>(s.first_out + from), static_cast<unsigned long long>(turn));
  }
}

/// The second step.
__global__ void decide_kernel(const std::int64_t* strength, Quality quality, MoveState s, MoveRound round,
                              const std::int32_t* list, std::int64_t count) {
  std::int64_t taking_part = 0, moved = 0;
  SCW_FOR_ITEMS(i, count) {
    const std::int32_t v = list[i];
    if (s.state[v] != kTakesPart) continue;
    ++taking_part;
    const std::int32_t from = s.label[v], to = s.target[v];
    const std::int64_t k = strength[v];
    const std::uint64_t turn = round.turn(v);
    const bool moves = (s.first_in[to] == turn && s.first_out[from] == turn) ||
                       quality.score(s.there[v], k, s.cluster_strength[to] + s.entering[to] - k) >
                           quality.score(s.here[v], k, s.cluster_strength[from] - s.leaving[from]);
    if (!moves) continue;
    ++moved;
    s.state[v] = kMoves;
  }
  taking_part = warp_sum(taking_part);
  moved = warp_sum(moved);
  if ((threadIdx.x & 31) == 0 && taking_part > 0) {
    atomicAdd(s.counters + kTakingPart, static_cast<unsigned long long>(taking_part));
    atomicAdd(s.counters + kMoved, static_cast<unsigned long long>(moved));
  }
}

__global__ void apply_kernel(const std::int64_t* strength, MoveState s, const std::int32_t* list, std::int64_t count) {
  SCW_FOR_ITEMS(i, count) {
    const std::int32_t v = list[i];
    const std::uint8_t state = s.state[v];
    if (state == kStays) continue;
    const std::int32_t from = s.label[v], to = s.target[v];
    s.target[v] = -1;
    if (state != kMoves) s.flag[v] = 1;
    if (state == kWaits) continue;
    s.entering[to] = s.leaving[from] = 0;
    s.first_in[to] = s.first_out[from] = 0;
    if (state != kMoves) continue;
    add(s.cluster_strength + from, -strength[v]);
    add(s.cluster_strength + to, strength[v]);
    s.label[v] = to;
  }
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    wake_kernel(DeviceGraph<W> graph, MoveState s, const std::int32_t* list, std::int64_t count) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, count) {
    const std::int32_t v = list[i];
    if (s.state[v] != kMoves) continue;
    const std::int32_t label = s.label[v];
    for (std::int64_t e = graph.offsets[v] + lane; e < graph.offsets[v + 1]; e += 32)
      if (s.label[graph.to[e]] != label) s.flag[graph.to[e]] = 1;
  }
}

/// The flagged vertices, in any order; clears the flags. flag has n + 16 bytes.
__global__ void __launch_bounds__(kThreads)
    collect_kernel(std::int64_t n, std::uint8_t* flag, std::int32_t* list, unsigned long long* count) {
  __shared__ unsigned sums[kWarps];
  __shared__ unsigned long long first;
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t words = (n + 15) / 16, blocks = (words + kThreads - 1) / kThreads;
  for (std::int64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    const std::int64_t i = b * kThreads + threadIdx.x;
    uint4 x{0, 0, 0, 0};
    if (i < words) x = reinterpret_cast<const uint4*>(flag)[i];
    const unsigned mine = static_cast<unsigned>(__popc(x.x) + __popc(x.y) + __popc(x.z) + __popc(x.w));
    if (mine > 0) reinterpret_cast<uint4*>(flag)[i] = uint4{0, 0, 0, 0};
    unsigned before = mine;
    for (int offset = 1; offset < 32; offset *= 2) {
      const unsigned o = __shfl_up_sync(kAll, before, offset);
      if (lane >= offset) before += o;
    }
    if (lane == 31) sums[warp] = before;
    __syncthreads();
    unsigned total = 0, base = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) base = total;
      total += sums[w];
    }
    if (threadIdx.x == 0 && total > 0) first = atomicAdd(count, static_cast<unsigned long long>(total));
    __syncthreads();
    unsigned long long at = first + base + before - mine;
    const unsigned parts[4] = {x.x, x.y, x.z, x.w};
    if (mine > 0)
      for (int byte = 0; byte < 16; ++byte)
        if ((parts[byte / 4] >> (byte % 4 * 8) & 1u) != 0) list[at++] = static_cast<std::int32_t>(i * 16 + byte);
    __syncthreads();
  }
}

template <class W>
__global__ void start_kernel(DeviceGraph<W> graph, const std::int32_t* label, std::int64_t* cluster_strength,
                             std::uint8_t* flag) {
  SCW_FOR_ITEMS(v, graph.n) {
    flag[v] = graph.offsets[v + 1] > graph.offsets[v] ? 1 : 0;
    add(cluster_strength + label[v], graph.strength[v]);
  }
}

__global__ void mark_kernel(std::int64_t n, const std::int32_t* label, std::int32_t* used) {
  SCW_FOR_ITEMS(v, n) used[label[v]] = 1;
}
__global__ void renumber_kernel(std::int64_t n, std::int32_t* label, const std::int32_t* map) {
  SCW_FOR_ITEMS(v, n) label[v] = map[label[v]];
}
__global__ void renumber_strengths_kernel(std::int64_t n, const std::int32_t* map, const std::int64_t* old,
                                          std::int64_t* strength) {
  SCW_FOR_ITEMS(c, n) {
    if (map[c + 1] > map[c]) strength[map[c]] = old[c];
  }
}

}  // namespace

LargeTables::LargeTables(const Context& ctx, std::int64_t max_degree) {
  if (max_degree <= kWarpDegree) return;
  blocks = 264;
  if (max_degree <= kSharedDegree) return;
  slots = 256;
  while (slots < 2 * max_degree) slots *= 2;
  const std::int64_t fit = (std::int64_t{1} << 28) / (slots * 12);  // 256 MB
  blocks = static_cast<unsigned>(fit < 1 ? 1 : fit > 264 ? 264 : fit);
  keys = scratch<std::int32_t>(ctx, checked_mul(slots, blocks), "leiden tables");
  sums = scratch<std::int64_t>(ctx, checked_mul(slots, blocks), "leiden tables");
}

template <class W>
std::int64_t move(const Context& ctx, const DeviceGraph<W>& graph, const Quality& quality, RngKey key,
                  std::int32_t* label, DeviceSpace& space, std::int64_t& clusters) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = graph.n;
  LargeTables tables(ctx, graph.max_degree);
  const TableView table_view{tables.keys.data(), tables.sums.data(), tables.slots};
  const MoveState s{label,
                    space.target.data(),
                    space.flag.data(),
                    space.state.data(),
                    space.here.data(),
                    space.there.data(),
                    space.cluster_strength.data(),
                    space.entering.data(),
                    space.leaving.data(),
                    space.first_in.data(),
                    space.first_out.data(),
                    space.counters.data()};
  const Evaluate<W> evaluate{graph, quality, s};
  unsigned long long counters[kCounters] = {};
  const auto collect = [&] {
    fill_zero(ctx, s.counters, 1);  // kActive
    collect_kernel<<<scw::cuda::grid_for((n + 15) / 16, kThreads), kThreads, 0, stream>>>(n, s.flag, space.list.data(),
                                                                                          s.counters + kActive);
    SCW_CUDA_LAUNCHED("leiden collect");
    read_back<unsigned long long>(ctx, counters, s.counters, kCounters);
  };
  fill_zero(ctx, s.cluster_strength, 2 * n);
  fill_zero(ctx, s.flag, n + 16);
  fill_none(ctx, s.target, n);
  fill_zero(ctx, s.counters, kCounters);
  launch(ctx, "leiden start", n, start_kernel<W>, graph, static_cast<const std::int32_t*>(label), s.cluster_strength,
         s.flag);
  collect();
  const std::uint64_t salt = math::random_u64(key, kMoveTag);
  std::int64_t moves = 0;
  int thin = 0;
  for (std::uint64_t r = 0; counters[kActive] > 0; ++r) {
    ctx.check_cancelled("tl.leiden");
    const MoveRound round(salt, r, thin);
    const auto count = static_cast<std::int64_t>(counters[kActive]);
    const std::int32_t* const list = space.list.data();
    fill_zero(ctx, s.counters, kCounters);
    launch_warps(ctx, "leiden evaluate", count, evaluate_kernel<W>, evaluate, list, count, space.next.data());
    if (tables.blocks > 0) {
      evaluate_large_kernel<W><<<tables.blocks, kThreads, 0, stream>>>(evaluate, space.next.data(), table_view);
      SCW_CUDA_LAUNCHED("leiden evaluate large");
    }
    launch_warps(ctx, "leiden conflicts", count, conflicts_kernel<W>, graph, s, round, list, count);
    launch(ctx, "leiden decide", count, decide_kernel, graph.strength, quality, s, round, list, count);
    launch(ctx, "leiden apply", count, apply_kernel, graph.strength, s, list, count);
    launch_warps(ctx, "leiden wake", count, wake_kernel<W>, graph, s, list, count);
    collect();
    moves += static_cast<std::int64_t>(counters[kMoved]);
    thin = MoveRound::adapt(thin, static_cast<std::int64_t>(counters[kTakingPart]),
                            static_cast<std::int64_t>(counters[kMoved]));
  }
  // The labels in use become 0, 1, ... in their order.
  std::int32_t* const map = space.map.data();
  fill_zero(ctx, map, 2 * n + 1);
  launch(ctx, "leiden used labels", n, mark_kernel, n, static_cast<const std::int32_t*>(label), map);
  exclusive_scan(ctx, map, 2 * n);
  launch(ctx, "leiden renumber", n, renumber_kernel, n, label, static_cast<const std::int32_t*>(map));
  launch(ctx, "leiden renumber strengths", 2 * n, renumber_strengths_kernel, 2 * n,
         static_cast<const std::int32_t*>(map), static_cast<const std::int64_t*>(s.cluster_strength), s.entering);
  SCW_CUDA(cudaMemcpyAsync(s.cluster_strength, s.entering, static_cast<std::size_t>(n) * sizeof(std::int64_t),
                           cudaMemcpyDeviceToDevice, stream));
  fill_zero(ctx, s.entering, n);
  std::int32_t used = 0;
  read_back<std::int32_t>(ctx, &used, map + 2 * n, 1);
  clusters = used;
  return moves;
}

template std::int64_t move(const Context&, const DeviceGraph<float>&, const Quality&, RngKey, std::int32_t*,
                           DeviceSpace&, std::int64_t&);
template std::int64_t move(const Context&, const DeviceGraph<std::uint32_t>&, const Quality&, RngKey, std::int32_t*,
                           DeviceSpace&, std::int64_t&);
template std::int64_t move(const Context&, const DeviceGraph<std::int64_t>&, const Quality&, RngKey, std::int32_t*,
                           DeviceSpace&, std::int64_t&);

}  // namespace scw::tl::cuda
