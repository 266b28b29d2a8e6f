// Non-owning, trivially copyable views. They go into kernels by value.
#pragma once

#include <cstdint>
#include <type_traits>
#include <variant>

#include "scwarp/core/config.hpp"

namespace scw {

template <class T>
struct Span {
  T* data = nullptr;
  std::int64_t size = 0;

  Span() = default;
  SCW_HD Span(T* d, std::int64_t n) : data(d), size(n) {}
  /// From any contiguous host container (std::vector, Array).
  template <class C, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<C&>().data()), T*>>>
  Span(C& c) : data(c.data()), size(static_cast<std::int64_t>(c.size())) {}
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
  SCW_HD Span(const Span<U>& o) : data(o.data), size(o.size) {}

  SCW_HD T& operator[](std::int64_t i) const { return data[i]; }
  SCW_HD T* begin() const { return data; }
  SCW_HD T* end() const { return data + size; }
  SCW_HD Span subspan(std::int64_t first, std::int64_t count) const { return {data + first, count}; }
  SCW_HD bool empty() const { return size == 0; }
};

/// Dense, row-major; row i starts at data + i * ld (ld >= n_cols, in elements).
template <class T>
struct MatrixView {
  T* data = nullptr;
  std::int64_t n_rows = 0, n_cols = 0, ld = 0;

  MatrixView() = default;
  SCW_HD MatrixView(T* d, std::int64_t r, std::int64_t c) : data(d), n_rows(r), n_cols(c), ld(c) {}
  SCW_HD MatrixView(T* d, std::int64_t r, std::int64_t c, std::int64_t l) : data(d), n_rows(r), n_cols(c), ld(l) {}
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
  SCW_HD MatrixView(const MatrixView<U>& o) : data(o.data), n_rows(o.n_rows), n_cols(o.n_cols), ld(o.ld) {}

  SCW_HD T* row(std::int64_t i) const { return data + i * ld; }
  SCW_HD T& operator()(std::int64_t i, std::int64_t j) const { return data[i * ld + j]; }
};

/// Compressed sparse rows; rows are cells. Row offsets are 64-bit, column indices 32-bit, sorted and unique in a row.
/// indptr has n_rows + 1 entries and need not start at 0 (a block of rows keeps its offsets).
template <class V>
struct CsrView {
  std::int64_t n_rows = 0;
  std::int32_t n_cols = 0;
  Span<const std::int64_t> indptr;
  Span<const std::int32_t> indices;
  Span<V> values;

  CsrView() = default;
  SCW_HD CsrView(std::int64_t r, std::int32_t c, Span<const std::int64_t> p, Span<const std::int32_t> i, Span<V> v)
      : n_rows(r), n_cols(c), indptr(p), indices(i), values(v) {}
  template <class U, class = std::enable_if_t<std::is_same_v<const U, V>>>
  SCW_HD CsrView(const CsrView<U>& o)
      : n_rows(o.n_rows), n_cols(o.n_cols), indptr(o.indptr), indices(o.indices), values(o.values) {}

  /// Stored entries. Reads indptr, so host views only.
  std::int64_t nnz() const { return n_rows == 0 ? 0 : indptr[n_rows] - indptr[0]; }
  /// Rows [first, first + count); shares indices and values.
  CsrView rows(std::int64_t first, std::int64_t count) const {
    return {count, n_cols, indptr.subspan(first, count + 1), indices, values};
  }
};

/// Compressed sparse columns of an n_rows x n_cols matrix, for per-gene work; row indices sorted in a column.
template <class V>
struct CscView {
  std::int64_t n_rows = 0;
  std::int32_t n_cols = 0;
  Span<const std::int64_t> indptr;   // n_cols + 1
  Span<const std::int32_t> indices;  // row of each entry: a matrix of over 2^31 rows has no CSC form
  Span<V> values;
};

using AnyCsrView = std::variant<CsrView<const float>, CsrView<const double>>;
/// What most operations read: cells x genes, sparse or dense, float or double.
using AnyMatrixView =
    std::variant<CsrView<const float>, CsrView<const double>, MatrixView<const float>, MatrixView<const double>>;

/// The same with values that an operation may change; sparsity patterns are never changed in place.
using AnyMutableMatrixView = std::variant<CsrView<float>, CsrView<double>, MatrixView<float>, MatrixView<double>>;

inline std::int64_t n_rows(const AnyMatrixView& x) {
  return std::visit([](const auto& v) { return v.n_rows; }, x);
}
inline std::int64_t n_cols(const AnyMatrixView& x) {
  return std::visit([](const auto& v) { return static_cast<std::int64_t>(v.n_cols); }, x);
}
inline AnyMatrixView to_any_matrix(const AnyCsrView& x) {
  return std::visit([](const auto& v) -> AnyMatrixView { return v; }, x);
}
template <class V>
AnyMatrixView as_const(const CsrView<V>& x) {
  return CsrView<const V>(x);
}
template <class V>
AnyMatrixView as_const(const MatrixView<V>& x) {
  return MatrixView<const V>(x);
}
inline AnyMatrixView as_const(const AnyMutableMatrixView& x) {
  return std::visit([](const auto& v) { return as_const(v); }, x);
}

}  // namespace scw
