#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/calculate_qc_metrics/kernel.hpp"
#include "prim/fixed_point.hpp"
#include "prim/row_ops.hpp"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kGrain = 256;

/// One cell: count values and, for sparse rows, their columns.
template <class V>
struct Row {
  const V* values;
  const std::int32_t* columns;  // null: dense, column = position
  std::int64_t count;
  std::int32_t column(std::int64_t k) const { return columns != nullptr ? columns[k] : static_cast<std::int32_t>(k); }
};
template <class V>
Row<V> row_of(const CsrView<const V>& x, std::int64_t i) {
  return {x.values.data + x.indptr[i], x.indices.data + x.indptr[i], x.indptr[i + 1] - x.indptr[i]};
}
template <class V>
Row<V> row_of(const MatrixView<const V>& x, std::int64_t i) {
  return {x.row(i), nullptr, x.n_cols};
}

struct Identity {
  template <class V>
  double operator()(V value, std::int32_t) const {
    return static_cast<double>(value);
  }
};
struct InFamily {
  const std::uint8_t* flags;
  template <class V>
  double operator()(V value, std::int32_t column) const {
    return flags[column] != 0 ? static_cast<double>(value) : 0.0;
  }
};

/// What decides how sums over cells are accumulated.
struct ValueRange {
  double max_abs = 0;
  bool whole = true;  // all values are integers
  bool finite = true;
};

// Branch-free, so that it vectorises: |v|, |v - trunc(v)| and v - v (NaN unless finite) are reduced separately.
SCW_CLONES void scan(const float* v, std::int64_t n, float& max_abs, float& fraction, float& not_finite) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float a = __builtin_fabsf(v[i]);
    max_abs = a > max_abs ? a : max_abs;
    const float shifted = (a + 0x1.8p23f) - 0x1.8p23f;  // rounds below 2^22; larger ones are checked by the caller
    const float f = a < 0x1p22f ? __builtin_fabsf(a - shifted) : 0.0f;
    fraction = f > fraction ? f : fraction;
    const float z = v[i] - v[i];
    not_finite = z == 0.0f ? not_finite : 1.0f;
  }
}
void scan(const double* v, std::int64_t n, double& max_abs, double& fraction, double& not_finite) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double a = std::abs(v[i]);
    max_abs = a > max_abs ? a : max_abs;
    const double f = a - std::trunc(a);
    fraction = f > fraction ? f : fraction;
    if (!std::isfinite(v[i])) not_finite = 1.0;
  }
}

template <class X>
ValueRange value_range(const Context& ctx, const X& x) {
  const std::int64_t chunks = chunk_count(x.n_rows, kGrain);
  std::vector<ValueRange> partial(static_cast<std::size_t>(chunks));
  parallel_chunks(ctx, x.n_rows, kGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    using V = std::remove_cvref_t<decltype(*row_of(x, 0).values)>;
    V max_abs = 0, fraction = 0, not_finite = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto row = row_of(x, i);
      scan(row.values, row.count, max_abs, fraction, not_finite);
    }
    partial[static_cast<std::size_t>(chunk)] = {static_cast<double>(max_abs), fraction == 0 && max_abs < V{0x1p22f},
                                                not_finite == 0};
  });
  ValueRange all;
  for (const ValueRange& p : partial) {
    all.max_abs = std::max(all.max_abs, p.max_abs);
    all.whole = all.whole && p.whole;
    all.finite = all.finite && p.finite;
  }
  return all;
}

/// Per-gene sums and counts of one thread. Whole numbers are added in 64 bits, others in fixed point of 128: both are
/// exact for whole numbers, so the choice does not show in the result.
class GeneSums {
 public:
  void reset(std::int64_t genes, bool whole) {
    ready_ = true;
    counts_.assign(static_cast<std::size_t>(genes), 0);
    if (whole) {
      narrow_.assign(static_cast<std::size_t>(genes), 0);
    } else {
      wide_.assign(static_cast<std::size_t>(genes), 0);
      flags_.assign(static_cast<std::size_t>(genes), 0);
    }
  }
  bool ready() const { return ready_; }

  template <bool kPositive, class V>
  void add_whole(const Row<V>& row) {
    for (std::int64_t k = 0; k < row.count; ++k) {
      const auto j = static_cast<std::size_t>(row.column(k));
      narrow_[j] += static_cast<std::int64_t>(row.values[k]);
      counts_[j] += (kPositive ? row.values[k] > 0 : row.values[k] != 0) ? 1 : 0;
    }
  }
  template <bool kPositive, class V>
  void add_fixed(const Row<V>& row, const prim::FixedScale& scale) {
    for (std::int64_t k = 0; k < row.count; ++k) {
      const auto j = static_cast<std::size_t>(row.column(k));
      const auto v = static_cast<double>(row.values[k]);
      if (const std::uint8_t flag = prim::fixed_flag(v); flag != 0)
        flags_[j] |= flag;
      else
        wide_[j] += scale.quantise(v);
      counts_[j] += (kPositive ? row.values[k] > 0 : row.values[k] != 0) ? 1 : 0;
    }
  }
  void merge(const GeneSums& o) {
    for (std::size_t j = 0; j < counts_.size(); ++j) counts_[j] += o.counts_[j];
    for (std::size_t j = 0; j < narrow_.size(); ++j) narrow_[j] += o.narrow_[j];
    for (std::size_t j = 0; j < wide_.size(); ++j) {
      wide_[j] += o.wide_[j];
      flags_[j] |= o.flags_[j];
    }
  }
  std::int32_t count(std::size_t j) const { return counts_[j]; }
  double total(std::size_t j, const prim::FixedScale& scale) const {
    if (!narrow_.empty()) return static_cast<double>(narrow_[j]);
    return prim::fixed_sum_with_flags(prim::fixed_sum(wide_[j], scale), flags_[j]);
  }

 private:
  bool ready_ = false;
  std::vector<std::int32_t> counts_;
  std::vector<std::int64_t> narrow_;
  std::vector<prim::Int128> wide_;
  std::vector<std::uint8_t> flags_;
};

/// Sums of the N largest values of a row, for ascending N.
template <class V>
class TopSums {
 public:
  explicit TopSums(const std::vector<std::int64_t>& tops) : tops_(tops), sums_(tops.size()) {
    order_.resize(tops.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) { return tops[a] < tops[b]; });
  }

  const std::vector<double>& operator()(const Row<V>& row, bool whole) {
    std::fill(sums_.begin(), sums_.end(), 0.0);
    if (whole)
      by_histogram(row);
    else
      by_sorting(row);
    return sums_;
  }

 private:
  // Counts are small whole numbers: their histogram is their sorted order.
  void by_histogram(const Row<V>& row) {
    large_.clear();
    int top_bin = 0;
    for (std::int64_t k = 0; k < row.count; ++k) {
      const V v = row.values[k];
      if (v >= 0 && v < kBins) {
        const int bin = static_cast<int>(v);
        ++histogram_[bin];
        top_bin = std::max(top_bin, bin);
      } else {
        large_.push_back(v);
      }
    }
    std::sort(large_.begin(), large_.end(), std::greater<>());
    std::int64_t taken = 0;
    double sum = 0;
    std::size_t next = 0;
    const auto take = [&](double value, std::int64_t count) {
      while (count > 0 && next < order_.size()) {
        const std::int64_t part = std::min(count, tops_[order_[next]] - taken);
        sum += value * static_cast<double>(part);
        taken += part;
        count -= part;
        while (next < order_.size() && tops_[order_[next]] == taken) sums_[order_[next++]] = sum;
      }
    };
    std::size_t l = 0;
    for (; l < large_.size() && large_[l] >= 0; ++l) take(static_cast<double>(large_[l]), 1);
    for (int bin = top_bin; bin >= 0; --bin) {
      take(bin, histogram_[bin]);
      histogram_[bin] = 0;
    }
    const auto negatives = large_.size() - l;
    // The zeros that a sparse row does not store come before negative values.
    if (negatives > 0) take(0.0, row.columns != nullptr ? std::numeric_limits<std::int32_t>::max() : 0);
    for (; l < large_.size(); ++l) take(static_cast<double>(large_[l]), 1);
    for (; next < order_.size(); ++next) sums_[order_[next]] = sum;
  }

  void by_sorting(const Row<V>& row) {
    sorted_.assign(row.values, row.values + row.count);
    const auto most = std::min<std::int64_t>(tops_[order_.back()], row.count);
    std::partial_sort(sorted_.begin(), sorted_.begin() + most, sorted_.end(), std::greater<>());
    double sum = 0;
    std::int64_t k = 0;
    for (const std::size_t o : order_) {
      for (; k < std::min(tops_[o], most); ++k) sum += static_cast<double>(sorted_[static_cast<std::size_t>(k)]);
      sums_[o] = sum;
    }
  }

  static constexpr int kBins = 512;
  std::vector<std::int64_t> tops_;
  std::vector<double> sums_;
  std::vector<std::size_t> order_;
  std::int64_t histogram_[kBins] = {};
  std::vector<V> large_, sorted_;
};

/// What a gene's count counts.
enum class Expressed { nonzero, positive };

/// Sums and counts of all genes; visit(i, row, worker) sees every row while it is in the cache.
template <Expressed kRule, class X, class Visit>
GeneSums add_genes(const Context& ctx, const X& x, bool whole, const prim::FixedScale& scale, const Visit& visit) {
  std::vector<GeneSums> sums(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  parallel_chunks(ctx, x.n_rows, kGrain, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    GeneSums& mine = sums[static_cast<std::size_t>(worker)];
    if (!mine.ready()) mine.reset(x.n_cols, whole);
    for (std::int64_t i = begin; i < end; ++i) {
      const auto row = row_of(x, i);
      if (whole)
        mine.add_whole<kRule == Expressed::positive>(row);
      else
        mine.add_fixed<kRule == Expressed::positive>(row, scale);
      visit(i, row, worker);
    }
  });
  if (!sums[0].ready()) sums[0].reset(x.n_cols, whole);
  for (std::size_t w = 1; w < sums.size(); ++w)
    if (sums[w].ready()) sums[0].merge(sums[w]);
  return std::move(sums[0]);
}

/// The scale comes from the largest finite value; whole numbers do not need one.
template <class X>
prim::FixedScale scale_for(const Context& ctx, const X& x, const ValueRange& range) {
  if (range.whole && range.finite) return {};
  if (range.finite) return prim::FixedScale::for_max(range.max_abs);
  double max_abs = 0;
  for (std::int64_t i = 0; i < x.n_rows; ++i) {
    if (i % kGrain == 0) ctx.check_cancelled("pp.calculate_qc_metrics");
    const auto row = row_of(x, i);
    for (std::int64_t k = 0; k < row.count; ++k) {
      const double a = std::abs(static_cast<double>(row.values[k]));
      if (std::isfinite(a)) max_abs = std::max(max_abs, a);
    }
  }
  return prim::FixedScale::for_max(max_abs);
}

template <class X>
void qc(const Context& ctx, const X& x, const QcOptions& options, QcMetrics& out) {
  using V = std::remove_cvref_t<decltype(*row_of(x, 0).values)>;
  const ValueRange range = value_range(ctx, x);
  const prim::FixedScale scale = scale_for(ctx, x, range);
  const bool whole = out.whole_numbers = range.whole && range.finite;
  std::vector<TopSums<V>> tops(static_cast<std::size_t>(std::max(1, ctx.n_threads)), TopSums<V>(options.percent_top));
  const auto sums =
      add_genes<Expressed::nonzero>(ctx, x, whole, scale, [&](std::int64_t i, const Row<V>& row, int worker) {
        std::int32_t expressed = 0;
        for (std::int64_t k = 0; k < row.count; ++k) expressed += row.values[k] != 0 ? 1 : 0;
        out.n_genes[i] = expressed;
        out.total[i] = prim::cpu::reduce_row(row.values, row.columns, row.count, Identity{});
        for (std::size_t f = 0; f < options.families.size(); ++f)
          out.family_total[f][i] =
              prim::cpu::reduce_row(row.values, row.columns, row.count, InFamily{options.families[f].data});
        if (options.percent_top.empty()) return;
        const auto& top = tops[static_cast<std::size_t>(worker)](row, whole);
        for (std::size_t t = 0; t < top.size(); ++t) out.pct_top[t][i] = top[t] / out.total[i] * 100.0;
      });
  for (std::int64_t j = 0; j < x.n_cols; ++j) {
    out.n_cells[j] = sums.count(static_cast<std::size_t>(j));
    out.gene_total[j] = sums.total(static_cast<std::size_t>(j), scale);
  }
}

template <class X>
void count_cells(const Context& ctx, const X& x, AxisCounts& out) {
  parallel_for(ctx, x.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto row = row_of(x, i);
      std::int32_t positive = 0;
      for (std::int64_t k = 0; k < row.count; ++k) positive += row.values[k] > 0 ? 1 : 0;
      out.n_positive[i] = positive;
      out.total[i] = prim::cpu::reduce_row(row.values, row.columns, row.count, Identity{});
    }
  });
}

template <class X>
void count_genes(const Context& ctx, const X& x, AxisCounts& out) {
  const ValueRange range = value_range(ctx, x);
  const prim::FixedScale scale = scale_for(ctx, x, range);
  const bool whole = out.whole_numbers = range.whole && range.finite;
  const auto sums = add_genes<Expressed::positive>(ctx, x, whole, scale, [](std::int64_t, const auto&, int) {});
  for (std::int64_t j = 0; j < x.n_cols; ++j) {
    out.n_positive[j] = sums.count(static_cast<std::size_t>(j));
    out.total[j] = sums.total(static_cast<std::size_t>(j), scale);
  }
}

}  // namespace

void qc_metrics(const Context& ctx, const AnyMatrixView& x, const QcOptions& options, QcMetrics& out) {
  std::visit([&](const auto& v) { qc(ctx, v, options, out); }, x);
}
void cell_counts(const Context& ctx, const AnyMatrixView& x, AxisCounts& out) {
  std::visit([&](const auto& v) { count_cells(ctx, v, out); }, x);
}
void gene_counts(const Context& ctx, const AnyMatrixView& x, AxisCounts& out) {
  std::visit([&](const auto& v) { count_genes(ctx, v, out); }, x);
}

SCW_REGISTER(qc_metrics_kernel, cpu, &qc_metrics);
SCW_REGISTER(cell_counts_kernel, cpu, &cell_counts);
SCW_REGISTER(gene_counts_kernel, cpu, &gene_counts);

}  // namespace scw::pp::cpu
