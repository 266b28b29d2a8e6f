// Rows and columns of a CSR matrix by mask. CPU; two passes over the indices (count, fill), one over the kept values.
#pragma once

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw::prim {

/// The rows with keep_rows[i] != 0 and the columns with keep_cols[j] != 0, in order; an empty mask keeps everything.
/// Explicit zeros are kept. Memory: the result, 4 bytes a column and 8 a row of scratch.
template <class V>
Csr<V> csr_subset(const Context& ctx, const CsrView<const V>& x, Span<const std::uint8_t> keep_rows,
                  Span<const std::uint8_t> keep_cols);

/// The same for dense rows.
template <class V>
Matrix<V> dense_subset(const Context& ctx, const MatrixView<const V>& x, Span<const std::uint8_t> keep_rows,
                       Span<const std::uint8_t> keep_cols);

}  // namespace scw::prim
