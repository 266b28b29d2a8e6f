// Kind: driver over the kernels of normalize_total, log1p, sqrt and subset. Determinism tier A: the same bits as the
// operations on the whole matrix in memory, for any blocks.
//
// Operations on each row alone that are not done to the matrix but to every block that is read from it: a matrix in a
// file is normalised and logarithmised without being loaded or written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "scwarp/core/row_blocks.hpp"

namespace scw::pp {

/// normalize_total with this target and no exclusion: the counts are those of the rows as they come.
struct NormalizeRows {
  double target_sum = 1;  ///< > 0
};
/// normalize_total with counts that are known: rows are multiplied by target_sum / counts[i] where counts[i] > 0.
struct ScaleRows {
  std::vector<double> counts;  ///< one a row of the source
  double target_sum = 1;       ///< > 0
};
/// log1p.
struct Log1pRows {
  std::optional<double> base;  ///< unset: e
};
/// sqrt.
struct SqrtRows {};
/// subset: columns with keep[j] != 0 stay.
struct KeepColumns {
  std::vector<std::uint8_t> keep;  ///< one a column of what comes before
};
using RowStep = std::variant<NormalizeRows, ScaleRows, Log1pRows, SqrtRows, KeepColumns>;

/// The rows of `source` after `steps`, in their order. Memory: with KeepColumns what is left of a block, else 8 bytes a
/// row of it; a source that does not own its blocks has their values copied. Throws InvalidArgument or ShapeMismatch
/// for steps that do not fit the source.
class SCW_API TransformedRows final : public OwnedRowBlocks {
 public:
  TransformedRows(std::shared_ptr<const RowBlocks> source, std::vector<RowStep> steps);
  std::int64_t n_rows() const override { return source_->n_rows(); }
  std::int64_t n_cols() const override { return n_cols_; }
  bool is_sparse() const override { return source_->is_sparse(); }
  bool is_double(const Context& ctx) const override { return source_->is_double(ctx); }
  void for_each_owned(const Context& ctx, RowParts parts, const OwnedBody& body) const override;

 private:
  std::shared_ptr<const RowBlocks> source_;
  std::vector<RowStep> steps_;
  std::int64_t n_cols_;
};

}  // namespace scw::pp
