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

#include "device_cache.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/row_blocks.hpp"
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
///
/// With `host_data` and a CUDA device, the arrays of the call are on the host: arguments are copied to the device (or
/// found there, see DeviceCache) and freed when the operation is done, arguments that it changes are copied back, and
/// results become host arrays. Operations see device memory only, except those that stream (see blocks_arg).
///
/// Otherwise `stream_owner` is the Python object behind `stream`: the context and its results keep it, because they
/// give their memory back in that stream.
class PyContext {
 public:
  PyContext(const std::string& device, int n_threads, std::uint64_t seed, std::uintptr_t stream, nb::object log,
            nb::object progress, bool host_data = false, std::int64_t block_bytes = 0,
            nb::object stream_owner = nb::none());
  Context context;

  bool host_data() const { return host_data_; }
  /// The device address of a copy of a host argument.
  void* upload(const void* host, std::size_t bytes) const;
  /// The same for an argument that the operation changes.
  void* upload_changed(void* host, std::size_t bytes) const;
  /// Ends a call: changed arguments are copied back if it succeeded, and all copies freed.
  void end_call(bool succeeded) const;
  /// Lives as long as one of the host arrays that results of this context became.
  const std::shared_ptr<DeviceCache::Group>& group() const;

 private:
  friend class InterruptScope;
  struct Changed {
    void* host;
    const void* device;
    std::size_t bytes;
  };
  std::atomic<bool> cancelled_{false};
  std::unique_ptr<LogSink> log_;
  std::unique_ptr<Progress> progress_;
  bool host_data_;
  void* upload_changed(void* host, std::size_t bytes, bool back) const;

  mutable std::vector<std::shared_ptr<void>> copies_;
  mutable std::vector<Changed> changed_;
  mutable std::shared_ptr<DeviceCache::Group> group_;
};

/// What results of a context with host data are allocated from: device memory that to_array copies to the host.
class HostBoundMemory final : public MemoryResource {
 public:
  HostBoundMemory(std::shared_ptr<MemoryResource> upstream, const PyContext& py)
      : upstream_(std::move(upstream)), py_(py) {}
  Device device() const override { return upstream_->device(); }
  void* allocate(std::size_t bytes, StreamHandle stream, const char* tag) override {
    return upstream_->allocate(bytes, stream, tag);
  }
  void deallocate(void* p, std::size_t bytes, StreamHandle stream) noexcept override {
    upstream_->deallocate(p, bytes, stream);
  }
  const PyContext& py() const { return py_; }  // valid during the call

 private:
  std::shared_ptr<MemoryResource> upstream_;
  const PyContext& py_;
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
  struct Call {
    const PyContext& py;
    bool succeeded = false;
    ~Call() noexcept(false) { py.end_call(succeeded); }
  } call{py};
  if constexpr (std::is_void_v<decltype(f(std::as_const(py.context)))>) {
    f(std::as_const(py.context));
    call.succeeded = true;
  } else {
    auto result = f(std::as_const(py.context));
    call.succeeded = true;
    return result;
  }
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

/// Rows that come block by block, from a file: what operations that read the matrix in passes take in its place.
struct RowSource {
  std::shared_ptr<const RowBlocks> rows;
};

/// For operations that read the matrix in passes (scwarp/core/row_blocks.hpp): what matrix_arg takes, where a host
/// matrix stays on the host and is streamed, a RowSource, or (n_rows, n_cols, is_sparse, is_double, callable): the
/// callable yields consecutive blocks of rows in the form that matrix_arg takes, one pass a call; or what
/// pp.regress_out leaves of any of these: ("residuals", x, keys, coefficients, gene mask or None), with codes and means
/// for a categorical key. A host matrix that is read in several passes is uploaded nevertheless if half of the free
/// memory holds it. `x` must outlive the result.
enum class Passes : std::uint8_t { one, several };
std::shared_ptr<const RowBlocks> blocks_arg(const PyContext& py, nb::handle x, Passes passes = Passes::several);
/// For operations that change each row alone: as mutable_matrix_arg, but a host matrix stays on the host.
AnyMutableMatrixView mutable_rows_arg(const PyContext& py, nb::handle packed);

namespace detail {
nb::object wrap(void* data, std::vector<std::size_t> shape, nb::dlpack::dtype dtype, Device device, nb::capsule owner);
}

/// The context if results of this resource go to the host, else null.
inline const PyContext* host_bound(const MemoryResource* memory) {
  const auto* const bound = dynamic_cast<const HostBoundMemory*>(memory);
  return bound == nullptr ? nullptr : &bound->py();
}
/// Copies device memory to the host and keeps it, if the cache takes it, as the device copy of that.
void copy_home(const PyContext& py, void* host, const void* device, std::size_t bytes, std::shared_ptr<void> owner);

namespace detail {
/// A host array and the device copies that live as long.
template <class T>
struct Held {
  Array<T> array;
  std::shared_ptr<DeviceCache::Group> group;
};
template <class T>
nb::object to_array(std::unique_ptr<Held<T>> held, std::vector<std::size_t> shape) {
  if (shape.empty()) shape = {static_cast<std::size_t>(held->array.size())};
  T* const data = held->array.data();
  const Device device = held->array.device();
  const nb::capsule owner(held.release(), [](void* p) noexcept { delete static_cast<Held<T>*>(p); });
  return wrap(data, std::move(shape), nb::dtype<T>(), device, owner);
}
}  // namespace detail

/// A NumPy array with n elements of device memory that `owner` keeps.
template <class T>
nb::object bring_home(const PyContext& py, const T* device, std::int64_t n, std::shared_ptr<void> owner,
                      std::vector<std::size_t> shape = {}) {
  auto held = std::make_unique<detail::Held<T>>(Array<T>(host_memory(), n, "result"), py.group());
  copy_home(py, held->array.data(), device, static_cast<std::size_t>(n) * sizeof(T), std::move(owner));
  return detail::to_array(std::move(held), std::move(shape));
}

/// A NumPy array with the contents of `a`, wherever that is; 1-D unless a shape is given. For slots of the host.
template <class T>
nb::object to_host_array(const PyContext& py, Array<T>&& a, std::vector<std::size_t> shape = {}) {
  if (a.device().type == DeviceType::cpu)
    return detail::to_array(std::make_unique<detail::Held<T>>(std::move(a)), std::move(shape));
  const auto owner = std::make_shared<Array<T>>(std::move(a));
  return bring_home<T>(py, owner->data(), owner->size(), owner, std::move(shape));
}

/// A NumPy or CuPy array that owns `a`; 1-D unless a shape is given.
template <class T>
nb::object to_array(Array<T>&& a, std::vector<std::size_t> shape = {}) {
  if (const PyContext* py = host_bound(a.resource())) return to_host_array(*py, std::move(a), std::move(shape));
  return detail::to_array(std::make_unique<detail::Held<T>>(std::move(a)), std::move(shape));
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
