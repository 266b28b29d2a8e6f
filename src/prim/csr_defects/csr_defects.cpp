#include "scwarp/core/csr_defects.hpp"

#include "prim/csr_defects/kernel.hpp"

namespace scw {

constinit Kernel<void(const Context&, std::int64_t, std::int32_t, Span<const std::int64_t>, Span<const std::int32_t>,
                      std::int32_t&)>
    csr_defects_kernel{"csr_defects"};

std::int32_t csr_defects(const Context& ctx, std::int32_t n_cols, Span<const std::int64_t> indptr,
                         Span<const std::int32_t> indices) {
  std::int32_t defects = 0;
  if (indptr.size > 1) csr_defects_kernel(ctx, indptr.size - 1, n_cols, indptr, indices, defects);
  return defects;
}

}  // namespace scw
