// What Leiden works on: the checked undirected graph, and its integer form.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "prim/fixed_point.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"
#include "tl/leiden/rules.hpp"
#include "tl/symmetry.hpp"

namespace scw::tl {

/// Fixed point for weights up to max_weight, so that sums of `terms` of them fit 62 bits: in any order, the same sum.
inline prim::FixedScale weight_scale(double max_weight, std::int64_t terms) {
  int bits = 62;
  for (std::int64_t t = terms; t > 0; t >>= 1) --bits;
  const prim::FixedScale finest = prim::FixedScale::for_max(max_weight);
  return prim::FixedScale(finest.shift - (bits < prim::kFixedBits ? prim::kFixedBits - bits : 0));
}

/// From the weight inside clusters and the strengths of the clusters, in the same fixed point as `total`.
SCW_API double modularity_of(std::int64_t total, std::int64_t inside, Span<const std::int64_t> strengths,
                             double resolution);

/// Throws DataError, as "op: the sum of the edge weights overflows", unless total is finite.
SCW_API void check_total(const char* op, double total);

/// Throws DataError for row i of a graph of n vertices with these entries, if something is wrong with it.
template <class V>
SCW_API void check_row(const char* op, std::int64_t i, std::int64_t n, Span<const std::int32_t> indices,
                       Span<const V> values);

/// A graph of non-negative weights, checked, as a symmetric matrix: the input itself, or A + A^T where it is not
/// symmetric. The input must outlive it.
class UndirectedGraph {
 public:
  /// Throws DataError (weights, indices) in the name of `op`.
  UndirectedGraph(const Context& ctx, const char* op, const AnyCsrView& graph, bool use_weights);

  std::int64_t n() const { return n_; }
  /// Sum of all entries, 2W.
  double total() const { return total_; }
  /// The same in fixed point.
  double max_weight() const { return max_weight_; }
  /// f(neighbour, weight) for every entry of row i that is not 0, the loop included, by ascending neighbour.
  template <class F>
  void for_each(std::int64_t i, F&& f) const {
    if (own_)
      each(own_->view(), i, f);
    else
      std::visit([&](const auto& g) { each(g, i, f); }, graph_);
  }
  /// labels in [0, n_labels).
  double modularity(const Context& ctx, Span<const std::int32_t> labels, std::int32_t n_labels,
                    double resolution) const;

 private:
  template <class V>
  void check(const Context& ctx, const char* op, const CsrView<V>& graph) const;
  bool is_symmetric(const Context& ctx) const;
  void symmetrise(const Context& ctx);

  template <class V, class F>
  void each(const CsrView<V>& g, std::int64_t i, F&& f) const {
    const bool weighted = weighted_ || own_;
    for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e)
      if (g.values[e] != 0) f(g.indices[e], weighted ? static_cast<double>(g.values[e]) : 1.0);
  }

  AnyCsrView graph_;
  bool weighted_;
  std::int64_t n_;
  std::optional<Csr<double>> own_;
  double total_ = 0, max_weight_ = 0;
  prim::FixedScale fixed_;
  std::int64_t fixed_total_ = 0;
};

/// An edge of the input graph, and one between aggregated vertices.
struct BaseEdge {
  std::int32_t to;
  std::uint32_t weight;
};
struct SumEdge {
  std::int32_t to;
  std::int64_t weight;
};

/// scale of IntegerGraph.
SCW_API double integer_scale(double total, double max_weight);
SCW_HD inline std::int64_t integer_weight(double w, double scale) {
  const auto weight = static_cast<std::int64_t>(w * scale + 0.5);
  return weight > 1 ? weight : 1;
}

/// The integer form: weight = round(w * scale), at least 1, with scale a power of two so that all weights sum to at
/// most 2^41 and each is at most 2^31. No loops: they are in `strength` only.
struct IntegerGraph {
  /// Numbered as in the input.
  IntegerGraph(const Context& ctx, const UndirectedGraph& graph);
  /// The same graph, its vertex order[i] renumbered i.
  IntegerGraph(const Context& ctx, const IntegerGraph& graph, Span<const std::int32_t> order);

  std::int64_t n;
  double scale = 1;
  std::int64_t total = 0;        // sum of strength, 2W
  Array<std::int32_t> original;  // [n] vertex of the input
  Array<std::int64_t> offsets;   // [n + 1]
  Array<BaseEdge> edges;
  Array<std::int64_t> strength;  // [n] k_i, the loop included
};

inline constexpr int kTotalBits = 40;  // of the sum of the rounded weights, plus one for the rounding itself

}  // namespace scw::tl
