#include "core/estimate.hpp"
#include "prim/group_moments/estimate.hpp"

namespace scw::estimate {

Need aggregate(const Shape& s, std::int64_t n_groups, int n_functions, bool count_nonzero, bool median) {
  // Groups go through in batches of 256 MiB of moments.
  const std::int64_t batch = std::clamp<std::int64_t>(
      (std::int64_t{256} << 20) / (36 * std::max<std::int64_t>(1, s.n_cols)), 1, std::max<std::int64_t>(1, n_groups));
  const bool others = count_nonzero || n_functions > (median ? 1 : 0);
  if (on_cuda(s)) {
    std::int64_t peak = others ? group_moments(s, batch) : 0;
    if (median) {  // entries are sorted in parts of at most 4 GiB
      const std::int64_t key = s.value_bytes == 4 ? 8 : 16;
      const std::int64_t held = 4 * s.n_rows + 8 * n_groups * (s.n_cols + 1) + 8 * s.n_cols;
      std::int64_t room = std::int64_t{4} << 30;  // of what a limit leaves, half
      if (s.limit_bytes > 0) room = std::clamp<std::int64_t>((s.limit_bytes - held) / 2, 1, room);
      const std::int64_t keys = std::min(s.nnz, room / (2 * key)) + 1;
      const std::int64_t sorting = held + 2 * key * keys + sort_scratch(keys, key, true);
      const Rooms r = rooms(s, sorting);
      peak = std::max(peak, sorting + r.bytes + gene_splits(r.block, 8));
    }
    return {peak, 0};
  }
  const std::int64_t kept = (8 * std::int64_t{n_functions} + (count_nonzero ? 4 : 0)) * n_groups * s.n_cols;
  std::int64_t moments = 0;
  if (others) moments = from_file(s, {group_moments(s, batch), 0}, group_moments_by_blocks(s, batch)).peak;
  std::int64_t sorting = 0;
  if (median) {
    sorting = sorted_genes(streams(s) ? column_tile(s) : s);
    if (streams(s)) sorting = genes_from_file(s, 0, sorting);
  }
  return {kept + std::max(moments, sorting), kept};
}

}  // namespace scw::estimate
