#include "io/mtx.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/mtx_parse.hpp"

namespace scw::io {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// f(block, run) for the runs of cells [first, last), in file order.
template <class V, class F>
void visit_runs(const MtxBlocks<V>& blocks, std::int64_t first, std::int64_t last, F&& f) {
  for (const auto& block : blocks) {
    const auto& runs = block->runs;
    // What is in its place already is of other cells.
    if (runs.empty() || runs.front().cell >= last || runs.back().cell < first) continue;
    for (auto r = std::lower_bound(runs.begin(), runs.end(), first,
                                   [](const MtxRun& run, std::int64_t cell) { return run.cell < cell; });
         r != runs.end() && r->cell < last; ++r)
      f(*block, *r);
  }
}

template <class V>
Csr<V> to_csr(const Context& ctx, const TextSource& source, const MtxHeader& h, MtxBlocks<V> blocks) {
  Csr<V> x;
  x.n_rows = h.cells;
  x.n_cols = static_cast<std::int32_t>(h.genes);
  x.indptr = Array<std::int64_t>(ctx.memory, h.cells + 1, "indptr");
  x.indptr[0] = 0;
  constexpr std::int64_t kCells = 16384, kEntries = 1 << 18;
  parallel_for(ctx, h.cells, kCells, [&](std::int64_t first, std::int64_t last) {
    std::fill(x.indptr.data() + first + 1, x.indptr.data() + last + 1, 0);
    visit_runs(blocks, first, last, [&](const MtxBlock<V>&, const MtxRun& r) { x.indptr[r.cell + 1] += r.count; });
  });
  for (std::int64_t i = 0; i < h.cells; ++i) x.indptr[i + 1] += x.indptr[i];
  SCW_ASSERT(x.indptr[h.cells] == h.nnz);
  for (auto& block : blocks) block->not_placed = block->n;

  x.indices = Array<std::int32_t>(ctx.memory, h.nnz, "indices");
  x.values = Array<V>(ctx.memory, h.nnz, "values");
  Array<std::int64_t> next(ctx.workspace, h.cells, "mtx cursor");
  std::copy_n(x.indptr.data(), h.cells, next.data());
  const std::int64_t parts = std::clamp<std::int64_t>(h.nnz / kEntries, 1, 4096);
  const auto begin_of = [&](std::int64_t part) {
    const auto* p = std::lower_bound(x.indptr.begin(), x.indptr.end(), h.nnz / parts * part);
    return part == 0 ? 0 : part == parts ? h.cells : std::min<std::int64_t>(h.cells, p - x.indptr.begin());
  };
  std::vector<std::pair<std::int64_t, std::int32_t>> twice(at(parts), {-1, 0});  // cell, gene
  parallel_for(ctx, parts, 1, [&](std::int64_t part, std::int64_t) {
    const std::int64_t first = begin_of(part), last = begin_of(part + 1);
    visit_runs(blocks, first, last, [&](MtxBlock<V>& block, const MtxRun& r) {
      const std::int64_t to = next[r.cell];
      next[r.cell] += r.count;
      std::copy_n(block.genes.data() + r.first, r.count, x.indices.data() + to);
      std::copy_n(block.values.data() + r.first, r.count, x.values.data() + to);
      if (std::atomic_ref(block.not_placed).fetch_sub(r.count, std::memory_order_acq_rel) != r.count) return;
      block.genes = {};
      block.values = {};
    });
    std::vector<std::pair<std::int32_t, V>> row;
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t p = x.indptr[i];
      const std::int32_t gene = sort_cell(x.indices.data() + p, x.values.data() + p, x.indptr[i + 1] - p, row);
      if (gene < 0) continue;
      twice[at(part)] = {i, gene};
      return;
    }
  });
  for (const auto& [cell, gene] : twice)
    if (cell >= 0) fail_twice(source, cell, gene);
  return x;
}

}  // namespace

AnyMatrix read_mtx(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells,
                   std::size_t block_bytes) {
  const MtxHeader header = read_mtx_header(ctx, source, genes, cells);
  if (auto blocks = parse_mtx<float>(ctx, source, header, block_bytes, [](const auto&) { return true; }))
    return to_csr<float>(ctx, source, header, *std::move(blocks));
  ctx.info(fmt::format("{}: '{}': values over 2^24: read as double", source.op(), source.name()));
  auto blocks = parse_mtx<double>(ctx, source, header, block_bytes, [](const auto&) { return true; });
  SCW_ASSERT(blocks.has_value());
  return to_csr<double>(ctx, source, header, *std::move(blocks));
}

}  // namespace scw::io
