#include "scwarp/pp/transformed_rows.hpp"

#include <algorithm>
#include <cmath>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "math/elementary.hpp"
#include "pp/log1p/kernel.hpp"
#include "pp/normalize_total/kernel.hpp"
#include "pp/sqrt/kernel.hpp"
#include "prim/csr_subset/csr_subset.hpp"

namespace scw::pp {
namespace {

constexpr const char* kOp = "transformed rows";

bool is_target(double t) { return t > 0 && std::isfinite(t); }

/// body(a view of x whose values are a copy, on ctx.device).
template <class V, class Body>
void with_copy(const Context& ctx, const CsrView<const V>& x, const Body& body) {
  std::int64_t ends[2] = {0, 0};
  if (x.n_rows > 0) {
    copy_bytes(ctx, &ends[0], Device{}, x.indptr.data, ctx.device, sizeof ends[0]);
    copy_bytes(ctx, &ends[1], Device{}, x.indptr.data + x.n_rows, ctx.device, sizeof ends[1]);
  }
  Array<V> values(ctx.workspace, ends[1] - ends[0], "copied block", ctx.stream);
  copy_bytes(ctx, values.data(), ctx.device, x.values.data + ends[0], ctx.device,
             static_cast<std::size_t>(values.size()) * sizeof(V));
  // Offsets stay as they are: the view starts where entry 0 would be.
  V* const entry0 = values.empty() ? nullptr : values.data() - ends[0];
  body(CsrView<V>(x.n_rows, x.n_cols, x.indptr, x.indices, {entry0, ends[1]}));
}
template <class V, class Body>
void with_copy(const Context& ctx, const MatrixView<const V>& x, const Body& body) {
  Array<V> values(ctx.workspace, checked_mul(x.n_rows, x.n_cols), "copied block", ctx.stream);
  const auto row_bytes = static_cast<std::size_t>(x.n_cols) * sizeof(V);
  if (x.ld == x.n_cols) {
    copy_bytes(ctx, values.data(), ctx.device, x.data, ctx.device, static_cast<std::size_t>(x.n_rows) * row_bytes);
  } else {
    for (std::int64_t i = 0; i < x.n_rows; ++i)
      copy_bytes(ctx, values.data() + i * x.n_cols, ctx.device, x.row(i), ctx.device, row_bytes);
  }
  body(MatrixView<V>(values.data(), x.n_rows, x.n_cols));
}

/// The steps from `next` on for one block; then body.
void apply(const Context& ctx, const std::vector<RowStep>& steps, std::size_t next, std::int64_t first,
           const AnyMutableMatrixView& x, const OwnedRowBlocks::OwnedBody& body) {
  const std::int64_t rows = n_rows(as_const(x));
  for (; next < steps.size(); ++next) {
    const RowStep& step = steps[next];
    if (const auto* const s = std::get_if<NormalizeRows>(&step)) {
      Array<double> counts(ctx.workspace, rows, "size factors", ctx.stream);
      normalize_rows_kernel(ctx, x, s->target_sum, counts.view());
    } else if (const auto* const s = std::get_if<ScaleRows>(&step)) {
      const auto counts = to_device<double>(ctx, {s->counts.data() + first, rows}, "size factors");
      scale_rows_kernel(ctx, x, counts.view(), s->target_sum);
    } else if (const auto* const s = std::get_if<Log1pRows>(&step)) {
      log1p_kernel(ctx, x, s->base ? 1.0 / math::log_positive(*s->base) : 1.0);
    } else if (std::holds_alternative<SqrtRows>(step)) {
      sqrt_kernel(ctx, x);
    } else {
      Context scratch = ctx;
      scratch.memory = ctx.workspace;
      AnyMatrix kept = prim::subset(scratch, as_const(x), {}, std::get<KeepColumns>(step).keep);
      return std::visit([&](auto& k) { apply(ctx, steps, next + 1, first, k.view(), body); }, kept);
    }
  }
  body(first, x);
}

}  // namespace

TransformedRows::TransformedRows(std::shared_ptr<const RowBlocks> source, std::vector<RowStep> steps)
    : source_(std::move(source)), steps_(std::move(steps)), n_cols_(source_->n_cols()) {
  for (const RowStep& step : steps_) {
    if (const auto* const s = std::get_if<NormalizeRows>(&step)) {
      SCW_EXPECT(is_target(s->target_sum), kOp, "target_sum must be positive and finite (got {})", s->target_sum);
    } else if (const auto* const s = std::get_if<ScaleRows>(&step)) {
      SCW_EXPECT(is_target(s->target_sum), kOp, "target_sum must be positive and finite (got {})", s->target_sum);
      SCW_EXPECT_AS(ShapeMismatch, static_cast<std::int64_t>(s->counts.size()) == source_->n_rows(), kOp,
                    "got {} counts, expected {} (rows)", s->counts.size(), source_->n_rows());
    } else if (const auto* const s = std::get_if<Log1pRows>(&step)) {
      SCW_EXPECT(!s->base || (*s->base > 0 && *s->base != 1 && std::isfinite(*s->base)), kOp,
                 "base must be positive, finite and not 1 (got {})", s->base.value_or(0));
    } else if (const auto* const s = std::get_if<KeepColumns>(&step)) {
      SCW_EXPECT_AS(ShapeMismatch, static_cast<std::int64_t>(s->keep.size()) == n_cols_, kOp,
                    "the mask has {} entries, expected {} (columns)", s->keep.size(), n_cols_);
      n_cols_ = std::count_if(s->keep.begin(), s->keep.end(), [](std::uint8_t k) { return k != 0; });
    }
  }
}

void TransformedRows::for_each_owned(const Context& ctx, RowParts parts, const OwnedBody& body) const {
  const bool by_column = std::any_of(steps_.begin(), steps_.end(),
                                     [](const RowStep& s) { return std::holds_alternative<KeepColumns>(s); });
  const auto steps = [&](std::int64_t first, const AnyMutableMatrixView& x) { apply(ctx, steps_, 0, first, x, body); };
  if (const auto* const owned = dynamic_cast<const OwnedRowBlocks*>(source_.get()))
    return owned->for_each_owned(ctx, by_column ? RowParts::all : parts, steps);
  const auto copied = [&](std::int64_t first, const AnyMatrixView& block) {
    std::visit([&](const auto& x) { with_copy(ctx, x, [&](const auto& copy) { steps(first, copy); }); }, block);
  };
  source_->for_each(ctx, copied, by_column ? RowParts::all : parts);
}

}  // namespace scw::pp
