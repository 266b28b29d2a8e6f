// The inner product of sparse rows with dense columns on the CPU.
#pragma once

#include <cstdint>

namespace scw::pp::cpu {

/// Bytes of a row of a dense column block: eight 64-byte registers.
inline constexpr std::int64_t kSparseBlockBytes = 512;

/// sums[0..width) = sum over n entries e of values[e] * dense[rows[e]], with dense rows of width = kSparseBlockBytes /
/// sizeof(T) values, 64-byte aligned as are the sums.
template <class T, class Index>
using SparseRowProduct = void (*)(const T* dense, const Index* rows, const T* values, std::int64_t n, T* sums);

/// The fastest version for this processor (AVX-512, AVX2 with FMA, plain). Index: uint16 or int32.
template <class T, class Index>
SparseRowProduct<T, Index> sparse_row_product();
extern template SparseRowProduct<float, std::uint16_t> sparse_row_product();
extern template SparseRowProduct<double, std::uint16_t> sparse_row_product();
extern template SparseRowProduct<double, std::int32_t> sparse_row_product();

}  // namespace scw::pp::cpu
