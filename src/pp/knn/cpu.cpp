#include "pp/knn/cpu.hpp"

#include <memory>
#include <numeric>

namespace scw::pp::cpu {
namespace {

constexpr const char* kStep = "neighbours";

/// Candidates of all rows from float tiles: every pair of blocks once.
template <class X>
void find_candidates(const Context& ctx, const TileRows<X>& rows, Candidates& out) {
  const std::int64_t blocks = rows.padded() / kBlockRows;
  constexpr std::int64_t kPanels = kBlockRows / kTileColumns;
  std::vector<std::unique_ptr<TileSearch>> searches(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  std::vector<std::vector<float>> scratch(searches.size());
  std::atomic<std::int64_t> done{0};
  // Task b: block b against itself and all later ones, longest first.
  parallel_chunks(ctx, blocks, 1, [&](std::int64_t, std::int64_t b, std::int64_t, int worker) {
    const auto w = static_cast<std::size_t>(worker);
    if (!searches[w]) {
      searches[w] = std::make_unique<TileSearch>(ctx, rows.depth());
      scratch[w].resize(static_cast<std::size_t>(rows.scratch_size()));
    }
    TileSearch& search = *searches[w];
    for (int part = 0; part < kPanels; ++part)
      search.load_panel(part, rows.panel(b * kPanels + part, scratch[w].data()));
    for (std::int64_t p = b * kPanels; p < blocks * kPanels; ++p) {
      if (ctx.is_cancelled()) ctx.check_cancelled("pp.neighbors");
      search.run(out, b * kBlockRows, p * kTileColumns, rows.panel(p, scratch[w].data()), rows.g(),
                 p >= (b + 1) * kPanels);
    }
    done += blocks - b;
    if (worker == 0) ctx.report(kStep, done.load(), blocks * (blocks + 1) / 2);
  });
}

template <class M, class X>
void tile_search(const Context& ctx, const M& metric, const X& x, const math::RowTerm* terms, KnnResult& out) {
  const std::int64_t n = x.n_rows;
  const int others = out.k - 1;
  std::vector<std::int64_t> open;
  {
    const TileRows<X> rows(ctx, x, out.metric, terms);
    Candidates candidates(ctx, n, rows.padded(), others);
    candidates.reset(rows.e(), rows.e(), n, rows.padded());
    find_candidates(ctx, rows, candidates);
    const std::int64_t grain = 256;
    std::vector<std::vector<std::int64_t>> open_of(static_cast<std::size_t>(chunk_count(n, grain)));
    parallel_chunks(ctx, n, grain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
      std::vector<Neighbour> list;
      for (std::int64_t i = begin; i < end; ++i) {
        int count = 0;
        const Candidate* const found = candidates.finish(i, count);
        if (found == nullptr) {
          open_of[static_cast<std::size_t>(chunk)].push_back(i);
          continue;
        }
        list.resize(static_cast<std::size_t>(count));
        for (int m = 0; m < count; ++m) {
          const std::int64_t j = found[m].id;
          double key = 0;
          column_of_keys(metric, x, terms, &i, 1, j, &key);
          list[static_cast<std::size_t>(m)] = {key, found[m].id};
        }
        std::partial_sort(list.begin(), list.begin() + others, list.end(), &nearer);
        write_row(metric, x, terms, i, list.data(), out);
      }
    });
    for (const auto& o : open_of) open.insert(open.end(), o.begin(), o.end());
  }
  out.n_rescanned = static_cast<std::int64_t>(open.size());
  scan_rows(ctx, metric, x, terms, open.data(), out.n_rescanned, out.k, kStep,
            [&](std::int64_t at, const Neighbour* sorted) {
              write_row(metric, x, terms, open[static_cast<std::size_t>(at)], sorted, out);
            });
}

template <class M, class X>
void search(const Context& ctx, const M& metric, const X& x, KnnResult& out) {
  const auto terms = row_terms(ctx, x, out.metric);
  if (out.k == 1) {
    for (std::int64_t i = 0; i < x.n_rows; ++i) write_row(metric, x, terms.data(), i, nullptr, out);
    return;
  }
  if (is_tile_metric(out.metric)) return tile_search(ctx, metric, x, terms.data(), out);
  std::vector<std::int64_t> all(static_cast<std::size_t>(x.n_rows));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  scan_rows(ctx, metric, x, terms.data(), all.data(), x.n_rows, out.k, kStep,
            [&](std::int64_t i, const Neighbour* sorted) { write_row(metric, x, terms.data(), i, sorted, out); });
}

template <class V>
bool bad_row(const MatrixView<V>& x, std::int64_t i, bool non_negative) {
  bool bad = false;
  const V* const row = x.row(i);
  for (std::int64_t k = 0; k < x.n_cols; ++k) bad |= !std::isfinite(row[k]) || (non_negative && row[k] < 0);
  return bad;
}
template <class V>
bool bad_row(const CsrView<V>& x, std::int64_t i, bool non_negative) {
  bool bad = false;
  for (std::int64_t e = x.indptr[i]; e < x.indptr[i + 1]; ++e)
    bad |= !std::isfinite(x.values[e]) || (non_negative && x.values[e] < 0);
  return bad;
}

}  // namespace

void knn_brute(const Context& ctx, const AnyMatrixView& x, const KnnOptions& options, KnnResult& out) {
  std::visit(
      [&](const auto& v) {
        visit_metric(options.metric, options.p, [&](const auto& metric) { search(ctx, metric, v, out); });
      },
      x);
}

void knn_bad_row(const Context& ctx, const AnyMatrixView& x, bool non_negative, std::int64_t& first_bad) {
  const std::int64_t n = n_rows(x), grain = 1024;
  std::vector<std::int64_t> first(static_cast<std::size_t>(chunk_count(n, grain)), -1);
  std::visit(
      [&](const auto& v) {
        parallel_chunks(ctx, n, grain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
          for (std::int64_t i = begin; i < end; ++i)
            if (bad_row(v, i, non_negative)) {
              first[static_cast<std::size_t>(chunk)] = i;
              return;
            }
        });
      },
      x);
  first_bad = -1;
  for (const std::int64_t i : first)
    if (i >= 0) {
      first_bad = i;
      return;
    }
}

void pairwise(const Context& ctx, const AnyMatrixView& x, Metric metric, double p, const MatrixView<float>& out) {
  const auto all_pairs = [&](const auto& m, const auto& v) {
    const auto terms = row_terms(ctx, v, metric);
    constexpr std::int64_t kRows = 8;
    parallel_for(ctx, v.n_rows, kRows, [&](std::int64_t begin, std::int64_t end) {
      std::int64_t rows[kRows];
      double keys[kRows];
      const int count = static_cast<int>(end - begin);
      for (int q = 0; q < count; ++q) rows[q] = begin + q;
      for (std::int64_t j = 0; j < v.n_rows; ++j) {
        column_of_keys(m, v, terms.data(), rows, count, j, keys);
        for (int q = 0; q < count; ++q)
          out(rows[q], j) =
              rows[q] == j && metric != Metric::inner_product ? 0.0f : static_cast<float>(m.value(keys[q]));
      }
    });
  };
  std::visit([&](const auto& v) { visit_metric(metric, p, [&](const auto& m) { all_pairs(m, v); }); }, x);
}

SCW_REGISTER(knn_brute_kernel, cpu, &knn_brute);
SCW_REGISTER(knn_bad_row_kernel, cpu, &knn_bad_row);
SCW_REGISTER(pairwise_kernel, cpu, &pairwise);

}  // namespace scw::pp::cpu
