// Refinement on CUDA, in the rounds of RefineRound, and aggregation: the edges between aggregates are sorted and summed
// (38 bits of key and 8 bytes of weight for an entry: five passes of a radix sort, 2 ms for 2 * 10^7 entries). More
// edges than space.batch_entries are sorted in batches of parts, whose rows are complete.
#include <climits>

#include "math/philox.hpp"
#include "tl/leiden/cuda_rows.cuh"

namespace scw::tl::cuda {
namespace {

struct RefineState {
  const std::int32_t* label;
  const std::int64_t* cluster_strength;
  std::int32_t* target;   // the choice of a vertex that is on the way
  std::uint8_t* chosen;   // by others, in this round
  std::uint8_t* grown;    // others have joined
  std::int32_t* refined;  // the vertex that stands for the refined cluster
  std::int32_t* joined;   // the round in which the vertex joined
  std::int64_t* strength;
  std::int64_t* outside;  // weight to the rest of the cluster
  const std::int64_t* noise;
  unsigned long long* counters;
};

__device__ inline bool well_connected(const Quality& quality, const RefineState& s, std::int32_t r,
                                      std::int64_t total) {
  return quality.score(s.outside[r], s.strength[r], total - s.strength[r]) >= 0;
}

struct ChoiceBest {
  std::int64_t value;
  std::int32_t r;  // INT_MAX: none

  __device__ static ChoiceBest none() { return {0, INT_MAX}; }
  __device__ void merge(const ChoiceBest& o) {
    if (o.r != INT_MAX && (r == INT_MAX || o.value > value || (o.value == value && o.r < r))) *this = o;
  }
  __device__ ChoiceBest shuffled(int offset) const {
    return {__shfl_xor_sync(kAll, static_cast<long long>(value), offset), __shfl_xor_sync(kAll, r, offset)};
  }
};

template <class W>
__global__ void __launch_bounds__(kThreads) alone_kernel(DeviceGraph<W> graph, RefineState s) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, graph.n) {
    const auto v = static_cast<std::int32_t>(i);
    const std::int32_t label = s.label[v];
    std::int64_t outside = 0;
    for (std::int64_t e = graph.offsets[v] + lane; e < graph.offsets[v + 1]; e += 32)
      if (s.label[graph.to[e]] == label) outside += static_cast<std::int64_t>(graph.weight_at(e));
    outside = warp_sum(outside);
    if (lane != 0) continue;
    s.refined[v] = v;
    s.joined[v] = -1;
    s.target[v] = -1;
    s.chosen[v] = s.grown[v] = 0;
    s.strength[v] = graph.strength[v];
    s.outside[v] = outside;
  }
}

/// The vertices that may join others.
template <class W>
__global__ void candidates_kernel(DeviceGraph<W> graph, Quality quality, RefineState s, std::int32_t* list) {
  const std::int64_t rounded = (graph.n + 31) / 32 * 32;
  SCW_FOR_ITEMS(i, rounded) {
    const auto v = static_cast<std::int32_t>(i);
    const bool keep = i < graph.n && s.outside[v] > 0 && well_connected(quality, s, v, s.cluster_strength[s.label[v]]);
    append(keep, v, list, s.counters + kActive);
  }
}

template <class W>
struct Choose {
  DeviceGraph<W> graph;
  Quality quality;
  RefineState s;
  RngKey key;

  template <class RowBest>
  __device__ void operator()(std::int32_t v, bool writes, const RowBest& row_best) const {
    const std::int32_t label = s.label[v];
    const std::int64_t k = graph.strength[v], total = s.cluster_strength[label];
    const auto id = [&](std::int32_t u) { return graph.id == nullptr ? u : graph.id[u]; };
    const std::uint64_t word = math::random_u64(key, static_cast<std::uint64_t>(id(v)));
    std::int64_t own = 0;
    const ChoiceBest best = row_best(
        -2, [&](std::int32_t u) { return s.label[u] == label ? s.refined[u] : -1; },
        [&](ChoiceBest& b, std::int32_t r, std::int64_t w) {
          const Wide gain = quality.score(w, k, s.strength[r]);
          if (gain < 0 || !well_connected(quality, s, r, total)) return;
          b.merge({shifted_gain(gain) + s.noise[noise_index(word, id(r))], r});
        },
        own);
    if (!writes) return;
    const bool goes = best.r != INT_MAX && best.value > s.noise[noise_index(word, id(v))];
    s.target[v] = goes ? best.r : -1;
    if (goes) s.chosen[best.r] = 1;
  }
};

template <class W>
__global__ void __launch_bounds__(kThreads)
    choose_kernel(Choose<W> choose, const std::int32_t* list, std::int64_t count, std::int32_t* large) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, count) {
    const std::int32_t v = list[i];
    const std::int64_t begin = choose.graph.offsets[v], degree = choose.graph.offsets[v + 1] - begin;
    if (degree > kWarpDegree) {
      if (lane == 0) large[atomicAdd(choose.s.counters + kLarge, 1ull)] = v;
      continue;
    }
    choose(v, lane == 0, [&](std::int32_t own_number, const auto& number, const auto& consider, std::int64_t& own) {
      return small_row_best<ChoiceBest>(choose.graph, begin, static_cast<int>(degree), own_number, number, consider,
                                        own);
    });
  }
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    choose_large_kernel(Choose<W> choose, const std::int32_t* list, TableView tables) {
  for_large_rows(list, choose.s.counters + kLarge, choose.graph.offsets, tables,
                 [&](std::int32_t v, const TableView& table) {
                   const std::int64_t begin = choose.graph.offsets[v];
                   choose(v, threadIdx.x == 0,
                          [&](std::int32_t own_number, const auto& number, const auto& consider, std::int64_t& own) {
                            return large_row_best<ChoiceBest>(choose.graph, begin, choose.graph.offsets[v + 1] - begin,
                                                              own_number, number, consider, table, own);
                          });
                 });
}

/// Who goes, and joins; targets and marks are needed by others until join_kernel.
__global__ void go_kernel(RefineState s, RefineRound round, std::uint8_t* goes, const std::int32_t* list,
                          std::int64_t count) {
  SCW_FOR_ITEMS(i, count) {
    const std::int32_t v = list[i], r = s.target[v];
    goes[v] = r >= 0 && round.goes(v, r, s.target[r], s.chosen[v] != 0) ? 1 : 0;
  }
}

template <class W>
__global__ void join_kernel(DeviceGraph<W> graph, RefineState s, std::int32_t round, const std::uint8_t* goes,
                            const std::int32_t* list, std::int64_t count) {
  SCW_FOR_ITEMS(i, count) {
    const std::int32_t v = list[i], r = s.target[v];
    if (r < 0) continue;
    s.chosen[r] = 0;
    if (goes[v] == 0) continue;
    s.refined[v] = r;
    s.joined[v] = round;
    s.grown[r] = 1;
    add(s.strength + r, graph.strength[v]);
  }
}

/// The weight from the refined clusters to the rest of the cluster: an edge between two who joined in this round is
/// seen from both ends.
template <class W>
__global__ void __launch_bounds__(kThreads)
    outside_kernel(DeviceGraph<W> graph, RefineState s, std::int32_t round, const std::uint8_t* goes,
                   const std::int32_t* list, std::int64_t count) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, count) {
    const std::int32_t v = list[i];
    if (goes[v] == 0) continue;
    const std::int32_t r = s.refined[v];
    std::int64_t inside = 0;
    for (std::int64_t e = graph.offsets[v] + lane; e < graph.offsets[v + 1]; e += 32) {
      const std::int32_t u = graph.to[e];
      if (s.refined[u] == r) inside += static_cast<std::int64_t>(graph.weight_at(e)) * (s.joined[u] == round ? 1 : 2);
    }
    inside = warp_sum(inside);
    if (lane == 0) add(s.outside + r, s.outside[v] - inside);
  }
}

/// Those who wanted to go but could not, and are still alone.
__global__ void again_kernel(RefineState s, const std::uint8_t* goes, const std::int32_t* list, std::int64_t count,
                             std::int32_t* next) {
  const std::int64_t rounded = (count + 31) / 32 * 32;
  SCW_FOR_ITEMS(i, rounded) {
    const std::int32_t v = i < count ? list[i] : 0;
    const bool wanted = i < count && s.target[v] >= 0;
    if (wanted) s.target[v] = -1;
    append(wanted && goes[v] == 0 && s.grown[v] == 0, v, next, s.counters + kActive);
  }
}

__global__ void representatives_kernel(std::int64_t n, const std::int32_t* refined, std::int32_t* marks) {
  SCW_FOR_ITEMS(v, n + 1) marks[v] = v < n && refined[v] == v ? 1 : 0;
}

template <class W>
__global__ void parents_kernel(DeviceGraph<W> graph, const std::int32_t* refined, const std::int32_t* ranks,
                               const std::int32_t* label, std::int32_t* parent, std::int32_t* level_label,
                               std::int32_t* level_id, std::int64_t* strength) {
  SCW_FOR_ITEMS(i, graph.n) {
    const auto v = static_cast<std::int32_t>(i);
    const std::int32_t a = ranks[refined[v]];
    parent[v] = a;
    add(strength + a, graph.strength[v]);
    if (refined[v] != v) continue;
    level_label[a] = label[v];
    level_id[a] = graph.id == nullptr ? v : graph.id[v];
  }
}

/// The edges between parts: of each vertex (counts[v]), or of all vertices of each part, counts starting at 0.
template <class W>
__global__ void __launch_bounds__(kThreads)
    count_edges_kernel(DeviceGraph<W> graph, const std::int32_t* parent, bool of_parts, std::int64_t* counts) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(v, graph.n) {
    const std::int32_t a = parent[v];
    std::int64_t count = 0;
    for (std::int64_t e = graph.offsets[v] + lane; e < graph.offsets[v + 1]; e += 32)
      count += parent[graph.to[e]] != a ? 1 : 0;
    count = warp_sum(count);
    if (lane != 0) continue;
    if (of_parts)
      add(counts + a, count);
    else
      counts[v] = count;
  }
}

/// A batch of parts. The edges of v go to first[v] and on, or to places that are drawn from place[part]: their order
/// does not matter, they are sorted and summed as integers.
template <class W>
__global__ void __launch_bounds__(kThreads)
    edges_kernel(DeviceGraph<W> graph, const std::int32_t* parent, int bits, RowBatch batch, const std::int64_t* first,
                 std::int64_t* place, std::uint64_t* keys, std::int64_t* values) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(v, graph.n) {
    const std::int32_t a = parent[v];
    if (a < batch.first_row || a >= batch.last_row) continue;
    const std::uint64_t row = static_cast<std::uint64_t>(a - batch.first_row) << bits;
    std::int64_t at = first != nullptr ? first[v] : 0;
    const std::int64_t end = graph.offsets[v + 1];
    for (std::int64_t e = graph.offsets[v]; e < end; e += 32) {
      const bool valid = e + lane < end;
      const std::int32_t b = valid ? parent[graph.to[e + lane]] : a;
      const unsigned mask = __ballot_sync(kAll, b != a);
      if (place != nullptr && mask != 0) {
        if (lane == 0) at = draw(place + a, __popc(mask)) - batch.begin;
        at = __shfl_sync(kAll, static_cast<long long>(at), 0);
      }
      if (b != a) {
        const std::int64_t slot = at + __popc(mask & ((1u << lane) - 1));
        keys[slot] = row | static_cast<std::uint32_t>(b);
        if (values != nullptr) values[slot] = static_cast<std::int64_t>(graph.weight_at(e + lane));
      }
      at += __popc(mask);
    }
  }
}

/// The largest of all threads.
__device__ inline void store_most(unsigned long long* most, unsigned long long mine) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const unsigned long long o = __shfl_xor_sync(kAll, mine, offset);
    mine = o > mine ? o : mine;
  }
  if ((threadIdx.x & 31) == 0) atomicMax(most, mine);
}

__global__ void max_strength_kernel(std::int64_t n, const std::int64_t* strength, unsigned long long* most) {
  unsigned long long mine = 0;
  SCW_FOR_ITEMS(v, n)
  mine = static_cast<unsigned long long>(strength[v]) > mine ? static_cast<unsigned long long>(strength[v]) : mine;
  store_most(most, mine);
}

__global__ void max_degree_kernel(std::int64_t n, const std::int64_t* offsets, unsigned long long* most) {
  unsigned long long mine = 0;
  SCW_FOR_ITEMS(v, n) {
    const auto degree = static_cast<unsigned long long>(offsets[v + 1] - offsets[v]);
    mine = degree > mine ? degree : mine;
  }
  store_most(most, mine);
}

}  // namespace

std::int64_t max_degree(const Context& ctx, const std::int64_t* offsets, std::int64_t n) {
  Array<unsigned long long> most = scratch<unsigned long long>(ctx, 1, "leiden largest degree");
  fill_zero(ctx, most.data(), 1);
  launch(ctx, "leiden largest degree", n, max_degree_kernel, n, offsets, most.data());
  unsigned long long host = 0;
  read_back<unsigned long long>(ctx, &host, most.data(), 1);
  return static_cast<std::int64_t>(host);
}

template <class W>
void refine(const Context& ctx, const DeviceGraph<W>& graph, const Quality& quality, RngKey key,
            const std::int32_t* label, DeviceSpace& space) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = graph.n;
  LargeTables tables(ctx, graph.max_degree);
  const TableView table_view{tables.keys.data(), tables.sums.data(), tables.slots};
  std::uint8_t* const goes = space.state.data();
  const RefineState s{label,
                      space.cluster_strength.data(),
                      space.target.data(),
                      space.flag.data(),
                      space.grown.data(),
                      space.refined.data(),
                      space.joined.data(),
                      space.here.data(),
                      space.there.data(),
                      space.noise.data(),
                      space.counters.data()};
  unsigned long long counters[kCounters] = {};
  fill_zero(ctx, s.counters, kCounters);
  launch_warps(ctx, "leiden alone", n, alone_kernel<W>, graph, s);
  launch(ctx, "leiden candidates", n, candidates_kernel<W>, graph, quality, s, space.list.data());
  read_back<unsigned long long>(ctx, counters, s.counters, kCounters);
  const std::uint64_t salt = math::random_u64(key, kRefineTag, 1);
  const Choose<W> choose{graph, quality, s, key};
  for (std::int32_t r = 0; counters[kActive] > 0; ++r) {
    ctx.check_cancelled("tl.leiden");
    const RefineRound round(salt, static_cast<std::uint64_t>(r));
    const auto count = static_cast<std::int64_t>(counters[kActive]);
    const std::int32_t* const list = space.list.data();
    fill_zero(ctx, s.counters, kCounters);
    launch_warps(ctx, "leiden choose", count, choose_kernel<W>, choose, list, count, space.next.data());
    if (tables.blocks > 0) {
      choose_large_kernel<W><<<tables.blocks, kThreads, 0, stream>>>(choose, space.next.data(), table_view);
      SCW_CUDA_LAUNCHED("leiden choose large");
    }
    launch(ctx, "leiden go", count, go_kernel, s, round, goes, list, count);
    launch(ctx, "leiden join", count, join_kernel<W>, graph, s, r, static_cast<const std::uint8_t*>(goes), list, count);
    launch_warps(ctx, "leiden outside", count, outside_kernel<W>, graph, s, r, static_cast<const std::uint8_t*>(goes),
                 list, count);
    launch(ctx, "leiden again", count, again_kernel, s, static_cast<const std::uint8_t*>(goes), list, count,
           space.next.data());
    space.list.swap(space.next);
    read_back<unsigned long long>(ctx, counters, s.counters, kCounters);
  }
}

namespace {

unsigned long long largest_strength(const Context& ctx, const std::int64_t* strength, std::int64_t n) {
  Array<unsigned long long> most = scratch<unsigned long long>(ctx, 1, "leiden largest strength");
  fill_zero(ctx, most.data(), 1);
  launch(ctx, "leiden largest strength", n, max_strength_kernel, n, strength, most.data());
  unsigned long long host = 0;
  read_back<unsigned long long>(ctx, &host, most.data(), 1);
  return host;
}

/// The rows of `level`: what lies between its vertices, the parts `parent` of `graph`.
template <class W, class Sum>
std::int64_t sum_edges(const Context& ctx, const DeviceGraph<W>& graph, const std::int32_t* parent, DeviceLevel& level,
                       std::int64_t batch_entries, Array<Sum>& weight) {
  const int bits = bits_for(level.n);
  const std::int64_t* first = nullptr;
  Array<std::int64_t> counts, place;
  std::int64_t between = 0;
  std::vector<RowBatch> batches;
  if (graph.n_edges <= batch_entries) {
    counts = scratch<std::int64_t>(ctx, graph.n + 1, "leiden edge offsets");
    fill_zero(ctx, counts.data() + graph.n, 1);
    launch_warps(ctx, "leiden count edges", graph.n, count_edges_kernel<W>, graph, parent, false, counts.data());
    exclusive_scan(ctx, counts.data(), graph.n);
    read_back<std::int64_t>(ctx, &between, counts.data() + graph.n, 1);
    batches.push_back({0, level.n, 0, between});
    first = counts.data();
  } else {
    counts = scratch<std::int64_t>(ctx, level.n + 1, "leiden edge offsets");
    place = scratch<std::int64_t>(ctx, level.n, "leiden edge places");
    fill_zero(ctx, counts.data(), level.n + 1);
    launch_warps(ctx, "leiden count edges", graph.n, count_edges_kernel<W>, graph, parent, true, counts.data());
    exclusive_scan(ctx, counts.data(), level.n);
    read_back<std::int64_t>(ctx, &between, counts.data() + level.n, 1);
    batches = row_batches(ctx, counts.data(), level.n, between, batch_entries);
  }
  const auto fill = [&](const RowBatch& batch, std::uint64_t* keys, std::int64_t* values) {
    if (first == nullptr) start_places(ctx, batch, counts.data(), place.data());
    launch_warps(ctx, "leiden edges", graph.n, edges_kernel<W>, graph, parent, bits, batch, first, place.data(), keys,
                 values);
  };
  return sum_rows<std::int64_t, Sum>(ctx, batches, bits, fill, level.offsets.data(), level.to, weight);
}

}  // namespace

template <class W>
bool aggregate(const Context& ctx, const DeviceGraph<W>& graph, const std::int32_t* label, DeviceSpace& space,
               std::int32_t* parent, DeviceLevel& level) {
  const std::int64_t n = graph.n;
  const std::int32_t* const refined = space.refined.data();
  std::int32_t* const ranks = space.map.data();
  launch(ctx, "leiden representatives", n + 1, representatives_kernel, n, refined, ranks);
  exclusive_scan(ctx, ranks, n);
  std::int32_t nodes = 0;
  read_back<std::int32_t>(ctx, &nodes, ranks + n, 1);
  if (nodes == n) return false;

  level = {};
  level.n = nodes;
  level.strength = scratch<std::int64_t>(ctx, nodes, "leiden level strengths");
  level.label = scratch<std::int32_t>(ctx, nodes, "leiden level labels");
  level.id = scratch<std::int32_t>(ctx, nodes, "leiden level numbers");
  level.parent = scratch<std::int32_t>(ctx, nodes, "leiden hierarchy");
  level.offsets = scratch<std::int64_t>(ctx, level.n + 1, "leiden level offsets");
  fill_zero(ctx, level.strength.data(), level.n);
  launch(ctx, "leiden parents", n, parents_kernel<W>, graph, refined, static_cast<const std::int32_t*>(ranks), label,
         parent, level.label.data(), level.id.data(), level.strength.data());

  level.narrow = largest_strength(ctx, level.strength.data(), level.n) <= 0xFFFFFFFFull;
  level.n_edges = level.narrow ? sum_edges(ctx, graph, parent, level, space.batch_entries, level.narrow_weight)
                               : sum_edges(ctx, graph, parent, level, space.batch_entries, level.wide_weight);
  level.max_degree = max_degree(ctx, level.offsets.data(), level.n);
  return true;
}

template void refine(const Context&, const DeviceGraph<float>&, const Quality&, RngKey, const std::int32_t*,
                     DeviceSpace&);
template void refine(const Context&, const DeviceGraph<std::uint32_t>&, const Quality&, RngKey, const std::int32_t*,
                     DeviceSpace&);
template void refine(const Context&, const DeviceGraph<std::int64_t>&, const Quality&, RngKey, const std::int32_t*,
                     DeviceSpace&);
template bool aggregate(const Context&, const DeviceGraph<float>&, const std::int32_t*, DeviceSpace&, std::int32_t*,
                        DeviceLevel&);
template bool aggregate(const Context&, const DeviceGraph<std::uint32_t>&, const std::int32_t*, DeviceSpace&,
                        std::int32_t*, DeviceLevel&);
template bool aggregate(const Context&, const DeviceGraph<std::int64_t>&, const std::int32_t*, DeviceSpace&,
                        std::int32_t*, DeviceLevel&);

}  // namespace scw::tl::cuda
