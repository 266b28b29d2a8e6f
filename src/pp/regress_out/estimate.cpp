#include "core/estimate.hpp"

namespace scw::estimate {

Need regress_out(const Shape& s, std::int64_t n_keys) {
  const std::int64_t p = n_keys + 1, kept = s.sparse ? dense_bytes(s) : 0;  // p: with the intercept
  const std::int64_t slab = std::max<std::int64_t>(1024, on_cuda(s) ? ceil_div(s.n_rows, 256) : ceil_div(s.n_rows, 64));
  const std::int64_t slabs = ceil_div(s.n_rows, slab);
  if (streams_to_device(s)) {
    const std::int64_t design = 8 * s.n_rows * p, fit = 8 * p * s.n_cols, sums = slabs * fit;
    const std::int64_t result = s.sparse ? dense_result_bytes(s, design + fit) : 0;
    return {std::max({design + sums + rooms(s, design + sums).bytes, design + sums + fit + 8 * p,
                      design + fit + result + rooms(s, design + fit + result).bytes}),
            0};
  }
  return {kept + 8 * s.n_rows * p + 8 * (slabs + 1) * p * s.n_cols + 8 * p, kept};
}

}  // namespace scw::estimate
