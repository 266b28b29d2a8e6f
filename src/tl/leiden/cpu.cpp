#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <numeric>
#include <optional>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "math/elementary.hpp"
#include "math/philox.hpp"
#include "tl/leiden/graph.hpp"
#include "tl/leiden/kernel.hpp"

namespace scw::tl::cpu {
namespace {

using Wide = __int128;

constexpr std::int64_t kSequentialVertices = 8192;  // up to here vertices are moved one by one in random order
constexpr std::int64_t kStartEntries = 1 << 18;     // stored entries over all starts, when their number is free
constexpr int kExploringPasses = 8;
constexpr std::int64_t kMaxStarts = 4;
constexpr std::uint64_t kOrderTag = 1;
constexpr std::uint64_t kRngTag = 0x4C656964656Eull;  // "Leiden"
constexpr std::int64_t kEvaluateGrain = 256;          // vertices of one colour evaluated by one call
constexpr std::int64_t kParallelEdges = 1 << 17;      // smaller levels are refined and aggregated by one thread
constexpr std::int64_t kWakeGrain = 1024;
constexpr std::int64_t kParallelActive = 4096;  // fewer active vertices of a colour are moved one by one
constexpr std::int64_t kRowGrain = 4096;
constexpr int kGainShift = 42;  // gains are below 2^105: shifted, they are 63-bit numbers

/// The quality in integers. With a = 2W 2^s and g = round(resolution 2^s), the quality of a clustering is
/// sum over clusters of (a e_c - g K_c^2) up to a constant factor: e_c = weight inside, K_c = strength. Factors stay
/// below 2^63 and products below 2^105 because W2 <= 2^41 and g, 2^s <= 2^21.
struct Quality {
  std::int64_t a, g;
  double unit;  // quality gain in edge weights = unit * integer gain

  Quality(double resolution, std::int64_t total, double scale) {
    int s = 21;
    while (s > 0 && std::ldexp(resolution, s) > 0x1p21) --s;
    g = std::llround(std::ldexp(resolution, s));
    a = std::max<std::int64_t>(1, total) << s;
    unit = 1.0 / (static_cast<double>(a) * scale);
  }
  /// Of vertices with strength k and weight w to a cluster of strength K (themselves not counted) being in it.
  Wide score(std::int64_t w, std::int64_t k, std::int64_t K) const { return Wide{a} * w - Wide{g * k} * K; }
};

/// One level of the hierarchy. Rows lie at begin[v] to end[v] of edges, with room between them.
template <class Edge>
struct GraphView {
  std::int64_t n;
  const std::int64_t* begin;
  const std::int64_t* end;
  const Edge* edges;
  const std::int64_t* strength;
  const std::int32_t* id;       // a number that stays the same from pass to pass; null: the vertex itself
  const IntegerGraph* classes;  // sets of vertices without edges among them; null: not known
};

struct Scratch {
  Array<std::int64_t> sum;  // [n] weight to each cluster, 0 between uses
  std::vector<std::int32_t> touched, choice;
  std::vector<double> chance;

  /// Room for the clusters that `degree` edges lead to, and one more for appending without a branch.
  std::int32_t* room(std::int64_t degree) {
    if (static_cast<std::int64_t>(touched.size()) <= degree) {
      touched.resize(static_cast<std::size_t>(degree) + 1);
      choice.resize(touched.size() + 1);
      chance.resize(touched.size() + 1);
    }
    return touched.data();
  }
};

struct Proposal {
  std::int32_t vertex, target;
  std::int64_t weight_here, weight_there;
};

/// An aggregated graph, kept from pass to pass with its capacity.
struct Level {
  std::int64_t n = 0;
  Array<std::int64_t> begin, end, strength;
  Array<SumEdge> edges;
  Array<std::int32_t> id, label, parent;  // parent: the vertex of the next level

  GraphView<SumEdge> view() const {
    return {n, begin.data(), end.data(), edges.data(), strength.data(), id.data(), nullptr};
  }
};

template <class T>
void reserve(const Context& ctx, Array<T>& array, std::int64_t n, const char* tag) {
  if (array.size() >= n) return;
  array = {};
  array = Array<T>(ctx.workspace, n, tag);
}

class Run {
 public:
  Run(const Context& ctx, const IntegerGraph& graph, double resolution, const LeidenOptions& options, int start)
      : ctx_(ctx),
        one_thread_(ctx),
        base_(&graph),
        quality_(resolution, graph.total, graph.scale),
        theta_(options.theta),
        key_(ctx.rng.fold(kRngTag).fold(static_cast<std::uint64_t>(start))),
        by_class_(graph.n > kSequentialVertices),
        active_(ctx.workspace, graph.n, "leiden active vertices"),
        cluster_strength_(ctx.workspace, graph.n, "leiden cluster strengths"),
        refined_(ctx.workspace, graph.n, "leiden refinement"),
        refined_strength_(ctx.workspace, graph.n, "leiden refinement strengths"),
        refined_outside_(ctx.workspace, graph.n, "leiden refinement cuts"),
        refined_size_(ctx.workspace, graph.n, "leiden refinement sizes"),
        members_(ctx.workspace, graph.n, "leiden members"),
        member_begin_(ctx.workspace, graph.n + 1, "leiden member offsets"),
        map_(ctx.workspace, graph.n, "leiden map"),
        parent_(ctx.workspace, graph.n, "leiden hierarchy"),
        label_(ctx.workspace, graph.n, "leiden labels"),
        scratch_(static_cast<std::size_t>(std::max(1, ctx.n_threads))) {
    for (Scratch& s : scratch_) {
      s.sum = Array<std::int64_t>(ctx.workspace, graph.n, "leiden sums");
      std::fill(s.sum.begin(), s.sum.end(), std::int64_t{0});
    }
    std::iota(label_.begin(), label_.end(), 0);
    one_thread_.n_threads = 1;
    if (!by_class_ || start > 0) {  // in random order
      std::vector<std::pair<std::uint64_t, std::int32_t>> keys(static_cast<std::size_t>(graph.n));
      const RngKey order_key = key_.fold(kOrderTag);
      for (std::size_t v = 0; v < keys.size(); ++v)
        keys[v] = {math::random_u64(order_key, v), static_cast<std::int32_t>(v)};
      std::sort(keys.begin(), keys.end());
      for (std::size_t v = 0; v < keys.size(); ++v) members_[static_cast<std::int64_t>(v)] = keys[v].second;
      sorted_.emplace(ctx_, graph, std::as_const(members_).view());
      base_ = &*sorted_;
    }
  }

  /// One pass over all levels; the number of moves.
  std::int64_t pass() {
    const GraphView<BaseEdge> base{
        base_->n, base_->offsets.data(),      base_->offsets.data() + 1, base_->edges.data(), base_->strength.data(),
        nullptr,  by_class_ ? base_ : nullptr};
    std::int64_t moves = move(base, label_.data());
    clusters_ = number(label_.data(), base.n);
    depth_ = 0;
    bool coarser = clusters_ < base.n && coarsen(base, label_.data(), parent_);
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
      for (std::int64_t v = 0; v < base.n; ++v) label_[v] = levels_[0].label[parent_[v]];
    ++pass_;
    return moves;
  }

  /// Renumbers the vertices by the hierarchy of the last pass: those that later passes look up together lie together.
  void sort_vertices() {
    if (depth_ == 0 || !by_class_) return;  // small graphs lie in the cache, and keep their random order
    Level& top = levels_[depth_ - 1];
    group(top.n, clusters_, [&](std::int64_t v) { return top.label[v]; });
    const auto rank = [&](std::int64_t n, Array<std::int32_t>& out) {
      for (std::int64_t i = 0; i < n; ++i) out[members_[i]] = static_cast<std::int32_t>(i);
    };
    for (std::size_t d = depth_ - 1; d-- > 0;) {
      rank(levels_[d + 1].n, map_);
      group(levels_[d].n, levels_[d + 1].n, [&](std::int64_t v) { return map_[levels_[d].parent[v]]; });
    }
    rank(levels_[0].n, map_);
    group(base_->n, levels_[0].n, [&](std::int64_t v) { return map_[parent_[v]]; });
    sorted_.emplace(ctx_, *base_, std::as_const(members_).view());
    for (std::int64_t v = 0; v < base_->n; ++v) map_[v] = label_[members_[v]];
    label_.swap(map_);
    base_ = &*sorted_;
  }

  /// The quality of the clustering, in integers: runs of the same graph and resolution are compared by it.
  Wide quality() {
    std::fill_n(cluster_strength_.data(), base_->n, std::int64_t{0});
    std::int64_t inside = 0;
    for (std::int64_t v = 0; v < base_->n; ++v) {
      cluster_strength_[label_[v]] += base_->strength[v];
      for (std::int64_t e = base_->offsets[v]; e < base_->offsets[v + 1]; ++e)
        inside += label_[base_->edges[e].to] == label_[v] ? std::int64_t{base_->edges[e].weight} : 0;
    }
    Wide sum = quality_.score(inside, 0, 0);
    for (std::int64_t c = 0; c < base_->n; ++c) sum += quality_.score(0, cluster_strength_[c], cluster_strength_[c]);
    return sum;
  }

  /// Makes every connected part of a cluster a cluster; the quality does not fall.
  void split_parts() {
    // refined_ = part of each vertex; members_ = the queue of a breadth-first search.
    std::fill(refined_.begin(), refined_.end(), -1);
    std::int32_t parts = 0;
    for (std::int64_t start = 0; start < base_->n; ++start) {
      if (start % kRowGrain == 0) ctx_.check_cancelled("tl.leiden");
      if (refined_[start] >= 0) continue;
      std::int64_t head = 0, tail = 0;
      members_[tail++] = static_cast<std::int32_t>(start);
      refined_[start] = parts;
      while (head < tail) {
        const std::int32_t v = members_[head++];
        for (std::int64_t e = base_->offsets[v]; e < base_->offsets[v + 1]; ++e) {
          const std::int32_t u = base_->edges[e].to;
          if (refined_[u] >= 0 || label_[u] != label_[v]) continue;
          refined_[u] = parts;
          members_[tail++] = u;
        }
      }
      ++parts;
    }
    std::copy(refined_.begin(), refined_.end(), label_.begin());
  }

  /// Labels of the input's vertices, numbered by size, then smallest vertex; returns the sizes.
  std::vector<std::int64_t> finish(Span<std::int32_t> out) {
    split_parts();
    struct Cluster {
      std::int64_t size = 0;
      std::int32_t first = 0, label = 0;
    };
    std::vector<Cluster> clusters;
    for (std::int64_t v = 0; v < base_->n; ++v) out[base_->original[v]] = label_[v];
    for (std::int64_t i = 0; i < base_->n; ++i) {
      const auto c = static_cast<std::size_t>(out[i]);
      if (c >= clusters.size()) clusters.resize(c + 1);
      if (clusters[c].size++ == 0) clusters[c].first = static_cast<std::int32_t>(i);
      clusters[c].label = out[i];
    }
    std::sort(clusters.begin(), clusters.end(), [](const Cluster& x, const Cluster& y) {
      return x.size != y.size ? x.size > y.size : x.first < y.first;
    });
    std::vector<std::int64_t> sizes(clusters.size());
    for (std::size_t r = 0; r < clusters.size(); ++r) {
      map_[clusters[r].label] = static_cast<std::int32_t>(r);
      sizes[r] = clusters[r].size;
    }
    for (std::int32_t& c : out) c = map_[c];
    return sizes;
  }

 private:
  /// The best cluster for v, -1 for a new one; ties to the present one, then to the smaller number.
  template <class Edge>
  Proposal evaluate(const GraphView<Edge>& graph, const std::int32_t* label, std::int64_t v, Scratch& scratch) const {
    const std::int32_t here = label[v];
    std::int64_t* const sum = scratch.sum.data();
    std::int32_t* const touched_begin = scratch.room(graph.end[v] - graph.begin[v]);
    std::int32_t* touched_end = touched_begin;
    for (std::int64_t e = graph.begin[v]; e < graph.end[v]; ++e) {
      const std::int32_t c = label[graph.edges[e].to];
      *touched_end = c;  // without a branch: whether a cluster is new is not predictable
      touched_end += sum[c] == 0 ? 1 : 0;
      sum[c] += static_cast<std::int64_t>(graph.edges[e].weight);
    }
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
  bool commit(const GraphView<Edge>& graph, std::int32_t* label, Proposal& p) {
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
  /// there are none. All vertices of a colour are evaluated at once: none has a neighbour among them, so their weights
  /// to clusters stay right while they are moved one after the other, and the gain is checked again with the strengths
  /// of that moment. So every move raises the quality, and the result does not depend on the threads.
  template <class Edge>
  std::int64_t move(const GraphView<Edge>& graph, std::int32_t* label) {
    const std::int64_t n = graph.n;
    std::fill_n(active_.data(), n, std::uint8_t{1});
    std::fill_n(cluster_strength_.data(), n, std::int64_t{0});
    cluster_size_.assign(static_cast<std::size_t>(n), 0);
    for (std::int64_t v = 0; v < n; ++v) {
      cluster_strength_[label[v]] += graph.strength[v];
      ++cluster_size_[label[v]];
    }
    empty_.clear();
    for (std::int64_t c = n - 1; c >= 0; --c)
      if (cluster_size_[static_cast<std::size_t>(c)] == 0) empty_.push_back(static_cast<std::int32_t>(c));

    std::int64_t moves = 0;
    bool any = true;
    while (any) {
      any = false;
      if (graph.classes == nullptr) {
        ctx_.check_cancelled("tl.leiden");
        moves += move_in_order(graph, label, nullptr, n, any);
        continue;
      }
      const auto& begin = graph.classes->class_begin;
      for (std::size_t c = 0; c + 1 < begin.size(); ++c) {
        ctx_.check_cancelled("tl.leiden");
        moves += move_class(graph, label, graph.classes->class_members.data() + begin[c], begin[c + 1] - begin[c], any);
      }
    }
    return moves;
  }

  // The vertices of a class lie far apart: without these, half of the time goes into waiting for their rows.
  static constexpr std::int64_t kAhead = 4;
  template <class Edge>
  static void prefetch_offsets(const GraphView<Edge>& graph, std::int64_t v) {
    __builtin_prefetch(graph.begin + v);
  }
  template <class Edge>
  static void prefetch_row(const GraphView<Edge>& graph, std::int64_t v) {
    const auto* const row = reinterpret_cast<const char*>(graph.edges + graph.begin[v]);
    for (int line = 0; line < 3; ++line) __builtin_prefetch(row + 64 * line);
  }

  /// members: n vertices; null: all.
  template <class Edge>
  std::int64_t move_in_order(const GraphView<Edge>& graph, std::int32_t* label, const std::int32_t* members,
                             std::int64_t n, bool& any) {
    std::int64_t moves = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t v = members == nullptr ? i : members[i];
      if (members != nullptr && i + kAhead < n && active_[members[i + kAhead]] != 0)
        prefetch_row(graph, members[i + kAhead]);
      if (active_[v] == 0) continue;
      active_[v] = 0;
      Proposal p = evaluate(graph, label, v, scratch_[0]);
      if (p.target == label[v] || !commit(graph, label, p)) continue;
      ++moves;
      any = true;
      wake(graph, label, v);
    }
    return moves;
  }

  template <class Edge>
  std::int64_t move_class(const GraphView<Edge>& graph, std::int32_t* label, const std::int32_t* members,
                          std::int64_t n, bool& any) {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < n; ++i) count += active_[members[i]];
    if (count == 0) return 0;
    if (count < kParallelActive) return move_in_order(graph, label, members, n, any);
    proposals_.resize(static_cast<std::size_t>(count));
    Proposal* const proposals = proposals_.data();
    count = 0;
    for (std::int64_t i = 0; i < n; ++i)
      if (active_[members[i]] != 0) {
        active_[members[i]] = 0;
        proposals[count++].vertex = members[i];
      }
    parallel_chunks(ctx_, count, kEvaluateGrain, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
      for (std::int64_t i = begin; i < end; ++i) {
        if (i + 2 * kAhead < end) prefetch_offsets(graph, proposals[i + 2 * kAhead].vertex);
        if (i + kAhead < end) prefetch_row(graph, proposals[i + kAhead].vertex);
        proposals[i] = evaluate(graph, label, proposals[i].vertex, scratch_[static_cast<std::size_t>(worker)]);
      }
    });
    std::int64_t moves = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      Proposal p = proposals[i];
      if (p.target == label[p.vertex]) continue;
      any = true;
      if (commit(graph, label, p))
        proposals[moves++] = p;
      else
        active_[p.vertex] = 1;
    }
    parallel_for(ctx_, moves, kWakeGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) wake(graph, label, proposals[i].vertex);
    });
    return moves;
  }

  /// Several threads may set the same flag.
  template <class Edge>
  void wake(const GraphView<Edge>& graph, const std::int32_t* label, std::int64_t v) {
    for (std::int64_t e = graph.begin[v]; e < graph.end[v]; ++e) {
      const std::int32_t u = graph.edges[e].to;
      if (label[u] != label[v]) std::atomic_ref<std::uint8_t>(active_[u]).store(1, std::memory_order_relaxed);
    }
  }

  /// Renumbers the labels 0, 1, ... in order of first appearance; how many there are.
  std::int64_t number(std::int32_t* label, std::int64_t n) {
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
  bool coarsen(const GraphView<Edge>& graph, const std::int32_t* label, Array<std::int32_t>& parent) {
    if (levels_.size() <= depth_ + 1) levels_.resize(depth_ + 2);
    refine(graph, label);
    const std::int64_t n = graph.n;
    std::int32_t next = 0;
    for (std::int64_t v = 0; v < n; ++v)
      if (refined_[v] == v) map_[v] = next++;
    if (next == n) return false;
    reserve(ctx_, parent, n, "leiden hierarchy");
    for (std::int64_t v = 0; v < n; ++v) parent[v] = map_[refined_[v]];
    aggregate(graph, label, parent.data(), next, levels_[depth_]);
    return true;
  }

  /// The context for work on a whole level: waiting for a second thread costs more than small levels take.
  template <class Edge>
  const Context& context_for(const GraphView<Edge>& graph) const {
    return graph.n > 0 && graph.end[graph.n - 1] >= kParallelEdges ? ctx_ : one_thread_;
  }

  /// members_ in groups, by counting: vertices of group c, ascending, at member_begin_[c] to member_begin_[c + 1].
  template <class Group>
  void group(std::int64_t n, std::int64_t groups, Group&& group_of) {
    std::fill_n(member_begin_.data(), groups + 1, std::int64_t{0});
    for (std::int64_t v = 0; v < n; ++v) ++member_begin_[group_of(v)];
    std::int64_t end = 0;
    for (std::int64_t c = 0; c <= groups; ++c) {
      end += member_begin_[c];
      member_begin_[c] = end;
    }
    for (std::int64_t v = n - 1; v >= 0; --v) members_[--member_begin_[group_of(v)]] = static_cast<std::int32_t>(v);
  }

  /// Refinement (algorithm A.2, MergeNodesSubset): clusters are independent of each other, so they go in parallel.
  template <class Edge>
  void refine(const GraphView<Edge>& graph, const std::int32_t* label) {
    const std::int64_t clusters = clusters_;
    group(graph.n, clusters, [&](std::int64_t v) { return label[v]; });
    // Large clusters first, one at a time; small ones in batches.
    by_size_.resize(static_cast<std::size_t>(clusters));
    std::iota(by_size_.begin(), by_size_.end(), 0);
    const auto size = [&](std::int32_t c) { return member_begin_[c + 1] - member_begin_[c]; };
    std::sort(by_size_.begin(), by_size_.end(),
              [&](std::int32_t x, std::int32_t y) { return size(x) != size(y) ? size(x) > size(y) : x < y; });
    const auto large = static_cast<std::int64_t>(
        std::partition_point(by_size_.begin(), by_size_.end(), [&](std::int32_t c) { return size(c) >= 512; }) -
        by_size_.begin());
    // After some passes the random numbers no longer change: clusters that stay the same are then refined in the same
    // way, and the search comes to rest.
    const RngKey key = key_.fold(static_cast<std::uint64_t>(std::min(pass_, kExploringPasses))).fold(depth_);
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
  void refine_cluster(const GraphView<Edge>& graph, const std::int32_t* label, std::int32_t cluster, RngKey key,
                      Scratch& scratch) {
    const std::int32_t* const first = members_.data() + member_begin_[cluster];
    const std::int32_t* const last = members_.data() + member_begin_[cluster + 1];
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
      std::int32_t* touched_end = touched_begin;
      for (std::int64_t e = graph.begin[v]; e < graph.end[v]; ++e) {
        const std::int32_t u = graph.edges[e].to;
        if (label[u] != cluster) continue;
        const std::int32_t r = refined_[u];
        *touched_end = r;
        touched_end += sum[r] == 0 ? 1 : 0;
        sum[r] += static_cast<std::int64_t>(graph.edges[e].weight);
      }
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

  /// i with probability proportional to exp(x[i]); most is the largest x. Overwrites x.
  static std::size_t pick(double* x, std::size_t n, double most, RngKey key, std::int32_t v) {
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

  /// The graph of the refined clusters, each labelled with its cluster.
  template <class Edge>
  void aggregate(const GraphView<Edge>& graph, const std::int32_t* label, const std::int32_t* parent,
                 std::int64_t nodes, Level& level) {
    group(graph.n, nodes, [&](std::int64_t v) { return parent[v]; });
    level.n = nodes;
    reserve(ctx_, level.begin, nodes, "leiden level offsets");
    reserve(ctx_, level.end, nodes, "leiden level offsets");
    reserve(ctx_, level.strength, nodes, "leiden level strengths");
    reserve(ctx_, level.label, nodes, "leiden level labels");
    reserve(ctx_, level.id, nodes, "leiden level numbers");
    std::int64_t room = 0;
    for (std::int64_t a = 0; a < nodes; ++a) {
      level.begin[a] = room;
      for (std::int64_t m = member_begin_[a]; m < member_begin_[a + 1]; ++m)
        room += graph.end[members_[m]] - graph.begin[members_[m]];
    }
    reserve(ctx_, level.edges, room, "leiden level edges");
    parallel_chunks(context_for(graph), nodes, 512,
                    [&](std::int64_t, std::int64_t first, std::int64_t last, int worker) {
                      Scratch& scratch = scratch_[static_cast<std::size_t>(worker)];
                      std::int64_t* const sum = scratch.sum.data();
                      for (std::int64_t a = first; a < last; ++a) {
                        std::int64_t k = 0;
                        std::int64_t degree = 0;
                        for (std::int64_t m = member_begin_[a]; m < member_begin_[a + 1]; ++m)
                          degree += graph.end[members_[m]] - graph.begin[members_[m]];
                        std::int32_t* const touched_begin = scratch.room(std::min(degree, nodes));
                        std::int32_t* touched_end = touched_begin;
                        for (std::int64_t m = member_begin_[a]; m < member_begin_[a + 1]; ++m) {
                          const std::int32_t v = members_[m];
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
                        const std::int32_t first_member = members_[member_begin_[a]];
                        level.label[a] = label[first_member];
                        level.id[a] = graph.id == nullptr ? first_member : graph.id[first_member];
                      }
                    });
  }

  const Context& ctx_;
  Context one_thread_;
  const IntegerGraph* base_;
  std::optional<IntegerGraph> sorted_;
  const Quality quality_;
  const double theta_;
  const RngKey key_;
  const bool by_class_;
  int pass_ = 0;
  std::size_t depth_ = 0;  // levels of the last pass above the input
  std::int64_t clusters_ = 0;
  Array<std::uint8_t> active_;
  Array<std::int64_t> cluster_strength_;
  Array<std::int32_t> refined_;
  Array<std::int64_t> refined_strength_, refined_outside_;
  Array<std::int32_t> refined_size_;
  Array<std::int32_t> members_;
  Array<std::int64_t> member_begin_;
  Array<std::int32_t> map_, parent_, label_;
  std::vector<Scratch> scratch_;
  std::vector<std::int32_t> cluster_size_, empty_, by_size_;
  std::vector<Proposal> proposals_;
  std::deque<Level> levels_;  // growing keeps references
};

struct Outcome {
  Leiden result;
  Wide quality = 0;
};

Outcome cluster(const Context& ctx, const UndirectedGraph& graph, const IntegerGraph& integers, double resolution,
                const LeidenOptions& options, int start, bool report) {
  Outcome outcome;
  Leiden& out = outcome.result;
  out.labels = Array<std::int32_t>(ctx.memory, integers.n, "leiden labels");
  Run run(ctx, integers, resolution, options, start);
  while (options.n_iterations < 0 || out.n_iterations < options.n_iterations) {
    if (report) ctx.report("leiden", out.n_iterations, std::max(0, options.n_iterations));
    ++out.n_iterations;
    if (run.pass() == 0) {
      out.converged = true;
      break;
    }
    if (out.n_iterations == 1 && options.n_iterations != 1) run.sort_vertices();
  }
  const std::vector<std::int64_t> sizes = run.finish(out.labels.view());
  outcome.quality = run.quality();
  out.n_clusters = static_cast<std::int32_t>(sizes.size());
  out.cluster_sizes = Array<std::int64_t>(host_memory(), out.n_clusters, "leiden cluster sizes");
  std::copy(sizes.begin(), sizes.end(), out.cluster_sizes.begin());
  out.modularity = graph.modularity(ctx, std::as_const(out.labels).view(), out.n_clusters, resolution);
  return outcome;
}

}  // namespace

void leiden(const Context& ctx, const AnyCsrView& graph, Span<const double> resolutions, const LeidenOptions& options,
            Span<Leiden> results) {
  const UndirectedGraph undirected(ctx, "tl.leiden", graph, options.use_weights);
  const IntegerGraph integers(ctx, undirected);
  const std::int64_t starts =
      options.n_starts > 0
          ? options.n_starts
          : std::clamp<std::int64_t>(kStartEntries / std::max<std::int64_t>(1, integers.edges.size()), 1, kMaxStarts);
  std::vector<Outcome> outcomes(static_cast<std::size_t>(checked_mul(starts, resolutions.size)));
  const auto n_runs = static_cast<std::int64_t>(outcomes.size());
  const auto run = [&](const Context& c, std::int64_t i, bool report) {
    outcomes[static_cast<std::size_t>(i)] =
        cluster(c, undirected, integers, resolutions[i / starts], options, static_cast<int>(i % starts), report);
  };
  if (n_runs > 1 && n_runs >= ctx.n_threads) {
    // Calls inside a parallel loop run on their own thread: each run needs the scratch of one.
    Context one = ctx;
    one.n_threads = 1;
    parallel_for(ctx, n_runs, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) run(one, i, false);
    });
  } else {
    for (std::int64_t i = 0; i < n_runs; ++i) run(ctx, i, true);
  }
  for (std::int64_t r = 0; r < resolutions.size; ++r) {
    const auto first = outcomes.begin() + r * starts;
    results[r] = std::move(std::max_element(first, first + starts, [](const Outcome& x, const Outcome& y) {
                             return x.quality < y.quality;
                           })->result);  // the first of equals
  }
}

SCW_REGISTER(leiden_kernel, cpu, &leiden);

}  // namespace scw::tl::cpu
