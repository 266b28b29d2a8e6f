#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <mutex>
#include <vector>

#include "core/parallel.hpp"
#include "prim/group_moments/group_moments.hpp"

namespace scw::prim::cpu {
namespace {

constexpr std::int64_t kMaxGrain = 1024;    // rows a chunk in the pass for the maxima
constexpr std::int64_t kGroupGrain = 4096;  // cells of one group a chunk; below kFixedTermsIn64

template <class V>
using Bits = std::conditional_t<sizeof(V) == 4, std::uint32_t, std::uint64_t>;

template <class V, class F>
void for_row(const CsrView<V>& x, std::int64_t i, const F& f) {
  for (std::int64_t k = x.indptr[i]; k < x.indptr[i + 1]; ++k) f(x.indices[k], x.values[k]);
}
template <class V, class F>
void for_row(const MatrixView<V>& x, std::int64_t i, const F& f) {
  const V* const row = x.row(i);
  for (std::int64_t j = 0; j < x.n_cols; ++j) f(j, row[j]);
}

template <class V>
bool all_exact(const V* values, std::int64_t n) {
  bool exact = true;
  for (std::int64_t k = 0; k < n; ++k) exact &= is_exact_at_shared_scale(static_cast<double>(values[k]));
  return exact;
}

template <class V, class X>
void max_abs(const Context& ctx, const X& x, Span<double> out, Span<std::uint8_t> non_finite) {
  using B = Bits<V>;
  constexpr B kMagnitude = static_cast<B>(~B{0}) >> 1;  // |x| as an integer: in the order of magnitudes, NaN on top
  constexpr B kInfinity = std::bit_cast<B>(std::numeric_limits<V>::infinity());
  struct Scratch {
    std::vector<B> largest;
    std::vector<std::uint8_t> non_finite;
  };
  std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  parallel_chunks(ctx, x.n_rows, kMaxGrain, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    Scratch& s = scratch[static_cast<std::size_t>(worker)];
    if (s.largest.empty()) {
      s.largest.assign(static_cast<std::size_t>(x.n_cols), B{0});
      s.non_finite.assign(static_cast<std::size_t>(x.n_cols), 0);
    }
    B* const m = s.largest.data();
    for (std::int64_t i = begin; i < end; ++i)
      for_row(x, i, [&](std::int64_t j, V value) {
        const B b = std::bit_cast<B>(value) & kMagnitude;
        if (b >= kInfinity)
          s.non_finite[static_cast<std::size_t>(j)] = 1;
        else
          m[j] = std::max(m[j], b);
      });
  });
  for (std::int64_t j = 0; j < out.size; ++j) {
    B m = 0;
    non_finite[j] = 0;
    for (const Scratch& s : scratch) {
      if (s.largest.empty()) continue;
      m = std::max(m, s.largest[static_cast<std::size_t>(j)]);
      non_finite[j] |= s.non_finite[static_cast<std::size_t>(j)];
    }
    out[j] = static_cast<double>(std::bit_cast<V>(m));
  }
}

/// Accumulator of one gene inside a chunk: half a cache line.
struct alignas(32) Cell {
  Int128 sum_sq = 0;
  std::int64_t sum = 0;
  std::int64_t nonzero = 0;
};

template <class V, class X, class Map>
void accumulate_rows(const X& x, const std::int32_t* rows, std::int64_t count, const FixedScale* scale, const Map& map,
                     Cell* cells, std::uint8_t* flags) {
  for (std::int64_t r = 0; r < count; ++r) {
    for_row(x, rows[r], [&](std::int64_t j, V value) {
      if (value == 0) return;
      const double y = map(static_cast<double>(value));
      Cell& c = cells[j];
      ++c.nonzero;
      if (flags != nullptr) {
        if (const std::uint8_t f = fixed_flag(y); f != 0) {
          flags[j] |= f;
          return;
        }
      }
      const std::int64_t q = scale[j].quantise(y);
      c.sum += q;
      c.sum_sq += static_cast<Int128>(q) * q;
    });
  }
}

struct Chunk {
  std::int64_t group, begin, end;  // rows [begin, end) of the sorted list
};

template <class V, class X>
void run(const Context& ctx, const X& x, Span<const std::int32_t> codes, std::int64_t first, const ValueMap& map,
         GroupMoments& out) {
  // Cells of one group together: the accumulators of a chunk then hold one group and stay in cache.
  std::vector<std::int64_t> start(static_cast<std::size_t>(out.n_groups) + 1, 0);
  const auto group_of = [&](std::int64_t i) {
    if (codes.empty()) return std::int64_t{0};
    const std::int64_t g = codes[i] - first;
    return g >= 0 && g < out.n_groups ? g : -1;
  };
  for (std::int64_t i = 0; i < x.n_rows; ++i)
    if (const std::int64_t g = group_of(i); g >= 0) ++start[static_cast<std::size_t>(g) + 1];
  for (std::size_t g = 1; g < start.size(); ++g) start[g] += start[g - 1];
  Array<std::int32_t> rows(ctx.workspace, start.back(), "cells by group");
  {
    std::vector<std::int64_t> at(start.begin(), start.end() - 1);
    for (std::int64_t i = 0; i < x.n_rows; ++i)
      if (const std::int64_t g = group_of(i); g >= 0)
        rows[at[static_cast<std::size_t>(g)]++] = static_cast<std::int32_t>(i);
  }
  std::vector<Chunk> chunks;
  for (std::int64_t g = 0; g < out.n_groups; ++g) {
    const std::int64_t end = start[static_cast<std::size_t>(g) + 1];
    for (std::int64_t b = start[static_cast<std::size_t>(g)]; b < end; b += kGroupGrain)
      chunks.push_back({g, b, std::min(end, b + kGroupGrain)});
  }

  struct Scratch {
    Array<Cell> cells;
    std::vector<std::uint8_t> flags;
  };
  const auto n_chunks = static_cast<std::int64_t>(chunks.size());
  std::vector<Scratch> scratch = make_for_workers(ctx, n_chunks, [&] {
    Scratch s{Array<Cell>(ctx.workspace, out.n_genes, "chunk moments"), {}};
    std::fill(s.cells.begin(), s.cells.end(), Cell{});
    if (!out.flags.empty()) s.flags.assign(static_cast<std::size_t>(out.n_genes), 0);
    return s;
  });
  std::vector<std::mutex> locks(64);  // integer sums commute: who merges first does not show
  parallel_chunks(ctx, n_chunks, 1, [&](std::int64_t c, std::int64_t, std::int64_t, int worker) {
    Scratch& s = scratch[static_cast<std::size_t>(worker)];
    const Chunk chunk = chunks[static_cast<std::size_t>(c)];
    std::uint8_t* const flags = s.flags.empty() ? nullptr : s.flags.data();
    const std::int32_t* const list = rows.data() + chunk.begin;
    const std::int64_t count = chunk.end - chunk.begin;
    if (map.expm1_scale)
      accumulate_rows<V>(x, list, count, out.scale.data(), map, s.cells.data(), flags);
    else
      accumulate_rows<V>(x, list, count, out.scale.data(), [](double v) { return v; }, s.cells.data(), flags);
    const std::lock_guard lock(locks[static_cast<std::size_t>(chunk.group) % locks.size()]);
    FixedMoments* const moments = out.moments.data() + chunk.group * out.n_genes;
    std::int32_t* const nonzero = out.nonzero.data() + chunk.group * out.n_genes;
    for (std::int64_t j = 0; j < out.n_genes; ++j) {
      Cell& cell = s.cells[j];
      moments[j].sum += cell.sum;
      moments[j].sum_sq += cell.sum_sq;
      nonzero[j] += static_cast<std::int32_t>(cell.nonzero);
      cell = Cell{};
    }
    if (flags != nullptr) {
      std::uint8_t* const all = out.flags.data() + chunk.group * out.n_genes;
      for (std::int64_t j = 0; j < out.n_genes; ++j) {
        all[j] = static_cast<std::uint8_t>(all[j] | flags[j]);
        flags[j] = 0;
      }
    }
  });
}

template <class V>
V value_type_of(const CsrView<const V>&);
template <class V>
V value_type_of(const MatrixView<const V>&);

}  // namespace

void exact_values(const Context& ctx, const AnyMatrixView& x, bool& exact) {
  std::atomic<bool> all{true};
  std::visit(
      [&](const auto& v) {
        parallel_for(ctx, v.n_rows, kMaxGrain, [&](std::int64_t begin, std::int64_t end) {
          if (!all.load(std::memory_order_relaxed)) return;
          bool here = true;
          if constexpr (requires { v.indptr; }) {
            here = all_exact(v.values.data + v.indptr[begin], v.indptr[end] - v.indptr[begin]);
          } else {
            for (std::int64_t i = begin; here && i < end; ++i) here = all_exact(v.row(i), v.n_cols);
          }
          if (!here) all.store(false, std::memory_order_relaxed);
        });
      },
      x);
  exact = all.load();
}

void gene_max_abs(const Context& ctx, const AnyMatrixView& x, Span<double> out, Span<std::uint8_t> non_finite) {
  std::visit([&](const auto& v) { max_abs<decltype(value_type_of(v))>(ctx, v, out, non_finite); }, x);
}

void group_moments(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes, std::int64_t first,
                   const ValueMap& map, GroupMoments& out) {
  std::fill(out.moments.begin(), out.moments.end(), FixedMoments{});
  std::fill(out.nonzero.begin(), out.nonzero.end(), 0);
  std::fill(out.flags.begin(), out.flags.end(), std::uint8_t{0});
  std::visit([&](const auto& v) { run<decltype(value_type_of(v))>(ctx, v, codes, first, map, out); }, x);
}

SCW_REGISTER(exact_values_kernel, cpu, &exact_values);
SCW_REGISTER(gene_max_abs_kernel, cpu, &gene_max_abs);
SCW_REGISTER(group_moments_kernel, cpu, &group_moments);

}  // namespace scw::prim::cpu
