// A matrix that is read one block of rows at a time: resident or on disk, behind one interface.
#pragma once

#include <cstdint>
#include <functional>

#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw {

class SCW_API RowBlocks {
 public:
  virtual ~RowBlocks() = default;
  virtual std::int64_t n_rows() const = 0;
  virtual std::int64_t n_cols() const = 0;
  virtual bool is_sparse() const = 0;
  /// Calls body(first_row, block) for consecutive blocks, in order; blocks live on ctx.device until body returns.
  /// May be called many times (one pass each). Polls ctx.cancelled.
  virtual void for_each(const Context& ctx,
                        const std::function<void(std::int64_t, const AnyMatrixView&)>& body) const = 0;
};

/// A resident matrix cut into blocks of `block_rows` rows (0: one block). Does not own the matrix.
class SCW_API ResidentBlocks final : public RowBlocks {
 public:
  explicit ResidentBlocks(AnyMatrixView x, std::int64_t block_rows = 0) : x_(x), block_rows_(block_rows) {}
  std::int64_t n_rows() const override { return scw::n_rows(x_); }
  std::int64_t n_cols() const override { return scw::n_cols(x_); }
  bool is_sparse() const override { return x_.index() < 2; }
  void for_each(const Context& ctx, const std::function<void(std::int64_t, const AnyMatrixView&)>& body) const override;

 private:
  AnyMatrixView x_;
  std::int64_t block_rows_;
};

}  // namespace scw
