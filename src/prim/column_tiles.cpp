#include "prim/column_tiles.hpp"

#include <algorithm>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "scwarp/core/array.hpp"

namespace scw::prim {
namespace {

constexpr std::int64_t kTileBytes = std::int64_t{2} << 30;
constexpr std::int64_t kGrain = 256;

std::int64_t tile_bytes(const Context& ctx) {
  return ctx.block_bytes > 0 ? ctx.block_bytes : std::min(kTileBytes, available_bytes(ctx) / 4);
}

/// Columns [first, last) of the rows of consecutive CSR blocks.
template <class V>
class CsrTile {
 public:
  CsrTile(const Context& ctx, std::int64_t rows, std::int64_t first, std::int64_t last, std::int64_t entries)
      : first_(first), last_(last), begin_(ctx.workspace, rows, "gene tile") {
    tile_.n_rows = rows;
    tile_.n_cols = static_cast<std::int32_t>(last - first);
    tile_.indptr = Array<std::int64_t>(ctx.workspace, rows + 1, "gene tile");
    tile_.indices = Array<std::int32_t>(ctx.workspace, entries, "gene tile");
    tile_.values = Array<V>(ctx.workspace, entries, "gene tile");
    tile_.indptr[0] = 0;
  }
  void add(const Context& ctx, std::int64_t row, const CsrView<const V>& x) {
    std::int64_t* const end = tile_.indptr.data() + row + 1;
    parallel_for(ctx, x.n_rows, kGrain, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) {
        const std::int32_t* const columns = x.indices.data;
        const auto* const stop = columns + x.indptr[i + 1];
        const auto* const left = std::lower_bound(columns + x.indptr[i], stop, first_);
        begin_[row + i] = left - columns;
        end[i] = std::lower_bound(left, stop, last_) - left;
      }
    });
    for (std::int64_t i = 0; i < x.n_rows; ++i) end[i] += tile_.indptr[row + i];
    SCW_EXPECT_AS(DataError, tile_.indptr[row + x.n_rows] <= tile_.indices.size(), "row blocks",
                  "a pass has more entries than the one before");
    parallel_for(ctx, x.n_rows, kGrain, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) {
        const std::int64_t at = tile_.indptr[row + i], count = tile_.indptr[row + i + 1] - at;
        for (std::int64_t k = 0; k < count; ++k)
          tile_.indices[at + k] = static_cast<std::int32_t>(x.indices[begin_[row + i] + k] - first_);
        std::copy_n(x.values.data + begin_[row + i], count, tile_.values.data() + at);
      }
    });
  }
  AnyMatrixView view() const { return tile_.view(); }

 private:
  std::int64_t first_, last_;
  Array<std::int64_t> begin_;
  Csr<V> tile_;
};

template <class V>
class DenseTile {
 public:
  DenseTile(const Context& ctx, std::int64_t rows, std::int64_t first, std::int64_t last, std::int64_t)
      : first_(first), tile_(ctx.workspace, rows, last - first, "gene tile") {}
  void add(const Context& ctx, std::int64_t row, const MatrixView<const V>& x) {
    parallel_for(ctx, x.n_rows, kGrain, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) std::copy_n(x.row(i) + first_, tile_.n_cols, tile_.view().row(row + i));
    });
  }
  AnyMatrixView view() const { return tile_.view(); }

 private:
  std::int64_t first_;
  Matrix<V> tile_;
};

/// Entries of each column.
template <class V>
std::vector<std::int64_t> count_entries(const Context& ctx, const RowBlocks& x) {
  const auto columns = static_cast<std::size_t>(x.n_cols());
  std::vector<std::vector<std::int64_t>> counts(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  x.for_each(ctx, [&](std::int64_t, const AnyMatrixView& block) {
    const auto& v = std::get<CsrView<const V>>(block);
    parallel_chunks(ctx, v.n_rows, 1024, [&](std::int64_t, std::int64_t from, std::int64_t to, int worker) {
      auto& mine = counts[static_cast<std::size_t>(worker)];
      if (mine.empty()) mine.assign(columns, 0);
      for (std::int64_t k = v.indptr[from]; k < v.indptr[to]; ++k) ++mine[static_cast<std::size_t>(v.indices[k])];
    });
  });
  std::vector<std::int64_t> sum(columns, 0);
  for (const auto& mine : counts)
    for (std::size_t j = 0; j < mine.size(); ++j) sum[j] += mine[j];
  return sum;
}

template <class Tile, class View>
void run(const Context& ctx, const RowBlocks& x, const std::vector<std::int64_t>& entries, std::int64_t entry_bytes,
         const std::function<void(std::int64_t, const AnyMatrixView&)>& body) {
  const std::int64_t columns = x.n_cols(), room = tile_bytes(ctx) / entry_bytes;
  for (std::int64_t first = 0, last = 0; first < columns; first = last) {
    std::int64_t held = 0;
    while (last < columns) {
      const std::int64_t more = entries[static_cast<std::size_t>(last)];
      if (last > first && held + more > room) break;
      held += more;
      ++last;
    }
    Tile tile(ctx, x.n_rows(), first, last, held);
    x.for_each(ctx, [&](std::int64_t row, const AnyMatrixView& block) { tile.add(ctx, row, std::get<View>(block)); });
    body(first, tile.view());
  }
}

template <class V>
void run_as(const Context& ctx, const RowBlocks& x,
            const std::function<void(std::int64_t, const AnyMatrixView&)>& body) {
  if (x.is_sparse()) return run<CsrTile<V>, CsrView<const V>>(ctx, x, count_entries<V>(ctx, x), sizeof(V) + 4, body);
  const std::vector<std::int64_t> entries(static_cast<std::size_t>(x.n_cols()), x.n_rows());
  run<DenseTile<V>, MatrixView<const V>>(ctx, x, entries, sizeof(V), body);
}

}  // namespace

void for_each_column_tile(const Context& ctx, const RowBlocks& x,
                          const std::function<void(std::int64_t, const AnyMatrixView&)>& body) {
  if (const AnyMatrixView* const all = x.whole(ctx)) return body(0, *all);
  if (x.is_double(ctx))
    run_as<double>(ctx, x, body);
  else
    run_as<float>(ctx, x, body);
}

}  // namespace scw::prim
