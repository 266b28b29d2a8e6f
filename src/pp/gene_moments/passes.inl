// Included by cuda_float.cu and cuda_double.cu.
#include "pp/gene_moments/passes.cuh"
#include "prim/row_ops.cuh"

namespace scw::pp::cuda {
namespace {

constexpr int kSampleThreads = 256;
constexpr int kSampleRows = 256;

template <class X, class ToValue>
__global__ void __launch_bounds__(kSampleThreads)
    sample_kernel(X x, prim::cuda::RowOrder order, ToValue value, Sample* out) {
  const std::int64_t rows = order.size();
  if (rows == 0) return;
  const std::int64_t row = order.row(rows * blockIdx.x / gridDim.x);
  const std::int64_t begin = prim::cuda::row_begin(x, row);
  const std::int64_t end = begin + min(prim::cuda::row_count(x, row), std::int64_t{4 * kSampleThreads});
  unsigned n = 0, not_whole = 0, large = 0, inexact = 0;
  for (std::int64_t k = begin + threadIdx.x; k < end; k += kSampleThreads) {
    const auto v = prim::cuda::value_at(x, k);
    const double t = value(v) * prim::power_of_two(kGeneMomentsShift);
    ++n;
    if (!(trunc(v) == v))
      ++not_whole;
    else if (!(v >= 0 && v < 256))
      ++large;
    if (!((t + kMagic) - kMagic == t && t <= kFixedLimit && t >= -kFixedLimit)) ++inexact;
  }
  if (n != 0) atomicAdd(&out->n, n);
  if (not_whole != 0) atomicAdd(&out->not_whole, not_whole);
  if (large != 0) atomicAdd(&out->large, large);
  if (inexact != 0) atomicAdd(&out->inexact, inexact);
}

template <class X, bool kExpm1>
void run_mapped(const Context& ctx, const X& x, const prim::cuda::RowOrder& order, PassKind kind, const Pass& pass,
                Sample* sample) {
  using V = std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))>;
  const Value<V, kExpm1> value{pass.expm1_scale};
  const auto run = [&](const auto& sparse, const auto& dense) {
    prim::cuda::run_genes(ctx, x, order, sparse, dense, "gene_moments");
  };
  switch (kind) {
    case PassKind::sample:
      if (x.n_rows == 0) return;
      sample_kernel<<<static_cast<unsigned>(std::min<std::int64_t>(kSampleRows, x.n_rows)), kSampleThreads, 0,
                      scw::cuda::stream_of(ctx)>>>(x, order, value, sample);
      SCW_CUDA_LAUNCHED("gene_moments: sample");
      return;
    case PassKind::counts:
      if constexpr (!kExpm1) return run(CountMoments<V>{pass.target}, ColumnSums<V, false, false>{pass.target, value});
      [[fallthrough]];
    case PassKind::uniform:
      return run(FixedSums<V, kExpm1, false>{pass.target, value}, ColumnSums<V, kExpm1, false>{pass.target, value});
    case PassKind::per_column:
      return run(FixedSums<V, kExpm1, true>{pass.target, value, pass.shifts},
                 ColumnSums<V, kExpm1, true>{pass.target, value, pass.shifts});
    case PassKind::largest: {
      const LargestValue<V, kExpm1> op{pass.largest, pass.target.seen, value};
      return run(op, op);
    }
  }
}

}  // namespace

template <class X>
void run_pass(const Context& ctx, const X& x, const prim::cuda::RowOrder& order, PassKind kind, const Pass& pass,
              Sample* sample) {
  if (pass.expm1)
    run_mapped<X, true>(ctx, x, order, kind, pass, sample);
  else
    run_mapped<X, false>(ctx, x, order, kind, pass, sample);
}

}  // namespace scw::pp::cuda
