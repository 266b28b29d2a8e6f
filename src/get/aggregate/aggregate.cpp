#include "scwarp/get/aggregate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/parallel.hpp"
#include "get/aggregate/kernel.hpp"
#include "prim/group_moments/group_moments.hpp"

namespace scw::get {

constinit Kernel<void(const Context&, const RowBlocks&, Span<const std::int32_t>, Span<const std::int64_t>,
                      MatrixView<double>)>
    group_median_kernel{"get.aggregate: group_median"};

SCW_BUILT_ON("get.aggregate", "prim.group_moments");

namespace {

constexpr const char* kOp = "get.aggregate";
constexpr std::int64_t kBatchBytes = std::int64_t{256} << 20;
constexpr std::int64_t kMomentBytes = 36;  // a group and gene

}  // namespace

Aggregate aggregate(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes_in, std::int32_t n_groups,
                    const AggregateOptions& o) {
  const std::int64_t n_genes = x.n_cols();
  SCW_EXPECT_AS(ShapeMismatch, codes_in.size == x.n_rows(), kOp,
                "codes must have one entry per cell (got {}, expected {})", codes_in.size, x.n_rows());
  SCW_EXPECT(n_groups >= 0, kOp, "n_groups must not be negative (got {})", n_groups);
  SCW_EXPECT(o.dof >= 0, kOp, "dof must not be negative (got {})", o.dof);
  SCW_EXPECT(x.n_rows() < prim::kFixedMaxTerms, kOp, "fewer than 2^31 cells (got {})", x.n_rows());
  Aggregate out;
  out.group_sizes.assign(static_cast<std::size_t>(n_groups), 0);
  std::vector<std::int32_t> codes(codes_in.begin(), codes_in.end());
  for (std::int32_t& c : codes) {
    SCW_EXPECT(c < n_groups, kOp, "group codes must be below n_groups (got {}, expected < {})", c, n_groups);
    if (c >= 0)
      ++out.group_sizes[static_cast<std::size_t>(c)];
    else
      c = n_groups;
  }
  const auto& memory = host_memory();
  const auto make = [&](bool wanted, const char* tag) {
    return wanted ? Matrix<double>(memory, n_groups, n_genes, tag) : Matrix<double>();
  };
  out.sum = make(o.sum, "group sums");
  out.mean = make(o.mean, "group means");
  out.var = make(o.var, "group variances");
  out.sq_sum = make(o.sq_sum, "group sums of squares");
  out.median = make(o.median, "group medians");
  if (o.count_nonzero) out.count_nonzero = Matrix<std::int32_t>(memory, n_groups, n_genes, "group non-zeros");

  if (o.sum || o.mean || o.var || o.sq_sum || o.count_nonzero) {
    const prim::GeneScales scales = prim::gene_scales(ctx, x, {});
    const std::int64_t batch =
        std::max<std::int64_t>(1, kBatchBytes / (kMomentBytes * std::max<std::int64_t>(1, n_genes)));
    for (std::int64_t first = 0; first < n_groups; first += batch) {
      const std::int64_t count = std::min(batch, n_groups - first);
      const prim::GroupMoments m = prim::group_moments(ctx, x, codes, first, count, {}, scales);
      parallel_for(ctx.host(), count, 1, [&](std::int64_t g, std::int64_t) {
        const std::int64_t n = out.group_sizes[static_cast<std::size_t>(first + g)];
        for (std::int64_t j = 0; j < n_genes; ++j) {
          const prim::FixedMoments& v = m.at(g, j);
          const prim::FixedScale scale = m.scale[j];
          const std::uint8_t flag = m.flag_at(g, j);
          const std::int64_t at = (first + g) * n_genes + j;
          if (o.sum) out.sum.data[at] = prim::fixed_sum_with_flags(prim::fixed_sum(v.sum, scale), flag);
          if (o.mean) out.mean.data[at] = prim::fixed_sum_with_flags(prim::fixed_mean(v.sum, n, scale), flag);
          if (o.var)
            out.var.data[at] =
                flag != 0 ? std::numeric_limits<double>::quiet_NaN() : prim::fixed_variance(v, n, o.dof, scale);
          if (o.sq_sum) {
            // Squares of infinities of either sign are +inf.
            const bool nan = (flag & prim::kFixedNan) != 0;
            const double s = prim::fixed_sum_sq(v, scale);
            out.sq_sum.data[at] =
                flag == 0 ? s
                          : (nan ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity());
          }
          if (o.count_nonzero) out.count_nonzero.data[at] = m.nonzero_at(g, j);
        }
      });
    }
  }
  if (o.median) group_median_kernel(ctx, x, codes, out.group_sizes, out.median.view());
  return out;
}

Aggregate aggregate(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes, std::int32_t n_groups,
                    const AggregateOptions& options) {
  return aggregate(ctx, ResidentBlocks(x), codes, n_groups, options);
}

}  // namespace scw::get
