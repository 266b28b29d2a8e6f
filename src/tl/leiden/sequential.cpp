#include "tl/leiden/sequential.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.hpp"
#include "math/elementary.hpp"
#include "math/philox.hpp"

namespace scw::tl {
namespace {

constexpr std::int64_t kParallelEdges = 1 << 17;  // smaller levels are refined and aggregated by one thread

/// i with probability proportional to exp(x[i]); most is the largest x. Overwrites x.
std::size_t pick(double* x, std::size_t n, double most, RngKey key, std::int32_t v) {
  std::size_t likely = 0, last = 0;
  for (std::size_t i = 0; i < n; ++i)
    if (x[i] - most > -40) {  // e^-40 is less than the random number resolves
      ++likely;
      last = i;
    }
  if (likely == 1) return last;
  double all = 0;
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = x[i] - most > -40 ? math::exp(x[i] - most) : 0;
    all += x[i];
  }
  double left = math::random_uniform(key, static_cast<std::uint64_t>(v)) * all;
  for (std::size_t i = 0; i < last; ++i) {
    if (left < x[i]) return i;
    left -= x[i];
  }
  return last;
}

}  // namespace

std::vector<std::int64_t> refinement_noise(const Quality& quality, double theta) {
  const double per_gain = theta / std::ldexp(quality.unit, kGainShift);
  std::vector<std::int64_t> noise(kNoiseSize);
  for (int i = 0; i < kNoiseSize; ++i) {
    const double gumbel = -math::log_positive(-math::log_positive((i + 0.5) / kNoiseSize));
    noise[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(std::clamp(gumbel * per_gain, -0x1p61, 0x1p61));
  }
  return noise;
}

template <class Edge>
void aggregate(const Context& ctx, const GraphView<Edge>& graph, const Groups& groups, const std::int32_t* parent,
               std::int64_t nodes, std::vector<Scratch>& scratches, Level& level) {
  level.n = nodes;
  reserve(ctx, level.begin, nodes, "leiden level offsets");
  reserve(ctx, level.end, nodes, "leiden level offsets");
  reserve(ctx, level.strength, nodes, "leiden level strengths");
  reserve(ctx, level.label, nodes, "leiden level labels");
  reserve(ctx, level.id, nodes, "leiden level numbers");
  std::int64_t room = 0;
  for (std::int64_t a = 0; a < nodes; ++a) {
    level.begin[a] = room;
    for (std::int64_t m = groups.begin[a]; m < groups.begin[a + 1]; ++m)
      room += graph.end[groups.members[m]] - graph.begin[groups.members[m]];
  }
  reserve(ctx, level.edges, room, "leiden level edges");
  parallel_chunks(ctx, nodes, 512, [&](std::int64_t, std::int64_t first, std::int64_t last, int worker) {
    Scratch& scratch = scratches[static_cast<std::size_t>(worker)];
    std::int64_t* const sum = scratch.sum.data();
    for (std::int64_t a = first; a < last; ++a) {
      std::int64_t k = 0;
      std::int64_t degree = 0;
      for (std::int64_t m = groups.begin[a]; m < groups.begin[a + 1]; ++m)
        degree += graph.end[groups.members[m]] - graph.begin[groups.members[m]];
      std::int32_t* const touched_begin = scratch.room(std::min(degree, nodes));
      std::int32_t* touched_end = touched_begin;
      for (std::int64_t m = groups.begin[a]; m < groups.begin[a + 1]; ++m) {
        const std::int32_t v = groups.members[m];
        k += graph.strength[v];
        for (std::int64_t e = graph.begin[v]; e < graph.end[v]; ++e) {
          const std::int32_t b = parent[graph.edges[e].to];
          *touched_end = b;
          touched_end += sum[b] == 0 ? 1 : 0;
          sum[b] += static_cast<std::int64_t>(graph.edges[e].weight);
        }
      }
      std::int64_t at = level.begin[a];
      for (const std::int32_t* t = touched_begin; t < touched_end; ++t) {
        if (*t != a) level.edges[at++] = {*t, sum[*t]};
        sum[*t] = 0;
      }
      level.end[a] = at;
      level.strength[a] = k;
    }
  });
}

template void aggregate(const Context&, const GraphView<BaseEdge>&, const Groups&, const std::int32_t*, std::int64_t,
                        std::vector<Scratch>&, Level&);
template void aggregate(const Context&, const GraphView<SumEdge>&, const Groups&, const std::int32_t*, std::int64_t,
                        std::vector<Scratch>&, Level&);

Sequential::Sequential(const Context& ctx, std::int64_t capacity, const Quality& quality, double theta, RngKey key)
    : ctx_(ctx),
      one_thread_(ctx),
      quality_(quality),
      theta_(theta),
      key_(key),
      active_(ctx.workspace, capacity, "leiden active vertices"),
      cluster_strength_(ctx.workspace, capacity, "leiden cluster strengths"),
      refined_(ctx.workspace, capacity, "leiden refinement"),
      refined_strength_(ctx.workspace, capacity, "leiden refinement strengths"),
      refined_outside_(ctx.workspace, capacity, "leiden refinement cuts"),
      refined_size_(ctx.workspace, capacity, "leiden refinement sizes"),
      groups_(ctx, capacity),
      map_(ctx.workspace, capacity, "leiden map"),
      scratch_(static_cast<std::size_t>(std::max(1, ctx.n_threads))) {
  for (Scratch& s : scratch_) {
    s.sum = Array<std::int64_t>(ctx.workspace, capacity, "leiden sums");
    std::fill(s.sum.begin(), s.sum.end(), std::int64_t{0});
  }
  one_thread_.n_threads = 1;
}

template <class Edge>
std::int64_t Sequential::run(const GraphView<Edge>& graph, std::int32_t* label, int pass, std::size_t depth) {
  pass_ = pass;
  first_depth_ = depth;
  std::int64_t moves = move(graph, label);
  clusters_ = number(label, graph.n);
  depth_ = 0;
  bool coarser = clusters_ < graph.n && coarsen(graph, label, parent_);
  while (coarser) {
    Level& level = levels_[depth_++];
    moves += move(level.view(), level.label.data());
    clusters_ = number(level.label.data(), level.n);
    coarser = clusters_ < level.n && coarsen(level.view(), level.label.data(), level.parent);
  }
  for (std::size_t d = depth_; d-- > 1;) {
    Level& fine = levels_[d - 1];
    for (std::int64_t v = 0; v < fine.n; ++v) fine.label[v] = levels_[d].label[fine.parent[v]];
  }
  if (depth_ > 0)
    for (std::int64_t v = 0; v < graph.n; ++v) label[v] = levels_[0].label[parent_[v]];
  return moves;
}

/// The best cluster for v, -1 for a new one; ties to the present one, then to the smaller number.
template <class Edge>
Sequential::Proposal Sequential::evaluate(const GraphView<Edge>& graph, const std::int32_t* label, std::int64_t v) {
  Scratch& scratch = scratch_[0];
  const std::int32_t here = label[v];
  std::int64_t* const sum = scratch.sum.data();
  std::int32_t* const touched_begin = scratch.room(graph.end[v] - graph.begin[v]);
  const std::int32_t* const touched_end = scratch.gather(graph.edges + graph.begin[v], graph.edges + graph.end[v],
                                                         touched_begin, [&](std::int32_t u) { return label[u]; });
  const std::int64_t k = graph.strength[v];
  const std::int64_t rest = cluster_strength_[here] - k;
  Proposal best{static_cast<std::int32_t>(v), here, sum[here], sum[here]};
  Wide best_score = quality_.score(sum[here], k, rest);
  if (best_score < 0) {
    best.target = -1;
    best.weight_there = 0;
    best_score = 0;
  }
  for (const std::int32_t* t = touched_begin; t < touched_end; ++t) {
    const std::int32_t c = *t;
    const std::int64_t w = sum[c];
    sum[c] = 0;
    if (c == here) continue;
    const Wide score = quality_.score(w, k, cluster_strength_[c]);
    if (score > best_score || (score == best_score && best.target != here && best.target != -1 && c < best.target)) {
      best_score = score;
      best.target = c;
      best.weight_there = w;
    }
  }
  return best;
}

/// Moves p.vertex if that still raises the quality, given that no neighbour moved since p was made.
template <class Edge>
bool Sequential::commit(const GraphView<Edge>& graph, std::int32_t* label, Proposal& p) {
  const std::int32_t here = label[p.vertex];
  const std::int64_t k = graph.strength[p.vertex];
  if (p.target < 0) {
    if (quality_.score(p.weight_here, k, cluster_strength_[here] - k) >= 0) return false;
    p.target = empty_.back();
    empty_.pop_back();
  } else {
    const Wide gain = quality_.score(p.weight_there, k, cluster_strength_[p.target]) -
                      quality_.score(p.weight_here, k, cluster_strength_[here] - k);
    if (gain <= 0) return false;
  }
  cluster_strength_[here] -= k;
  cluster_strength_[p.target] += k;
  ++cluster_size_[p.target];
  if (--cluster_size_[here] == 0) empty_.push_back(here);
  label[p.vertex] = p.target;
  return true;
}

/// Local moving: visits the vertices that are active, all at first and then the neighbours of those that moved, until
/// there are none. Every move raises the quality.
template <class Edge>
std::int64_t Sequential::move(const GraphView<Edge>& graph, std::int32_t* label) {
  const std::int64_t n = graph.n;
  std::fill_n(active_.data(), n, std::uint8_t{1});
  std::fill_n(cluster_strength_.data(), n, std::int64_t{0});
  cluster_size_.assign(static_cast<std::size_t>(n), 0);
  for (std::int64_t v = 0; v < n; ++v) {
    cluster_strength_[label[v]] += graph.strength[v];
    ++cluster_size_[static_cast<std::size_t>(label[v])];
  }
  empty_.clear();
  for (std::int64_t c = n - 1; c >= 0; --c)
    if (cluster_size_[static_cast<std::size_t>(c)] == 0) empty_.push_back(static_cast<std::int32_t>(c));

  std::int64_t moves = 0;
  bool any = true;
  while (any) {
    any = false;
    ctx_.check_cancelled("tl.leiden");
    for (std::int64_t v = 0; v < n; ++v) {
      if (active_[v] == 0) continue;
      active_[v] = 0;
      Proposal p = evaluate(graph, label, v);
      if (p.target == label[v] || !commit(graph, label, p)) continue;
      ++moves;
      any = true;
      for (std::int64_t e = graph.begin[v]; e < graph.end[v]; ++e) {
        const std::int32_t u = graph.edges[e].to;
        if (label[u] != label[v]) active_[u] = 1;
      }
    }
  }
  return moves;
}

/// Renumbers the labels 0, 1, ... in order of first appearance; how many there are.
std::int64_t Sequential::number(std::int32_t* label, std::int64_t n) {
  std::fill_n(map_.data(), n, -1);
  std::int32_t next = 0;
  for (std::int64_t v = 0; v < n; ++v) {
    std::int32_t& to = map_[label[v]];
    if (to < 0) to = next++;
    label[v] = to;
  }
  return next;
}

/// Refines the clusters and aggregates the result into levels_[depth_]; false if nothing could be merged. parent
/// leads from a vertex to its aggregate.
template <class Edge>
bool Sequential::coarsen(const GraphView<Edge>& graph, const std::int32_t* label, Array<std::int32_t>& parent) {
  if (levels_.size() <= depth_ + 1) levels_.resize(depth_ + 2);
  refine(graph, label);
  const std::int64_t n = graph.n;
  std::int32_t next = 0;
  for (std::int64_t v = 0; v < n; ++v)
    if (refined_[v] == v) map_[v] = next++;
  if (next == n) return false;
  reserve(ctx_, parent, n, "leiden hierarchy");
  for (std::int64_t v = 0; v < n; ++v) parent[v] = map_[refined_[v]];
  groups_.fill(n, next, [&](std::int64_t v) { return parent[v]; });
  Level& level = levels_[depth_];
  aggregate(context_for(graph), graph, groups_, parent.data(), next, scratch_, level);
  for (std::int64_t a = 0; a < next; ++a) {
    const std::int32_t first = groups_.members[groups_.begin[a]];
    level.label[a] = label[first];
    level.id[a] = graph.id == nullptr ? first : graph.id[first];
  }
  return true;
}

/// The context for work on a whole level: waiting for a second thread costs more than small levels take.
template <class Edge>
const Context& Sequential::context_for(const GraphView<Edge>& graph) const {
  return graph.n > 0 && graph.end[graph.n - 1] >= kParallelEdges ? ctx_ : one_thread_;
}

/// Refinement (algorithm A.2, MergeNodesSubset): clusters are independent of each other, so they go in parallel.
template <class Edge>
void Sequential::refine(const GraphView<Edge>& graph, const std::int32_t* label) {
  const std::int64_t clusters = clusters_;
  groups_.fill(graph.n, clusters, [&](std::int64_t v) { return label[v]; });
  // Large clusters first, one at a time; small ones in batches.
  by_size_.resize(static_cast<std::size_t>(clusters));
  std::iota(by_size_.begin(), by_size_.end(), 0);
  const auto size = [&](std::int32_t c) { return groups_.begin[c + 1] - groups_.begin[c]; };
  std::sort(by_size_.begin(), by_size_.end(),
            [&](std::int32_t x, std::int32_t y) { return size(x) != size(y) ? size(x) > size(y) : x < y; });
  const auto large = static_cast<std::int64_t>(
      std::partition_point(by_size_.begin(), by_size_.end(), [&](std::int32_t c) { return size(c) >= 512; }) -
      by_size_.begin());
  // After some passes the random numbers no longer change: clusters that stay the same are then refined in the same
  // way, and the search comes to rest.
  const RngKey key =
      key_.fold(static_cast<std::uint64_t>(std::min(pass_, kExploringPasses))).fold(first_depth_ + depth_);
  const auto run = [&](std::int64_t begin, std::int64_t end, int worker) {
    for (std::int64_t i = begin; i < end; ++i)
      refine_cluster(graph, label, by_size_[static_cast<std::size_t>(i)], key,
                     scratch_[static_cast<std::size_t>(worker)]);
  };
  const Context& ctx = context_for(graph);
  parallel_chunks(ctx, large, 1,
                  [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) { run(begin, end, worker); });
  parallel_chunks(ctx, clusters - large, 64, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    run(large + begin, large + end, worker);
  });
}

template <class Edge>
void Sequential::refine_cluster(const GraphView<Edge>& graph, const std::int32_t* label, std::int32_t cluster,
                                RngKey key, Scratch& scratch) {
  const std::int32_t* const first = groups_.members.data() + groups_.begin[cluster];
  const std::int32_t* const last = groups_.members.data() + groups_.begin[cluster + 1];
  std::int64_t total = 0;
  for (const std::int32_t* m = first; m < last; ++m) {
    const std::int32_t v = *m;
    std::int64_t outside = 0;  // weight to the rest of the cluster
    for (std::int64_t e = graph.begin[v]; e < graph.end[v]; ++e)
      outside += label[graph.edges[e].to] == cluster ? static_cast<std::int64_t>(graph.edges[e].weight) : 0;
    refined_[v] = v;
    refined_size_[v] = 1;
    refined_strength_[v] = graph.strength[v];
    refined_outside_[v] = outside;
    total += graph.strength[v];
  }
  const auto well_connected = [&](std::int32_t r) {
    return quality_.score(refined_outside_[r], refined_strength_[r], total - refined_strength_[r]) >= 0;
  };
  const double per_theta = std::ldexp(quality_.unit, kGainShift) / theta_;
  std::int64_t* const sum = scratch.sum.data();
  for (const std::int32_t* m = first; m < last; ++m) {
    const std::int32_t v = *m;
    if (refined_[v] != v || refined_size_[v] != 1 || !well_connected(v)) continue;
    std::int32_t* const touched_begin = scratch.room(graph.end[v] - graph.begin[v]);
    const std::int32_t* const touched_end =
        scratch.gather(graph.edges + graph.begin[v], graph.edges + graph.end[v], touched_begin,
                       [&](std::int32_t u) { return label[u] == cluster ? refined_[u] : -1; });
    const std::int64_t k = graph.strength[v];
    // Staying alone has gain 0.
    std::int32_t* const choice = scratch.choice.data();
    double* const chance = scratch.chance.data();
    std::size_t choices = 1;
    choice[0] = v;
    chance[0] = 0;
    double most = 0;
    for (const std::int32_t* t = touched_begin; t < touched_end; ++t) {
      const Wide gain = quality_.score(sum[*t], k, refined_strength_[*t]);
      if (gain < 0 || !well_connected(*t)) continue;
      const double x = static_cast<double>(static_cast<std::int64_t>(gain >> kGainShift)) * per_theta;
      choice[choices] = *t;
      chance[choices++] = x;
      most = std::max(most, x);
    }
    const std::int32_t target =
        choices == 1 ? v : choice[pick(chance, choices, most, key, graph.id == nullptr ? v : graph.id[v])];
    if (target != v) {
      refined_[v] = target;
      refined_size_[v] = 0;
      ++refined_size_[target];
      refined_strength_[target] += k;
      refined_outside_[target] += refined_outside_[v] - 2 * sum[target];
    }
    for (const std::int32_t* t = touched_begin; t < touched_end; ++t) sum[*t] = 0;
  }
}

template std::int64_t Sequential::run(const GraphView<BaseEdge>&, std::int32_t*, int, std::size_t);
template std::int64_t Sequential::run(const GraphView<SumEdge>&, std::int32_t*, int, std::size_t);

}  // namespace scw::tl
