#include <algorithm>
#include <vector>

#include "core/parallel.hpp"
#include "prim/row_ops.hpp"
#include "scwarp/core/array.hpp"
#include "tl/score_genes/kernel.hpp"

#include "tl/score_genes/body.inl"

namespace scw::tl::cpu {
namespace {

template <class V, class F>
void for_row(const CsrView<V>& x, std::int64_t i, const F& f) {
  for (std::int64_t k = x.indptr[i]; k < x.indptr[i + 1]; ++k) f(x.indices[k], x.values[k]);
}
template <class V, class F>
void for_row(const MatrixView<V>& x, std::int64_t i, const F& f) {
  for (std::int64_t j = 0; j < x.n_cols; ++j) f(j, x(i, j));
}

}  // namespace

void set_sums(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> in_set, SetTerm term,
              Span<double> out) {
  std::visit(
      [&](const auto& v) {
        if (term == SetTerm::value)
          prim::cpu::row_reduce(ctx, v, SetValue{in_set.data}, out);
        else if (term == SetTerm::not_nan)
          prim::cpu::row_reduce(ctx, v, SetNotNan{in_set.data}, out);
        else
          prim::cpu::row_reduce(ctx, v, SetNanCount{in_set.data}, out);
      },
      x);
}

void set_scores(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> sets, double size_0, double size_1,
                Span<double> out) {
  Array<double> control(ctx.workspace, out.size, "set sums");
  std::visit(
      [&](const auto& v) {
        prim::cpu::row_reduce(ctx, v, SetValue{sets.data, 1}, out);
        prim::cpu::row_reduce(ctx, v, SetValue{sets.data, 2}, control.view());
      },
      x);
  for (std::int64_t i = 0; i < out.size; ++i) out[i] = out[i] / size_0 - control[i] / size_1;
}

void count_nan(const Context& ctx, const AnyMatrixView& x, Span<std::int64_t> out) {
  std::vector<std::vector<std::int64_t>> counts(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  std::visit(
      [&](const auto& v) {
        parallel_chunks(ctx, v.n_rows, 1024, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
          auto& mine = counts[static_cast<std::size_t>(worker)];
          if (mine.empty()) mine.assign(static_cast<std::size_t>(out.size), 0);
          for (std::int64_t i = begin; i < end; ++i)
            for_row(v, i, [&](std::int64_t j, auto value) { mine[static_cast<std::size_t>(j)] += value != value; });
        });
      },
      x);
  std::fill(out.begin(), out.end(), std::int64_t{0});
  for (const auto& mine : counts)
    for (std::size_t j = 0; j < mine.size(); ++j) out[static_cast<std::int64_t>(j)] += mine[j];
}

SCW_REGISTER(set_sums_kernel, cpu, &set_sums);
SCW_REGISTER(set_scores_kernel, cpu, &set_scores);
SCW_REGISTER(count_nan_kernel, cpu, &count_nan);

}  // namespace scw::tl::cpu
