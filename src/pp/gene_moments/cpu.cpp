// Rows are cut into tiles of kTile entries: a vectorised loop turns the values into integers and notes whether that was
// exact, a scalar one adds them to the 32 bytes of their column (in the second-level cache: 20 000 genes are 640 KB).
// Dense rows need no scatter: they are added up by vectors of columns.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "math/elementary.hpp"
#include "pp/gene_moments/kernel.hpp"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kTile = 512;
constexpr std::int64_t kRowGrain = 256;
constexpr std::int64_t kAccumulatorBytes = std::int64_t{512} << 20;
constexpr double kMagic = 0x1.8p52;  // adding it rounds to an integer

/// What a loop over values has seen.
enum Seen : std::uint64_t { kInexact = 1, kNotCounts = 2 };

SCW_CLONES void load(const float* x, std::int64_t n, double* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = static_cast<double>(x[i]);
}
void load(const double* x, std::int64_t n, double* y) { std::copy(x, x + n, y); }
SCW_CLONES void load_expm1(const float* x, std::int64_t n, double* y) {
  for (std::int64_t i = 0; i < n; ++i)
    y[i] = static_cast<double>(static_cast<float>(math::expm1(static_cast<double>(x[i]))));
}
SCW_CLONES void load_expm1(const double* x, std::int64_t n, double* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = math::expm1(x[i]);
}
/// The product is rounded to V first, as if the matrix had been rescaled.
SCW_CLONES void load_scaled_expm1(const float* x, std::int64_t n, double scale, double* y) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float t = static_cast<float>(static_cast<double>(x[i]) * scale);
    y[i] = static_cast<double>(static_cast<float>(math::expm1(static_cast<double>(t))));
  }
}
SCW_CLONES void load_scaled_expm1(const double* x, std::int64_t n, double scale, double* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = math::expm1(x[i] * scale);
}

template <class V>
void load_values(const V* x, std::int64_t n, const GeneMomentsOptions& o, double* y) {
  if (!o.expm1) return load(x, n, y);
  if (o.expm1_scale == 1.0) return load_expm1(x, n, y);
  load_scaled_expm1(x, n, o.expm1_scale, y);
}

/// q = x * factor where that is an integer up to 2^kFixedBits; kInexact if any is not.
SCW_CLONES std::uint64_t quantise_exact(const double* y, std::int64_t n, double factor, std::int64_t* q) {
  constexpr double limit = static_cast<double>(std::int64_t{1} << prim::kFixedBits);
  std::uint64_t bad = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double t = y[i] * factor;
    const double shifted = t + kMagic;
    const std::uint64_t exact =
        std::uint64_t{shifted - kMagic == t} & std::uint64_t{t <= limit} & std::uint64_t{t >= -limit};
    bad |= exact ^ 1u;
    q[i] = static_cast<std::int64_t>(math::bits_of(shifted) - math::bits_of(kMagic));
  }
  return bad;
}
/// The same with the scale of each column, rounding; factor 0 stands for a column that is not finite.
SCW_CLONES void quantise_columns(const double* y, const double* factor, std::int64_t n, std::int64_t* q) {
  for (std::int64_t i = 0; i < n; ++i)
    q[i] = static_cast<std::int64_t>(math::bits_of(y[i] * factor[i] + kMagic) - math::bits_of(kMagic));
}
SCW_CLONES std::uint64_t not_counts(const float* x, std::int64_t n) {
  std::uint64_t bad = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double v = static_cast<double>(x[i]);  // from 2^52 on every double is an integer
    bad |= (std::uint64_t{v >= 0} & (std::uint64_t{(v + 0x1p52) - 0x1p52 == v} | std::uint64_t{v >= 0x1p52})) ^ 1u;
  }
  return bad;
}
SCW_CLONES std::uint64_t not_counts(const double* x, std::int64_t n) {
  std::uint64_t bad = 0;
  for (std::int64_t i = 0; i < n; ++i)
    bad |=
        (std::uint64_t{x[i] >= 0} & (std::uint64_t{(x[i] + 0x1p52) - 0x1p52 == x[i]} | std::uint64_t{x[i] >= 0x1p52})) ^
        1u;
  return bad;
}

/// Sums over at most kDenseRows rows of a tile of columns, in doubles that stay exact integers: q = h 2^24 + l with
/// |h|, |l| <= 2^23, so q^2 = h^2 2^48 + h l 2^25 + l^2 and each part fits 2^46.
constexpr std::int64_t kDenseRows = 64;
struct DenseSums {
  double q[kTile], hh[kTile], hl[kTile], ll[kTile];
};
inline void dense_add(DenseSums& to, std::int64_t i, double t) {
  const double h = (t * 0x1p-24 + kMagic) - kMagic;
  const double l = t - h * 0x1p24;
  to.q[i] += t;
  to.hh[i] += h * h;
  to.hl[i] += h * l;
  to.ll[i] += l * l;
}
/// As quantise_exact, adding up at once.
SCW_CLONES std::uint64_t dense_exact(const double* y, std::int64_t n, double factor, DenseSums& to) {
  constexpr double limit = static_cast<double>(std::int64_t{1} << prim::kFixedBits);
  std::uint64_t bad = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double t = y[i] * factor;
    const std::uint64_t exact =
        std::uint64_t{(t + kMagic) - kMagic == t} & std::uint64_t{t <= limit} & std::uint64_t{t >= -limit};
    bad |= exact ^ 1u;
    dense_add(to, i, t);
  }
  return bad;
}
SCW_CLONES void dense_columns(const double* y, std::int64_t n, const double* factor, DenseSums& to) {
  for (std::int64_t i = 0; i < n; ++i) dense_add(to, i, (y[i] * factor[i] + kMagic) - kMagic);
}
void flush(const DenseSums& from, std::int64_t n, prim::FixedMoments* acc) {
  constexpr double limit = 0x1p53;
  const auto integer = [](double v) { return static_cast<std::int64_t>(v); };
  for (std::int64_t i = 0; i < n; ++i) {
    // Sums that will not be used: a column that is not finite, or values that did not fit.
    if (!(std::abs(from.q[i]) <= limit && from.hh[i] <= limit)) continue;
    acc[i].sum += integer(from.q[i]);
    acc[i].sum_sq += prim::Int128{integer(from.hh[i])} * (std::int64_t{1} << 48) +
                     prim::Int128{integer(from.hl[i])} * (1 << 25) + integer(from.ll[i]);
  }
}

/// body(values, columns or null, first column, n) over the entries of rows [first, last).
template <class V, class Body>
void for_each_tile(const CsrView<const V>& x, std::int64_t first, std::int64_t last, const Body& body) {
  for (std::int64_t k = x.indptr[first], end = x.indptr[last]; k < end; k += kTile)
    body(x.values.data + k, x.indices.data + k, std::int64_t{0}, std::min(kTile, end - k));
}
template <class V, class Body>
void for_each_tile(const MatrixView<const V>& x, std::int64_t first, std::int64_t last, const Body& body) {
  for (std::int64_t i = first; i < last; ++i)
    for (std::int64_t j = 0; j < x.n_cols; j += kTile)
      body(x.row(i) + j, static_cast<const std::int32_t*>(nullptr), j, std::min(kTile, x.n_cols - j));
}

/// body(worker, group, first, last) for every run of rows [first, last) of the block that belong to one group.
template <class X, class Body>
void for_each_run(const Context& ctx, const X& x, std::int64_t first_row, const GeneMomentsOptions& o,
                  const Body& body) {
  parallel_chunks(ctx, x.n_rows, kRowGrain, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    if (o.groups.empty()) return body(worker, std::int32_t{0}, begin, end);
    const std::int32_t* const code = o.groups.data + first_row;
    for (std::int64_t i = begin; i < end;) {
      std::int64_t last = i + 1;
      while (last < end && code[last] == code[i]) ++last;
      if (code[i] >= 0 && code[i] < o.n_groups) body(worker, code[i], i, last);
      i = last;
    }
  });
}

void add_sparse(prim::FixedMoments* acc, const std::int32_t* columns, const std::int64_t* q, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) acc[columns[i]].add(q[i]);
}
struct Pass {
  const Context& ctx;
  const RowBlocks& x;
  const GeneMomentsOptions& options;
  std::int64_t genes, groups;

  /// One scale for all columns; notes whether every value fits it, and stops adding once one does not.
  struct Uniform {
    const GeneMomentsOptions& options;
    double factor;
    std::atomic<std::uint64_t> seen{0};

    bool failed() const { return (seen.load(std::memory_order_relaxed) & kInexact) != 0; }
    template <class V>
    void note(std::uint64_t bad, const V* values, std::int64_t n) {
      bad *= kInexact;
      if ((seen.load(std::memory_order_relaxed) & kNotCounts) == 0) bad |= not_counts(values, n) * kNotCounts;
      if (bad != 0) seen.fetch_or(bad, std::memory_order_relaxed);
    }
    template <class V>
    void sparse(const V* values, const std::int32_t* columns, std::int64_t n, prim::FixedMoments* acc) {
      if (failed()) return;
      double y[kTile];
      std::int64_t q[kTile];
      load_values(values, n, options, y);
      note(quantise_exact(y, n, factor, q), values, n);
      if (!failed()) add_sparse(acc, columns, q, n);
    }
    template <class V>
    void dense(const V* values, std::int64_t, std::int64_t n, DenseSums& to) {
      if (failed()) return;
      double y[kTile];
      load_values(values, n, options, y);
      note(dense_exact(y, n, factor, to), values, n);
    }
  };

  /// Ends a pass over a source whose blocks may be expensive (a file, residuals).
  struct Stop {};

  /// False if a value does not fit; the sums are then worthless.
  bool exact(Array<prim::FixedMoments>& sums, GeneSums& out) const {
    Uniform rule{options, prim::FixedScale(kGeneMomentsShift).factor};
    try {
      accumulate(sums, rule);
    } catch (const Stop&) {
      return false;
    }
    out.counts = (rule.seen.load() & kNotCounts) == 0;
    return !rule.failed();
  }

  /// Magnitudes as bits: their order as integers puts infinity and NaN last, and a maximum of integers keeps them.
  std::vector<std::uint64_t> column_max(GeneSums& out) const {
    const auto workers = static_cast<std::size_t>(std::max(1, ctx.n_threads));
    std::vector<std::uint64_t> max(workers * static_cast<std::size_t>(genes), 0);
    std::atomic<std::uint64_t> seen{0};
    x.for_each(ctx, [&](std::int64_t first_row, const AnyMatrixView& block) {
      std::visit(
          [&](const auto& v) {
            for_each_run(
                ctx, v, first_row, options, [&](int worker, std::int32_t, std::int64_t first, std::int64_t last) {
                  std::uint64_t* const m = max.data() + static_cast<std::int64_t>(worker) * genes;
                  for_each_tile(v, first, last,
                                [&](const auto* values, const std::int32_t* columns, std::int64_t j, std::int64_t n) {
                                  double y[kTile];
                                  load_values(values, n, options, y);
                                  if (not_counts(values, n) != 0) seen.store(kNotCounts, std::memory_order_relaxed);
                                  for (std::int64_t i = 0; i < n; ++i) {
                                    const std::uint64_t bits = math::bits_of(y[i]) & 0x7FFFFFFFFFFFFFFFull;
                                    std::uint64_t& to = m[columns != nullptr ? columns[i] : j + i];
                                    to = bits > to ? bits : to;
                                  }
                                });
                });
          },
          block);
    });
    out.counts = seen.load() == 0;
    for (std::size_t w = 1; w < workers; ++w)
      for (std::int64_t j = 0; j < genes; ++j)
        max[static_cast<std::size_t>(j)] = std::max(
            max[static_cast<std::size_t>(j)], max[w * static_cast<std::size_t>(genes) + static_cast<std::size_t>(j)]);
    max.resize(static_cast<std::size_t>(genes));
    return max;
  }

  void scaled(Array<prim::FixedMoments>& sums, GeneSums& out) const {
    const std::vector<std::uint64_t> max = column_max(out);
    std::vector<double> factor(max.size());
    for (std::size_t j = 0; j < max.size(); ++j) {
      out.finite[j] = max[j] < 0x7FF0000000000000ull ? 1 : 0;
      out.scale[j] = prim::FixedScale::for_max(out.finite[j] != 0 ? math::from_bits(max[j]) : 0.0);
      factor[j] = out.finite[j] != 0 ? out.scale[j].factor : 0.0;
    }
    PerColumn rule{options, factor.data()};
    accumulate(sums, rule);
  }

  /// A scale for each column.
  struct PerColumn {
    const GeneMomentsOptions& options;
    const double* factor;

    static constexpr bool failed() { return false; }

    template <class V>
    void sparse(const V* values, const std::int32_t* columns, std::int64_t n, prim::FixedMoments* acc) {
      double y[kTile], f[kTile];
      std::int64_t q[kTile];
      load_values(values, n, options, y);
      for (std::int64_t i = 0; i < n; ++i) f[i] = factor[columns[i]];
      quantise_columns(y, f, n, q);
      for (std::int64_t i = 0; i < n; ++i)
        if (!std::isfinite(y[i])) q[i] = 0;  // NaN times 0 is no integer
      add_sparse(acc, columns, q, n);
    }
    template <class V>
    void dense(const V* values, std::int64_t first_column, std::int64_t n, DenseSums& to) {
      double y[kTile];
      load_values(values, n, options, y);
      dense_columns(y, n, factor + first_column, to);
    }
  };

  template <class V, class Rule>
  static void add_rows(const CsrView<const V>& x, std::int64_t first, std::int64_t last, Rule& rule,
                       prim::FixedMoments* acc) {
    for_each_tile(x, first, last, [&](const V* values, const std::int32_t* columns, std::int64_t, std::int64_t n) {
      rule.sparse(values, columns, n, acc);
    });
  }
  template <class V, class Rule>
  static void add_rows(const MatrixView<const V>& x, std::int64_t first, std::int64_t last, Rule& rule,
                       prim::FixedMoments* acc) {
    for (std::int64_t i = first; i < last; i += kDenseRows)
      for (std::int64_t j = 0; j < x.n_cols; j += kTile) {
        const std::int64_t n = std::min(kTile, x.n_cols - j);
        DenseSums sums{};
        for (std::int64_t r = i; r < std::min(last, i + kDenseRows); ++r) rule.dense(x.row(r) + j, j, n, sums);
        flush(sums, n, acc + j);
      }
  }

  template <class Rule>
  void accumulate(Array<prim::FixedMoments>& sums, Rule& rule) const {
    Context limited = ctx;
    const std::int64_t size = checked_mul(groups, genes);
    const std::int64_t bytes = std::max<std::int64_t>(1, checked_mul(size, sizeof(prim::FixedMoments)));
    limited.n_threads = static_cast<int>(std::clamp<std::int64_t>(
        kAccumulatorBytes / bytes, 1,
        std::max<std::int64_t>(1, std::min<std::int64_t>(ctx.n_threads, chunk_count(x.n_rows(), kRowGrain)))));
    sums = {};  // of an attempt before: not two of them at once
    sums = Array<prim::FixedMoments>(ctx.workspace, checked_mul(limited.n_threads, size), "gene sums");
    parallel_for(limited, sums.size(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      std::fill(sums.begin() + begin, sums.begin() + end, prim::FixedMoments{});
    });
    x.for_each(limited, [&](std::int64_t first_row, const AnyMatrixView& block) {
      if (rule.failed()) throw Stop{};
      std::visit(
          [&](const auto& v) {
            for_each_run(limited, v, first_row, options,
                         [&](int worker, std::int32_t group, std::int64_t first, std::int64_t last) {
                           add_rows(v, first, last, rule, sums.data() + worker * size + group * genes);
                         });
          },
          block);
    });
    parallel_for(ctx, size, 1 << 12, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t w = 1; w < limited.n_threads; ++w)
        for (std::int64_t k = begin; k < end; ++k) sums[k] += sums[w * size + k];
    });
  }
};

}  // namespace

void gene_sums(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options, GeneSums& out) {
  const Pass pass{ctx, x, options, x.n_cols(), options.n_groups};
  out.n_rows.assign(static_cast<std::size_t>(options.n_groups), 0);
  if (options.groups.empty()) out.n_rows[0] = x.n_rows();
  for (const std::int32_t code : options.groups)
    if (code >= 0 && code < options.n_groups) ++out.n_rows[static_cast<std::size_t>(code)];
  out.scale.assign(static_cast<std::size_t>(pass.genes), prim::FixedScale(kGeneMomentsShift));
  out.finite.assign(static_cast<std::size_t>(pass.genes), 1);
  if (!pass.exact(out.sums, out)) pass.scaled(out.sums, out);
}

SCW_REGISTER(gene_sums_kernel, cpu, &gene_sums);

}  // namespace scw::pp::cpu
