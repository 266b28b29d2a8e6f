#include "pp/normalize_total/kernel.hpp"
#include "prim/row_ops.cuh"

#include "pp/normalize_total/body.inl"

namespace scw::pp::cuda {

void row_totals(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> excluded, Span<double> out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { prim::cuda::row_reduce(ctx, v, KeptValue{excluded.data}, out); }, x);
}

void dominant_genes(const Context& ctx, const AnyMatrixView& x, Span<const double> totals, double max_fraction,
                    Span<std::uint8_t> flags) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(
      [&](const auto& v) { prim::cuda::visit_values(ctx, v, FlagDominant{totals.data, max_fraction, flags.data}); }, x);
}

void scale_rows(const Context& ctx, const AnyMutableMatrixView& x, Span<const double> counts, double target) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { prim::cuda::for_each_value(ctx, v, ScaleRow{counts.data, target}); }, x);
}

SCW_REGISTER(row_totals_kernel, cuda, &row_totals);
SCW_REGISTER(dominant_genes_kernel, cuda, &dominant_genes);
SCW_REGISTER(scale_rows_kernel, cuda, &scale_rows);

}  // namespace scw::pp::cuda
