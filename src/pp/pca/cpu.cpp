// CPU kernels of pp.pca. Sums over cells run over fixed chunks of rows whose partial results are added in order.
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/pca/kernel.hpp"
#include "prim/blas.hpp"
#include "scwarp/core/array.hpp"

#include "pp/pca/body.inl"
#include "pp/pca/sparse_tile.hpp"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kSumRows = 4096;     // rows per partial sum
constexpr std::int64_t kScoreRows = 512;    // rows per task of the scores
constexpr std::int64_t kProductRows = 256;  // rows per dense tile of a block product
constexpr std::int64_t kBlockGenes = 256;   // side of an output block of the covariance
constexpr std::int64_t kDenseTileBytes = std::int64_t{32} << 20;
constexpr std::int64_t kMaxVectors = 16;
static_assert(kPcaBlockRows % kSumRows == 0 && kSumRows % kProductRows == 0);

template <class V>
V value_of(const CsrView<const V>&);
template <class V>
V value_of(const MatrixView<const V>&);
template <class View>
using ValueOf = decltype(value_of(std::declval<View>()));

// --- rows
// -------------------------------------------------------------------------------------------------------------

SCW_CLONES void subtract(const float* x, const double* shift, std::int64_t m, float* out) {
  for (std::int64_t p = 0; p < m; ++p) out[p] = static_cast<float>(static_cast<double>(x[p]) - shift[p]);
}
SCW_CLONES void subtract(const double* x, const double* shift, std::int64_t m, double* out) {
  for (std::int64_t p = 0; p < m; ++p) out[p] = x[p] - shift[p];
}
SCW_CLONES void subtract(const float* x, const double* shift, std::int64_t m, double* out) {
  for (std::int64_t p = 0; p < m; ++p) out[p] = static_cast<double>(x[p]) - shift[p];
}
SCW_CLONES void scale_and_subtract(const float* x, GeneTransform t, const double* shift, std::int64_t m, float* out) {
  for (std::int64_t p = 0; p < m; ++p)
    out[p] = static_cast<float>(transformed(t, static_cast<double>(x[p]), p) - shift[p]);
}
SCW_CLONES void scale_and_subtract(const double* x, GeneTransform t, const double* shift, std::int64_t m, double* out) {
  for (std::int64_t p = 0; p < m; ++p) out[p] = transformed(t, x[p], p) - shift[p];
}
SCW_CLONES void scale_and_subtract(const float* x, GeneTransform t, const double* shift, std::int64_t m, double* out) {
  for (std::int64_t p = 0; p < m; ++p) out[p] = transformed(t, static_cast<double>(x[p]), p) - shift[p];
}

/// out[p] = z - shift for the m genes in use of row i; gathered needs room for m values.
template <class V, class T>
void fill_row(const MatrixView<const V>& x, const GeneTransform& t, const RowShift& r, std::int64_t i, V* gathered,
              T* out) {
  const V* row = x.row(i);
  if (!t.identity) {
    for (std::int64_t p = 0; p < t.m; ++p) gathered[p] = row[t.column[p]];
    row = gathered;
  }
  if (t.center == nullptr) {
    subtract(row, r.shift, t.m, out);
  } else {
    scale_and_subtract(row, t, r.shift, t.m, out);
  }
}
template <class V, class T>
void fill_row(const CsrView<const V>& x, const GeneTransform& t, const RowShift& r, std::int64_t i, V*, T* out) {
  for (std::int64_t p = 0; p < t.m; ++p) out[p] = static_cast<T>(r.fill[p]);
  for (std::int64_t e = x.indptr[i]; e < x.indptr[i + 1]; ++e) {
    const std::int32_t p = t.position[x.indices[e]];
    if (p >= 0) out[p] = static_cast<T>(transformed(t, static_cast<double>(x.values[e]), p) - r.shift[p]);
  }
}

/// Runs partial(chunk rows, buffer) for chunks of kSumRows rows into zeroed buffers of `size` doubles, and
/// add(buffer) on them in chunk order.
template <class Partial, class Add>
void sum_chunks(const Context& ctx, std::int64_t n, std::int64_t size, const Partial& partial, const Add& add) {
  const std::int64_t chunks = chunk_count(n, kSumRows);
  const std::int64_t wave = std::min<std::int64_t>(chunks, 2 * std::max(1, ctx.n_threads));
  Array<double> buffers(ctx.workspace, checked_mul(wave, size), "pca partial sums");
  for (std::int64_t first = 0; first < chunks; first += wave) {
    const std::int64_t count = std::min(wave, chunks - first);
    parallel_for(ctx, count, 1, [&](std::int64_t c, std::int64_t) {
      double* const buffer = buffers.data() + c * size;
      std::fill_n(buffer, size, 0.0);
      const std::int64_t begin = (first + c) * kSumRows;
      partial(begin, std::min(n, begin + kSumRows), buffer);
    });
    for (std::int64_t c = 0; c < count; ++c) add(buffers.data() + c * size);
  }
}

// --- sums
// -------------------------------------------------------------------------------------------------------------

SCW_CLONES void add_row(const float* x, std::int64_t m, double* sum) {
  for (std::int64_t p = 0; p < m; ++p) sum[p] += static_cast<double>(x[p]);
}
SCW_CLONES void add_row(const double* x, std::int64_t m, double* sum) {
  for (std::int64_t p = 0; p < m; ++p) sum[p] += x[p];
}
SCW_CLONES void add_row(const float* x, GeneTransform t, bool squares, double* sum) {
  for (std::int64_t p = 0; p < t.m; ++p) {
    const double z = transformed(t, static_cast<double>(x[p]), p);
    sum[p] += squares ? z * z : z;
  }
}
SCW_CLONES void add_row(const double* x, GeneTransform t, bool squares, double* sum) {
  for (std::int64_t p = 0; p < t.m; ++p) {
    const double z = transformed(t, x[p], p);
    sum[p] += squares ? z * z : z;
  }
}

template <class V>
void sum_rows(const MatrixView<const V>& x, const GeneTransform& t, bool squares, std::int64_t begin, std::int64_t end,
              double* out) {
  std::vector<V> gathered(t.identity ? 0 : static_cast<std::size_t>(t.m));
  for (std::int64_t i = begin; i < end; ++i) {
    const V* row = x.row(i);
    if (!t.identity) {
      for (std::int64_t p = 0; p < t.m; ++p) gathered[static_cast<std::size_t>(p)] = row[t.column[p]];
      row = gathered.data();
    }
    if (t.center == nullptr && !squares) {
      add_row(row, t.m, out);
    } else {
      add_row(row, t, squares, out);
    }
  }
  std::fill_n(out + t.m, t.m, static_cast<double>(end - begin));
}
template <class V>
void sum_rows(const CsrView<const V>& x, const GeneTransform& t, bool squares, std::int64_t begin, std::int64_t end,
              double* out) {
  for (std::int64_t e = x.indptr[begin]; e < x.indptr[end]; ++e) {
    const std::int32_t p = t.position[x.indices[e]];
    if (p < 0) continue;
    const double z = transformed(t, static_cast<double>(x.values[e]), p);
    out[p] += squares ? z * z : z;
    out[t.m + p] += 1;
  }
}

// --- covariance
// -------------------------------------------------------------------------------------------------------

/// Rows of a dense tile: as many as fit kDenseTileBytes, a divisor of kPcaBlockRows.
std::int64_t dense_tile_rows(std::int64_t m, std::int64_t value_bytes) {
  std::int64_t rows = kPcaBlockRows;
  while (rows > 512 && rows * m * value_bytes > kDenseTileBytes) rows /= 2;
  return rows;
}

template <class View>
void dense_covariance(const Context& ctx, const View& x, const GeneTransform& t, const RowShift& r,
                      const MatrixView<double>& c) {
  using V = ValueOf<View>;
  const std::int64_t m = t.m, tile_rows = std::min(x.n_rows, dense_tile_rows(m, sizeof(V)));
  Array<V> tile(ctx.workspace, checked_mul(tile_rows, m), "pca tile");
  const std::int64_t side = chunk_count(m, kBlockGenes);
  std::vector<std::pair<std::int64_t, std::int64_t>> blocks;
  for (std::int64_t a = 0; a < side; ++a)
    for (std::int64_t b = a; b < side; ++b) blocks.emplace_back(a * kBlockGenes, b * kBlockGenes);
  Array<V> products(ctx.workspace, std::max(1, ctx.n_threads) * kBlockGenes * kBlockGenes, "pca tile");
  for (std::int64_t first = 0; first < x.n_rows; first += tile_rows) {
    const std::int64_t rows = std::min(tile_rows, x.n_rows - first);
    parallel_for(ctx, rows, 64, [&](std::int64_t begin, std::int64_t end) {
      std::vector<V> gathered(static_cast<std::size_t>(m));
      for (std::int64_t i = begin; i < end; ++i) fill_row(x, t, r, first + i, gathered.data(), tile.data() + i * m);
    });
    parallel_chunks(ctx, static_cast<std::int64_t>(blocks.size()), 1,
                    [&](std::int64_t task, std::int64_t, std::int64_t, int worker) {
                      const auto [a, b] = blocks[static_cast<std::size_t>(task)];
                      const std::int64_t na = std::min(kBlockGenes, m - a), nb = std::min(kBlockGenes, m - b);
                      V* const product = products.data() + worker * kBlockGenes * kBlockGenes;
                      prim::blas::gemm(true, false, na, nb, rows, V{1}, tile.data() + a, m, tile.data() + b, m, V{0},
                                       product, nb);
                      for (std::int64_t i = 0; i < na; ++i)
                        for (std::int64_t j = 0; j < nb; ++j)
                          c(a + i, b + j) += static_cast<double>(product[i * nb + j]);
                    });
  }
}

/// Sparse rows times dense rows. A tile of rows is held twice: as dense column blocks of kSparseBlockBytes a row (right
/// factor) and by gene (left factor). The product of a gene with a column block stays in registers for the whole tile.
template <class V>
void sparse_covariance(const Context& ctx, const CsrView<const V>& x, const GeneTransform& t, const RowShift& r,
                       const MatrixView<double>& c) {
  constexpr std::int64_t width = kSparseBlockBytes / static_cast<std::int64_t>(sizeof(V));
  constexpr std::int64_t sub_rows = 128, task_genes = 64;
  const std::int64_t m = t.m, blocks = chunk_count(m, width);
  const std::int64_t tile_rows =
      std::min<std::int64_t>(x.n_rows, m * static_cast<std::int64_t>(sizeof(V)) <= 12288 ? 2048 : 1024);
  const auto row_product = sparse_row_product<V, std::uint16_t>();

  std::vector<V> fill(static_cast<std::size_t>(blocks * width), V{0});
  std::vector<double> base(static_cast<std::size_t>(m));
  for (std::int64_t p = 0; p < m; ++p) {
    fill[static_cast<std::size_t>(p)] = static_cast<V>(r.fill[p]);
    base[static_cast<std::size_t>(p)] = transformed(t, 0.0, p);
  }
  struct Task {
    std::int64_t block, begin, end;
  };
  std::vector<Task> tasks;
  for (std::int64_t b = blocks - 1; b >= 0; --b)
    for (std::int64_t p = 0; p < std::min(m, (b + 1) * width); p += task_genes)
      tasks.push_back({b, p, std::min({p + task_genes, m, (b + 1) * width})});

  Array<V> dense(ctx.workspace, checked_mul(tile_rows * width, blocks), "pca tile");
  const std::int64_t subs = chunk_count(tile_rows, sub_rows);
  Array<std::int32_t> offsets(ctx.workspace, subs * m, "pca tile");
  std::vector<std::int32_t> begins(static_cast<std::size_t>(m + 1));
  Array<std::uint16_t> entry_rows;
  Array<V> entry_values;

  for (std::int64_t first = 0; first < x.n_rows; first += tile_rows) {
    const std::int64_t rows = std::min(tile_rows, x.n_rows - first);
    const std::int64_t stored = x.indptr[first + rows] - x.indptr[first];
    if (entry_values.size() < stored) {
      entry_rows = Array<std::uint16_t>(ctx.workspace, stored + stored / 8, "pca tile");
      entry_values = Array<V>(ctx.workspace, stored + stored / 8, "pca tile");
    }
    parallel_chunks(ctx, rows, sub_rows, [&](std::int64_t sub, std::int64_t begin, std::int64_t end, int) {
      std::int32_t* const counts = offsets.data() + sub * m;
      std::fill_n(counts, m, 0);
      for (std::int64_t b = 0; b < blocks; ++b)
        for (std::int64_t i = begin; i < end; ++i)
          std::memcpy(dense.data() + (b * tile_rows + i) * width, fill.data() + b * width, kSparseBlockBytes);
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t e = x.indptr[first + i]; e < x.indptr[first + i + 1]; ++e) {
          const std::int32_t p = t.position[x.indices[e]];
          if (p < 0) continue;
          ++counts[p];
          dense[(p / width * tile_rows + i) * width + p % width] =
              static_cast<V>(transformed(t, static_cast<double>(x.values[e]), p) - r.shift[p]);
        }
    });
    std::int32_t total = 0;
    for (std::int64_t p = 0; p < m; ++p) {
      begins[static_cast<std::size_t>(p)] = total;
      for (std::int64_t sub = 0; sub < chunk_count(rows, sub_rows); ++sub)
        total += std::exchange(offsets[sub * m + p], total);
    }
    begins[static_cast<std::size_t>(m)] = total;
    parallel_chunks(ctx, rows, sub_rows, [&](std::int64_t sub, std::int64_t begin, std::int64_t end, int) {
      std::int32_t* const next = offsets.data() + sub * m;
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t e = x.indptr[first + i]; e < x.indptr[first + i + 1]; ++e) {
          const std::int32_t p = t.position[x.indices[e]];
          if (p < 0) continue;
          const std::int32_t at = next[p]++;
          entry_rows[at] = static_cast<std::uint16_t>(i);
          entry_values[at] =
              static_cast<V>(transformed(t, static_cast<double>(x.values[e]), p) - base[static_cast<std::size_t>(p)]);
        }
    });
    parallel_for(ctx, static_cast<std::int64_t>(tasks.size()), 1, [&](std::int64_t k, std::int64_t) {
      const Task& task = tasks[static_cast<std::size_t>(k)];
      const std::int64_t used = std::min(width, m - task.block * width);
      alignas(64) V sums[width];
      for (std::int64_t p = task.begin; p < task.end; ++p) {
        const std::int32_t begin = begins[static_cast<std::size_t>(p)];
        const std::int32_t count = begins[static_cast<std::size_t>(p + 1)] - begin;
        if (count == 0) continue;
        row_product(dense.data() + task.block * tile_rows * width, entry_rows.data() + begin,
                    entry_values.data() + begin, count, sums);
        double* const out = c.row(p) + task.block * width;
        for (std::int64_t j = 0; j < used; ++j) out[j] += static_cast<double>(sums[j]);
      }
    });
  }
}

// --- products and scores of sparse rows
// -------------------------------------------------------------------------------

/// The stored entries of a row among the genes in use, as z - shift.
template <class V>
struct RowEntries {
  std::vector<std::int32_t> positions;
  std::vector<double> values;
  void read(const CsrView<const V>& x, const GeneTransform& t, const RowShift& r, std::int64_t i) {
    const std::int64_t begin = x.indptr[i], end = x.indptr[i + 1];
    positions.resize(static_cast<std::size_t>(end - begin));
    values.resize(static_cast<std::size_t>(end - begin));
    std::size_t n = 0;
    for (std::int64_t e = begin; e < end; ++e) {
      const std::int32_t p = t.position[x.indices[e]];
      if (p < 0) continue;
      positions[n] = p;
      values[n++] = transformed(t, static_cast<double>(x.values[e]), p) - r.shift[p];
    }
    positions.resize(n);
    values.resize(n);
  }
};

/// y[0..16) += sum over entries of value * rows[position], rows of 16.
SCW_CLONES void gather_16(const std::int32_t* positions, const double* values, std::int64_t n, const double* rows,
                          double* y) {
  double sum[kMaxVectors] = {};
  for (std::int64_t e = 0; e < n; ++e) {
    const double* const row = rows + positions[e] * kMaxVectors;
    for (int b = 0; b < kMaxVectors; ++b) sum[b] += values[e] * row[b];
  }
  for (int b = 0; b < kMaxVectors; ++b) y[b] += sum[b];
}
SCW_CLONES void scatter_16(const std::int32_t* positions, const double* values, std::int64_t n, const double* y,
                           double* rows) {
  for (std::int64_t e = 0; e < n; ++e) {
    double* const row = rows + positions[e] * kMaxVectors;
    for (int b = 0; b < kMaxVectors; ++b) row[b] += values[e] * y[b];
  }
}

/// y_i, its sum and sum of y_i' r_i over rows [begin, end) into out = [m x 16 | 16].
template <class V>
void apply_rows(const CsrView<const V>& x, const GeneTransform& t, const RowShift& r, const double* v,
                const MatrixView<const double>&, const double* offset, std::int64_t begin, std::int64_t end,
                double* out) {
  RowEntries<V> row;
  for (std::int64_t i = begin; i < end; ++i) {
    row.read(x, t, r, i);
    const auto n = static_cast<std::int64_t>(row.positions.size());
    double y[kMaxVectors];
    std::copy_n(offset, kMaxVectors, y);
    gather_16(row.positions.data(), row.values.data(), n, v, y);
    scatter_16(row.positions.data(), row.values.data(), n, y, out);
    for (int b = 0; b < kMaxVectors; ++b) out[t.m * kMaxVectors + b] += y[b];
  }
}
template <class V>
void apply_rows(const MatrixView<const V>& x, const GeneTransform& t, const RowShift& r, const double* v,
                const MatrixView<const double>&, const double* offset, std::int64_t begin, std::int64_t end,
                double* out) {
  std::vector<double> tile(static_cast<std::size_t>(kProductRows * t.m)), y(kProductRows * kMaxVectors);
  std::vector<V> gathered(static_cast<std::size_t>(t.m));
  for (std::int64_t first = begin; first < end; first += kProductRows) {
    const std::int64_t rows = std::min(kProductRows, end - first);
    for (std::int64_t i = 0; i < rows; ++i) fill_row(x, t, r, first + i, gathered.data(), tile.data() + i * t.m);
    prim::blas::gemm(false, false, rows, kMaxVectors, t.m, 1.0, tile.data(), t.m, v, kMaxVectors, 0.0, y.data(),
                     kMaxVectors);
    for (std::int64_t i = 0; i < rows; ++i)
      for (int b = 0; b < kMaxVectors; ++b) {
        double& value = y[static_cast<std::size_t>(i * kMaxVectors + b)];
        value += offset[b];
        out[t.m * kMaxVectors + b] += value;
      }
    prim::blas::gemm(true, false, t.m, kMaxVectors, rows, 1.0, tile.data(), t.m, y.data(), kMaxVectors, 1.0, out,
                     kMaxVectors);
  }
}

template <class V, class S>
void scores(const Context& ctx, const CsrView<const V>& x, const GeneTransform& t, const RowShift& r,
            const MatrixView<const double>& components, Span<const double> offset, const MatrixView<S>& out) {
  constexpr std::int64_t width = kSparseBlockBytes / static_cast<std::int64_t>(sizeof(double));
  const std::int64_t k = components.n_cols, blocks = chunk_count(k, width);
  Array<double> padded(ctx.workspace, checked_mul(t.m * width, blocks), "pca components");  // blocks of `width` columns
  for (std::int64_t b = 0; b < blocks; ++b)
    for (std::int64_t p = 0; p < t.m; ++p)
      for (std::int64_t c = 0; c < width; ++c)
        padded[(b * t.m + p) * width + c] = b * width + c < k ? components(p, b * width + c) : 0.0;
  const auto row_product = sparse_row_product<double, std::int32_t>();
  parallel_for(ctx, x.n_rows, kScoreRows, [&](std::int64_t begin, std::int64_t end) {
    RowEntries<V> row;
    alignas(64) double sums[width];
    for (std::int64_t i = begin; i < end; ++i) {
      row.read(x, t, r, i);
      for (std::int64_t b = 0; b < blocks; ++b) {
        row_product(padded.data() + b * t.m * width, row.positions.data(), row.values.data(),
                    static_cast<std::int64_t>(row.positions.size()), sums);
        for (std::int64_t c = b * width; c < std::min(k, (b + 1) * width); ++c)
          out(i, c) = static_cast<S>(sums[c - b * width] + offset[c]);
      }
    }
  });
}
template <class V, class S>
void scores(const Context& ctx, const MatrixView<const V>& x, const GeneTransform& t, const RowShift& r,
            const MatrixView<const double>& components, Span<const double> offset, const MatrixView<S>& out) {
  const std::int64_t k = components.n_cols;
  Array<V> narrow(ctx.workspace, checked_mul(t.m, k), "pca components");
  for (std::int64_t p = 0; p < t.m; ++p)
    for (std::int64_t c = 0; c < k; ++c) narrow[p * k + c] = static_cast<V>(components(p, c));
  const std::int64_t workers = std::max(1, ctx.n_threads), size = kScoreRows * (t.m + k);
  Array<V> tiles(ctx.workspace, checked_mul(workers, size), "pca tile");
  parallel_chunks(ctx, x.n_rows, kScoreRows, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
    V* const tile = tiles.data() + worker * size;
    V* const product = tile + kScoreRows * t.m;
    std::vector<V> gathered(t.identity ? 0 : static_cast<std::size_t>(t.m));
    for (std::int64_t i = begin; i < end; ++i) fill_row(x, t, r, i, gathered.data(), tile + (i - begin) * t.m);
    prim::blas::gemm(false, false, end - begin, k, t.m, V{1}, tile, t.m, narrow.data(), k, V{0}, product, k);
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t c = 0; c < k; ++c)
        out(i, c) = static_cast<S>(static_cast<double>(product[(i - begin) * k + c]) + offset[c]);
  });
}

}  // namespace

void pca_sums(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, bool squares, Span<double> out) {
  std::visit(
      [&](const auto& v) {
        sum_chunks(
            ctx, v.n_rows, 2 * t.m,
            [&](std::int64_t begin, std::int64_t end, double* sums) { sum_rows(v, t, squares, begin, end, sums); },
            [&](const double* sums) {
              for (std::int64_t p = 0; p < 2 * t.m; ++p) out[p] += sums[p];
            });
      },
      x);
}

void pca_covariance(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
                    const CovarianceMode& mode, const MatrixView<double>& c) {
  if (mode.first_block)
    parallel_for(ctx, t.m, 64, [&](std::int64_t begin, std::int64_t end) { std::fill(c.row(begin), c.row(end), 0.0); });
  std::visit(
      [&](const auto& v) {
        if constexpr (requires { v.indptr; }) {
          if (mode.stored_left) return sparse_covariance(ctx, v, t, r, c);
        }
        dense_covariance(ctx, v, t, r, c);
      },
      x);
}

void pca_covariance_end(const Context& ctx, const MatrixView<double>& c, const CovarianceEnd& e) {
  const std::int64_t m = c.n_rows;
  parallel_for(ctx, m, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const double left = e.n * e.left[i], add = e.add != nullptr ? e.n * e.add[i] : 0.0;
      for (std::int64_t j = i; j < m; ++j)
        c(i, j) = (c(i, j) - left * e.right[j] + (e.add != nullptr ? add * e.add[j] : 0.0)) / e.divisor;
      e.diagonal[i] = c(i, i);
    }
  });
  constexpr std::int64_t side = 64;  // mirrored block by block: a column at a time would miss the cache
  parallel_for(ctx, chunk_count(m, side), 1, [&](std::int64_t block, std::int64_t) {
    for (std::int64_t first = 0; first <= block; ++first)
      for (std::int64_t i = block * side; i < std::min(m, (block + 1) * side); ++i)
        for (std::int64_t j = first * side; j < std::min(i, (first + 1) * side); ++j) c(i, j) = c(j, i);
  });
}

void pca_apply(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
               const MatrixView<const double>& v, Span<const double> offset, const MatrixView<double>& w,
               Span<double> y_sum) {
  const std::int64_t b = v.n_rows, m = t.m;
  Array<double> columns(ctx.workspace, m * kMaxVectors, "pca vectors");  // v by gene, padded to 16
  parallel_for(ctx, m, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      for (std::int64_t i = 0; i < kMaxVectors; ++i) columns[p * kMaxVectors + i] = i < b ? v(i, p) : 0.0;
  });
  double padded_offset[kMaxVectors] = {};
  std::copy_n(offset.data, b, padded_offset);
  std::visit(
      [&](const auto& rows) {
        sum_chunks(
            ctx, rows.n_rows, (m + 1) * kMaxVectors,
            [&](std::int64_t begin, std::int64_t end, double* out) {
              apply_rows(rows, t, r, columns.data(), v, padded_offset, begin, end, out);
            },
            [&](const double* out) {
              parallel_for(ctx, m, 1024, [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t i = 0; i < b; ++i)
                  for (std::int64_t p = begin; p < end; ++p) w(i, p) += out[p * kMaxVectors + i];
              });
              for (std::int64_t i = 0; i < b; ++i) y_sum[i] += out[m * kMaxVectors + i];
            });
      },
      x);
}

void pca_scores(const Context& ctx, const AnyMatrixView& x, const GeneTransform& t, const RowShift& r,
                const MatrixView<const double>& components, Span<const double> offset, const ScoresView& out) {
  std::visit([&](const auto& rows, const auto& o) { scores(ctx, rows, t, r, components, offset, o); }, x, out);
}

SCW_REGISTER(pca_sums_kernel, cpu, &pca_sums);
SCW_REGISTER(pca_covariance_kernel, cpu, &pca_covariance);
SCW_REGISTER(pca_covariance_end_kernel, cpu, &pca_covariance_end);
SCW_REGISTER(pca_apply_kernel, cpu, &pca_apply);
SCW_REGISTER(pca_scores_kernel, cpu, &pca_scores);

}  // namespace scw::pp::cpu
