#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(get, transfer) {
  m.def(
      "copy",
      [](PyContext& py, std::uintptr_t dst, std::uintptr_t src, std::size_t bytes, bool to_device) {
        const Device host, device = py.context.device;
        run(py, [&](const Context& ctx) {
          copy_bytes(ctx, reinterpret_cast<void*>(dst), to_device ? device : host, reinterpret_cast<const void*>(src),
                     to_device ? host : device, bytes);
        });
      },
      nb::arg("ctx"), nb::arg("dst"), nb::arg("src"), nb::arg("bytes"), nb::arg("to_device"),
      "Copies between a host and a device address on the context's stream; the host side may be reused afterwards.");
  m.def(
      "empty",
      [](std::int64_t bytes, int item_bytes) {
        const auto of = [&]<class T>(T) {
          return to_array(Array<T>(host_memory(), bytes / std::int64_t{sizeof(T)}, "host copy"));
        };
        // SciPy copies an array whose base has over twice its entries: the base gets entries of the same size.
        if (item_bytes % 8 == 0) return of(std::uint64_t{});
        if (item_bytes % 4 == 0) return of(std::uint32_t{});
        return of(std::uint8_t{});
      },
      nb::arg("bytes"), nb::arg("item_bytes"),
      "Untouched host memory in large pages, as an array of unsigned integers.");
  m.def(
      "host_copy",
      [](PyContext& py, std::uintptr_t device, std::size_t bytes, nb::object owner) {
        // Dropped by whoever empties the cache, with or without the interpreter's lock.
        const std::shared_ptr<void> kept(new nb::object(std::move(owner)), [](void* p) {
          const nb::gil_scoped_acquire gil;
          delete static_cast<nb::object*>(p);
        });
        return bring_home<std::uint8_t>(py, reinterpret_cast<const std::uint8_t*>(device),
                                        static_cast<std::int64_t>(bytes), kept);
      },
      nb::arg("ctx"), nb::arg("device"), nb::arg("bytes"), nb::arg("owner"),
      "A host copy (uint8) of device memory that `owner` keeps; the memory stays known as its device copy.");
}

}  // namespace scw::python
