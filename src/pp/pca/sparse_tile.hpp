// The inner product of the sparse covariance on the CPU.
#pragma once

#include <cstdint>

namespace scw::pp::cpu {

/// Bytes of a row of a dense column block: eight 64-byte registers.
inline constexpr std::int64_t kSparseBlockBytes = 512;

/// sums[0..width) = sum over n entries e of values[e] * dense[rows[e]], with dense rows of width = kSparseBlockBytes /
/// sizeof(T) values, 64-byte aligned as are the sums.
template <class T>
using SparseRowProduct = void (*)(const T* dense, const std::uint16_t* rows, const T* values, std::int64_t n, T* sums);

/// The fastest version for this processor (AVX-512, AVX2 with FMA, plain).
template <class T>
SparseRowProduct<T> sparse_row_product();
template <>
SparseRowProduct<float> sparse_row_product<float>();
template <>
SparseRowProduct<double> sparse_row_product<double>();

}  // namespace scw::pp::cpu
