#include <atomic>

#include "core/parallel.hpp"
#include "scwarp/core/csr_defects.hpp"
#include "prim/csr_defects/kernel.hpp"

#include "prim/csr_defects/body.inl"

namespace scw::cpu {

void csr_defects(const Context& ctx, std::int64_t n_rows, std::int32_t n_cols, Span<const std::int64_t> indptr,
                 Span<const std::int32_t> indices, std::int32_t& defects) {
  std::atomic<std::int32_t> all{0};
  parallel_for(ctx, n_rows, 1024, [&](std::int64_t first, std::int64_t last) {
    std::int32_t d = 0;
    for (std::int64_t i = first; i < last; ++i)
      for (std::int64_t k = indptr[i]; k < indptr[i + 1]; ++k) d |= column_defects(indices.data, k, indptr[i], n_cols);
    if (d != 0) all.fetch_or(d, std::memory_order_relaxed);
  });
  defects = all.load();
}

SCW_REGISTER(csr_defects_kernel, cpu, &csr_defects);

}  // namespace scw::cpu
