#include "core/parallel.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "core/check.hpp"

namespace scw::detail {

void run_chunks(const Context& ctx, std::int64_t n, std::int64_t grain, void* state, ChunkBody body) {
  SCW_ASSERT(grain > 0 && n >= 0);
  const std::int64_t chunks = chunk_count(n, grain);
  if (chunks == 0) return;
  const auto run = [&](std::int64_t c, int worker) { body(state, c, c * grain, std::min(n, (c + 1) * grain), worker); };
  const int threads = static_cast<int>(std::min<std::int64_t>(std::max(1, ctx.n_threads), chunks));
  if (threads == 1 || omp_in_parallel() != 0) {
    for (std::int64_t c = 0; c < chunks; ++c) {
      ctx.check_cancelled("scwarp");
      run(c, 0);
    }
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
#pragma omp parallel num_threads(threads)
  {
    const int worker = omp_get_thread_num();
    for (std::int64_t c = next++; c < chunks; c = next++) {
      if (ctx.is_cancelled()) break;
      try {
        run(c, worker);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next = chunks;
      }
    }
  }
  if (error) std::rethrow_exception(error);
  ctx.check_cancelled("scwarp");
}

}  // namespace scw::detail
