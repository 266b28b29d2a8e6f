// Copies between the host and a device at the speed of the bus.
#pragma once

#include <cstddef>

#include "core/fill_device.hpp"
#include "scwarp/core/context.hpp"

namespace scw::cuda {

/// Ordered on ctx.stream; returns when the host side may be reused (a copy between device addresses: at once).
void copy(const Context& ctx, void* dst, bool dst_on_device, const void* src, bool src_on_device, std::size_t bytes);

/// See scw::fill_device.
void fill(const Context& ctx, void* dst, std::int64_t bytes, std::int64_t piece_bytes, const FillPiece& fill,
          std::int64_t lead);

/// Page-locked bytes that the ring of device `id` holds.
std::size_t pinned_bytes(int id);
/// Gives them back; the next large copy takes them again.
void release_pinned(int id);

}  // namespace scw::cuda
