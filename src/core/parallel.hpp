// Loops over the threads of a Context. The only interface to threads in scwarp.
//
// Work is cut into chunks whose boundaries depend on n and the grain alone, never on the number of threads: a partial
// result per chunk, merged in chunk order, is the same for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "scwarp/core/context.hpp"

namespace scw {

namespace detail {
using ChunkBody = void (*)(void* state, std::int64_t chunk, std::int64_t begin, std::int64_t end, int worker);
SCW_API void run_chunks(const Context& ctx, std::int64_t n, std::int64_t grain, void* state, ChunkBody body);
}  // namespace detail

inline std::int64_t chunk_count(std::int64_t n, std::int64_t grain) { return (n + grain - 1) / grain; }

/// How many workers a loop over this many chunks, started on this thread, may have: at least 1.
SCW_API int worker_count(const Context& ctx, std::int64_t chunks);

/// make() for each worker of a loop over this many chunks. Large scratch is made here, before the loop, and not by the
/// threads that come in time for a chunk: what an operation holds at its peak is then the same on every run.
template <class Make>
auto make_for_workers(const Context& ctx, std::int64_t chunks, const Make& make) {
  std::vector<std::invoke_result_t<const Make&>> all(static_cast<std::size_t>(worker_count(ctx, chunks)));
  for (auto& one : all) one = make();
  return all;
}

/// body(chunk, begin, end, worker) for every chunk [begin, end) of 0..n, `grain` long (the last may be shorter), in any
/// order on ctx.n_threads threads; worker is in [0, n_threads). Polls ctx.cancelled between chunks (throws Cancelled);
/// the first exception of a body is rethrown. Nested calls run on the calling thread.
template <class Body>
void parallel_chunks(const Context& ctx, std::int64_t n, std::int64_t grain, Body&& body) {
  detail::run_chunks(ctx, n, grain, static_cast<void*>(&body),
                     [](void* state, std::int64_t chunk, std::int64_t begin, std::int64_t end, int worker) {
                       (*static_cast<std::remove_reference_t<Body>*>(state))(chunk, begin, end, worker);
                     });
}

/// body(begin, end) for ranges that cover 0..n.
template <class Body>
void parallel_for(const Context& ctx, std::int64_t n, std::int64_t grain, Body&& body) {
  parallel_chunks(ctx, n, grain, [&](std::int64_t, std::int64_t begin, std::int64_t end, int) { body(begin, end); });
}

}  // namespace scw
