// Owning buffers on a device. Contents are uninitialised.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include "scwarp/core/config.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/memory.hpp"
#include "scwarp/core/views.hpp"

namespace scw {

/// a * b, or OutOfMemory if it does not fit 63 bits or is negative: every allocation size goes through it.
inline std::int64_t checked_mul(std::int64_t a, std::int64_t b) {
  std::int64_t r = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r))
    throw OutOfMemory("size arithmetic: " + std::to_string(a) + " x " + std::to_string(b) + " does not fit 64 bits");
  return r;
}
inline std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t r = 0;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &r))
    throw OutOfMemory("size arithmetic: " + std::to_string(a) + " + " + std::to_string(b) + " does not fit 64 bits");
  return r;
}

/// Movable, not copyable. Holds its resource alive.
template <class T>
class Array {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  using value_type = T;
  Array() = default;
  /// n uninitialised elements.
  Array(std::shared_ptr<MemoryResource> memory, std::int64_t n, const char* tag = "array", StreamHandle stream = {})
      : memory_(std::move(memory)), size_(n), stream_(stream) {
    const auto bytes = static_cast<std::size_t>(checked_mul(n, static_cast<std::int64_t>(sizeof(T))));
    if (bytes > 0) data_ = static_cast<T*>(memory_->allocate(bytes, stream_, tag));
  }
  Array(Array&& o) noexcept { swap(o); }
  Array& operator=(Array&& o) noexcept {
    Array(std::move(o)).swap(*this);
    return *this;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() {
    if (data_ != nullptr) memory_->deallocate(data_, static_cast<std::size_t>(size_) * sizeof(T), stream_);
  }
  void swap(Array& o) noexcept {
    std::swap(memory_, o.memory_);
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(stream_, o.stream_);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Device device() const { return memory_ ? memory_->device() : Device{}; }
  /// Where the buffer came from; null for a default-constructed array.
  const MemoryResource* resource() const { return memory_.get(); }
  Span<T> view() { return {data_, size_}; }
  Span<const T> view() const { return {data_, size_}; }
  // Host arrays only.
  T& operator[](std::int64_t i) { return data_[i]; }
  const T& operator[](std::int64_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

 private:
  std::shared_ptr<MemoryResource> memory_;
  T* data_ = nullptr;
  std::int64_t size_ = 0;
  StreamHandle stream_;
};

/// Dense row-major matrix without padding.
template <class T>
struct Matrix {
  Array<T> data;
  std::int64_t n_rows = 0, n_cols = 0;

  Matrix() = default;
  Matrix(std::shared_ptr<MemoryResource> memory, std::int64_t r, std::int64_t c, const char* tag = "matrix",
         StreamHandle stream = {})
      : data(std::move(memory), checked_mul(r, c), tag, stream), n_rows(r), n_cols(c) {}
  MatrixView<T> view() { return {data.data(), n_rows, n_cols}; }
  MatrixView<const T> view() const { return {data.data(), n_rows, n_cols}; }
};

/// Owning CSR matrix. indptr[0] == 0.
template <class V>
struct Csr {
  std::int64_t n_rows = 0;
  std::int32_t n_cols = 0;
  Array<std::int64_t> indptr;
  Array<std::int32_t> indices;
  Array<V> values;

  CsrView<V> view() {
    return {n_rows, n_cols, std::as_const(indptr).view(), std::as_const(indices).view(), values.view()};
  }
  CsrView<const V> view() const { return {n_rows, n_cols, indptr.view(), indices.view(), values.view()}; }
};

/// Owning CSC matrix.
template <class V>
struct Csc {
  std::int64_t n_rows = 0;
  std::int32_t n_cols = 0;
  Array<std::int64_t> indptr;
  Array<std::int32_t> indices;
  Array<V> values;

  CscView<const V> view() const { return {n_rows, n_cols, indptr.view(), indices.view(), values.view()}; }
};

/// Owning counterpart of AnyMatrixView.
using AnyMatrix = std::variant<Csr<float>, Csr<double>, Matrix<float>, Matrix<double>>;
/// What operations return that make a sparse matrix dense, in its value type.
using AnyDenseMatrix = std::variant<Matrix<float>, Matrix<double>>;

}  // namespace scw
