// scwarp._core: the extension module. Namespaces fill themselves (see SCW_PYTHON in bind.hpp).
#include <algorithm>
#include <string_view>

#include "bind.hpp"
#include "core/built_on.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/version.hpp"

namespace scw::python {
namespace {

struct Entry {
  std::string_view space, name;
  Init init;
};

std::vector<Entry>& entries() {
  static std::vector<Entry> all;
  return all;
}

/// Makes `name`(bases...) in the module and throws it for the C++ exception E.
nb::object make_exception(nb::module_& m, const char* name, nb::handle base, const char* doc) {
  const std::string full = std::string("scwarp.") + name;
  const auto type = nb::steal(PyErr_NewExceptionWithDoc(full.c_str(), doc, base.ptr(), nullptr));
  m.attr(name) = type;
  return type;
}

PyObject* g_data_error = nullptr;
PyObject* g_backend_unavailable = nullptr;

void translate(const std::exception_ptr& p, void*) {
  try {
    std::rethrow_exception(p);
  } catch (const Cancelled& e) {
    if (PyErr_CheckSignals() == 0) PyErr_SetString(PyExc_KeyboardInterrupt, e.what());
  } catch (const DataError& e) {
    PyErr_SetString(g_data_error, e.what());
  } catch (const InvalidArgument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const ShapeMismatch& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const FormatError& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const DTypeMismatch& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  } catch (const DeviceMismatch& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  } catch (const BackendUnavailable& e) {
    PyErr_SetString(g_backend_unavailable, e.what());
  } catch (const NotSupported& e) {
    PyErr_SetString(PyExc_NotImplementedError, e.what());
  } catch (const OutOfMemory& e) {
    PyErr_SetString(PyExc_MemoryError, e.what());
  } catch (const IoError& e) {
    PyErr_SetString(PyExc_OSError, e.what());
  } catch (const Error& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

}  // namespace

Registrar::Registrar(const char* space, const char* name, Init init) { entries().push_back({space, name, init}); }

NB_MODULE(_core, m) {
  m.attr("__version__") = kVersion;
  g_data_error = make_exception(m, "DataError", PyExc_ValueError,
                                "The data themselves are wrong: NaN, negative counts, bad indices.")
                     .ptr();
  g_backend_unavailable = make_exception(m, "BackendUnavailable", PyExc_RuntimeError,
                                         "The device cannot be used on this machine; the text says why.")
                              .ptr();
  nb::register_exception_translator(&translate);

  nb::class_<PyContext>(m, "Context")
      .def(nb::init<const std::string&, int, std::uint64_t, std::uintptr_t, nb::object, nb::object, bool, std::int64_t,
                    nb::object>(),
           nb::arg("device"), nb::arg("n_threads"), nb::arg("seed"), nb::arg("stream"), nb::arg("log").none(),
           nb::arg("progress").none(), nb::arg("host_data") = false, nb::arg("block_bytes") = 0,
           nb::arg("stream_owner") = nb::none())
      .def_prop_ro("device", [](const PyContext& py) { return to_string(py.context.device); })
      .def_prop_ro("n_threads", [](const PyContext& py) { return py.context.n_threads; });

  m.def("available_threads", &available_threads);
  m.def(
      "unavailable_reason", [](const std::string& device) { return unavailable_reason(parse_device(device).type); },
      nb::arg("device"));
  m.def("set_memory_limit", [](std::uint64_t limit) { host_memory()->set_limit_bytes(limit); }, nb::arg("limit_bytes"));
  m.def("reset_memory_peak", [] { host_memory()->reset_peak(); });
  m.def(
      "supports",
      [](const std::string& op, const std::string& device) { return supports(op, parse_device(device).type); },
      nb::arg("op"), nb::arg("device"));

  m.def(
      "kernels",
      [](const std::string& op, const std::string& device) {
        const DeviceType type = parse_device(device).type;
        scw::detail::ensure_backend(type);
        int here = 0, all = 0;
        const auto kernels = registered_kernels();
        for (const std::string& part : parts_of(op))
          for (const KernelInfo& k : kernels) {
            if (k.name != part && !k.name.starts_with(part + ":")) continue;
            ++all;
            here += k.on[static_cast<int>(type)] ? 1 : 0;
          }
        return std::pair(here, all);
      },
      nb::arg("op"), nb::arg("device"),
      "(kernels of the operation and of those it is built on that `device` has, kernels there are)");

  auto& all = entries();
  std::sort(all.begin(), all.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.space, a.name) < std::pair(b.space, b.name); });
  for (const Entry& e : all) {
    const std::string space(e.space);
    nb::module_ sub =
        nb::hasattr(m, space.c_str()) ? nb::cast<nb::module_>(m.attr(space.c_str())) : m.def_submodule(space.c_str());
    e.init(sub);
  }
}

}  // namespace scw::python
