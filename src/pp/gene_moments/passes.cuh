// One pass of gene_moments over one block of rows. Compiled by value type: cuda_float.cu and cuda_double.cu.
#pragma once

#include "pp/gene_moments/ops.cuh"

namespace scw::pp::cuda {

/// What decides which pass is tried first: entries of a few hundred rows.
struct Sample {
  unsigned n, not_whole, large, inexact;  // large: whole, but not from 0 to 255
};

struct Pass {
  Target target;
  bool expm1;
  double expm1_scale;
  const std::int16_t* shifts;   // passes with a scale for each column
  unsigned long long* largest;  // the pass that finds those scales
};

enum class PassKind { sample, counts, uniform, largest, per_column };

/// X: CsrView or MatrixView of const float or double. No counts pass for dense rows.
template <class X>
void run_pass(const Context& ctx, const X& x, const prim::cuda::RowOrder& order, PassKind kind, const Pass& pass,
              Sample* sample);

#define SCW_GENE_MOMENT_PASSES(prefix, V)                                                                          \
  prefix template void run_pass(const Context&, const CsrView<const V>&, const prim::cuda::RowOrder&, PassKind,    \
                                const Pass&, Sample*);                                                             \
  prefix template void run_pass(const Context&, const MatrixView<const V>&, const prim::cuda::RowOrder&, PassKind, \
                                const Pass&, Sample*)
SCW_GENE_MOMENT_PASSES(extern, float);
SCW_GENE_MOMENT_PASSES(extern, double);

}  // namespace scw::pp::cuda
