#include "core/estimate.hpp"
#include "prim/group_moments/estimate.hpp"

namespace scw::estimate {
namespace {

std::int64_t tables(const Shape& s, std::int64_t tested) { return (4 * 8 + 4) * tested * s.n_cols; }

std::int64_t wilcoxon_cuda(const Shape& s, std::int64_t groups, bool with_reference) {
  const std::int64_t m = s.n_cols, key = s.value_bytes == 4 ? 8 : 16;
  const std::int64_t sums = 24 * (groups + 1) * m + 16 * groups * m + 24 * (with_reference ? groups : 1) * m;
  const std::int64_t held = 4 * s.n_rows + 8 * (groups + 1) + 16 * m + sums;
  std::int64_t room = std::int64_t{4} << 30;
  if (s.limit_bytes > 0) room = std::clamp<std::int64_t>((s.limit_bytes - held) / 10 * 8, 1, room);
  const std::int64_t keys = std::min(s.nnz, room / (2 * key)) + 1;
  const std::int64_t sorting = 2 * key * keys + sort_scratch(keys, key, true) + (s.sparse ? 8 * s.n_rows : 0);
  const std::int64_t blocks = 12 * (m + 1) + 4 * (keys / 2048 + m);
  return held + sorting + blocks + 64 + rooms(s, held + sorting + blocks).bytes;
}

std::int64_t wilcoxon_cpu(const Shape& s, std::int64_t groups, bool with_reference) {
  const std::int64_t m = s.n_cols;
  const std::int64_t held = 36 * (groups + 1) * m + 17 * m + 8 * groups * m + 8 * (with_reference ? groups : 1) * m;
  if (!streams(s)) return held + sorted_genes(s);
  return genes_from_file(s, held, sorted_genes(column_tile(s)));
}

/// Classes in chunks of at most 32 (double: 16) columns.
std::int64_t logreg_cuda(const Shape& s, std::int64_t groups) {
  const std::int64_t most = s.value_bytes == 4 ? 32 : 16, logits = groups == 2 ? 1 : groups;
  const std::int64_t chunks = ceil_div(logits, most), rest = logits - (chunks - 1) * most;
  const std::int64_t last = rest <= 4 ? 4 : rest <= 8 ? 8 : rest <= 16 ? 16 : rest <= 20 ? 20 : 32;
  const std::int64_t width = chunks > 1 ? most : last, columns = (chunks - 1) * most + last;
  const std::int64_t parameters = (s.n_cols + 1) * columns, v = s.value_bytes;
  std::int64_t bytes = 4 * s.n_rows + v * s.n_rows * columns + v * parameters + (1 << 19);
  if (s.sparse) {
    const std::int64_t fit = std::min<std::int64_t>((kSharedBytes - 1024) / (v * (width + 1)), 1 << 16);
    // Tiles of at least 32 rows, as many as there are multiprocessors or a multiple.
    const std::int64_t wanted = ceil_div(ceil_div(s.n_rows, fit), kMultiprocessors) * kMultiprocessors;
    const std::int64_t tiles = std::max<std::int64_t>(1, std::min(wanted, ceil_div(s.n_rows, 32)));
    bytes += 4 * tiles * (s.n_cols + 1) + (2 + v) * s.nnz;
    bytes += 8 * std::min(tiles, kMultiprocessors) * s.n_cols * width;
    bytes += 4 * s.n_rows * std::max<std::int64_t>(0, ceil_div(s.n_cols, fit) - 1);
  } else {
    bytes += v * (s.n_rows / 4096 + 1) * s.n_cols * width + (std::int64_t{32} << 20);
  }
  return bytes + (6 + 2 * 10) * 8 * parameters;  // vectors of the L-BFGS
}

std::int64_t logreg_cpu(const Shape& s, std::int64_t groups) {
  const std::int64_t logits = groups == 2 ? 1 : groups, width = ceil_div(logits, 8) * 8, v = s.value_bytes;
  const std::int64_t all = s.sparse ? 8 * (s.n_rows + 1) + s.nnz * (4 + v) : dense_bytes(s);
  const bool collected = streams(s) && all <= (s.block_bytes > 0 ? s.block_bytes : std::int64_t{2} << 30);
  const Shape b = streams(s) && !collected ? block_of(s) : s;  // what is there by cell and by gene at once
  const std::int64_t csr = s.sparse ? 0 : 8 * (b.n_rows + 1) + b.nnz * (4 + v);
  const std::int64_t by_gene = b.nnz * (4 + v) + 8 * (s.n_cols + 1);
  // While the entries are put in order of the genes: where the columns of each block start in the rows.
  const std::int64_t block = std::max<std::int64_t>(1 << 16, ceil_div(b.nnz, 128));
  const std::int64_t ordering =
      8 * (s.n_cols + 1) + 4 * ceil_div(b.nnz, block) * b.n_rows +
      threads(s) * (v == 4 ? 8 : 16) * (block + ceil_div(b.nnz, std::max<std::int64_t>(1, s.n_cols)));
  // Residuals, and the vectors of the L-BFGS: six and ten pairs.
  const std::int64_t solving = 8 * b.n_rows * width + 26 * 8 * (s.n_cols + 1) * width + 8 * logits * s.n_cols;
  if (!streams(s)) return csr + by_gene + std::max(ordering, solving);
  if (collected) return all + std::max(block_bytes(s), csr + by_gene + std::max(ordering, solving));
  return block_bytes(s) + csr + by_gene + ordering + solving;
}

}  // namespace

Need rank_genes_groups(const Shape& s, Test test, std::int64_t n_groups, bool with_reference) {
  const std::int64_t tested = with_reference ? n_groups - 1 : n_groups;
  if (test == Test::logreg) {
    if (!on_cuda(s)) return {logreg_cpu(s, n_groups), 0};
    const std::int64_t solving = logreg_cuda(s, n_groups);
    if (!streams_to_device(s)) return {solving, 0};
    const std::int64_t all = s.bytes();  // tiles and entries by gene are made once: the blocks are put together
    return {all + std::max(rooms(s, all).bytes, solving), 0};
  }
  if (on_cuda(s))
    return {test == Test::t_test ? group_moments(s, n_groups + 1) : wilcoxon_cuda(s, n_groups, with_reference), 0};
  const std::int64_t kept = tables(s, tested);
  std::int64_t moments = group_moments(s, n_groups + 1);
  if (streams(s)) moments += block_bytes(s) + group_moments_by_blocks(s, n_groups + 1);
  if (test == Test::t_test) return {std::max(moments, 36 * (n_groups + 1) * s.n_cols + 16 * s.n_cols + kept), kept};
  return {std::max({streams(s) ? moments : 0, wilcoxon_cpu(s, n_groups, with_reference),
                    36 * (n_groups + 1) * s.n_cols + 16 * s.n_cols + 16 * n_groups * s.n_cols + kept}),
          kept};
}

}  // namespace scw::estimate
