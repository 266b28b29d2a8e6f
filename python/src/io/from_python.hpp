// Matrices of Python for the writers, which take them from their arrays.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "bind.hpp"
#include "scwarp/anndata.hpp"

namespace scw::python {

using Numbers = nb::ndarray<nb::ro, nb::device::cpu>;

template <class T>
void copy_elements(const std::byte* from, std::int64_t stride, std::int64_t n, std::byte* out) {
  for (std::int64_t i = 0; i < n; ++i)
    std::memcpy(out + static_cast<std::size_t>(i) * sizeof(T), from + i * stride, sizeof(T));
}

/// n elements of `size` bytes, `stride` bytes apart.
inline void gather(const std::byte* from, std::int64_t stride, std::int64_t n, std::size_t size, std::byte* out) {
  switch (size) {
    case 1:
      return copy_elements<std::uint8_t>(from, stride, n, out);
    case 2:
      return copy_elements<std::uint16_t>(from, stride, n, out);
    case 4:
      return copy_elements<std::uint32_t>(from, stride, n, out);
    default:
      return copy_elements<std::uint64_t>(from, stride, n, out);
  }
}

inline const std::byte* bytes_of(const Numbers& x) { return static_cast<const std::byte*>(x.data()); }

/// A range of a one-dimensional array, as it is.
inline io::FillRange elements(const Numbers& x) {
  const std::byte* data = bytes_of(x);
  const std::size_t size = x.itemsize();
  return [data, size](std::int64_t first, std::int64_t n, std::byte* out) {
    std::memcpy(out, data + static_cast<std::size_t>(first) * size, static_cast<std::size_t>(n) * size);
  };
}

/// Rows of a two-dimensional array of any strides. Column by column where columns are what is contiguous.
inline io::FillRange rows(const Numbers& x) {
  const std::byte* data = bytes_of(x);
  const std::size_t size = x.itemsize();
  const auto step = static_cast<std::int64_t>(size);
  const auto n_cols = static_cast<std::int64_t>(x.shape(1));
  const std::int64_t down = x.stride(0) * step, across = x.stride(1) * step;
  return [=](std::int64_t first, std::int64_t n, std::byte* out) {
    const std::byte* from = data + first * down;
    if (across == step || n_cols <= 1) {
      for (std::int64_t i = 0; i < n; ++i)
        std::memcpy(out + i * n_cols * step, from + i * down, static_cast<std::size_t>(n_cols * step));
      return;
    }
    // A few rows of the source's columns share a cache line.
    for (std::int64_t i = 0; i < n; ++i) gather(from + i * down, across, n_cols, size, out + i * n_cols * step);
  };
}

/// Integers of 32 or 64 bits as T; DataError for one that is not in [0, limit].
template <class T>
io::FillRange integers(const Numbers& x, std::int64_t limit, const std::string& name) {
  const auto as = [&]<class Src>(Src) -> io::FillRange {
    const auto* data = static_cast<const Src*>(x.data());
    return [=](std::int64_t first, std::int64_t n, std::byte* bytes) {
      auto* out = reinterpret_cast<T*>(bytes);
      bool ok = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const Src v = data[first + i];
        ok &= v >= 0 && static_cast<std::int64_t>(v) <= limit;
        out[i] = static_cast<T>(v);
      }
      if (!ok) throw DataError("write: '" + name + "' holds an index out of range");
    };
  };
  return x.itemsize() == 4 ? as(std::int32_t{}) : as(std::int64_t{});
}

/// (layout, n_rows, n_cols, dtype, values[, indices, indptr]) as scwarp.io makes it.
inline MatrixElement streamed(const std::string& name, const nb::tuple& t) {
  auto m = std::make_shared<io::MatrixStream>();
  const auto layout = nb::cast<std::string>(t[0]);
  m->n_rows = nb::cast<std::int64_t>(t[1]);
  m->n_cols = nb::cast<std::int64_t>(t[2]);
  m->dtype = nb::cast<std::string>(t[3]);
  const auto values = nb::cast<Numbers>(t[4]);
  if (layout == "dense") {
    m->layout = StoredLayout::dense;
    m->values = rows(values);
  } else {
    m->layout = layout == "csc" ? StoredLayout::csc : StoredLayout::csr;
    const auto indices = nb::cast<Numbers>(t[5]), indptr = nb::cast<Numbers>(t[6]);
    const std::int64_t n_major = m->layout == StoredLayout::csc ? m->n_cols : m->n_rows;
    const std::int64_t n_minor = m->layout == StoredLayout::csc ? m->n_rows : m->n_cols;
    const auto last = static_cast<std::size_t>(n_major);
    m->nnz = indptr.itemsize() == 4 ? static_cast<const std::int32_t*>(indptr.data())[last]
                                    : static_cast<const std::int64_t*>(indptr.data())[last];
    if (indptr.size() != last + 1 || m->nnz < 0 || static_cast<std::size_t>(m->nnz) > values.size() ||
        static_cast<std::size_t>(m->nnz) > indices.size())
      throw DataError("write: '" + name + "' is not a consistent sparse matrix");
    m->values = elements(values);
    m->indices = integers<std::int32_t>(indices, n_minor - 1, name);
    m->indptr = integers<std::int64_t>(indptr, m->nnz, name);
  }
  return MatrixElement(std::shared_ptr<const io::MatrixStream>(std::move(m)));
}

}  // namespace scw::python
