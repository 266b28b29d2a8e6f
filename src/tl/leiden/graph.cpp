#include "tl/leiden/graph.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"

namespace scw::tl {
namespace {

constexpr std::int64_t kRowGrain = 4096;

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace

template <class V>
void UndirectedGraph::check(const Context& ctx, const char* op, const CsrView<V>& graph) const {
  const auto chunks = static_cast<std::size_t>(chunk_count(n_, kRowGrain));
  std::vector<std::int64_t> bad(chunks, -1);  // first bad row of each chunk
  const auto row_is_bad = [&](std::int64_t i) {
    std::int64_t previous = -1;
    bool wrong = false;
    for (std::int64_t e = graph.indptr[i]; e < graph.indptr[i + 1]; ++e) {
      const std::int32_t j = graph.indices[e];
      wrong |= j <= previous || j >= n_ || !(graph.values[e] >= 0 && std::isfinite(graph.values[e]));
      previous = j;
    }
    return wrong;
  };
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end && bad[static_cast<std::size_t>(chunk)] < 0; ++i)
      if (row_is_bad(i)) bad[static_cast<std::size_t>(chunk)] = i;
  });
  const auto first = std::find_if(bad.begin(), bad.end(), [](std::int64_t i) { return i >= 0; });
  if (first == bad.end()) return;
  const std::int64_t i = *first;
  std::int64_t previous = -1;
  for (std::int64_t e = graph.indptr[i]; e < graph.indptr[i + 1]; ++e) {
    const std::int32_t j = graph.indices[e];
    SCW_EXPECT_AS(DataError, j >= 0 && j < n_, op, "column index out of range (row {}: got {}, expected 0 to {})", i, j,
                  n_ - 1);
    SCW_EXPECT_AS(DataError, j > previous, op,
                  "column indices must be sorted and unique in a row (row {}: {} after {})", i, j, previous);
    previous = j;
    const auto w = graph.values[e];
    SCW_EXPECT_AS(DataError, std::isfinite(w), op, "edge weights must be finite (edge ({}, {}): got {})", i, j, w);
    SCW_EXPECT_AS(DataError, w >= 0, op, "edge weights must not be negative (edge ({}, {}): got {})", i, j, w);
  }
}

UndirectedGraph::UndirectedGraph(const Context& ctx, const char* op, const AnyCsrView& graph, bool use_weights)
    : graph_(graph), weighted_(use_weights), n_(std::visit([](const auto& g) { return g.n_rows; }, graph)) {
  std::visit([&](const auto& g) { check(ctx, op, g); }, graph_);
  if (!is_symmetric(ctx)) symmetrise(ctx);
  const std::int64_t chunks = chunk_count(n_, kRowGrain);
  std::vector<double> sums(static_cast<std::size_t>(chunks)), largest(sums.size());
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    double sum = 0, most = 0;
    for (std::int64_t i = begin; i < end; ++i)
      for_each(i, [&](std::int32_t, double w) {
        sum += w;
        most = std::max(most, w);
      });
    sums[static_cast<std::size_t>(chunk)] = sum;
    largest[static_cast<std::size_t>(chunk)] = most;
  });
  for (const double s : sums) total_ += s;
  for (const double m : largest) max_weight_ = std::max(max_weight_, m);
  SCW_EXPECT_AS(DataError, std::isfinite(total_), op, "the sum of the edge weights overflows (got {})", total_);
}

// Entries above and below the diagonal, mirrored, are the same multiset if their hashes have the same sum: one pass
// over the graph and no search. Two different multisets pass with a probability of 2^-64.
bool UndirectedGraph::is_symmetric(const Context& ctx) const {
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(chunk_count(n_, kRowGrain)));
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    std::uint64_t sum = 0;
    for (std::int64_t i = begin; i < end; ++i)
      for_each(i, [&](std::int32_t j, double w) {
        const auto low = static_cast<std::uint64_t>(std::min<std::int64_t>(i, j));
        const auto high = static_cast<std::uint64_t>(std::max<std::int64_t>(i, j));
        const std::uint64_t h = mix(mix(low << 32 | high) ^ __builtin_bit_cast(std::uint64_t, w));
        sum += i < j ? h : i > j ? std::uint64_t{0} - h : 0;
      });
    sums[static_cast<std::size_t>(chunk)] = sum;
  });
  std::uint64_t sum = 0;
  for (const std::uint64_t s : sums) sum += s;
  return sum == 0;
}

void UndirectedGraph::symmetrise(const Context& ctx) {
  const std::int64_t nnz = std::visit([](const auto& g) { return g.nnz(); }, graph_);
  Array<std::int64_t> column(ctx.workspace, n_ + 1, "leiden transposed offsets");
  Array<std::int32_t> rows(ctx.workspace, nnz, "leiden transposed rows");
  Array<double> weights(ctx.workspace, nnz, "leiden transposed weights");
  std::fill(column.begin(), column.end(), std::int64_t{0});
  for (std::int64_t i = 0; i < n_; ++i) for_each(i, [&](std::int32_t j, double) { ++column[j + 1]; });
  for (std::int64_t j = 0; j < n_; ++j) column[j + 1] += column[j];
  for (std::int64_t i = 0; i < n_; ++i)
    for_each(i, [&](std::int32_t j, double w) {
      rows[column[j]] = static_cast<std::int32_t>(i);
      weights[column[j]++] = w;
    });
  // column[j] is now the end of column j, that is the start of column j + 1.
  Csr<double> both;
  both.n_rows = n_;
  both.n_cols = static_cast<std::int32_t>(n_);
  both.indptr = Array<std::int64_t>(ctx.workspace, n_ + 1, "leiden symmetric offsets");
  both.indices = Array<std::int32_t>(ctx.workspace, checked_mul(2, nnz), "leiden symmetric indices");
  both.values = Array<double>(ctx.workspace, checked_mul(2, nnz), "leiden symmetric weights");
  std::int64_t out = 0;
  const auto put = [&](std::int32_t j, double w) {
    both.indices[out] = j;
    both.values[out++] = w;
  };
  for (std::int64_t i = 0; i < n_; ++i) {
    if (i % kRowGrain == 0) ctx.check_cancelled("tl.leiden");
    both.indptr[i] = out;
    std::int64_t t = i == 0 ? 0 : column[i - 1];
    for_each(i, [&](std::int32_t j, double w) {
      for (; t < column[i] && rows[t] < j; ++t) put(rows[t], weights[t]);
      if (t < column[i] && rows[t] == j) w += weights[t++];
      put(j, w);
    });
    for (; t < column[i]; ++t) put(rows[t], weights[t]);
  }
  both.indptr[n_] = out;
  own_ = std::move(both);
}

double UndirectedGraph::modularity(const Context& ctx, Span<const std::int32_t> labels, std::int32_t n_labels,
                                   double resolution) const {
  if (!(total_ > 0)) return 0;
  Array<double> strength(ctx.workspace, n_, "leiden strengths");
  std::vector<double> inside(static_cast<std::size_t>(chunk_count(n_, kRowGrain)));
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    double within = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      double k = 0;
      for_each(i, [&](std::int32_t j, double w) {
        k += w;
        within += labels[j] == labels[i] ? w : 0;
      });
      strength[i] = k;
    }
    inside[static_cast<std::size_t>(chunk)] = within;
  });
  double within = 0, expected = 0;
  for (const double w : inside) within += w;
  Array<double> sums(ctx.workspace, n_labels, "leiden cluster strengths");
  std::fill(sums.begin(), sums.end(), 0.0);
  for (std::int64_t i = 0; i < n_; ++i) sums[labels[i]] += strength[i];
  for (const double k : sums) expected += (k / total_) * (k / total_);
  return within / total_ - resolution * expected;
}

IntegerGraph::IntegerGraph(const Context& ctx, const UndirectedGraph& graph)
    : n(graph.n()),
      original(ctx.workspace, n, "leiden vertex order"),
      colour(ctx.workspace, n, "leiden colours"),
      class_members(ctx.workspace, n, "leiden classes"),
      offsets(ctx.workspace, n + 1, "leiden offsets"),
      strength(ctx.workspace, n, "leiden strengths") {
  if (graph.total() > 0) {
    const double room = std::min(std::ldexp(1.0, kTotalBits) / graph.total(), std::ldexp(1.0, 31) / graph.max_weight());
    scale = std::ldexp(1.0, std::ilogb(room));
  }
  std::iota(original.begin(), original.end(), 0);
  offsets[0] = 0;
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t v = begin; v < end; ++v) {
      std::int64_t degree = 0;
      graph.for_each(v, [&](std::int32_t u, double) { degree += u != v ? 1 : 0; });
      offsets[v + 1] = degree;
    }
  });
  for (std::int64_t v = 0; v < n; ++v) offsets[v + 1] += offsets[v];
  edges = Array<BaseEdge>(ctx.workspace, offsets[n], "leiden edges");
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t v = begin; v < end; ++v) {
      std::int64_t at = offsets[v], k = 0;
      graph.for_each(v, [&](std::int32_t u, double w) {
        const std::int64_t weight = std::max<std::int64_t>(1, static_cast<std::int64_t>(w * scale + 0.5));
        k += weight;
        if (u != v) edges[at++] = {u, static_cast<std::uint32_t>(weight)};
      });
      strength[v] = k;
    }
  });
  for (const std::int64_t k : strength) total += k;
  // Greedy colouring: the smallest colour that no coloured neighbour has.
  std::vector<std::int64_t> taken;  // taken[c] = last vertex that had a neighbour of colour c
  for (std::int64_t v = 0; v < n; ++v) {
    if (v % kRowGrain == 0) ctx.check_cancelled("tl.leiden");
    for (std::int64_t e = offsets[v]; e < offsets[v + 1]; ++e)
      if (edges[e].to < v) taken[static_cast<std::size_t>(colour[edges[e].to])] = v;
    std::size_t c = 0;
    while (c < taken.size() && taken[c] == v) ++c;
    if (c == taken.size()) taken.push_back(-1);
    colour[v] = static_cast<std::int32_t>(c);
  }
  class_begin.assign(taken.size() + 1, 0);
  make_classes();
}

IntegerGraph::IntegerGraph(const Context& ctx, const IntegerGraph& graph, Span<const std::int32_t> order)
    : n(graph.n),
      scale(graph.scale),
      total(graph.total),
      original(ctx.workspace, n, "leiden vertex order"),
      colour(ctx.workspace, n, "leiden colours"),
      class_begin(graph.class_begin.size(), 0),
      class_members(ctx.workspace, n, "leiden classes"),
      offsets(ctx.workspace, n + 1, "leiden offsets"),
      edges(ctx.workspace, graph.edges.size(), "leiden edges"),
      strength(ctx.workspace, n, "leiden strengths") {
  Array<std::int32_t> rank(ctx.workspace, n, "leiden ranks");
  offsets[0] = 0;
  for (std::int64_t v = 0; v < n; ++v) {
    const std::int32_t u = order[v];
    rank[u] = static_cast<std::int32_t>(v);
    original[v] = graph.original[u];
    colour[v] = graph.colour[u];
    strength[v] = graph.strength[u];
    offsets[v + 1] = offsets[v] + graph.offsets[u + 1] - graph.offsets[u];
  }
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t v = begin; v < end; ++v) {
      std::int64_t at = offsets[v];
      for (std::int64_t e = graph.offsets[order[v]]; e < graph.offsets[order[v] + 1]; ++e)
        edges[at++] = {rank[graph.edges[e].to], graph.edges[e].weight};
    }
  });
  make_classes();
}

void IntegerGraph::make_classes() {
  for (const std::int32_t c : colour) ++class_begin[static_cast<std::size_t>(c)];
  std::int64_t end = 0;
  for (std::int64_t& at : class_begin) at = end += at;
  for (std::int64_t v = n - 1; v >= 0; --v)
    class_members[--class_begin[static_cast<std::size_t>(colour[v])]] = static_cast<std::int32_t>(v);
}

}  // namespace scw::tl
