// Small typed copies between ctx.device and the host, for drivers.
#pragma once

#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw {

/// A host copy of an array on ctx.device.
template <class T>
Array<T> to_host(const Context& ctx, Span<const T> x, const char* tag = "host copy") {
  Array<T> out(host_memory(), x.size, tag);
  copy_bytes(ctx, out.data(), Device{}, x.data, ctx.device, static_cast<std::size_t>(x.size) * sizeof(T));
  return out;
}

/// A copy on ctx.device of a host array.
template <class T>
Array<T> to_device(const Context& ctx, Span<const T> x, const char* tag = "device copy") {
  Array<T> out(ctx.workspace, x.size, tag, ctx.stream);
  copy_bytes(ctx, out.data(), ctx.device, x.data, Device{}, static_cast<std::size_t>(x.size) * sizeof(T));
  return out;
}

}  // namespace scw
