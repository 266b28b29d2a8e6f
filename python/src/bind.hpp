// What every binding file uses: registration, the context, matrices in, arrays out.
//
// A binding accepts arrays, builds views, releases the GIL, calls one function and wraps the results; about 25 lines.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/views.hpp"

namespace nb = nanobind;

namespace scw::python {

/// SCW_PYTHON(pp, log1p) { m.def("log1p", ...); }   m is scwarp._core.pp
using Init = void (*)(nb::module_&);
struct Registrar {
  Registrar(const char* space, const char* name, Init init);
};
#define SCW_PYTHON(space, name)                                                                                    \
  static void scw_init_##space##_##name(nb::module_& m);                                                           \
  static const ::scw::python::Registrar scw_registrar_##space##_##name{#space, #name, &scw_init_##space##_##name}; \
  static void scw_init_##space##_##name([[maybe_unused]] nb::module_& m)

/// The Python side of a Context: owns the cancel flag and the callbacks. Built by scwarp._context.
class PyContext {
 public:
  PyContext(const std::string& device, int n_threads, std::uint64_t seed, std::uintptr_t stream, nb::object log,
            nb::object progress);
  Context context;

 private:
  friend class InterruptScope;
  std::atomic<bool> cancelled_{false};
  std::unique_ptr<LogSink> log_;
  std::unique_ptr<Progress> progress_;
};

/// While alive, Ctrl-C sets the context's cancel flag (and still reaches Python's own handler). Main thread only.
class InterruptScope {
 public:
  explicit InterruptScope(PyContext& py);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  bool active_ = false;
};

/// f(context) without the GIL, stoppable by Ctrl-C.
template <class F>
auto run(PyContext& py, F&& f) {
  const nb::gil_scoped_release release;
  const InterruptScope interrupt(py);
  return f(std::as_const(py.context));
}

/// A 1-D contiguous array of exactly T on the context's device; TypeError otherwise.
template <class T>
Span<const T> vector_arg(const PyContext& py, nb::handle h, const char* name);
template <class T>
Span<T> mutable_vector_arg(const PyContext& py, nb::handle h, const char* name);
/// None gives an empty span.
template <class T>
Span<const T> optional_vector_arg(const PyContext& py, nb::handle h, const char* name) {
  return h.is_none() ? Span<const T>{} : vector_arg<T>(py, h, name);
}
/// A 1-D contiguous array of exactly T on the host, wherever the operation runs.
template <class T>
Span<const T> host_vector_arg(nb::handle h, const char* name) {
  const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
  return vector_arg<T>(host, h, name);
}
/// A 2-D C-contiguous array of exactly T on the context's device.
template <class T>
MatrixView<const T> matrix2d_arg(const PyContext& py, nb::handle h, const char* name);

/// What scwarp._matrix.pack made: a 2-D C-contiguous array, or (indptr int64, indices int32, data, n_cols).
AnyMatrixView matrix_arg(const PyContext& py, nb::handle packed);
AnyMutableMatrixView mutable_matrix_arg(const PyContext& py, nb::handle packed);

namespace detail {
nb::object wrap(void* data, std::vector<std::size_t> shape, nb::dlpack::dtype dtype, Device device, nb::capsule owner);
}

/// A NumPy or CuPy array that owns `a`; 1-D unless a shape is given.
template <class T>
nb::object to_array(Array<T>&& a, std::vector<std::size_t> shape = {}) {
  if (shape.empty()) shape = {static_cast<std::size_t>(a.size())};
  auto* held = new Array<T>(std::move(a));
  const nb::capsule owner(held, [](void* p) noexcept { delete static_cast<Array<T>*>(p); });
  return detail::wrap(held->data(), std::move(shape), nb::dtype<T>(), held->device(), owner);
}
template <class T>
nb::object to_array(Matrix<T>&& a) {
  return to_array(std::move(a.data), {static_cast<std::size_t>(a.n_rows), static_cast<std::size_t>(a.n_cols)});
}
/// (indptr, indices, data)
template <class T>
nb::tuple to_csr_parts(Csr<T>&& a) {
  return nb::make_tuple(to_array(std::move(a.indptr)), to_array(std::move(a.indices)), to_array(std::move(a.values)));
}

}  // namespace scw::python
