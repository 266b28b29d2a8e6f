// A matrix that is read one block of rows at a time: resident, on the host and streamed to a device, in a file
// (scwarp/io/file_rows.hpp), or made by a formula, behind one interface.
#pragma once

#include <cstdint>
#include <functional>

#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw {

/// Parts of a block that a pass reads: half of a CSR matrix is its column indices.
enum class RowParts : std::uint8_t {
  all,
  values,  ///< a source may leave column indices out: they are then null in the blocks of a sparse matrix
};

/// What every operation that reads a matrix takes; its header says how many passes it makes. A source implements the
/// virtual functions without a body here; of them visit() alone may be expensive.
class SCW_API RowBlocks {
 public:
  using Body = std::function<void(std::int64_t first_row, const AnyMatrixView& block)>;

  virtual ~RowBlocks() = default;
  virtual std::int64_t n_rows() const = 0;
  virtual std::int64_t n_cols() const = 0;
  virtual bool is_sparse() const = 0;
  /// Whether values are double, else float. A file may have to be read for it, once.
  virtual bool is_double(const Context& ctx) const = 0;
  /// All of it, where kernels of ctx.device can read it at once, else null: operations then go block by block, with the
  /// same result.
  virtual const AnyMatrixView* whole(const Context&) const { return nullptr; }
  /// One pass: body(first_row, block) for consecutive blocks, in order; a matrix without rows may have
  /// none. Blocks live on ctx.device until the work that body has queued on ctx.stream is done. May be called many
  /// times. Polls ctx.cancelled.
  void for_each(const Context& ctx, const Body& body, RowParts parts = RowParts::all) const { visit(ctx, parts, body); }

 protected:
  virtual void visit(const Context& ctx, RowParts parts, const Body& body) const = 0;
};

/// A matrix in memory, cut into blocks of `block_rows` rows (0: one block). Does not own the matrix.
///
/// With a CUDA context the matrix may also be on the host: then its blocks are uploaded one after another, the next one
/// while body works (block_rows 0: as many rows as ctx.block_bytes holds).
class SCW_API ResidentBlocks final : public RowBlocks {
 public:
  explicit ResidentBlocks(AnyMatrixView x, std::int64_t block_rows = 0) : x_(x), block_rows_(block_rows) {}
  std::int64_t n_rows() const override { return scw::n_rows(x_); }
  std::int64_t n_cols() const override { return scw::n_cols(x_); }
  bool is_sparse() const override { return x_.index() < 2; }
  bool is_double(const Context&) const override { return x_.index() % 2 == 1; }
  const AnyMatrixView* whole(const Context& ctx) const override;

 protected:
  void visit(const Context& ctx, RowParts parts, const Body& body) const override;

 private:
  AnyMatrixView x_;
  std::int64_t block_rows_;
};

/// A source that makes its blocks for the pass, so that body may change their values.
class SCW_API OwnedRowBlocks : public RowBlocks {
 public:
  using OwnedBody = std::function<void(std::int64_t first_row, const AnyMutableMatrixView& block)>;
  virtual void for_each_owned(const Context& ctx, RowParts parts, const OwnedBody& body) const = 0;

 protected:
  void visit(const Context& ctx, RowParts parts, const Body& body) const final {
    for_each_owned(ctx, parts, [&](std::int64_t first, const AnyMutableMatrixView& x) { body(first, as_const(x)); });
  }
};

/// Whether kernels on ctx.device can work on x where it is. Else it is on the host and ctx on CUDA.
SCW_API bool is_resident(const Context& ctx, const AnyMatrixView& x);
inline bool is_resident(const Context& ctx, const AnyMutableMatrixView& x) { return is_resident(ctx, as_const(x)); }

/// For operations that work on each row alone, in place: body(first_row, block) once with all of x if it is resident,
/// else with blocks of rows on the device, whose values are then copied back. The only place that knows the difference.
SCW_API void stream_rows(const Context& ctx, const AnyMutableMatrixView& x, RowParts parts,
                         const std::function<void(std::int64_t, const AnyMutableMatrixView&)>& body);

}  // namespace scw
