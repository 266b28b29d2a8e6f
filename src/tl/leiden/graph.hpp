// What Leiden works on: the checked undirected graph, and its integer form.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

/// A graph of non-negative weights, checked, as a symmetric matrix: the input itself, or A + A^T where it is not
/// symmetric. The input must outlive it.
class UndirectedGraph {
 public:
  /// Throws DataError (weights, indices) in the name of `op`.
  UndirectedGraph(const Context& ctx, const char* op, const AnyCsrView& graph, bool use_weights);

  std::int64_t n() const { return n_; }
  /// Sum of all entries, 2W.
  double total() const { return total_; }
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

/// The integer form: weight = round(w * scale), at least 1, with scale a power of two so that all weights sum to at
/// most 2^41 and each is at most 2^31. No loops: they are in `strength` only.
///
/// Vertices are sorted into classes (the colours of a greedy colouring) without edges inside, whose members may be
/// evaluated at the same time.
struct IntegerGraph {
  /// Numbered as in the input.
  IntegerGraph(const Context& ctx, const UndirectedGraph& graph);
  /// The same graph, its vertex order[i] renumbered i.
  IntegerGraph(const Context& ctx, const IntegerGraph& graph, Span<const std::int32_t> order);

  std::int64_t n;
  double scale = 1;
  std::int64_t total = 0;                 // sum of strength, 2W
  Array<std::int32_t> original;           // [n] vertex of the input
  Array<std::int32_t> colour;             // [n]
  std::vector<std::int64_t> class_begin;  // [colours + 1]
  Array<std::int32_t> class_members;      // [n] ascending in each class
  Array<std::int64_t> offsets;            // [n + 1]
  Array<BaseEdge> edges;
  Array<std::int64_t> strength;  // [n] k_i, the loop included

 private:
  void make_classes();
};

inline constexpr int kTotalBits = 40;  // of the sum of the rounded weights, plus one for the rounding itself

}  // namespace scw::tl
