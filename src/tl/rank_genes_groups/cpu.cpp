// Rank sums, one gene at a time: the non-zero values of a gene with the groups of their cells are gathered (blocks of
// columns from CSR, strips of 16 columns from dense rows), sorted by radix, and walked in runs of equal values; zeros
// are one run that is never stored. Everything is integer arithmetic, so nothing depends on the order of the work.
#include <algorithm>
#include <limits>
#include <vector>

#include "prim/column_tiles.hpp"
#include "prim/gene_entries.hpp"
#include "tl/rank_genes_groups/kernel.hpp"

namespace scw::tl::cpu {
namespace {

using prim::Int128;

Int128 cube_minus(std::int64_t t) { return static_cast<Int128>(t) * t * t - t; }

/// Per thread.
struct Scratch {
  std::vector<std::uint32_t> histogram;
  std::vector<Int128> sum, ties;
  std::vector<std::int64_t> stored, twice, less, equal;
  std::vector<std::int32_t> in_run;

  explicit Scratch(std::size_t codes)
      : sum(codes), ties(codes), stored(codes), twice(codes), less(codes), equal(codes) {
    in_run.reserve(codes);
  }
};

/// Calls run(first, last) for the runs of equal keys in order, and zeros(first, last) once, in its place, with the
/// stored entries that share the bin of zero (bins only).
template <class E, class Key, class Run, class Zeros>
void walk(const E* e, std::int64_t n, Key zero, const Run& run, const Zeros& zeros) {
  const auto run_end = [&](std::int64_t i) {
    const Key key = e[i].key();
    ++i;
    while (i < n && e[i].key() == key) ++i;
    return i;
  };
  std::int64_t i = 0;
  while (i < n && e[i].key() < zero) {
    const std::int64_t last = run_end(i);
    run(i, last);
    i = last;
  }
  const std::int64_t last = i < n && e[i].key() == zero ? run_end(i) : i;
  zeros(i, last);
  i = last;
  while (i < n) {
    const std::int64_t end = run_end(i);
    run(i, end);
    i = end;
  }
}

template <class V>
struct Ranker {
  using E = prim::GeneEntry<V>;
  using Key = typename E::Key;

  const RankSpec& spec;
  const prim::ValueMap& map;
  const std::vector<std::int64_t>& group_sizes;  // [n_groups + 1]
  std::int64_t n_ranked;                         // cells that are ranked, without a reference
  prim::GroupMoments& moments;
  RankSums& out;

  std::int64_t n_codes() const { return std::int64_t{spec.n_groups} + 1; }

  Key bin_of(double v) const {
    const double b = (v - spec.low) * static_cast<double>(spec.n_bins) / (spec.high - spec.low);
    const double last = static_cast<double>(spec.n_bins - 1);
    return static_cast<Key>(b > 0 ? (b < last ? b : last) : 0.0);
  }

  /// The non-zero values of one gene: entries[0, n), in any order. tmp has room for n.
  void gene(std::int64_t j, E* entries, E* tmp, std::int64_t n, Scratch& s) const {
    sums(j, entries, n, s);
    Key zero = prim::sortable_bits(V{0});
    if (spec.n_bins > 0) {
      const Key above_zero = spec.zeros_apart ? 1 : 0;
      zero = spec.zeros_apart ? Key{0} : bin_of(0.0);
      for (std::int64_t i = 0; i < n; ++i) {
        const Key bin = bin_of(static_cast<double>(entries[i].value()));
        entries[i] = E::make(static_cast<Key>(bin + above_zero), entries[i].group());
      }
    }
    const E* const sorted = prim::sort_entries<V>(entries, tmp, n, s.histogram);
    if (spec.reference < 0)
      rank_all(j, sorted, n, zero, s);
    else
      rank_with_reference(j, sorted, n, zero, s);
  }

  void sums(std::int64_t j, const E* entries, std::int64_t n, Scratch& s) const {
    const prim::FixedScale scale = moments.scale[j];
    std::fill(s.sum.begin(), s.sum.end(), Int128{0});
    std::fill(s.stored.begin(), s.stored.end(), std::int64_t{0});
    const auto add = [&](const auto& value_of) {
      for (std::int64_t i = 0; i < n; ++i) {
        const auto g = static_cast<std::size_t>(entries[i].group());
        s.sum[g] += scale.quantise(value_of(static_cast<double>(entries[i].value())));
        ++s.stored[g];
      }
    };
    if (map.expm1_scale)
      add(map);
    else
      add([](double v) { return v; });
    for (std::int64_t g = 0; g < n_codes(); ++g) {
      moments.moments[g * moments.n_genes + j].sum = s.sum[static_cast<std::size_t>(g)];
      moments.nonzero[g * moments.n_genes + j] = static_cast<std::int32_t>(s.stored[static_cast<std::size_t>(g)]);
    }
  }

  void rank_all(std::int64_t j, const E* e, std::int64_t n, Key zero, Scratch& s) const {
    const std::int64_t n_zero = n_ranked - n;
    std::int64_t* const twice = s.twice.data();
    std::fill(s.twice.begin(), s.twice.end(), std::int64_t{0});
    Int128 ties = 0;
    std::int64_t before = 0;  // zeros before the current position
    const auto run = [&](std::int64_t first, std::int64_t last) {
      // The run has ranks first + 1 .. last after the zeros: twice their average.
      const std::int64_t twice_rank = 2 * before + first + last + 1;
      for (std::int64_t i = first; i < last; ++i) twice[e[i].group()] += twice_rank;
      if (last - first > 1) ties += cube_minus(last - first);
    };
    const auto zeros = [&](std::int64_t first, std::int64_t last) {
      const std::int64_t t = last - first + n_zero;
      const std::int64_t twice_rank = 2 * first + t + 1;
      for (std::int64_t i = first; i < last; ++i) twice[e[i].group()] += twice_rank;
      for (std::size_t g = 0; g < s.twice.size(); ++g) twice[g] += (group_sizes[g] - s.stored[g]) * twice_rank;
      ties += cube_minus(t);
      before = n_zero;
    };
    walk(e, n, zero, run, zeros);
    for (std::int64_t g = 0; g < spec.n_groups; ++g) out.twice_rank_sum[g * moments.n_genes + j] = twice[g];
    out.ties[j] = prim::to_double(ties);
  }

  /// Each group ranked together with the reference, all groups in one walk: a cell of group g has
  /// (less in g) + (less in the reference) cells below it.
  void rank_with_reference(std::int64_t j, const E* e, std::int64_t n, Key zero, Scratch& s) const {
    std::fill(s.twice.begin(), s.twice.end(), std::int64_t{0});
    std::fill(s.less.begin(), s.less.end(), std::int64_t{0});
    std::fill(s.equal.begin(), s.equal.end(), std::int64_t{0});
    std::fill(s.ties.begin(), s.ties.end(), Int128{0});
    const auto reference = static_cast<std::size_t>(spec.reference);
    Int128 reference_ties = 0;  // the share of the ties that every group has from the reference alone
    const auto settle = [&] {
      const std::int64_t eq_ref = s.equal[reference];
      const std::int64_t less_ref = s.less[reference];
      const Int128 ties_ref = cube_minus(eq_ref);
      reference_ties += ties_ref;
      for (const std::int32_t group : s.in_run) {
        const auto g = static_cast<std::size_t>(group);
        const std::int64_t eq = s.equal[g];
        if (g == reference || eq == 0) continue;
        s.twice[g] += eq * (2 * (s.less[g] + less_ref) + eq + eq_ref + 1);
        s.ties[g] += cube_minus(eq + eq_ref) - ties_ref;
        s.less[g] += eq;
        s.equal[g] = 0;
      }
      s.less[reference] += eq_ref;
      s.equal[reference] = 0;
    };
    const auto count = [&](std::int64_t first, std::int64_t last) {
      s.in_run.clear();
      for (std::int64_t i = first; i < last; ++i) {
        const std::int32_t g = e[i].group();
        if (s.equal[static_cast<std::size_t>(g)]++ == 0) s.in_run.push_back(g);
      }
    };
    const auto run = [&](std::int64_t first, std::int64_t last) {
      count(first, last);
      settle();
    };
    const auto zeros = [&](std::int64_t first, std::int64_t last) {
      count(first, last);
      s.in_run.clear();
      for (std::int32_t g = 0; g < spec.n_groups; ++g) {
        const auto k = static_cast<std::size_t>(g);
        s.equal[k] += group_sizes[k] - s.stored[k];
        s.in_run.push_back(g);
      }
      settle();
    };
    walk(e, n, zero, run, zeros);
    for (std::int64_t g = 0; g < spec.n_groups; ++g) {
      out.twice_rank_sum[g * moments.n_genes + j] = s.twice[static_cast<std::size_t>(g)];
      out.ties[g * moments.n_genes + j] = prim::to_double(s.ties[static_cast<std::size_t>(g)] + reference_ties);
    }
  }

  /// x: the genes from `first_gene` on.
  template <class X>
  void run(const Context& ctx, std::int64_t first_gene, const X& x, Span<const std::int32_t> codes) const {
    std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, ctx.n_threads)),
                                 Scratch(static_cast<std::size_t>(n_codes())));
    // Cells outside of all groups take part in ranks against the rest only.
    const auto takes_part = [this](std::int32_t code) { return spec.reference < 0 || code < spec.n_groups; };
    prim::for_each_gene(ctx, x, codes, takes_part, "rank_genes_groups",
                        [&](int worker, std::int64_t j, E* entries, E* tmp, std::int64_t n) {
                          gene(first_gene + j, entries, tmp, n, scratch[static_cast<std::size_t>(worker)]);
                        });
  }
};

template <class V>
V value_type_of(const CsrView<const V>&);
template <class V>
V value_type_of(const MatrixView<const V>&);

}  // namespace

void rank_sums(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, const RankSpec& spec,
               const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out) {
  prim::GeneScales scales = prim::gene_scales(ctx, x, map, false);  // as on CUDA
  if (scales.has_non_finite) {
    out.bad_gene = std::find(scales.non_finite.begin(), scales.non_finite.end(), 1) - scales.non_finite.begin();
    return;
  }
  moments.scale = std::move(scales.scale);
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(spec.n_groups) + 1, 0);
  for (const std::int32_t c : codes) ++sizes[static_cast<std::size_t>(c)];
  prim::for_each_column_tile(ctx, x, [&](std::int64_t first, const AnyMatrixView& tile) {
    std::visit(
        [&](const auto& v) {
          Ranker<decltype(value_type_of(v))>{spec, map, sizes, codes.size, moments, out}.run(ctx, first, v, codes);
        },
        tile);
  });
}

void value_range(const Context&, const AnyMatrixView& x, double& low, double& high) {
  low = std::numeric_limits<double>::infinity();
  high = -low;
  const auto widen = [&](const auto* values, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      low = std::min(low, static_cast<double>(values[i]));
      high = std::max(high, static_cast<double>(values[i]));
    }
  };
  std::visit(
      [&](const auto& v) {
        if constexpr (requires { v.indptr; }) {
          low = high = 0;
          if (v.n_rows > 0) widen(v.values.data + v.indptr[0], v.nnz());
        } else {
          for (std::int64_t i = 0; i < v.n_rows; ++i) widen(v.row(i), v.n_cols);
        }
      },
      x);
}

SCW_REGISTER(value_range_kernel, cpu, &value_range);
SCW_REGISTER(rank_sums_kernel, cpu, &rank_sums);

}  // namespace scw::tl::cpu
