#include "core/estimate.hpp"

namespace scw::estimate {

Need normalize_total(const Shape& s, bool has_target_sum, bool exclude_highly_expressed) {
  const std::int64_t counts = 8 * s.n_rows, excluded = exclude_highly_expressed ? (on_cuda(s) ? 2 : 3) * s.n_cols : 0;
  if (streams_to_device(s)) {
    const std::int64_t held = counts + (exclude_highly_expressed ? s.n_cols : 0);  // the result's flags are on the host
    const std::int64_t passes = rooms(s, held, exclude_highly_expressed ? RowParts::all : RowParts::values).bytes;
    const std::int64_t finish = has_target_sum ? 8 : 8 + 16 * s.n_rows + sort_scratch(s.n_rows, 8, false);
    return {held + std::max(passes, finish), counts};
  }
  if (has_target_sum) return from_file(s, {counts + excluded + (on_cuda(s) ? 8 : 0), counts});
  const std::int64_t median = on_cuda(s) ? 8 + 16 * s.n_rows + sort_scratch(s.n_rows, 8, false) : 8 * s.n_rows;
  if (!streams(s)) return {counts + excluded + median, counts};
  return {counts + excluded + std::max(median, block_bytes(s)), counts};
}

}  // namespace scw::estimate
