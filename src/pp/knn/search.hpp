// Candidates from float scores, with a proof that no neighbour is missed. Used for whole matrices (brute) and for the
// leaves of random projection trees (nn_descent).
//
// Row i is represented by z_i (float: centred, or normalised), so that its metric decreases with the score
// z_i . z_j - h_j, h_j = |z_j|^2 / 2 for euclidean metrics and 0 for dot products. A float score differs from the exact
// one by at most u (depth + 24) |z_i||z_j| <= e_i + e_j, e = u (depth + 24) |z|^2 / 2 (+ the rounding of h_j: 2 e_j
// covers it), u = 2^-24: the standard bound of a sum of depth + 1 rounded terms, the rounding of z itself, and of the
// few operations on the score. So with upper = score + e_i + 2 e_j and lower = score - e_i - 2 e_j, a pair whose upper
// is below the k-th largest lower of the row is farther than k others: dropped, whatever the order of the pairs.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "pp/knn/kernel.hpp"
#include "pp/knn/tiles.hpp"
#include "scwarp/core/array.hpp"

namespace scw::pp::cpu {

inline constexpr std::int64_t kBlockRows = 192;  // of 6 and 64; a block of queries stays in L2
inline constexpr float kNothing = -1e29f;        // below every score, above those of padding
inline constexpr float kPadding = 1e30f;
inline constexpr float kClosed = 3e38f;

struct Candidate {
  float lower;
  std::int32_t id;
};

/// Bounded lists of candidates of n rows. offer() may be called by several threads.
class Candidates {
 public:
  Candidates(const Context& ctx, std::int64_t n, std::int64_t padded, int k)
      : k_(k),
        capacity_(3 * k + 48),
        entries_(ctx.workspace, checked_mul(n, capacity_), "neighbour candidates"),
        counts_(ctx.workspace, n, "neighbour candidates"),
        thresholds_(ctx.workspace, padded, "neighbour candidates"),
        locks_(ctx.workspace, n, "neighbour candidates") {}

  /// row_e, column_e: error terms of the n rows and of what they are offered.
  void reset(const float* row_e, const float* column_e, std::int64_t n, std::int64_t padded) {
    row_e_ = row_e;
    column_e_ = column_e;
    std::fill(counts_.begin(), counts_.begin() + n, Count{0, std::min(capacity_, 2 * k_ + 8)});
    std::fill(locks_.begin(), locks_.begin() + n, std::uint8_t{0});
    std::fill(thresholds_.begin(), thresholds_.begin() + n, kNothing);
    std::fill(thresholds_.begin() + n, thresholds_.begin() + padded, kClosed);
  }

  /// Row i wants no candidate whose score is below `score` for sure. Before any offer.
  void require(std::int64_t i, float score) { set_threshold(i, score - row_e_[i]); }

  /// Row i takes j only if acc = z_i.z_j - g_j exceeds this.
  float threshold(std::int64_t i) const {
    return std::atomic_ref<float>(const_cast<float&>(thresholds_[i])).load(std::memory_order_relaxed);
  }

  void offer(std::int64_t i, std::int32_t j, float acc) {
    const Lock lock(locks_[i]);
    auto& [count, limit] = counts_[i];
    if (count == limit) {
      prune(i);
      if (count > limit - k_ / 2 - 4) limit = std::min(capacity_, 2 * limit);
      if (count > capacity_ - 16) {  // the float scores do not separate this row: left to an exact scan
        count = -1;
        set_threshold(i, kClosed);
      }
    }
    if (count < 0 || !(acc > thresholds_[i])) return;
    entries_[i * capacity_ + count++] = {acc - 4.0f * column_e_[j] - row_e_[i], j};
  }

  /// Drops what cannot be a neighbour. Returns the candidates left, or nullptr if the row needs an exact scan.
  const Candidate* finish(std::int64_t i, int& count) {
    if (counts_[i].count < 0) return nullptr;
    prune(i);
    count = counts_[i].count;
    return entries_.data() + i * capacity_;
  }

 private:
  struct Count {
    std::int32_t count;  // -1: needs an exact scan
    std::int32_t limit;  // pruned here: often, since a tight threshold spares more than it costs
  };
  class Lock {
   public:
    explicit Lock(std::uint8_t& flag) : flag_(flag) {
      while (flag_.exchange(1, std::memory_order_acquire) != 0) {
      }
    }
    ~Lock() { flag_.store(0, std::memory_order_release); }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    std::atomic_ref<std::uint8_t> flag_;
  };

  void set_threshold(std::int64_t i, float t) {
    std::atomic_ref<float>(thresholds_[i]).store(t, std::memory_order_relaxed);
  }

  void prune(std::int64_t i) {
    std::int32_t& count = counts_[i].count;
    if (count < k_ || k_ == 0) return;
    Candidate* const c = entries_.data() + i * capacity_;
    std::nth_element(c, c + (k_ - 1), c + count,
                     [](const Candidate& a, const Candidate& b) { return a.lower > b.lower; });
    const float bar = c[k_ - 1].lower;
    const float own = 2.0f * row_e_[i];
    std::int32_t kept = k_;
    for (std::int32_t m = k_; m < count; ++m)
      if (c[m].lower + (own + 4.0f * column_e_[c[m].id]) >= bar) c[kept++] = c[m];
    count = kept;
    set_threshold(i, std::max(thresholds_[i], bar - row_e_[i]));
  }

  int k_;
  std::int32_t capacity_;
  const float *row_e_ = nullptr, *column_e_ = nullptr;
  Array<Candidate> entries_;
  Array<Count> counts_;
  Array<float> thresholds_;
  Array<std::uint8_t> locks_;
};

/// One block of kBlockRows rows of float rows in panels of 64 ([depth][64]), with scratch of one thread.
class TileSearch {
 public:
  TileSearch(const Context& ctx, std::int64_t depth)
      : depth_(depth),
        a_(ctx.workspace, checked_mul(kBlockRows, std::max<std::int64_t>(1, depth)), "neighbour tiles"),
        scores_(ctx.workspace, kBlockRows * kTileColumns, "neighbour tiles") {}

  /// Packs one row of the block: pack(out, stride) writes its depth values.
  template <class Pack>
  void load_row(int row, const Pack& pack) {
    pack(a_.data() + (row / kTileRows) * depth_ * kTileRows + row % kTileRows, std::int64_t{kTileRows});
  }

  /// Packs the rows of a block, from its three panels.
  void load_panel(int part, const float* panel) {
    for (int c = 0; c < kTileColumns; ++c) {
      const int row = part * kTileColumns + c;
      float* const out = a_.data() + (row / kTileRows) * depth_ * kTileRows + row % kTileRows;
      for (std::int64_t k = 0; k < depth_; ++k) out[k * kTileRows] = panel[k * kTileColumns + c];
    }
  }

  /// All pairs of the block that starts at row `block` and the panel that starts at row `start`; `both`: the rows of
  /// the panel get their candidates too. g: offsets of all rows, padded.
  void run(Candidates& out, std::int64_t block, std::int64_t start, const float* panel, const float* g, bool both) {
    for (int c = 0; c < kTileColumns; ++c) column_threshold_[c] = out.threshold(start + c) - g[start + c];
    tiles(out, block, start, panel, g + start, g + block, both, [&](std::int64_t row) { return row; });
  }

  /// The block holds queries: rows of `out` that are not the rows of the panels. self(row): the query's own panel row,
  /// which it does not take, or -1.
  template <class Self>
  void run_queries(Candidates& out, std::int64_t block, std::int64_t start, const float* panel, const float* g,
                   const Self& self) {
    static constexpr float kNoOffsets[kBlockRows] = {};
    tiles(out, block, start, panel, g + start, kNoOffsets, false, self);
  }

  /// Terms of the error bound per unit of |z|^2 / 2.
  static double error_factor(std::int64_t depth) {
    const std::int64_t in_block = std::min(depth, kDepthBlock);
    return static_cast<double>(in_block + depth / kDepthBlock + 24) * 0x1.0p-24 * 1.01;
  }

 private:
  static constexpr std::int64_t kDepthBlock = 512;

  template <class Self>
  void tiles(Candidates& out, std::int64_t block, std::int64_t start, const float* panel, const float* panel_g,
             const float* block_g, bool both, const Self& self) {
    float row_threshold[kBlockRows];
    for (std::int64_t r = 0; r < kBlockRows; ++r) row_threshold[r] = out.threshold(block + r);
    Tile t;
    t.offset = panel_g;
    t.column_threshold = column_threshold_;
    t.both = both;
    for (std::int64_t k0 = 0; k0 < std::max<std::int64_t>(1, depth_); k0 += kDepthBlock) {
      t.first = k0 == 0;
      t.last = k0 + kDepthBlock >= depth_;
      t.depth = std::min(kDepthBlock, depth_ - k0);
      t.b = panel + k0 * kTileColumns;
      for (std::int64_t r = 0; r < kBlockRows; r += kTileRows) {
        t.a = a_.data() + (r * depth_ + k0 * kTileRows);
        t.row_threshold = row_threshold + r;
        t.row_offset = block_g + r;
        t.score = scores_.data() + r * kTileColumns;
        if (function_(t)) take(out, t, block + r, start, self);
      }
    }
  }

  template <class Self>
  static void take(Candidates& out, const Tile& t, std::int64_t row, std::int64_t start, const Self& self) {
    for (int r = 0; r < kTileRows; ++r) {
      const float* const score = t.score + r * kTileColumns;
      for (std::uint64_t hits = t.row_hits[r]; hits != 0; hits &= hits - 1) {
        const int c = __builtin_ctzll(hits);
        if (start + c != self(row + r)) out.offer(row + r, static_cast<std::int32_t>(start + c), score[c]);
      }
      for (std::uint64_t hits = t.column_hits[r]; hits != 0; hits &= hits - 1) {
        const int c = __builtin_ctzll(hits);
        out.offer(start + c, static_cast<std::int32_t>(row + r), score[c] + (t.offset[c] - t.row_offset[r]));
      }
    }
  }

  std::int64_t depth_;
  Array<float> a_, scores_;
  float column_threshold_[kTileColumns] = {};
  TileFunction function_ = tile_function();
};

}  // namespace scw::pp::cpu
