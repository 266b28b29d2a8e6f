// The non-zero values of one gene after the other, each with the group of its cell: blocks of columns from CSR, strips
// of 16 columns from dense rows. What per-gene sorting starts from.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/parallel.hpp"
#include "prim/csr_to_csc.hpp"
#include "prim/radix_sort.hpp"

namespace scw::prim {

/// A value as sortable bits, and a group: 8 bytes for float.
template <class V>
struct GeneEntry;
template <>
struct GeneEntry<float> {
  std::uint64_t packed;  // sortable bits, then the group
  using Key = std::uint32_t;
  static GeneEntry make(Key key, std::int32_t group) {
    return {(std::uint64_t{key} << 32) | static_cast<std::uint32_t>(group)};
  }
  Key key() const { return static_cast<Key>(packed >> 32); }
  std::int32_t group() const { return static_cast<std::int32_t>(packed & 0xFFFFFFFFu); }
  float value() const { return from_sortable_bits(key()); }
};
template <>
struct GeneEntry<double> {
  std::uint64_t bits;
  std::int32_t code;
  using Key = std::uint64_t;
  static GeneEntry make(Key key, std::int32_t group) { return {key, group}; }
  Key key() const { return bits; }
  std::int32_t group() const { return code; }
  double value() const { return from_sortable_bits(key()); }
};

/// Sorts one gene's entries by key, stably. tmp has room for n; returns where the sorted entries are.
template <class V>
const GeneEntry<V>* sort_entries(GeneEntry<V>* entries, GeneEntry<V>* tmp, std::int64_t n,
                                 std::vector<std::uint32_t>& scratch) {
  using Key = typename GeneEntry<V>::Key;
  Key low = std::numeric_limits<Key>::max(), high = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    low = std::min(low, entries[i].key());
    high = std::max(high, entries[i].key());
  }
  return radix_sort(entries, tmp, n, [](const GeneEntry<V>& e) { return e.key(); }, low, high, scratch);
}

/// Reports progress as `step`. body(worker, gene, entries, tmp, n) for every gene, in any order: its n non-zero values
/// in cells with takes_part(code), cells in increasing order. The body may overwrite entries and tmp (both have room
/// for n). Memory: for each thread, 8 (float) or 16 (double) bytes an entry of a block and of the longest gene.
template <class V, class TakesPart, class Body>
void for_each_gene(const Context& ctx, const CsrView<const V>& x, Span<const std::int32_t> codes,
                   const TakesPart& takes_part, const char* step, const Body& body) {
  using E = GeneEntry<V>;
  struct Scratch {
    Array<E> entries, tmp;
    std::vector<std::int64_t> end;
  };
  const ColumnPlan plan = plan_columns(ctx, x.n_rows, x.n_cols, x.indptr, x.indices);
  std::int64_t longest = 0;
  for (std::int64_t j = 0; j < x.n_cols; ++j)
    longest = std::max(longest, plan.column_start[j + 1] - plan.column_start[j]);
  std::vector<Scratch> scratch = make_for_workers(ctx, plan.n_blocks(), [&] {
    return Scratch{Array<E>(ctx.workspace, plan.max_block_entries, "genes to sort"),
                   Array<E>(ctx.workspace, longest, "sorted gene"),
                   {}};
  });
  std::atomic<std::int64_t> done{0};
  parallel_chunks(ctx, plan.n_blocks(), 1, [&](std::int64_t b, std::int64_t, std::int64_t, int worker) {
    Scratch& s = scratch[static_cast<std::size_t>(worker)];
    const std::int32_t first = plan.first[static_cast<std::size_t>(b)];
    const std::int32_t last = plan.first[static_cast<std::size_t>(b) + 1];
    s.end.resize(static_cast<std::size_t>(last - first));
    gather_block(x, plan, b, s.entries.data(), s.end.data(), [&](E& e, V value, std::int64_t row) {
      const std::int32_t code = codes[row];
      e = E::make(sortable_bits(value), code);
      return value != 0 && takes_part(code);
    });
    for (std::int32_t j = first; j < last; ++j) {
      const std::int64_t begin = plan.column_start[j] - plan.column_start[first];
      const std::int64_t n = s.end[static_cast<std::size_t>(j - first)] - begin;
      body(worker, std::int64_t{j}, s.entries.data() + begin, s.tmp.data(), n);
    }
    done += last - first;
    if (worker == 0) ctx.report(step, done.load(), x.n_cols);
  });
  ctx.report(step, x.n_cols, x.n_cols);
}

template <class V, class TakesPart, class Body>
void for_each_gene(const Context& ctx, const MatrixView<const V>& x, Span<const std::int32_t> codes,
                   const TakesPart& takes_part, const char* step, const Body& body) {
  using E = GeneEntry<V>;
  constexpr std::int64_t kStrip = 16;  // a cache line of floats
  struct Scratch {
    Array<E> entries, tmp;
  };
  std::vector<Scratch> scratch = make_for_workers(ctx, chunk_count(x.n_cols, kStrip), [&] {
    return Scratch{Array<E>(ctx.workspace, checked_mul(kStrip, x.n_rows), "genes to sort"),
                   Array<E>(ctx.workspace, x.n_rows, "sorted gene")};
  });
  std::atomic<std::int64_t> done{0};
  parallel_chunks(ctx, x.n_cols, kStrip, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    Scratch& s = scratch[static_cast<std::size_t>(worker)];
    std::int64_t used[kStrip] = {};
    for (std::int64_t i = 0; i < x.n_rows; ++i) {
      const std::int32_t code = codes[i];
      if (!takes_part(code)) continue;
      const V* const row = x.row(i);
      for (std::int64_t j = begin; j < end; ++j) {
        if (row[j] == 0) continue;
        s.entries[(j - begin) * x.n_rows + used[j - begin]++] = E::make(sortable_bits(row[j]), code);
      }
    }
    for (std::int64_t j = begin; j < end; ++j)
      body(worker, j, s.entries.data() + (j - begin) * x.n_rows, s.tmp.data(), used[j - begin]);
    done += end - begin;
    if (worker == 0) ctx.report(step, done.load(), x.n_cols);
  });
  ctx.report(step, x.n_cols, x.n_cols);
}

}  // namespace scw::prim
