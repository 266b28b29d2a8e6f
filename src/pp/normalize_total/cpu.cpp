#include "pp/normalize_total/kernel.hpp"
#include "prim/row_ops.hpp"

#include "pp/normalize_total/body.inl"

namespace scw::pp::cpu {

void row_totals(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> excluded, Span<double> out) {
  std::visit([&](const auto& v) { prim::cpu::row_reduce(ctx, v, KeptValue{excluded.data}, out); }, x);
}

void dominant_genes(const Context& ctx, const AnyMatrixView& x, Span<const double> totals, double max_fraction,
                    Span<std::uint8_t> flags) {
  std::visit(
      [&](const auto& v) { prim::cpu::visit_values(ctx, v, FlagDominant{totals.data, max_fraction, flags.data}); }, x);
}

void scale_rows(const Context& ctx, const AnyMutableMatrixView& x, Span<const double> counts, double target) {
  std::visit([&](const auto& v) { prim::cpu::for_each_value(ctx, v, ScaleRow{counts.data, target}); }, x);
}

SCW_REGISTER(row_totals_kernel, cpu, &row_totals);
SCW_REGISTER(dominant_genes_kernel, cpu, &dominant_genes);
SCW_REGISTER(scale_rows_kernel, cpu, &scale_rows);

}  // namespace scw::pp::cpu
