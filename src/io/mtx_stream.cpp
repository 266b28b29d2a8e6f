#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/mtx.hpp"
#include "io/mtx_parse.hpp"
#include "io/streams.hpp"
#include "io/temporary_file.hpp"

namespace scw::io {
namespace {

constexpr std::int64_t kIndex = sizeof(std::int32_t);

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Entries that lie together in a file: n genes at `offset`, then n values.
struct Piece {
  std::int64_t first = 0, n = 0, offset = 0;  // first: of all entries
};

/// A matrix by cells in a temporary file.
template <class V>
struct Spool {
  Spool(const char* op, const MtxHeader& h) : file(op), header(h), indptr(at(h.cells + 1), 0) {}

  TemporaryFile file;
  MtxHeader header;
  std::vector<std::int64_t> indptr;
  std::vector<Piece> pieces;  // in the order of entries

  /// f(offset of genes, offset of values, n) for the parts that hold entries [first, first + n), in order.
  template <class F>
  void visit(std::int64_t first, std::int64_t n, F&& f) const {
    auto p = std::upper_bound(pieces.begin(), pieces.end(), first,
                              [](std::int64_t entry, const Piece& piece) { return entry < piece.first; });
    while (n > 0) {
      const Piece& piece = *(p++ - 1);
      const std::int64_t skip = first - piece.first, here = std::min(n, piece.n - skip);
      f(piece.offset + skip * kIndex, piece.offset + piece.n * kIndex + skip * std::int64_t{sizeof(V)}, here);
      first += here;
      n -= here;
    }
  }
  void genes(std::int64_t first, std::int64_t n, std::byte* out) const {
    visit(first, n, [&](std::int64_t from, std::int64_t, std::int64_t here) {
      file.read(from, out, here * kIndex);
      out += here * kIndex;
    });
  }
  void values(std::int64_t first, std::int64_t n, std::byte* out) const {
    visit(first, n, [&](std::int64_t, std::int64_t from, std::int64_t here) {
      file.read(from, out, here * std::int64_t{sizeof(V)});
      out += here * std::int64_t{sizeof(V)};
    });
  }
  void rewrite(std::int64_t first, std::int64_t n, const std::int32_t* g, const V* v) {
    visit(first, n, [&](std::int64_t to, std::int64_t values_to, std::int64_t here) {
      file.write(to, g, here * kIndex);
      file.write(values_to, v, here * std::int64_t{sizeof(V)});
      g += here;
      v += here;
    });
  }
  std::int64_t append(const std::int32_t* g, const V* v, std::int64_t n) {
    const std::int64_t to = file.reserve(n * (kIndex + std::int64_t{sizeof(V)}));
    file.write(to, g, n * kIndex);
    file.write(to + n * kIndex, v, n * std::int64_t{sizeof(V)});
    return to;
  }

  /// Counts of cells become offsets; false if a cell has more entries than there are genes.
  bool sum() {
    const bool fits = std::all_of(indptr.begin(), indptr.end(), [&](std::int64_t n) { return n <= header.genes; });
    std::partial_sum(indptr.begin(), indptr.end(), indptr.begin());
    SCW_ASSERT(indptr.back() == header.nnz);
    return fits;
  }
};

template <class V>
Stream stream_of(std::shared_ptr<const Spool<V>> s) {
  auto m = std::make_shared<MatrixStream>();
  m->layout = StoredLayout::csr;
  m->n_rows = s->header.cells;
  m->n_cols = s->header.genes;
  m->nnz = s->header.nnz;
  m->dtype = std::is_same_v<V, float> ? "float32" : "float64";
  m->indptr = [s](std::int64_t first, std::int64_t n, std::byte* out) {
    std::memcpy(out, s->indptr.data() + first, at(n) * sizeof(std::int64_t));
  };
  m->indices = [s](std::int64_t first, std::int64_t n, std::byte* out) { s->genes(first, n, out); };
  m->values = [s](std::int64_t first, std::int64_t n, std::byte* out) { s->values(first, n, out); };
  return m;
}

/// The first cell that has a gene twice.
class Twice {
 public:
  void add(std::int64_t cell, std::int32_t gene) {
    if (gene < 0) return;
    const std::lock_guard lock(mutex_);
    if (cell_ < 0 || cell < cell_) {
      cell_ = cell;
      gene_ = gene;
    }
  }
  void expect_none(const TextSource& source) const {
    if (cell_ >= 0) fail_twice(source, cell_, gene_);
  }

 private:
  std::mutex mutex_;
  std::int64_t cell_ = -1;
  std::int32_t gene_ = 0;
};

template <class V>
void count(const MtxBlock<V>& block, std::vector<std::int64_t>& counts) {
  for (const MtxRun& r : block.runs)
    std::atomic_ref(counts[at(r.cell) + 1]).fetch_add(r.count, std::memory_order_relaxed);
}

template <class V>
void take_away(MtxBlock<V>& block, std::int64_t offset, std::vector<MtxRun> runs) {
  block.genes = {};
  block.values = {};
  block.runs = std::move(runs);
  block.not_placed = offset;
}

enum class Outcome : std::uint8_t { done, wide, not_by_cell, too_many };

template <class V>
struct Result {
  Outcome outcome;
  std::shared_ptr<Spool<V>> spool;
};

/// Blocks go to the file as they are parsed, in any order; what is known of them afterwards is where they begin, and
/// their first and last cell, which alone may go on in other blocks.
template <class V>
Result<V> spool_by_cell(const Context& ctx, const TextSource& source, const MtxHeader& h, std::size_t block_bytes) {
  const auto s = std::make_shared<Spool<V>>(source.op(), h);
  Twice twice;
  std::atomic<bool> by_cell{true};
  const auto blocks = parse_mtx<V>(ctx, source, h, block_bytes, [&](MtxBlock<V>& block) {
    if (!block.by_cell) by_cell = false;
    if (!by_cell) return false;
    count(block, s->indptr);
    std::vector<std::pair<std::int32_t, V>> row;
    for (std::size_t r = 1; r + 1 < block.runs.size(); ++r) {
      const MtxRun& run = block.runs[r];
      twice.add(run.cell, sort_cell(block.genes.data() + run.first, block.values.data() + run.first, run.count, row));
    }
    take_away(block, s->append(block.genes.data(), block.values.data(), block.n),
              {block.runs.front(), block.runs.back()});
    return true;
  });
  if (!by_cell) return {Outcome::not_by_cell, nullptr};
  if (!blocks) return {Outcome::wide, nullptr};

  std::vector<std::int32_t> cut;  // cells
  std::int64_t entries = 0;
  for (const auto& block : *blocks) {
    for (const MtxRun& r : block->runs) {
      if (!cut.empty() && r.cell < cut.back()) return {Outcome::not_by_cell, nullptr};
      if (cut.empty() || r.cell != cut.back()) cut.push_back(r.cell);
    }
    s->pieces.push_back({entries, block->n, block->not_placed});
    entries += block->n;
  }
  if (!s->sum()) return {Outcome::too_many, nullptr};
  parallel_for(ctx, static_cast<std::int64_t>(cut.size()), 1, [&](std::int64_t c, std::int64_t) {
    const std::int64_t cell = cut[at(c)], first = s->indptr[at(cell)], n = s->indptr[at(cell + 1)] - first;
    std::vector<std::int32_t> genes(at(n));
    s->genes(first, n, reinterpret_cast<std::byte*>(genes.data()));
    if (std::is_sorted(genes.begin(), genes.end(), std::less_equal<>())) return;
    std::vector<V> values(at(n));
    s->values(first, n, reinterpret_cast<std::byte*>(values.data()));
    std::vector<std::pair<std::int32_t, V>> row;
    twice.add(cell, sort_cell(genes.data(), values.data(), n, row));
    s->rewrite(first, n, genes.data(), values.data());
  });
  twice.expect_none(source);
  return {Outcome::done, s};
}

/// A block in the file of those that are not in the end's order: n cells, rising, then n genes and n values.
struct Part {
  std::int64_t offset = 0, n = 0, used = 0;
};

/// Blocks go to a file with the cell of every entry, sorted by cell each. Then ranges of cells that fit a buffer are
/// put together, each from what every block has of it.
template <class V>
Result<V> spool_any(const Context& ctx, const TextSource& source, const MtxHeader& h, std::size_t block_bytes,
                    std::int64_t range_entries) {
  constexpr std::int64_t kLook = 1024;
  const auto s = std::make_shared<Spool<V>>(source.op(), h);
  TemporaryFile file(source.op());
  std::vector<Part> parts;
  {
    const auto blocks = parse_mtx<V>(ctx, source, h, block_bytes, [&](MtxBlock<V>& block) {
      count(block, s->indptr);
      // Blocks that were sorted have their runs in order and side by side.
      Array<std::int32_t> cells(ctx.workspace, block.n, "mtx cells");
      for (const MtxRun& r : block.runs) std::fill_n(cells.data() + r.first, r.count, r.cell);
      const std::int64_t n = block.n, to = file.reserve(n * (2 * kIndex + std::int64_t{sizeof(V)}));
      file.write(to, cells.data(), n * kIndex);
      file.write(to + n * kIndex, block.genes.data(), n * kIndex);
      file.write(to + 2 * n * kIndex, block.values.data(), n * std::int64_t{sizeof(V)});
      take_away(block, to, {});
      return true;
    });
    if (!blocks) return {Outcome::wide, nullptr};
    for (const auto& block : *blocks) parts.push_back({block->not_placed, block->n, 0});
  }
  if (!s->sum()) return {Outcome::too_many, nullptr};

  const auto& indptr = s->indptr;
  const std::int64_t room = std::min(h.nnz, std::max(range_entries, h.genes));
  Array<std::int32_t> genes(ctx.workspace, room, "mtx genes");
  Array<V> values(ctx.workspace, room, "mtx values");
  std::vector<std::int64_t> next;
  for (std::int64_t begin = 0; begin < h.cells;) {
    const std::int64_t base = indptr[at(begin)];
    const auto over = std::upper_bound(indptr.begin() + begin + 1, indptr.end(), base + room);
    const std::int64_t end = over - indptr.begin() - 1, n = indptr[at(end)] - base;
    SCW_ASSERT(end > begin);
    next.assign(indptr.begin() + begin, indptr.begin() + end);
    parallel_for(ctx, static_cast<std::int64_t>(parts.size()), 16, [&](std::int64_t from, std::int64_t to) {
      std::vector<std::int32_t> cells(at(kLook)), some_genes(at(kLook));
      std::vector<V> some_values(at(kLook));
      for (std::int64_t k = from; k < to; ++k) {
        Part& part = parts[at(k)];
        for (bool more = true; more && part.used < part.n;) {
          const std::int64_t look = std::min(kLook, part.n - part.used);
          file.read(part.offset + part.used * kIndex, cells.data(), look * kIndex);
          const std::int64_t got = std::lower_bound(cells.begin(), cells.begin() + look, end) - cells.begin();
          more = got == look;
          file.read(part.offset + (part.n + part.used) * kIndex, some_genes.data(), got * kIndex);
          file.read(part.offset + 2 * part.n * kIndex + part.used * std::int64_t{sizeof(V)}, some_values.data(),
                    got * std::int64_t{sizeof(V)});
          part.used += got;
          // In which order a cell's entries come does not matter: they are sorted, and none is there twice.
          for (std::int64_t i = 0; i < got; ++i) {
            const std::int64_t place =
                std::atomic_ref(next[at(cells[at(i)] - begin)]).fetch_add(1, std::memory_order_relaxed) - base;
            genes[place] = some_genes[at(i)];
            values[place] = some_values[at(i)];
          }
        }
      }
    });
    Twice twice;
    parallel_for(ctx, end - begin, 64, [&](std::int64_t from, std::int64_t to) {
      std::vector<std::pair<std::int32_t, V>> row;
      for (std::int64_t i = begin + from; i < begin + to; ++i) {
        const std::int64_t first = indptr[at(i)] - base;
        twice.add(i, sort_cell(genes.data() + first, values.data() + first, indptr[at(i + 1)] - indptr[at(i)], row));
      }
    });
    twice.expect_none(source);
    if (n > 0) s->pieces.push_back({base, n, s->append(genes.data(), values.data(), n)});
    begin = end;
  }
  return {Outcome::done, s};
}

template <class V>
Result<V> spool(const Context& ctx, const TextSource& source, const MtxHeader& h, std::size_t block_bytes,
                std::int64_t range_entries) {
  auto result = spool_by_cell<V>(ctx, source, h, block_bytes);
  if (result.outcome == Outcome::not_by_cell) result = spool_any<V>(ctx, source, h, block_bytes, range_entries);
  return result;
}

}  // namespace

Stream stream_mtx(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells,
                  std::size_t block_bytes, std::int64_t range_entries) {
  const MtxHeader header = read_mtx_header(ctx, source, genes, cells);
  const auto narrow = spool<float>(ctx, source, header, block_bytes, range_entries);
  if (narrow.outcome == Outcome::done) return stream_of<float>(narrow.spool);
  if (narrow.outcome == Outcome::wide) {
    ctx.info(fmt::format("{}: '{}': values over 2^24: read as double", source.op(), source.name()));
    const auto wide = spool<double>(ctx, source, header, block_bytes, range_entries);
    if (wide.outcome == Outcome::done) return stream_of<double>(wide.spool);
  }
  // More entries in a cell than there are genes: one is there twice, and this says which.
  return memory_stream(MatrixElement(read_mtx(ctx, source, genes, cells, block_bytes)));
}

}  // namespace scw::io
