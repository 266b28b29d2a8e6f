#include "prim/csr_subset/csr_subset.hpp"

#include "core/check.hpp"

namespace scw::prim {

constinit Kernel<void(const Context&, const AnyMatrixView&, Span<const std::uint8_t>, Span<const std::uint8_t>,
                      AnyMatrix&)>
    subset_kernel{"pp.subset"};

namespace {

void check_mask(Span<const std::uint8_t> keep, std::int64_t n, const char* what) {
  SCW_EXPECT_AS(ShapeMismatch, keep.empty() || keep.size == n, "subset", "the mask has {} entries, expected {} {}",
                keep.size, n, what);
}

}  // namespace

AnyMatrix subset(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> keep_rows,
                 Span<const std::uint8_t> keep_cols) {
  check_mask(keep_rows, n_rows(x), "rows");
  check_mask(keep_cols, n_cols(x), "columns");
  AnyMatrix out;
  subset_kernel(ctx, x, keep_rows, keep_cols, out);
  return out;
}

}  // namespace scw::prim
