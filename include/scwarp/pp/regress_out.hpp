// Kind: driver; sums over cells in fixed chunks. Determinism: a categorical key tier A; numeric keys tier B (same bits
// for any number of threads and on every run; CPU and CUDA within 1e-12 of the largest value, before rounding).
#pragma once

#include <cstdint>
#include <variant>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"
#include "scwarp/pp/scale.hpp"

namespace scw::pp {

/// A dense matrix whose values an operation may change.
using AnyMutableDenseView = std::variant<MatrixView<float>, MatrixView<double>>;

struct RegressOut {
  /// Keys that were used; the others are constant or depend linearly on those before them (to 10 digits), which
  /// changes no residual.
  std::int64_t n_independent = 0;
};

/// x <- residual of the least-squares fit of every gene on [1 | keys], in place, computed in double.
///
/// keys: [n_cells x k] on the host, finite. They are centred, scaled to unit length and orthogonalised (Gram-Schmidt,
/// every column twice) to Q; the residual is x - mean - Q Q^T x, which has no normal equations to lose digits in.
/// Throws ShapeMismatch, DataError (a key that is not finite); x is then unchanged. Memory: 8 bytes x (cells + 64 x
/// genes) x (k + 1) on the CPU, 8 bytes x (cells + 256 x genes) x (k + 1) on CUDA. Floor: two reads and one write of x.
SCW_API RegressOut regress_out(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> keys);

/// The same for a sparse matrix, into a new dense one. Floor on CUDA: two reads of x, one write of the result.
SCW_API RegressOut regress_out_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                        MatrixView<const double> keys);

/// x <- x - mean of the gene over the cells of the same category, in place. codes: [n_cells] on ctx.device, in
/// [0, n_categories); cells with any other code keep their values. The means are those of gene_moments.
/// Throws ShapeMismatch, InvalidArgument; x is then unchanged. Floor: two reads and one write of x.
SCW_API void regress_out_categories(const Context& ctx, const AnyMutableDenseView& x, Span<const std::int32_t> codes,
                                    std::int32_t n_categories);
SCW_API void regress_out_categories_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                             Span<const std::int32_t> codes, std::int32_t n_categories);

}  // namespace scw::pp
