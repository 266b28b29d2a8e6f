#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <numeric>
#include <optional>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "math/philox.hpp"
#include "tl/leiden/graph.hpp"
#include "tl/leiden/kernel.hpp"
#include "tl/leiden/rules.hpp"
#include "tl/leiden/sequential.hpp"

namespace scw::tl::cpu {
namespace {

constexpr std::uint64_t kOrderTag = 1;
constexpr std::int64_t kEvaluateGrain = 256;    // vertices evaluated by one call
constexpr std::int64_t kParallelActive = 2048;  // rounds of fewer vertices are worked on by one thread
constexpr std::int64_t kRowGrain = 4096;

template <class T>
T load(T& x) {
  return std::atomic_ref<T>(x).load(std::memory_order_relaxed);
}
void set(std::uint8_t& x) { std::atomic_ref<std::uint8_t>(x).store(1, std::memory_order_relaxed); }

/// A clustering of one graph at one resolution. Up to kSmallVertices it is found vertex by vertex (Sequential); the
/// levels of larger graphs are worked on in synchronous rounds (MoveRound, RefineRound), whose results do not depend
/// on the order of the vertices within a round.
class Run {
 public:
  Run(const Context& ctx, const IntegerGraph& graph, double resolution, const LeidenOptions& options, int start)
      : ctx_(ctx),
        one_thread_(ctx),
        base_(&graph),
        n_(graph.n),
        small_(graph.n <= kSmallVertices),
        quality_(resolution, graph.total, graph.scale),
        key_(ctx.rng.fold(kRngTag).fold(static_cast<std::uint64_t>(start))),
        sequential_(ctx, std::min(graph.n, kSmallVertices), quality_, options.theta, key_),
        groups_(ctx, graph.n),
        map_(ctx.workspace, 2 * graph.n, "leiden map"),
        label_(ctx.workspace, graph.n, "leiden labels") {
    one_thread_.n_threads = 1;
    std::iota(label_.begin(), label_.end(), 0);
    if (small_) {  // in random order
      std::vector<std::pair<std::uint64_t, std::int32_t>> keys(static_cast<std::size_t>(n_));
      const RngKey order_key = key_.fold(kOrderTag);
      for (std::size_t v = 0; v < keys.size(); ++v)
        keys[v] = {math::random_u64(order_key, v), static_cast<std::int32_t>(v)};
      std::sort(keys.begin(), keys.end());
      for (std::size_t v = 0; v < keys.size(); ++v) groups_.members[static_cast<std::int64_t>(v)] = keys[v].second;
      sorted_.emplace(ctx_, graph, std::as_const(groups_.members).view());
      base_ = &*sorted_;
      return;
    }
    noise_ = refinement_noise(quality_, options.theta);
    const auto array = [&](auto& a, std::int64_t size, const char* tag) {
      a = std::remove_reference_t<decltype(a)>(ctx.workspace, size, tag);
    };
    array(flag_, n_, "leiden flags");
    array(target_, n_, "leiden proposals");
    array(cluster_strength_, 2 * n_, "leiden cluster strengths");
    array(entering_, 2 * n_, "leiden strengths that enter");
    array(leaving_, 2 * n_, "leiden strengths that leave");
    array(first_in_, 2 * n_, "leiden first to enter");
    array(first_out_, 2 * n_, "leiden first to leave");
    array(refined_, n_, "leiden refinement");
    array(refined_strength_, n_, "leiden refinement strengths");
    array(refined_outside_, n_, "leiden refinement cuts");
    array(grown_, n_, "leiden refinement sizes");
    array(joined_, n_, "leiden refinement rounds");
    array(parent_, n_, "leiden hierarchy");
    for (auto* a : {&entering_, &leaving_}) std::fill(a->begin(), a->end(), std::int64_t{0});
    for (auto* a : {&first_in_, &first_out_}) std::fill(a->begin(), a->end(), std::uint64_t{0});
    scratch_.resize(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
    for (Scratch& s : scratch_) {
      s.sum = Array<std::int64_t>(ctx.workspace, 2 * n_, "leiden sums");
      std::fill(s.sum.begin(), s.sum.end(), std::int64_t{0});
    }
  }

  /// One pass over all levels; the number of moves.
  std::int64_t pass() {
    const GraphView<BaseEdge> base{
        n_, base_->offsets.data(), base_->offsets.data() + 1, base_->edges.data(), base_->strength.data(), nullptr};
    if (small_) return sequential_.pass(base, label_.data(), pass_++, 0);
    depth_ = 0;
    std::int64_t moves = move(base, label_.data());
    bool coarser = coarsen(base, label_.data(), parent_);
    while (coarser) {
      Level& level = levels_[depth_++];
      if (level.n <= kSmallVertices) {
        moves += sequential_.pass(level.view(), level.label.data(), pass_, depth_);
        break;
      }
      moves += move(level.view(), level.label.data());
      coarser = coarsen(level.view(), level.label.data(), level.parent);
    }
    for (std::size_t d = depth_; d-- > 1;) {
      Level& fine = levels_[d - 1];
      for (std::int64_t v = 0; v < fine.n; ++v) fine.label[v] = levels_[d].label[fine.parent[v]];
    }
    if (depth_ > 0)
      for (std::int64_t v = 0; v < n_; ++v) label_[v] = levels_[0].label[parent_[v]];
    ++pass_;
    return moves;
  }

  /// The quality of the clustering, in integers: runs of the same graph and resolution are compared by it.
  Wide quality() {
    std::vector<std::int64_t> strength(static_cast<std::size_t>(n_), 0);
    std::int64_t inside = 0;
    for (std::int64_t v = 0; v < n_; ++v) {
      strength[static_cast<std::size_t>(label_[v])] += base_->strength[v];
      for (std::int64_t e = base_->offsets[v]; e < base_->offsets[v + 1]; ++e)
        inside += label_[base_->edges[e].to] == label_[v] ? std::int64_t{base_->edges[e].weight} : 0;
    }
    return quality_.total(inside, Span<const std::int64_t>(strength));
  }

  /// Labels of the input's vertices, numbered by size, then smallest vertex; returns the sizes.
  std::vector<std::int64_t> finish(Span<std::int32_t> out) {
    split_parts();
    struct Cluster {
      std::int64_t size = 0;
      std::int32_t first = 0, label = 0;
    };
    std::vector<Cluster> clusters;
    for (std::int64_t v = 0; v < n_; ++v) out[base_->original[v]] = label_[v];
    for (std::int64_t i = 0; i < n_; ++i) {
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
  struct Proposal {
    std::int32_t vertex, target;
    std::int64_t here, there;  // weight to the cluster left and to the cluster entered
    bool survives;
  };
  struct Choice {
    std::int32_t vertex, target;
    std::int64_t weight;
  };

  const Context& context_for(std::int64_t vertices) const { return vertices >= kParallelActive ? ctx_ : one_thread_; }
  RngKey level_key() const {
    return key_.fold(static_cast<std::uint64_t>(std::min(pass_, kExploringPasses))).fold(depth_);
  }

  /// Makes every connected part of a cluster a cluster; the quality does not fall.
  void split_parts() {
    // groups_.members = the queue of a breadth-first search.
    Array<std::int32_t> part(ctx_.workspace, n_, "leiden parts");
    Array<std::int32_t>& queue = groups_.members;
    std::fill(part.begin(), part.end(), -1);
    std::int32_t parts = 0;
    for (std::int64_t start = 0; start < n_; ++start) {
      if (start % kRowGrain == 0) ctx_.check_cancelled("tl.leiden");
      if (part[start] >= 0) continue;
      std::int64_t head = 0, tail = 0;
      queue[tail++] = static_cast<std::int32_t>(start);
      part[start] = parts;
      while (head < tail) {
        const std::int32_t v = queue[head++];
        for (std::int64_t e = base_->offsets[v]; e < base_->offsets[v + 1]; ++e) {
          const std::int32_t u = base_->edges[e].to;
          if (part[u] >= 0 || label_[u] != label_[v]) continue;
          part[u] = parts;
          queue[tail++] = u;
        }
      }
      ++parts;
    }
    label_.swap(part);
  }

  /// The best cluster for v as things stand; ties to the present one, then to the smaller number.
  template <class Edge>
  void evaluate(const GraphView<Edge>& graph, const std::int32_t* label, Proposal& p, Scratch& scratch) const {
    const std::int32_t v = p.vertex, here = label[v];
    std::int64_t* const sum = scratch.sum.data();
    std::int32_t* const touched = scratch.room(graph.end[v] - graph.begin[v]);
    const std::int32_t* const touched_end = scratch.gather(graph.edges + graph.begin[v], graph.edges + graph.end[v],
                                                           touched, [&](std::int32_t u) { return label[u]; });
    const std::int64_t k = graph.strength[v];
    p.target = here;
    p.here = p.there = sum[here];
    Wide best = quality_.score(sum[here], k, cluster_strength_[here] - k);
    if (best < 0 && cluster_strength_[graph.n + v] == 0) {
      p.target = static_cast<std::int32_t>(graph.n) + v;
      p.there = 0;
      best = 0;
    }
    for (const std::int32_t* t = touched; t < touched_end; ++t) {
      const std::int32_t c = *t;
      const std::int64_t w = sum[c];
      sum[c] = 0;
      if (c == here) continue;
      const Wide score = quality_.score(w, k, cluster_strength_[c]);
      if (score > best || (score == best && p.target != here && c < p.target)) {
        best = score;
        p.target = c;
        p.there = w;
      }
    }
  }

  /// Local moving in synchronous rounds, from `label` to a clustering that no single move
  /// improves; its clusters are numbered from 0, and clusters_ and cluster_strength_ describe it.
  template <class Edge>
  std::int64_t move(const GraphView<Edge>& graph, std::int32_t* label) {
    const std::int64_t n = graph.n;
    std::fill_n(cluster_strength_.data(), 2 * n, std::int64_t{0});
    for (std::int64_t v = 0; v < n; ++v) cluster_strength_[label[v]] += graph.strength[v];
    std::fill_n(target_.data(), n, -1);
    std::fill_n(flag_.data(), n, std::uint8_t{0});
    proposals_.clear();
    for (std::int64_t v = 0; v < n; ++v)
      if (graph.end[v] > graph.begin[v]) proposals_.push_back({static_cast<std::int32_t>(v), 0, 0, 0, false});
    const std::uint64_t salt = math::random_u64(level_key(), kMoveTag);
    std::int64_t moves = 0;
    int thin = 0;
    for (std::uint64_t r = 0; !proposals_.empty(); ++r) {
      ctx_.check_cancelled("tl.leiden");
      const MoveRound round(salt, r, thin);
      const auto each = [&](auto&& f) {
        const auto count = static_cast<std::int64_t>(proposals_.size());
        parallel_chunks(context_for(count), count, kEvaluateGrain,
                        [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
                          for (std::int64_t i = begin; i < end; ++i)
                            f(proposals_[static_cast<std::size_t>(i)], scratch_[static_cast<std::size_t>(worker)]);
                        });
      };
      each([&](Proposal& p, Scratch& scratch) {
        evaluate(graph, label, p, scratch);
        if (p.target != label[p.vertex]) target_[p.vertex] = p.target;
      });
      std::erase_if(proposals_, [&](const Proposal& p) { return target_[p.vertex] < 0; });
      each([&](Proposal& p, Scratch&) {
        const std::int32_t from = label[p.vertex];
        p.survives = round.takes_part(p.vertex);
        for (std::int64_t e = graph.begin[p.vertex]; p.survives && e < graph.end[p.vertex]; ++e) {
          const std::int32_t u = graph.edges[e].to;
          p.survives = target_[u] < 0 || !round.waits(from, p.target, label[u], target_[u]);
        }
      });
      std::int64_t taking_part = 0;
      for (const Proposal& p : proposals_) {
        if (!p.survives) continue;
        ++taking_part;
        const std::int32_t from = label[p.vertex];
        entering_[p.target] += graph.strength[p.vertex];
        leaving_[from] += graph.strength[p.vertex];
        first_in_[p.target] = std::max(first_in_[p.target], round.turn(p.vertex));
        first_out_[from] = std::max(first_out_[from], round.turn(p.vertex));
      }
      std::int64_t moved = 0;
      for (Proposal& p : proposals_) {
        target_[p.vertex] = -1;
        if (!p.survives) continue;
        const std::int32_t from = label[p.vertex];
        const std::int64_t k = graph.strength[p.vertex];
        const std::uint64_t turn = round.turn(p.vertex);
        p.survives = (first_in_[p.target] == turn && first_out_[from] == turn) ||
                     quality_.score(p.there, k, cluster_strength_[p.target] + entering_[p.target] - k) >
                         quality_.score(p.here, k, cluster_strength_[from] - leaving_[from]);
      }
      for (const Proposal& p : proposals_) {  // all who took part have set these
        const std::int32_t from = label[p.vertex];
        first_in_[p.target] = first_out_[from] = 0;
        entering_[p.target] = leaving_[from] = 0;
      }
      next_.clear();
      for (Proposal& p : proposals_) {
        if (!p.survives) {
          flag_[p.vertex] = 1;
          next_.push_back(p.vertex);
          continue;
        }
        const std::int64_t k = graph.strength[p.vertex];
        cluster_strength_[label[p.vertex]] -= k;
        cluster_strength_[p.target] += k;
        label[p.vertex] = p.target;
        ++moved;
      }
      const bool many = moved >= kParallelActive;
      const auto neighbours_to_wake = [&](const Proposal& p, auto&& f) {
        if (!p.survives) return;
        for (std::int64_t e = graph.begin[p.vertex]; e < graph.end[p.vertex]; ++e)
          if (label[graph.edges[e].to] != p.target) f(graph.edges[e].to);
      };
      if (many) {
        each([&](const Proposal& p, Scratch&) { neighbours_to_wake(p, [&](std::int32_t u) { set(flag_[u]); }); });
        proposals_.clear();
        for (std::int64_t v = 0; v < n; ++v)
          if (flag_[v] != 0) proposals_.push_back({static_cast<std::int32_t>(v), 0, 0, 0, false});
      } else {
        for (const Proposal& p : proposals_)
          neighbours_to_wake(p, [&](std::int32_t u) {
            if (flag_[u] != 0) return;
            flag_[u] = 1;
            next_.push_back(u);
          });
        proposals_.clear();
        for (const std::int32_t v : next_) proposals_.push_back({v, 0, 0, 0, false});
      }
      for (const Proposal& p : proposals_) flag_[p.vertex] = 0;
      moves += moved;
      thin = MoveRound::adapt(thin, taking_part, moved);
    }
    number(graph, label);
    return moves;
  }

  /// Renumbers the labels, keeping their order; clusters_ of them.
  template <class Edge>
  void number(const GraphView<Edge>& graph, std::int32_t* label) {
    std::fill_n(map_.data(), 2 * graph.n, -1);
    for (std::int64_t v = 0; v < graph.n; ++v) map_[label[v]] = 0;
    std::int32_t next = 0;
    for (std::int64_t c = 0; c < 2 * graph.n; ++c)
      if (map_[c] == 0) map_[c] = next++;
    clusters_ = next;
    for (std::int64_t v = 0; v < graph.n; ++v) label[v] = map_[label[v]];
    std::fill_n(cluster_strength_.data(), clusters_, std::int64_t{0});
    for (std::int64_t v = 0; v < graph.n; ++v) cluster_strength_[label[v]] += graph.strength[v];
  }

  /// Refines the clusters and aggregates the result into levels_[depth_]; false if nothing could be merged. parent
  /// leads from a vertex to its aggregate.
  template <class Edge>
  bool coarsen(const GraphView<Edge>& graph, const std::int32_t* label, Array<std::int32_t>& parent) {
    const std::int64_t n = graph.n;
    if (clusters_ == n) return false;
    if (levels_.size() <= depth_) levels_.resize(depth_ + 1);
    refine(graph, label);
    std::int32_t next = 0;
    for (std::int64_t v = 0; v < n; ++v)
      if (refined_[v] == v) map_[v] = next++;
    if (next == n) return false;
    reserve(ctx_, parent, n, "leiden hierarchy");
    for (std::int64_t v = 0; v < n; ++v) parent[v] = map_[refined_[v]];
    groups_.fill(n, next, [&](std::int64_t v) { return parent[v]; });
    Level& level = levels_[depth_];
    aggregate(context_for(n), graph, groups_, parent.data(), next, scratch_, level);
    for (std::int64_t v = 0; v < n; ++v) {
      if (refined_[v] != v) continue;
      level.label[parent[v]] = label[v];
      level.id[parent[v]] = graph.id == nullptr ? static_cast<std::int32_t>(v) : graph.id[v];
    }
    if (next <= kSmallVertices)  // the order in a row matters to Sequential
      parallel_for(ctx_, next, kEvaluateGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t a = begin; a < end; ++a)
          std::sort(level.edges.data() + level.begin[a], level.edges.data() + level.end[a],
                    [](const SumEdge& x, const SumEdge& y) { return x.to < y.to; });
      });
    return true;
  }

  template <class Edge>
  void choose(const GraphView<Edge>& graph, const std::int32_t* label, RngKey key, Choice& choice,
              Scratch& scratch) const {
    const std::int32_t v = choice.vertex;
    const auto id = [&](std::int32_t u) { return graph.id == nullptr ? u : graph.id[u]; };
    std::int64_t* const sum = scratch.sum.data();
    std::int32_t* const touched = scratch.room(graph.end[v] - graph.begin[v]);
    const std::int32_t* const touched_end =
        scratch.gather(graph.edges + graph.begin[v], graph.edges + graph.end[v], touched,
                       [&](std::int32_t u) { return label[u] == label[v] ? refined_[u] : -1; });
    const std::int64_t k = graph.strength[v], total = cluster_strength_[label[v]];
    const std::uint64_t word = math::random_u64(key, static_cast<std::uint64_t>(id(v)));
    const auto noise = [&](std::int32_t u) { return noise_[static_cast<std::size_t>(noise_index(word, id(u)))]; };
    choice.target = -1;
    choice.weight = 0;
    std::int64_t best = noise(v);
    for (const std::int32_t* t = touched; t < touched_end; ++t) {
      const std::int32_t r = *t;
      const std::int64_t w = sum[r];
      sum[r] = 0;
      const Wide gain = quality_.score(w, k, refined_strength_[r]);
      if (gain < 0 || !well_connected(r, total)) continue;
      const std::int64_t value = shifted_gain(gain) + noise(r);
      if (value > best || (value == best && choice.target >= 0 && r < choice.target)) {
        best = value;
        choice.target = r;
        choice.weight = w;
      }
    }
  }

  bool well_connected(std::int32_t r, std::int64_t total) const {
    return quality_.score(refined_outside_[r], refined_strength_[r], total - refined_strength_[r]) >= 0;
  }

  /// Refinement (algorithm A.2, MergeNodesSubset) of all clusters at once, in synchronous rounds; refined_[v] = the
  /// vertex that stands for the refined cluster of v.
  template <class Edge>
  void refine(const GraphView<Edge>& graph, const std::int32_t* label) {
    const std::int64_t n = graph.n;
    parallel_for(context_for(n), n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t v = begin; v < end; ++v) {
        std::int64_t outside = 0;  // weight to the rest of the cluster
        for (std::int64_t e = graph.begin[v]; e < graph.end[v]; ++e)
          outside += label[graph.edges[e].to] == label[v] ? static_cast<std::int64_t>(graph.edges[e].weight) : 0;
        refined_[v] = static_cast<std::int32_t>(v);
        refined_strength_[v] = graph.strength[v];
        refined_outside_[v] = outside;
        target_[v] = -1;
        grown_[v] = flag_[v] = 0;
        joined_[v] = -1;
      }
    });
    choices_.clear();
    for (std::int64_t v = 0; v < n; ++v)
      if (refined_outside_[v] > 0 && well_connected(static_cast<std::int32_t>(v), cluster_strength_[label[v]]))
        choices_.push_back({static_cast<std::int32_t>(v), -1, 0});
    const RngKey key = level_key();
    const std::uint64_t salt = math::random_u64(key, kRefineTag, 1);
    for (std::int32_t r = 0; !choices_.empty(); ++r) {
      ctx_.check_cancelled("tl.leiden");
      const RefineRound round(salt, static_cast<std::uint64_t>(r));
      const auto each = [&](auto&& f) {
        const auto count = static_cast<std::int64_t>(choices_.size());
        parallel_chunks(context_for(count), count, kEvaluateGrain,
                        [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
                          for (std::int64_t i = begin; i < end; ++i)
                            f(choices_[static_cast<std::size_t>(i)], scratch_[static_cast<std::size_t>(worker)]);
                        });
      };
      each([&](Choice& c, Scratch& scratch) {
        choose(graph, label, key, c, scratch);
        target_[c.vertex] = c.target;
        if (c.target >= 0) set(flag_[c.target]);  // flag_: is chosen
      });
      std::erase_if(choices_, [](const Choice& c) { return c.target < 0; });
      going_.clear();
      for (const Choice& c : choices_)
        if (round.goes(c.vertex, c.target, target_[c.target], flag_[c.vertex] != 0)) going_.push_back(c);
      for (const Choice& c : choices_) {
        target_[c.vertex] = -1;
        flag_[c.target] = 0;
      }
      for (const Choice& c : going_) {
        refined_[c.vertex] = c.target;
        joined_[c.vertex] = r;
        grown_[c.target] = 1;
        refined_strength_[c.target] += graph.strength[c.vertex];
      }
      const auto moved = static_cast<std::int64_t>(going_.size());
      parallel_for(context_for(moved), moved, kEvaluateGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          // An edge to one who joined in this round is seen from both ends.
          Choice& c = going_[static_cast<std::size_t>(i)];
          std::int64_t inside = 0;
          for (std::int64_t e = graph.begin[c.vertex]; e < graph.end[c.vertex]; ++e) {
            const std::int32_t u = graph.edges[e].to;
            if (refined_[u] == c.target)
              inside += static_cast<std::int64_t>(graph.edges[e].weight) * (joined_[u] == r ? 1 : 2);
          }
          c.weight = inside;
        }
      });
      for (const Choice& c : going_) refined_outside_[c.target] += refined_outside_[c.vertex] - c.weight;
      std::erase_if(choices_, [&](const Choice& c) { return refined_[c.vertex] != c.vertex || grown_[c.vertex] != 0; });
    }
  }

  const Context& ctx_;
  Context one_thread_;
  const IntegerGraph* base_;
  std::optional<IntegerGraph> sorted_;
  const std::int64_t n_;
  const bool small_;
  const Quality quality_;
  const RngKey key_;
  Sequential sequential_;
  int pass_ = 0;
  std::size_t depth_ = 0;  // levels of the last pass above the input
  std::int64_t clusters_ = 0;
  std::vector<std::int64_t> noise_;
  Groups groups_;
  Array<std::int32_t> map_, label_, parent_, target_, refined_, joined_;
  Array<std::uint8_t> flag_, grown_;
  Array<std::int64_t> cluster_strength_, entering_, leaving_, refined_strength_, refined_outside_;
  Array<std::uint64_t> first_in_, first_out_;
  std::vector<Scratch> scratch_;
  std::vector<Proposal> proposals_;
  std::vector<Choice> choices_, going_;
  std::vector<std::int32_t> next_;
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
  const std::int64_t starts = number_of_starts(options.n_starts, integers.edges.size());
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
