// CUB's device-wide algorithms with their storage from ctx.workspace.
#pragma once

#include "core/cuda/cuda_check.cuh"
#include "scwarp/core/array.hpp"

namespace scw::tl::cuda {

/// run(storage, bytes) is called twice: first with null for the size.
template <class Run>
void with_storage(const Context& ctx, const Run& run) {
  std::size_t bytes = 0;
  SCW_CUDA(run(static_cast<void*>(nullptr), bytes));
  Array<unsigned char> storage(ctx.workspace, static_cast<std::int64_t>(bytes > 0 ? bytes : 1), "sort and scan",
                               ctx.stream);
  SCW_CUDA(run(static_cast<void*>(storage.data()), bytes));
}

}  // namespace scw::tl::cuda
