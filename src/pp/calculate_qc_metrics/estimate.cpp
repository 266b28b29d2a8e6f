#include "core/estimate.hpp"
#include "prim/group_moments/estimate.hpp"

namespace scw::estimate {
namespace {

/// Sums, flags and the scan of the genes; sums of values that are not whole need tiles sooner.
std::int64_t gene_totals(const Shape& s) { return 20 * s.n_cols + 16 + gene_splits(s, 16); }

std::int64_t results(const Shape& s, int n_families, int n_tops) {
  return s.n_rows * (12 + 8 * std::int64_t{n_families} + 8 * std::int64_t{n_tops}) + 12 * s.n_cols;
}

/// Sums of genes over blocks: a block's own, and a copy of them; of values that are not whole numbers their moments.
std::int64_t sums_by_blocks(const Shape& s, std::int64_t of_block) {
  return std::max(of_block + 12 * s.n_cols, (69 + 32 * threads(s)) * s.n_cols + group_moments_by_blocks(s, 1));
}

}  // namespace

Need calculate_qc_metrics(const Shape& s, int n_families, int n_tops, std::int64_t largest_top) {
  const std::int64_t kept = results(s, n_families, n_tops);
  if (!on_cuda(s)) {
    const Shape b = block_of(s);
    const std::int64_t of_block = kept - 12 * s.n_cols;
    return from_file(s, {kept, kept},
                     sums_by_blocks(s, s.n_rows > 0 ? of_block / s.n_rows * b.n_rows : 0) + 12 * s.n_cols);
  }
  // Of a block: results of its own, and the flags of the families, which are on the host as well.
  const std::int64_t held = kept + (streams_to_device(s) ? n_families * s.n_cols : 0);
  const Rooms r = rooms(s, held);
  const Shape& b = r.block;
  const std::int64_t own = streams_to_device(s) ? results(b, n_families, n_tops) : 0;
  std::int64_t top = 0;
  if (n_tops > 0) {
    std::int64_t capacity = 1;
    while (capacity < largest_top) capacity *= 2;
    top = 16 * std::int64_t{n_tops} + 4 * b.n_rows + 4;
    if (capacity * s.value_bytes > 32 << 10)  // sorted outside of shared memory
      top += std::min(b.n_rows, 2 * kMultiprocessors) * capacity * s.value_bytes;
  }
  return {held + r.bytes + own + (n_families > 0 ? s.n_cols : 0) + std::max(gene_totals(b), top), kept};
}

Need cell_counts(const Shape& s) {
  const std::int64_t kept = 12 * s.n_rows;
  if (!streams_to_device(s)) return from_file(s, {kept, kept}, 12 * block_of(s).n_rows);
  const Rooms r = rooms(s, kept);
  return {kept + r.bytes + 12 * r.block.n_rows, kept};
}

Need gene_counts(const Shape& s) {
  const std::int64_t kept = 12 * s.n_cols;
  if (streams_to_device(s)) {
    const Rooms r = rooms(s, kept);
    return {kept + r.bytes + kept + gene_totals(r.block), kept};
  }
  return from_file(s, {kept + (on_cuda(s) ? gene_totals(s) : 0), kept}, sums_by_blocks(s, kept));
}

}  // namespace scw::estimate
