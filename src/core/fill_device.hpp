// Data that are made on the host piece by piece, on their way to the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "scwarp/core/context.hpp"

namespace scw {

/// Writes bytes [first, first + n) of something to host memory. Called from several threads at once.
using FillPiece = std::function<void(std::int64_t first, std::int64_t n, std::byte* out)>;
/// The largest piece that fill_device takes: a slot of the ring between host and device.
inline constexpr std::int64_t kPieceBytes = std::int64_t{4} << 20;

/// Fills memory of ctx.device from pieces that ctx.n_threads host threads make, each while others are on the bus: what
/// is unpacked or computed reaches the device without lying in host memory as a whole. The first piece is `lead` bytes
/// shorter than the others. Ordered on ctx.stream; returns when all pieces are made. On the CPU pieces are made where
/// they stay. An exception of `fill` is thrown on.
SCW_API void fill_device(const Context& ctx, void* dst, std::int64_t bytes, std::int64_t piece_bytes,
                         const FillPiece& fill, std::int64_t lead = 0);

}  // namespace scw
