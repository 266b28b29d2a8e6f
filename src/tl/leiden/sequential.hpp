// Leiden on small graphs and on the small levels of large ones, vertex by vertex, on the host. Every backend ends with
// it: what it starts from has the same bits, so the result has.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/rng.hpp"
#include "tl/leiden/graph.hpp"
#include "tl/leiden/rules.hpp"

namespace scw::tl {

/// One level of the hierarchy, on the host. Rows lie at begin[v] to end[v] of edges, with room between them.
template <class Edge>
struct GraphView {
  std::int64_t n;
  const std::int64_t* begin;
  const std::int64_t* end;
  const Edge* edges;
  const std::int64_t* strength;
  const std::int32_t* id;  // a number that stays the same from pass to pass; null: the vertex itself
};

/// An aggregated graph, kept from pass to pass with its capacity.
struct Level {
  std::int64_t n = 0;
  Array<std::int64_t> begin, end, strength;
  Array<SumEdge> edges;
  Array<std::int32_t> id, label, parent;  // parent: the vertex of the next level

  GraphView<SumEdge> view() const { return {n, begin.data(), end.data(), edges.data(), strength.data(), id.data()}; }
};

/// Sums of weights by number, 0 between uses, and which numbers were touched.
struct Scratch {
  Array<std::int64_t> sum;
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
  /// Adds the weights of a row by of(neighbour), negative numbers left out; the touched numbers start at room() and end
  /// at the result.
  template <class Edge, class Of>
  std::int32_t* gather(const Edge* first, const Edge* last, std::int32_t* touched_end, Of&& of) {
    for (const Edge* e = first; e < last; ++e) {
      const std::int32_t c = of(e->to);
      if (c < 0) continue;
      *touched_end = c;  // without a branch: whether a cluster is new is not predictable
      touched_end += sum[c] == 0 ? 1 : 0;
      sum[c] += static_cast<std::int64_t>(e->weight);
    }
    return touched_end;
  }
};

template <class T>
void reserve(const Context& ctx, Array<T>& array, std::int64_t n, const char* tag) {
  if (array.size() >= n) return;
  array = {};
  array = Array<T>(ctx.workspace, n, tag);
}

/// Vertices in groups, by counting.
struct Groups {
  Array<std::int32_t> members;  // those of group c, ascending, at begin[c] to begin[c + 1]
  Array<std::int64_t> begin;

  Groups(const Context& ctx, std::int64_t capacity)
      : members(ctx.workspace, capacity, "leiden members"),
        begin(ctx.workspace, capacity + 1, "leiden member offsets") {}
  template <class GroupOf>
  void fill(std::int64_t n, std::int64_t groups, GroupOf&& group_of) {
    std::fill_n(begin.data(), groups + 1, std::int64_t{0});
    for (std::int64_t v = 0; v < n; ++v) ++begin[group_of(v)];
    std::int64_t end = 0;
    for (std::int64_t c = 0; c <= groups; ++c) {
      end += begin[c];
      begin[c] = end;
    }
    for (std::int64_t v = n - 1; v >= 0; --v) members[--begin[group_of(v)]] = static_cast<std::int32_t>(v);
  }
};

/// The level of `nodes` aggregates: vertex v goes into parent[v], members grouped by parent. label and id are not set.
template <class Edge>
void aggregate(const Context& ctx, const GraphView<Edge>& graph, const Groups& groups, const std::int32_t* parent,
               std::int64_t nodes, std::vector<Scratch>& scratch, Level& level);

class SCW_API Sequential {
 public:
  /// For graphs of up to `capacity` vertices; key: of the start.
  Sequential(const Context& ctx, std::int64_t capacity, const Quality& quality, double theta, RngKey key);
  Sequential(const Sequential&) = delete;
  Sequential& operator=(const Sequential&) = delete;

  /// Pass number `pass` over a graph that is `depth` levels above the input, from the clustering in `label` to a better
  /// one; the number of moves.
  std::int64_t pass(const GraphView<BaseEdge>& graph, std::int32_t* label, int pass, std::size_t depth) {
    return run(graph, label, pass, depth);
  }
  std::int64_t pass(const GraphView<SumEdge>& graph, std::int32_t* label, int pass, std::size_t depth) {
    return run(graph, label, pass, depth);
  }

 private:
  struct Proposal {
    std::int32_t vertex, target;
    std::int64_t weight_here, weight_there;
  };
  template <class Edge>
  std::int64_t run(const GraphView<Edge>& graph, std::int32_t* label, int pass, std::size_t depth);
  template <class Edge>
  Proposal evaluate(const GraphView<Edge>& graph, const std::int32_t* label, std::int64_t v);
  template <class Edge>
  bool commit(const GraphView<Edge>& graph, std::int32_t* label, Proposal& p);
  template <class Edge>
  std::int64_t move(const GraphView<Edge>& graph, std::int32_t* label);
  std::int64_t number(std::int32_t* label, std::int64_t n);
  template <class Edge>
  bool coarsen(const GraphView<Edge>& graph, const std::int32_t* label, Array<std::int32_t>& parent);
  template <class Edge>
  const Context& context_for(const GraphView<Edge>& graph) const;
  template <class Edge>
  void refine(const GraphView<Edge>& graph, const std::int32_t* label);
  template <class Edge>
  void refine_cluster(const GraphView<Edge>& graph, const std::int32_t* label, std::int32_t cluster, RngKey key,
                      Scratch& scratch);

  const Context& ctx_;
  Context one_thread_;
  const Quality quality_;
  const double theta_;
  const RngKey key_;
  int pass_ = 0;
  std::size_t first_depth_ = 0;
  std::size_t depth_ = 0;  // levels of the last pass above its graph
  std::int64_t clusters_ = 0;
  Array<std::uint8_t> active_;
  Array<std::int64_t> cluster_strength_;
  Array<std::int32_t> refined_;
  Array<std::int64_t> refined_strength_, refined_outside_;
  Array<std::int32_t> refined_size_;
  Groups groups_;
  Array<std::int32_t> map_, parent_;
  std::vector<Scratch> scratch_;
  std::vector<std::int32_t> cluster_size_, empty_, by_size_;
  std::deque<Level> levels_;  // growing keeps references
};

}  // namespace scw::tl
