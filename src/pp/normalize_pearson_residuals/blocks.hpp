// Pearson residuals of a matrix as a source of dense blocks: nothing of the size of the matrix is ever dense.
#pragma once

#include "pp/normalize_pearson_residuals/kernel.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/row_blocks.hpp"

namespace scw::pp {

/// Row sums, column sums by group and totals: what the residuals are made of.
struct PearsonSums {
  Array<double> row_share;   // [n_rows] on ctx.device
  Matrix<double> gene_sums;  // [n_groups x n_cols] on ctx.device
  Array<double> clip;        // [n_groups] on ctx.device
  double first_clip = 0;     // clip[0]
  bool counts = true;
};

/// clip unset: the square root of the number of rows in each group.
PearsonSums pearson_sums(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> groups, std::int32_t n_groups,
                         const PearsonResidualsOptions& options, const char* op);

class PearsonBlocks final : public RowBlocks {
 public:
  PearsonBlocks(const RowBlocks& x, const PearsonSums& sums, Span<const std::int32_t> groups, double theta)
      : x_(x), sums_(sums), groups_(groups), theta_(theta) {}
  std::int64_t n_rows() const override { return x_.n_rows(); }
  std::int64_t n_cols() const override { return x_.n_cols(); }
  bool is_sparse() const override { return false; }
  bool is_double(const Context&) const override { return true; }

 protected:
  void visit(const Context& ctx, RowParts parts, const Body& body) const override;

 private:
  const RowBlocks& x_;
  const PearsonSums& sums_;
  Span<const std::int32_t> groups_;
  double theta_;
};

}  // namespace scw::pp
