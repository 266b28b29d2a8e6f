// Approximate search: random projection trees with large leaves that are searched exactly (matrix tiles make that
// cheap), then rounds in which every cell looks at the neighbours of its neighbours. Dong, Charikar, Li, WWW 2011.
//
// Every round reads the lists of the round before and a cell writes its own list only. Lists hold the nearest of all
// cells that were looked at, by (distance rounded to float, index): nothing depends on the order of the work.
#include <memory>
#include <numeric>

#include "core/check.hpp"
#include "math/philox.hpp"
#include "pp/knn/cpu.hpp"

namespace scw::pp::cpu {
namespace {

constexpr const char* kStep = "neighbours (nn_descent)";
// Large leaves: in 50 columns a tree with leaves of some 3000 of 100 000 cells finds 45 % of the neighbours, as much
// per second as a round over the lists does.
constexpr std::int64_t kLeaf = 24 * kBlockRows;
constexpr int kReach = 10;  // neighbours of neighbours that a round looks at, in both directions
constexpr std::uint32_t kNew = 0x80000000u;

enum Purpose : std::uint64_t { kDirections = 1, kReverse = 2, kSample = 3 };

struct Entry {
  float key;
  std::uint32_t tagged;  // index, and kNew since the round that found it
  std::int32_t id() const { return static_cast<std::int32_t>(tagged & ~kNew); }
  bool fresh() const { return (tagged & kNew) != 0; }
};
bool before(const Entry& a, const Entry& b) { return a.key < b.key || (a.key == b.key && a.id() < b.id()); }

/// keys[m] = key of rows i and ids[m].
template <class M, class V>
SCW_CLONES void row_of_keys(const M& metric, const MatrixView<const V>& x, const math::RowTerm* terms, std::int64_t i,
                            const std::int32_t* ids, int count, double* keys) {
  for (int m = 0; m < count; ++m) {
    if (m + 2 < count) __builtin_prefetch(x.row(ids[m + 2]));
    keys[m] = row_key(metric, x, i, ids[m], terms[i], terms[ids[m]]);
  }
}

/// Indices seen while one cell is worked on.
class SeenSet {
 public:
  SeenSet() : slots_(kSize, -1) {}
  void clear() {
    for (const std::uint32_t s : used_) slots_[s] = -1;
    used_.clear();
  }
  bool insert(std::int32_t id) {
    if (used_.size() * 2 > slots_.size()) grow();
    auto s = (static_cast<std::uint32_t>(id) * 2654435761u) & mask();
    for (; slots_[s] != -1; s = (s + 1) & mask())
      if (slots_[s] == id) return false;
    slots_[s] = id;
    used_.push_back(s);
    return true;
  }

 private:
  static constexpr std::size_t kSize = 1024;
  std::uint32_t mask() const { return static_cast<std::uint32_t>(slots_.size() - 1); }
  void grow() {
    std::vector<std::int32_t> held;
    for (const std::uint32_t s : used_) held.push_back(slots_[s]);
    slots_.assign(slots_.size() * 2, -1);
    used_.clear();
    for (const std::int32_t id : held) insert(id);
  }
  std::vector<std::int32_t> slots_;
  std::vector<std::uint32_t> used_;
};

template <class M, class V>
class Descent {
 public:
  using X = MatrixView<const V>;
  Descent(const Context& ctx, const M& metric, const X& x, const KnnOptions& options, KnnResult& out)
      : ctx_(ctx),
        metric_(metric),
        x_(x),
        options_(options),
        out_(out),
        n_(x.n_rows),
        others_(out.k - 1),
        width_(static_cast<int>(std::min<std::int64_t>(x.n_rows - 1, others_ + std::max(6, others_ / 3)))),
        key_(ctx.rng.fold(0x6e6e64)),
        terms_(row_terms(ctx, x, out.metric)),
        rows_(ctx, x, out.metric, terms_.data(), false),
        lists_(ctx.workspace, checked_mul(n_, width_), "nn_descent lists"),
        counts_(ctx.workspace, n_, "nn_descent lists") {
    std::fill(counts_.begin(), counts_.end(), 0);
  }

  /// False: the recall asked for was not reached.
  bool run() {
    plant(options_.n_trees);
    refine(options_.max_rounds);
    for (int attempt = 0;; ++attempt) {
      out_.recall = measure();
      if (out_.recall >= options_.min_recall) {
        write();
        return true;
      }
      if (attempt == 6) return false;
      ctx_.info(fmt::format("pp.neighbors: recall {:.4f} after {} trees and {} rounds: more of both", out_.recall,
                            trees_, out_.rounds));
      plant(4);
      refine(1);
    }
  }

 private:
  /// Trees: the cells are halved at the median of their projection on the line through two random cells of the node.
  void plant(int trees) {
    Array<std::int32_t> order(ctx_.workspace, n_, "nn_descent trees");
    Array<double> projection(ctx_.workspace, n_, "nn_descent trees");
    for (int t = 0; t < trees; ++t, ++trees_) {
      std::iota(order.begin(), order.end(), 0);
      std::vector<std::int64_t> bounds{0, n_};
      // Halves differ by at most one cell, so that all leaves fit at the same level.
      for (int level = 0; chunk_count(n_, std::int64_t{1} << level) > kLeaf; ++level)
        split(order, projection, bounds, level);
      search_leaves(order, bounds);
      ctx_.report(kStep, t + 1, trees);
    }
  }

  void split(Array<std::int32_t>& order, Array<double>& projection, std::vector<std::int64_t>& bounds, int level) {
    const std::size_t nodes = bounds.size() - 1;
    const std::size_t depth = static_cast<std::size_t>(x_.n_cols);
    std::vector<double> directions(nodes * depth);
    for (std::size_t v = 0; v < nodes; ++v) {
      const auto size = static_cast<std::uint32_t>(bounds[v + 1] - bounds[v]);
      const auto words = math::random_words(key_.fold(kDirections), v, static_cast<std::uint64_t>(trees_ * 64 + level));
      const std::uint32_t p = math::bounded(words.v[0], size);
      const std::uint32_t q = (p + 1 + math::bounded(words.v[1], std::max(1u, size - 1))) % size;
      const V *const a = x_.row(order[bounds[v] + p]), *const b = x_.row(order[bounds[v] + q]);
      // Unit rows and centred rows are split by their angle as well, well enough: leaves only have to be local.
      for (std::size_t k = 0; k < depth; ++k)
        directions[v * depth + k] = static_cast<double>(a[k]) - static_cast<double>(b[k]);
    }
    parallel_for(ctx_, n_, 4096, [&](std::int64_t begin, std::int64_t end) {
      auto v = static_cast<std::size_t>(std::upper_bound(bounds.begin(), bounds.end(), begin) - bounds.begin() - 1);
      for (std::int64_t at = begin; at < end; ++at) {
        while (at >= bounds[v + 1]) ++v;
        const V* const row = x_.row(order[at]);
        projection[order[at]] = project(row, directions.data() + v * depth, x_.n_cols);
      }
    });
    std::vector<std::int64_t> next(2 * nodes + 1);
    parallel_chunks(ctx_, static_cast<std::int64_t>(nodes), 1, [&](std::int64_t v, std::int64_t, std::int64_t, int) {
      const auto u = static_cast<std::size_t>(v);
      const std::int64_t middle = bounds[u] + (bounds[u + 1] - bounds[u]) / 2;
      std::nth_element(order.data() + bounds[u], order.data() + middle, order.data() + bounds[u + 1],
                       [&](std::int32_t a, std::int32_t b) {
                         return projection[a] < projection[b] || (projection[a] == projection[b] && a < b);
                       });
      // The halves are sets; in index order they do not depend on how the library selects.
      std::sort(order.data() + bounds[u], order.data() + middle);
      std::sort(order.data() + middle, order.data() + bounds[u + 1]);
      next[2 * u] = bounds[u];
      next[2 * u + 1] = middle;
    });
    next.back() = n_;
    bounds = std::move(next);
  }

  static double project(const V* row, const double* direction, std::int64_t depth) {
    double lanes[math::kLanes] = {};
    std::int64_t k = 0;
    for (; k + math::kLanes <= depth; k += math::kLanes)
      for (int l = 0; l < math::kLanes; ++l) lanes[l] += static_cast<double>(row[k + l]) * direction[k + l];
    for (int l = 0; k + l < depth; ++l) lanes[l] += static_cast<double>(row[k + l]) * direction[k + l];
    for (int offset = math::kLanes / 2; offset > 0; offset /= 2)
      for (int l = 0; l < offset; ++l) lanes[l] += lanes[l + offset];
    return lanes[0];
  }

  /// Scratch of one thread for leaves.
  struct LeafSearch {
    LeafSearch(const Context& ctx, std::int64_t depth, int width)
        : tiles(ctx, depth),
          candidates(ctx, kLeaf, kLeaf, width),
          panels(ctx.workspace, kLeaf * std::max<std::int64_t>(1, depth), "nn_descent leaves"),
          g(kLeaf),
          e(kLeaf) {}
    TileSearch tiles;
    Candidates candidates;
    Array<float> panels;
    std::vector<float> g, e;
    std::vector<std::int32_t> ids;
    std::vector<double> keys;
  };

  void search_leaves(const Array<std::int32_t>& order, const std::vector<std::int64_t>& bounds) {
    std::vector<std::unique_ptr<LeafSearch>> scratch(static_cast<std::size_t>(std::max(1, ctx_.n_threads)));
    parallel_chunks(ctx_, static_cast<std::int64_t>(bounds.size()) - 1, 1,
                    [&](std::int64_t leaf, std::int64_t, std::int64_t, int worker) {
                      auto& s = scratch[static_cast<std::size_t>(worker)];
                      if (!s) s = std::make_unique<LeafSearch>(ctx_, x_.n_cols, width_);
                      const auto u = static_cast<std::size_t>(leaf);
                      search_leaf(*s, order.data() + bounds[u], bounds[u + 1] - bounds[u]);
                    });
  }

  void search_leaf(LeafSearch& s, const std::int32_t* cells, std::int64_t size) {
    const std::int64_t depth = x_.n_cols;
    const std::int64_t padded = chunk_count(size, kBlockRows) * kBlockRows;
    for (std::int64_t r = 0; r < padded; ++r) {
      float* const out = s.panels.data() + (r / kTileColumns) * kTileColumns * depth + r % kTileColumns;
      const auto ur = static_cast<std::size_t>(r);
      if (r < size) {
        rows_.row(cells[r], out, kTileColumns);
      } else {
        for (std::int64_t k = 0; k < depth; ++k) out[k * kTileColumns] = 0.0f;
      }
      s.g[ur] = r < size ? rows_.g()[cells[r]] : kPadding;
      s.e[ur] = r < size ? rows_.e()[cells[r]] : 0.0f;
    }
    s.candidates.reset(s.e.data(), s.e.data(), size, padded);
    for (std::int64_t r = 0; r < size; ++r) {
      const std::int64_t i = cells[r];
      if (counts_[i] < width_) continue;
      const double key = static_cast<double>(lists_[i * width_ + width_ - 1].key);
      const double worst = key + std::abs(key) * 0x1.0p-22;
      // Four error terms: rounding of the key and of this bound, and that rows of zeros count as unit rows here.
      s.candidates.require(
          r, static_cast<float>(rows_.score_of(i, worst) - 4.0 * static_cast<double>(rows_.e()[i]) - 1e-30));
    }
    constexpr int kPanels = kBlockRows / kTileColumns;
    const auto panel = [&](std::int64_t p) { return s.panels.data() + p * kTileColumns * depth; };
    for (std::int64_t b = 0; b < padded / kBlockRows; ++b) {
      for (int part = 0; part < kPanels; ++part) s.tiles.load_panel(part, panel(b * kPanels + part));
      for (std::int64_t p = b * kPanels; p < padded / kTileColumns; ++p)
        s.tiles.run(s.candidates, b * kBlockRows, p * kTileColumns, panel(p), s.g.data(), p >= (b + 1) * kPanels);
    }
    for (std::int64_t r = 0; r < size; ++r) {
      int count = 0;
      const Candidate* const found = s.candidates.finish(r, count);
      s.ids.clear();
      if (found != nullptr) {
        for (int m = 0; m < count; ++m) s.ids.push_back(cells[found[m].id]);
      } else {  // scores do not tell the cells of this leaf apart
        for (std::int64_t o = 0; o < size; ++o)
          if (o != r) s.ids.push_back(cells[o]);
      }
      offer(cells[r], s.ids, s.keys, lists_.data() + std::int64_t{cells[r]} * width_, counts_[cells[r]]);
    }
  }

  /// Puts the nearest of `ids` into a list of cell i; ids must not be in it twice. Returns how many it took.
  int offer(std::int64_t i, const std::vector<std::int32_t>& ids, std::vector<double>& keys, Entry* list,
            std::int32_t& count) const {
    keys.resize(ids.size());
    row_of_keys(metric_, x_, terms_.data(), i, ids.data(), static_cast<int>(ids.size()), keys.data());
    int taken = 0;
    for (std::size_t m = 0; m < ids.size(); ++m) {
      const Entry e{static_cast<float>(keys[m]), static_cast<std::uint32_t>(ids[m]) | kNew};
      if (count == width_ && !before(e, list[width_ - 1])) continue;
      // Equal cells have equal keys: a duplicate can only stand where e would go.
      int at = count;
      while (at > 0 && before(e, list[at - 1])) --at;
      if (at > 0 && list[at - 1].id() == e.id()) continue;
      for (int move = std::min(count, width_ - 1); move > at; --move) list[move] = list[move - 1];
      list[at] = e;
      count = std::min(count + 1, width_);
      ++taken;
    }
    return taken;
  }

  /// Rounds until hardly anything changes.
  void refine(int max_rounds) {
    const int forward = std::min(width_, kReach), backward = kReach;
    Array<Entry> next(ctx_.workspace, lists_.size(), "nn_descent lists");
    Array<std::int32_t> next_counts(ctx_.workspace, n_, "nn_descent lists");
    Array<std::int64_t> start(ctx_.workspace, n_ + 1, "nn_descent reverse lists");
    for (int round = 0; round < max_rounds; ++round, ++out_.rounds) {
      const auto reverse = reverse_lists(forward, start);
      const std::int64_t grain = 1024;
      std::vector<std::int64_t> updates(static_cast<std::size_t>(chunk_count(n_, grain)));
      parallel_chunks(ctx_, n_, grain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
        SeenSet seen;
        std::vector<std::int32_t> ids;
        std::vector<double> keys;
        std::vector<std::pair<std::uint64_t, std::uint32_t>> drawn;
        std::int64_t taken = 0;
        for (std::int64_t i = begin; i < end; ++i) {
          const Entry* const own = lists_.data() + i * width_;
          Entry* const list = next.data() + i * width_;
          seen.clear();
          seen.insert(static_cast<std::int32_t>(i));
          for (int m = 0; m < counts_[i]; ++m) {
            seen.insert(own[m].id());
            list[m] = {own[m].key, own[m].tagged & ~kNew};
          }
          next_counts[i] = counts_[i];
          ids.clear();
          const auto visit = [&](std::int32_t j, bool fresh) {
            const Entry* const theirs = lists_.data() + std::int64_t{j} * width_;
            for (int m = 0; m < std::min(forward, counts_[j]); ++m)
              if ((fresh || theirs[m].fresh()) && seen.insert(theirs[m].id())) ids.push_back(theirs[m].id());
          };
          for (int m = 0; m < std::min(forward, counts_[i]); ++m) visit(own[m].id(), own[m].fresh());
          // Cells that have i in their list: a sample, since some cells are in very many.
          drawn.clear();
          for (std::int64_t r = start[i]; r < start[i + 1]; ++r)
            drawn.emplace_back(math::random_u64(key_.fold(kReverse), static_cast<std::uint64_t>(i), reverse[r] & ~kNew),
                               reverse[r]);
          if (drawn.size() > static_cast<std::size_t>(backward)) {
            std::nth_element(drawn.begin(), drawn.begin() + backward, drawn.end());
            drawn.resize(static_cast<std::size_t>(backward));
          }
          for (const auto& [unused, tagged] : drawn) {
            const auto j = static_cast<std::int32_t>(tagged & ~kNew);
            if (seen.insert(j)) ids.push_back(j);
            visit(j, (tagged & kNew) != 0);
          }
          taken += offer(i, ids, keys, list, next_counts[i]);
        }
        updates[static_cast<std::size_t>(chunk)] = taken;
      });
      lists_.swap(next);
      counts_.swap(next_counts);
      const std::int64_t changed = std::accumulate(updates.begin(), updates.end(), std::int64_t{0});
      ctx_.report(kStep, round + 1, max_rounds);
      if (static_cast<double>(changed) < 0.002 * static_cast<double>(n_) * others_) {
        ++out_.rounds;
        return;
      }
    }
  }

  /// For each cell the cells that have it among their first `forward`, with their kNew; row i at start[i].
  Array<std::uint32_t> reverse_lists(int forward, Array<std::int64_t>& start) {
    Array<std::int64_t> next(ctx_.workspace, n_, "nn_descent reverse lists");
    std::fill(next.begin(), next.end(), std::int64_t{0});
    parallel_for(ctx_, n_, 1024, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int m = 0; m < std::min(forward, counts_[i]); ++m)
          std::atomic_ref(next[lists_[i * width_ + m].id()]).fetch_add(1, std::memory_order_relaxed);
    });
    start[0] = 0;
    for (std::int64_t i = 0; i < n_; ++i) {
      start[i + 1] = start[i] + next[i];
      next[i] = start[i];
    }
    Array<std::uint32_t> out(ctx_.workspace, start[n_], "nn_descent reverse lists");
    // Places within a row depend on the threads; what is drawn from it does not (distinct random keys).
    parallel_for(ctx_, n_, 1024, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int m = 0; m < std::min(forward, counts_[i]); ++m) {
          const Entry& e = lists_[i * width_ + m];
          out[std::atomic_ref(next[e.id()]).fetch_add(1, std::memory_order_relaxed)] =
              static_cast<std::uint32_t>(i) | (e.tagged & kNew);
        }
    });
    return out;
  }

  /// The list of cell i by exact keys.
  void exact_list(std::int64_t i, std::vector<std::int32_t>& ids, std::vector<double>& keys,
                  std::vector<Neighbour>& sorted) const {
    ids.clear();
    for (int m = 0; m < counts_[i]; ++m) ids.push_back(lists_[i * width_ + m].id());
    keys.resize(ids.size());
    row_of_keys(metric_, x_, terms_.data(), i, ids.data(), static_cast<int>(ids.size()), keys.data());
    sorted.clear();
    for (std::size_t m = 0; m < ids.size(); ++m) sorted.push_back({keys[m], ids[m]});
    std::sort(sorted.begin(), sorted.end(), &nearer);
  }

  /// Share of the true neighbours of sampled cells that are in their lists (one at the distance of the last counts).
  double measure() {
    const std::int64_t cells = std::min(options_.recall_sample, n_);
    out_.recall_cells = cells;
    std::vector<std::int64_t> sample(static_cast<std::size_t>(cells));
    for (std::int64_t s = 0; s < cells; ++s) {  // one in each of `cells` equal ranges
      const std::int64_t first = s * n_ / cells, last = (s + 1) * n_ / cells;
      sample[static_cast<std::size_t>(s)] =
          first + math::bounded(math::random_words(key_.fold(kSample), static_cast<std::uint64_t>(s), 0).v[0],
                                static_cast<std::uint32_t>(last - first));
    }
    const std::int64_t padded = chunk_count(cells, kBlockRows) * kBlockRows;
    std::vector<float> e(static_cast<std::size_t>(cells));
    for (std::size_t s = 0; s < e.size(); ++s) e[s] = rows_.e()[sample[s]];
    Candidates candidates(ctx_, cells, padded, others_);
    candidates.reset(e.data(), rows_.e(), cells, padded);
    const std::int64_t blocks = padded / kBlockRows, panels = rows_.padded() / kTileColumns;
    std::vector<std::unique_ptr<TileSearch>> queries;
    for (std::int64_t b = 0; b < blocks; ++b) {
      queries.push_back(std::make_unique<TileSearch>(ctx_, x_.n_cols));
      for (std::int64_t r = 0; r < kBlockRows; ++r) {
        const std::int64_t s = b * kBlockRows + r;
        queries.back()->load_row(static_cast<int>(r), [&](float* out, std::int64_t stride) {
          if (s < cells) return rows_.row(sample[static_cast<std::size_t>(s)], out, stride);
          for (std::int64_t k = 0; k < x_.n_cols; ++k) out[k * stride] = 0.0f;
        });
      }
    }
    parallel_for(ctx_, blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(rows_.scratch_size()));
      for (std::int64_t p = 0; p < panels; ++p) {
        if (p % 64 == 0 && ctx_.is_cancelled()) ctx_.check_cancelled("pp.neighbors");
        const float* const panel = rows_.panel(p, scratch.data());
        for (std::int64_t b = begin; b < end; ++b)
          queries[static_cast<std::size_t>(b)]->run_queries(
              candidates, b * kBlockRows, p * kTileColumns, panel, rows_.g(),
              [&](std::int64_t row) { return row < cells ? sample[static_cast<std::size_t>(row)] : -1; });
      }
    });
    std::vector<std::int64_t> found(static_cast<std::size_t>(cells));
    std::vector<std::int64_t> open;
    const auto count_found = [&](std::int64_t s, double last_key) {
      std::vector<std::int32_t> ids;
      std::vector<double> keys;
      std::vector<Neighbour> mine;
      exact_list(sample[static_cast<std::size_t>(s)], ids, keys, mine);
      std::int64_t hits = 0;
      for (int m = 0; m < std::min<int>(others_, static_cast<int>(mine.size())); ++m)
        hits += mine[static_cast<std::size_t>(m)].key <= last_key ? 1 : 0;
      found[static_cast<std::size_t>(s)] = hits;
    };
    for (std::int64_t s = 0; s < cells; ++s) {
      int count = 0;
      const Candidate* const list = candidates.finish(s, count);
      if (list == nullptr) {
        open.push_back(s);
        continue;
      }
      std::vector<std::int32_t> ids;
      for (int m = 0; m < count; ++m) ids.push_back(list[m].id);
      std::vector<double> keys(ids.size());
      row_of_keys(metric_, x_, terms_.data(), sample[static_cast<std::size_t>(s)], ids.data(), count, keys.data());
      std::nth_element(keys.begin(), keys.begin() + (others_ - 1), keys.end());
      count_found(s, keys[static_cast<std::size_t>(others_ - 1)]);
    }
    std::vector<std::int64_t> open_rows;
    for (const std::int64_t s : open) open_rows.push_back(sample[static_cast<std::size_t>(s)]);
    scan_rows(ctx_, metric_, x_, terms_.data(), open_rows.data(), static_cast<std::int64_t>(open.size()), out_.k, kStep,
              [&](std::int64_t at, const Neighbour* sorted) {
                count_found(open[static_cast<std::size_t>(at)], sorted[others_ - 1].key);
              });
    const std::int64_t total = std::accumulate(found.begin(), found.end(), std::int64_t{0});
    return static_cast<double>(total) / (static_cast<double>(cells) * others_);
  }

  void write() {
    parallel_for(ctx_, n_, 1024, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::int32_t> ids;
      std::vector<double> keys;
      std::vector<Neighbour> sorted;
      for (std::int64_t i = begin; i < end; ++i) {
        exact_list(i, ids, keys, sorted);
        SCW_ASSERT(static_cast<int>(sorted.size()) >= others_);
        write_row(metric_, x_, terms_.data(), i, sorted.data(), out_);
      }
    });
  }

  const Context& ctx_;
  M metric_;
  X x_;
  const KnnOptions& options_;
  KnnResult& out_;
  std::int64_t n_;
  int others_, width_;
  RngKey key_;
  int trees_ = 0;
  Array<math::RowTerm> terms_;
  TileRows<X> rows_;
  Array<Entry> lists_;  // [n x width], nearest first
  Array<std::int32_t> counts_;
};

}  // namespace

void knn_descent(const Context& ctx, const AnyMatrixView& x, const KnnOptions& options, KnnResult& out) {
  // A leaf of this size must hold more cells than a list.
  bool reached = false;
  if (out.k > 1 && 2 * std::int64_t{out.k} + 16 < kLeaf / 2 && n_rows(x) > kLeaf) {
    const auto descend = [&](const auto& metric) {
      if (const auto* f = std::get_if<MatrixView<const float>>(&x))
        reached = Descent(ctx, metric, *f, options, out).run();
      if (const auto* d = std::get_if<MatrixView<const double>>(&x))
        reached = Descent(ctx, metric, *d, options, out).run();
    };
    switch (options.metric) {
      case Metric::euclidean:
      case Metric::sqeuclidean:
        options.metric == Metric::euclidean ? descend(math::Euclidean{}) : descend(math::SquaredEuclidean{});
        break;
      case Metric::cosine:
        descend(math::Cosine{});
        break;
      case Metric::correlation:
        descend(math::Correlation{});
        break;
      default:
        descend(math::InnerProduct{});
        break;
    }
  }
  if (reached) return;
  ctx.info(fmt::format("pp.neighbors: nn_descent gives way to the exact search ({} cells, recall {:.4f})", out.n,
                       out.recall_cells > 0 ? out.recall : 0.0));
  out.algorithm = KnnAlgorithm::brute;
  out.recall = 1.0;
  out.recall_cells = 0;
  knn_brute_kernel(ctx, x, options, out);
}

SCW_REGISTER(knn_descent_kernel, cpu, &knn_descent);

}  // namespace scw::pp::cpu
