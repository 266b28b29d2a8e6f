#include "scwarp/pp/gene_moments.hpp"

#include <limits>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "pp/gene_moments/kernel.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const RowBlocks&, const GeneMomentsOptions&, GeneSums&)> gene_sums_kernel{
    "pp.gene_moments"};

GeneSums gene_sums(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options, const char* op) {
  SCW_EXPECT(options.ddof == 0 || options.ddof == 1, op, "ddof must be 0 or 1 (got {})", options.ddof);
  SCW_EXPECT(options.n_groups >= 1, op, "n_groups must be positive (got {})", options.n_groups);
  SCW_EXPECT_AS(ShapeMismatch, options.groups.size == 0 || options.groups.size == x.n_rows(), op,
                "groups must have one code per row (got {}, expected {})", options.groups.size, x.n_rows());
  SCW_EXPECT(options.groups.size != 0 || options.n_groups == 1 || x.n_rows() == 0, op,
             "n_groups without groups must be 1 (got {})", options.n_groups);
  SCW_EXPECT(x.n_rows() <= prim::kFixedMaxTerms, op, "at most 2^31 rows (got {})", x.n_rows());
  GeneSums out;
  gene_sums_kernel(ctx, x, options, out);
  return out;
}

GeneMoments host_gene_moments(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options,
                              const char* op) {
  const GeneSums s = gene_sums(ctx, x, options, op);
  const std::int64_t genes = x.n_cols();
  const std::int64_t groups = options.n_groups;
  const std::int64_t total = options.with_total ? 1 : 0;

  const Context host = ctx.host();
  GeneMoments out;
  out.counts = s.counts;
  out.n_rows = Array<std::int64_t>(host_memory(), groups + total, "rows per group");
  std::int64_t all = 0;
  for (std::int64_t g = 0; g < groups; ++g) all += out.n_rows[g] = s.n_rows[static_cast<std::size_t>(g)];
  if (total != 0) out.n_rows[groups] = all;

  Matrix<double> mean(host.memory, groups + total, genes, "gene means");
  Matrix<double> variance(host.memory, groups + total, genes, "gene variances");
  const auto write = [&](std::int64_t g, std::int64_t j, const prim::FixedMoments& m) {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    const std::int64_t n = out.n_rows[g];
    const prim::FixedScale& scale = s.scale[static_cast<std::size_t>(j)];
    const bool defined = n > 0 && s.finite[static_cast<std::size_t>(j)] != 0;
    mean.view()(g, j) = defined ? prim::fixed_mean(m.sum, n, scale) : nan;
    variance.view()(g, j) = !defined ? nan : n == 1 ? 0.0 : prim::fixed_variance(m, n, options.ddof, scale);
  };
  parallel_for(host, genes, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      prim::FixedMoments sum;
      for (std::int64_t g = 0; g < groups; ++g) {
        const prim::FixedMoments& m = s.sums[g * genes + j];
        write(g, j, m);
        sum += m;
      }
      if (total != 0) write(groups, j, sum);
    }
  });
  out.mean = std::move(mean);
  out.variance = std::move(variance);
  return out;
}

GeneMoments gene_moments(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options) {
  GeneMoments out = host_gene_moments(ctx, x, options, "pp.gene_moments");
  if (ctx.device.type == DeviceType::cpu) return out;
  for (Matrix<double>* const m : {&out.mean, &out.variance}) {
    Matrix<double> on_device(ctx.memory, m->n_rows, m->n_cols, "gene moments", ctx.stream);
    copy_bytes(ctx, on_device.data.data(), ctx.device, m->data.data(), Device{},
               static_cast<std::size_t>(m->data.size()) * sizeof(double));
    *m = std::move(on_device);
  }
  return out;
}

GeneMoments gene_moments(const Context& ctx, const AnyMatrixView& x, const GeneMomentsOptions& options) {
  return gene_moments(ctx, ResidentBlocks(x), options);
}

}  // namespace scw::pp
