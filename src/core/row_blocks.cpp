#include "scwarp/core/row_blocks.hpp"

#include <algorithm>

#include "core/check.hpp"

namespace scw {
namespace {

template <class T>
CsrView<T> slice(const CsrView<T>& x, std::int64_t first, std::int64_t count) {
  return x.rows(first, count);
}
template <class T>
MatrixView<T> slice(const MatrixView<T>& x, std::int64_t first, std::int64_t count) {
  return {x.row(first), count, x.n_cols, x.ld};
}

}  // namespace

void ResidentBlocks::for_each(const Context& ctx,
                              const std::function<void(std::int64_t, const AnyMatrixView&)>& body) const {
  SCW_EXPECT(block_rows_ >= 0, "row blocks", "block_rows must not be negative (got {})", block_rows_);
  const std::int64_t n = n_rows();
  const std::int64_t step = block_rows_ == 0 ? std::max<std::int64_t>(1, n) : block_rows_;
  for (std::int64_t first = 0; first < n; first += step) {
    ctx.check_cancelled("row blocks");
    const std::int64_t count = std::min(step, n - first);
    body(first, std::visit([&](const auto& x) -> AnyMatrixView { return slice(x, first, count); }, x_));
  }
}

}  // namespace scw
