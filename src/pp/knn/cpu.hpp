// Parts of the CPU search that brute and nn_descent share.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/knn/kernel.hpp"
#include "pp/knn/search.hpp"

#include "pp/knn/body.inl"

namespace scw::pp::cpu {

struct Neighbour {
  double key;
  std::int32_t id;
};
inline bool nearer(const Neighbour& a, const Neighbour& b) { return pp::nearer(a.key, a.id, b.key, b.id); }

template <class X>
Array<math::RowTerm> row_terms(const Context& ctx, const X& x, Metric metric) {
  Array<math::RowTerm> out(ctx.workspace, x.n_rows, "neighbour row terms");
  parallel_for(ctx, x.n_rows, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out[i] = row_term(x, metric, i);
  });
  return out;
}

/// Writes row i of the result: the cell itself, then the k - 1 first of `sorted`.
template <class M, class X>
void write_row(const M& metric, const X& x, const math::RowTerm* terms, std::int64_t i, const Neighbour* sorted,
               KnnResult& out) {
  std::int32_t* const ids = out.indices.data() + i * out.k;
  float* const values = out.distances.data() + i * out.k;
  ids[0] = static_cast<std::int32_t>(i);
  values[0] = out.metric == Metric::inner_product
                  ? static_cast<float>(metric.value(row_key(metric, x, i, i, terms[i], terms[i])))
                  : 0.0f;
  for (int m = 1; m < out.k; ++m) {
    ids[m] = sorted[m - 1].id;
    values[m] = static_cast<float>(metric.value(sorted[m - 1].key));
  }
}

/// keys[q] = key(rows[q], j)
template <class M, class V>
SCW_CLONES void column_of_keys(const M& metric, const MatrixView<const V>& x, const math::RowTerm* terms,
                               const std::int64_t* rows, int n_rows, std::int64_t j, double* keys) {
  for (int q = 0; q < n_rows; ++q) keys[q] = row_key(metric, x, rows[q], j, terms[rows[q]], terms[j]);
}
template <class M, class V>
void column_of_keys(const M& metric, const CsrView<const V>& x, const math::RowTerm* terms, const std::int64_t* rows,
                    int n_rows, std::int64_t j, double* keys) {
  for (int q = 0; q < n_rows; ++q) keys[q] = row_key(metric, x, rows[q], j, terms[rows[q]], terms[j]);
}

/// The k - 1 nearest others of the given rows from all pairs; found(position in rows, sorted neighbours).
template <class M, class X, class Found>
void scan_rows(const Context& ctx, const M& metric, const X& x, const math::RowTerm* terms, const std::int64_t* rows,
               std::int64_t n_given, int k, const char* step, const Found& found) {
  constexpr int kQueries = 8;  // rows that share the reads of the others
  const int others = k - 1;
  std::atomic<std::int64_t> done{0};
  parallel_chunks(ctx, n_given, kQueries, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    const int n_queries = static_cast<int>(end - begin);
    std::vector<Neighbour> best(static_cast<std::size_t>(n_queries) * static_cast<std::size_t>(std::max(others, 1)));
    int counts[kQueries] = {};
    double keys[kQueries];
    for (std::int64_t j = 0; j < x.n_rows; ++j) {
      if (j % 256 == 0) ctx.check_cancelled("pp.neighbors");
      column_of_keys(metric, x, terms, rows + begin, n_queries, j, keys);
      for (int q = 0; q < n_queries; ++q) {
        if (rows[begin + q] == j || others == 0) continue;
        Neighbour* const list = best.data() + static_cast<std::ptrdiff_t>(q) * others;
        // Rows come in index order, so that an equal key never displaces an earlier one.
        if (counts[q] == others && !(keys[q] < list[others - 1].key)) continue;
        int m = counts[q] < others ? counts[q]++ : others - 1;
        for (; m > 0 && keys[q] < list[m - 1].key; --m) list[m] = list[m - 1];
        list[m] = {keys[q], static_cast<std::int32_t>(j)};
      }
    }
    for (int q = 0; q < n_queries; ++q) found(begin + q, best.data() + static_cast<std::ptrdiff_t>(q) * others);
    done += n_queries;
    if (worker == 0) ctx.report(step, done.load(), n_given);
  });
}

/// Float rows for the tiles, in panels of 64 ([column][64]).
template <class X>
class TileRows {
 public:
  /// store: keep the panels if they are dense and not wide; else they are made when they are used.
  TileRows(const Context& ctx, const X& x, Metric metric, const math::RowTerm* terms, bool store = true)
      : x_(x),
        terms_(terms),
        depth_(x.n_cols),
        padded_(chunk_count(x.n_rows, kBlockRows) * kBlockRows),
        euclidean_(metric == Metric::euclidean || metric == Metric::sqeuclidean),
        unit_(metric == Metric::cosine || metric == Metric::correlation) {
    find_origin(ctx);
    // Wide rows are laid out panel by panel when they are used, so that they are not held twice; sparse ones become
    // dense 64 rows at a time.
    stored_ = store && !is_sparse(x) && depth_ <= 1024;
    if (stored_) panels_ = Array<float>(ctx.workspace, checked_mul(padded_, depth_), "neighbour float rows");
    g_ = Array<float>(ctx.workspace, padded_, "neighbour float rows");
    e_ = Array<float>(ctx.workspace, padded_, "neighbour float rows");
    const double factor = TileSearch::error_factor(depth_);
    parallel_for(ctx, padded_ / kTileColumns, 4, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(scratch_size()));
      for (std::int64_t p = begin; p < end; ++p) {
        float* const out = stored_ ? panels_.data() + p * kTileColumns * depth_ : scratch.data();
        fill(x_, p * kTileColumns, out);
        double half[kTileColumns] = {};
        for (std::int64_t k = 0; k < depth_; ++k)
          for (int c = 0; c < kTileColumns; ++c) {
            const double z = static_cast<double>(out[k * kTileColumns + c]);
            half[c] += 0.5 * z * z;
          }
        for (int c = 0; c < kTileColumns; ++c) {
          const std::int64_t i = p * kTileColumns + c;
          const double e = factor * half[c] + 1e-30;  // 1e-30: products that underflow
          e_[i] = static_cast<float>(e);
          g_[i] = i < x_.n_rows ? static_cast<float>((euclidean_ ? half[c] : 0.0) - 2.0 * e) : kPadding;
        }
      }
    });
  }

  std::int64_t padded() const { return padded_; }
  std::int64_t depth() const { return depth_; }
  const float* g() const { return g_.data(); }
  const float* e() const { return e_.data(); }

  /// Row i of the float rows, entry k at out[k * stride]. Dense only.
  void row(std::int64_t i, float* out, std::int64_t stride) const { fill_row(x_, i, out, stride); }

  /// A score that rows at the distance of `key` from row i exceed, up to the error terms.
  double score_of(std::int64_t i, double key) const {
    if (unit_) return 1.0 - key;
    if (!euclidean_) return -key * scale_ * scale_;
    return (static_cast<double>(g_[i]) + 2.0 * static_cast<double>(e_[i])) - 0.5 * key * scale_ * scale_;
  }

  /// Panel p. scratch: scratch_size() floats, used where panels are made on the fly.
  const float* panel(std::int64_t p, float* scratch) const {
    if (stored_) return panels_.data() + p * kTileColumns * depth_;
    fill(x_, p * kTileColumns, scratch);
    return scratch;
  }
  std::int64_t scratch_size() const { return stored_ ? 0 : depth_ * kTileColumns; }

 private:
  template <class V>
  static bool is_sparse(const MatrixView<V>&) {
    return false;
  }
  template <class V>
  static bool is_sparse(const CsrView<V>&) {
    return true;
  }

  /// Centre of the cloud (scores near zero have small errors; any centre is right) and a power of two that keeps |z|
  /// <= 1.
  void find_origin(const Context& ctx) {
    origin_.assign(static_cast<std::size_t>(depth_), 0.0);
    if (unit_) return;
    if constexpr (requires(const X& m) { m.ld; }) {
      if (euclidean_) {
        const std::int64_t step = std::max<std::int64_t>(1, x_.n_rows / 4096);
        std::int64_t used = 0;
        for (std::int64_t i = 0; i < x_.n_rows; i += step, ++used)
          for (std::int64_t k = 0; k < depth_; ++k)
            origin_[static_cast<std::size_t>(k)] += static_cast<double>(x_(i, k));
        for (double& o : origin_) o /= static_cast<double>(std::max<std::int64_t>(1, used));
      }
    }
    const std::int64_t grain = 4096;
    std::vector<double> largest(static_cast<std::size_t>(chunk_count(x_.n_rows, grain)), 0.0);
    parallel_chunks(ctx, x_.n_rows, grain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
      double most = 0;
      for (std::int64_t i = begin; i < end; ++i) most = std::max(most, largest_entry(x_, i));
      largest[static_cast<std::size_t>(chunk)] = most;
    });
    double most = 0;
    for (const double m : largest) most = std::max(most, m);
    scale_ = most > 0 && std::isfinite(most) ? std::ldexp(1.0, -std::ilogb(most) - 1) : 1.0;
  }
  template <class V>
  double largest_entry(const MatrixView<V>& x, std::int64_t i) const {
    double most = 0;
    for (std::int64_t k = 0; k < depth_; ++k)
      most = std::max(most, std::abs(static_cast<double>(x(i, k)) - origin_[static_cast<std::size_t>(k)]));
    return most;
  }
  template <class V>
  double largest_entry(const CsrView<V>& x, std::int64_t i) const {
    double most = 0;
    for (std::int64_t e = x.indptr[i]; e < x.indptr[i + 1]; ++e)
      most = std::max(most, std::abs(static_cast<double>(x.values[e])));
    return most;
  }

  double factor_of(std::int64_t i) const {
    if (!unit_) return scale_;
    return terms_[i].scale > 0 ? 1.0 / terms_[i].scale : 0.0;
  }
  template <class V>
  void fill(const MatrixView<V>& x, std::int64_t first, float* out) const {
    for (int c = 0; c < kTileColumns; ++c) {
      if (first + c < x.n_rows)
        fill_row(x, first + c, out + c, kTileColumns);
      else
        for (std::int64_t k = 0; k < depth_; ++k) out[k * kTileColumns + c] = 0.0f;
    }
  }
  template <class V>
  void fill_row(const MatrixView<V>& x, std::int64_t i, float* out, std::int64_t stride) const {
    const double factor = factor_of(i), shift = unit_ ? terms_[i].shift : 0.0;
    const V* const row = x.row(i);
    for (std::int64_t k = 0; k < depth_; ++k)
      out[k * stride] =
          static_cast<float>((static_cast<double>(row[k]) - origin_[static_cast<std::size_t>(k)] - shift) * factor);
  }
  template <class V>
  void fill(const CsrView<V>& x, std::int64_t first, float* out) const {
    std::fill(out, out + depth_ * kTileColumns, 0.0f);
    for (int c = 0; c < kTileColumns && first + c < x.n_rows; ++c) {
      const std::int64_t i = first + c;
      const double factor = factor_of(i);
      for (std::int64_t e = x.indptr[i]; e < x.indptr[i + 1]; ++e)
        out[std::int64_t{x.indices[e]} * kTileColumns + c] =
            static_cast<float>(static_cast<double>(x.values[e]) * factor);
    }
  }

  X x_;
  const math::RowTerm* terms_;
  std::int64_t depth_, padded_;
  bool euclidean_, unit_, stored_ = true;
  double scale_ = 1.0;
  std::vector<double> origin_;
  Array<float> panels_, g_, e_;
};

}  // namespace scw::pp::cpu
