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
  const std::int64_t at = graph.indptr[*first], count = graph.indptr[*first + 1] - at;
  check_row(op, *first, n_, graph.indices.subspan(at, count), graph.values.subspan(at, count));
}

template <class V>
void check_row(const char* op, std::int64_t i, std::int64_t n, Span<const std::int32_t> indices, Span<const V> values) {
  std::int64_t previous = -1;
  for (std::int64_t e = 0; e < indices.size; ++e) {
    const std::int32_t j = indices[e];
    SCW_EXPECT_AS(DataError, j >= 0 && j < n, op, "column index out of range (row {}: got {}, expected 0 to {})", i, j,
                  n - 1);
    SCW_EXPECT_AS(DataError, j > previous, op,
                  "column indices must be sorted and unique in a row (row {}: {} after {})", i, j, previous);
    previous = j;
    const auto w = values[e];
    SCW_EXPECT_AS(DataError, std::isfinite(w), op, "edge weights must be finite (edge ({}, {}): got {})", i, j, w);
    SCW_EXPECT_AS(DataError, w >= 0, op, "edge weights must not be negative (edge ({}, {}): got {})", i, j, w);
  }
}
template SCW_API void check_row(const char*, std::int64_t, std::int64_t, Span<const std::int32_t>, Span<const float>);
template SCW_API void check_row(const char*, std::int64_t, std::int64_t, Span<const std::int32_t>, Span<const double>);

void check_total(const char* op, double total) {
  SCW_EXPECT_AS(DataError, std::isfinite(total), op, "the sum of the edge weights overflows (got {})", total);
}

double modularity_of(std::int64_t total, std::int64_t inside, Span<const std::int64_t> strengths, double resolution) {
  if (total <= 0) return 0;
  const auto all = static_cast<double>(total);
  double expected = 0;
  for (const std::int64_t k : strengths) expected += (static_cast<double>(k) / all) * (static_cast<double>(k) / all);
  return static_cast<double>(inside) / all - resolution * expected;
}

double integer_scale(double total, double max_weight) {
  if (!(total > 0)) return 1;
  const double room = std::min(std::ldexp(1.0, kTotalBits) / total, std::ldexp(1.0, 31) / max_weight);
  return std::ldexp(1.0, std::ilogb(room));
}

UndirectedGraph::UndirectedGraph(const Context& ctx, const char* op, const AnyCsrView& graph, bool use_weights)
    : graph_(graph), weighted_(use_weights), n_(std::visit([](const auto& g) { return g.n_rows; }, graph)) {
  std::visit([&](const auto& g) { check(ctx, op, g); }, graph_);
  if (!is_symmetric(ctx)) symmetrise(ctx);
  const auto chunks = static_cast<std::size_t>(chunk_count(n_, kRowGrain));
  std::vector<double> largest(chunks);
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    double most = 0;
    for (std::int64_t i = begin; i < end; ++i) for_each(i, [&](std::int32_t, double w) { most = std::max(most, w); });
    largest[static_cast<std::size_t>(chunk)] = most;
  });
  for (const double m : largest) max_weight_ = std::max(max_weight_, m);
  check_total(op, max_weight_);
  const std::int64_t nnz = std::visit([](const auto& g) { return g.nnz(); }, graph_);
  fixed_ = weight_scale(max_weight_, own_ ? checked_mul(2, nnz) : nnz);
  std::vector<std::int64_t> sums(chunks);
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    std::int64_t sum = 0;
    for (std::int64_t i = begin; i < end; ++i) for_each(i, [&](std::int32_t, double w) { sum += fixed_.quantise(w); });
    sums[static_cast<std::size_t>(chunk)] = sum;
  });
  for (const std::int64_t s : sums) fixed_total_ += s;
  total_ = prim::fixed_sum(fixed_total_, fixed_);
  check_total(op, total_);
}

bool UndirectedGraph::is_symmetric(const Context& ctx) const {
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(chunk_count(n_, kRowGrain)));
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    std::uint64_t sum = 0;
    for (std::int64_t i = begin; i < end; ++i)
      for_each(i, [&](std::int32_t j, double w) { sum += symmetry_term(i, j, w); });
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
  Array<std::int64_t> strength(ctx.workspace, n_, "leiden strengths");
  std::vector<std::int64_t> inside(static_cast<std::size_t>(chunk_count(n_, kRowGrain)));
  parallel_chunks(ctx, n_, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    std::int64_t within = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t k = 0;
      for_each(i, [&](std::int32_t j, double w) {
        const std::int64_t q = fixed_.quantise(w);
        k += q;
        within += labels[j] == labels[i] ? q : 0;
      });
      strength[i] = k;
    }
    inside[static_cast<std::size_t>(chunk)] = within;
  });
  std::int64_t within = 0;
  for (const std::int64_t w : inside) within += w;
  std::vector<std::int64_t> sums(static_cast<std::size_t>(n_labels), 0);
  for (std::int64_t i = 0; i < n_; ++i) sums[static_cast<std::size_t>(labels[i])] += strength[i];
  return modularity_of(fixed_total_, within, Span<const std::int64_t>(sums), resolution);
}

IntegerGraph::IntegerGraph(const Context& ctx, const UndirectedGraph& graph)
    : n(graph.n()),
      original(ctx.workspace, n, "leiden vertex order"),
      offsets(ctx.workspace, n + 1, "leiden offsets"),
      strength(ctx.workspace, n, "leiden strengths") {
  scale = integer_scale(graph.total(), graph.max_weight());
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
        const std::int64_t weight = integer_weight(w, scale);
        k += weight;
        if (u != v) edges[at++] = {u, static_cast<std::uint32_t>(weight)};
      });
      strength[v] = k;
    }
  });
  for (const std::int64_t k : strength) total += k;
}

IntegerGraph::IntegerGraph(const Context& ctx, const IntegerGraph& graph, Span<const std::int32_t> order)
    : n(graph.n),
      scale(graph.scale),
      total(graph.total),
      original(ctx.workspace, n, "leiden vertex order"),
      offsets(ctx.workspace, n + 1, "leiden offsets"),
      edges(ctx.workspace, graph.edges.size(), "leiden edges"),
      strength(ctx.workspace, n, "leiden strengths") {
  Array<std::int32_t> rank(ctx.workspace, n, "leiden ranks");
  offsets[0] = 0;
  for (std::int64_t v = 0; v < n; ++v) {
    const std::int32_t u = order[v];
    rank[u] = static_cast<std::int32_t>(v);
    original[v] = graph.original[u];
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
}

}  // namespace scw::tl
