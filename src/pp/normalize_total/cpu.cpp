#include <algorithm>

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

void normalize_rows(const Context& ctx, const AnyMutableMatrixView& x, double target, Span<double> counts) {
  std::visit(
      [&](const auto& v) { prim::cpu::reduce_then_update(ctx, v, KeptValue{nullptr}, ScaleToTarget{target}, counts); },
      x);
}

void positive_counts(const Context&, Span<const double> counts, bool want_median, PositiveCounts& out) {
  if (!want_median) {
    out.n = std::count_if(counts.begin(), counts.end(), [](double c) { return c > 0; });
    return;
  }
  Array<double> kept(host_memory(), counts.size, "positive counts");
  double* const end = std::copy_if(counts.begin(), counts.end(), kept.begin(), [](double c) { return c > 0; });
  out.n = end - kept.begin();
  if (out.n == 0) return;
  double* const mid = kept.begin() + out.n / 2;
  std::nth_element(kept.begin(), mid, end);
  out.median = out.n % 2 == 1 ? *mid : (*std::max_element(kept.begin(), mid) + *mid) / 2;
}

SCW_REGISTER(row_totals_kernel, cpu, &row_totals);
SCW_REGISTER(dominant_genes_kernel, cpu, &dominant_genes);
SCW_REGISTER(scale_rows_kernel, cpu, &scale_rows);
SCW_REGISTER(normalize_rows_kernel, cpu, &normalize_rows);
SCW_REGISTER(positive_counts_kernel, cpu, &positive_counts);

}  // namespace scw::pp::cpu
