// The threads of scwarp: one pool per process, parked between loops.
//
// Why not OpenMP: its idle threads spin for milliseconds at every barrier, which on shared machines costs as much again
// as the work (measured on Leiden: twice the CPU time on two threads), its pools do not survive fork, and each thread
// that starts a parallel region gets a pool of its own. Ours waits for some microseconds and then sleeps.
#include "core/parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/check.hpp"

namespace scw {
namespace {

constexpr int kMaxThreads = 1024;

thread_local bool t_inside = false;  // this thread is running a body: loops inside it stay on this thread

struct Loop {
  const Context& ctx;
  std::int64_t n, grain, chunks;
  void* state;
  detail::ChunkBody body;
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;

  void run(int worker) noexcept {
    t_inside = true;
    for (std::int64_t c = next++; c < chunks; c = next++) {
      if (ctx.is_cancelled()) break;
      try {
        body(state, c, c * grain, std::min(n, (c + 1) * grain), worker);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next = chunks;
      }
    }
    t_inside = false;
  }
};

/// Spins briefly, then sleeps, until value != old.
template <class T>
T wait_for_change(std::atomic<T>& value, T old) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::microseconds(20);
  do {
    for (int i = 0; i < 32; ++i) {
      if (const T now = value.load(std::memory_order_acquire); now != old) return now;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (Clock::now() < until);
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

class Pool {
 public:
  /// Runs the loop on the calling thread and `helpers` others. False, and nothing done, if another thread uses the
  /// pool.
  bool run(Loop& loop, int helpers) {
    const std::unique_lock busy(busy_, std::try_to_lock);
    if (!busy.owns_lock()) return false;
    while (static_cast<int>(threads_.size()) < helpers) {
      const auto id = static_cast<int>(threads_.size());
      threads_.emplace_back([this, id, start = state_.load()] { work(id, start); });
    }
    loop_ = &loop;
    active_.store(helpers, std::memory_order_relaxed);
    // A new round and how many take part, in one word: a worker that is late sees both of the same round.
    state_.store(((state_.load(std::memory_order_relaxed) >> kHelperBits) + 1) << kHelperBits |
                     static_cast<std::uint64_t>(helpers),
                 std::memory_order_release);
    state_.notify_all();
    loop.run(0);
    for (int left = active_.load(std::memory_order_acquire); left != 0;) left = wait_for_change(active_, left);
    return true;
  }

 private:
  static constexpr int kHelperBits = 16;

  void work(int id, std::uint64_t seen) {
    for (;;) {
      seen = wait_for_change(state_, seen);
      if (id >= static_cast<int>(seen & ((1u << kHelperBits) - 1))) continue;
      loop_->run(id + 1);
      if (active_.fetch_sub(1, std::memory_order_acq_rel) == 1) active_.notify_one();
    }
  }

  std::mutex busy_;
  std::vector<std::thread> threads_;
  std::atomic<std::uint64_t> state_{0};
  std::atomic<int> active_{0};
  Loop* loop_ = nullptr;
};

// Never destroyed, because its threads outlive main. A forked child has none of them and starts with a new pool.
std::atomic<Pool*> g_pool{nullptr};

Pool& pool() {
  static const bool ready = [] {
    g_pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] {
      g_pool = new Pool;
      t_inside = false;
    });
    return true;
  }();
  static_cast<void>(ready);
  return *g_pool;
}

}  // namespace

int worker_count(const Context& ctx, std::int64_t chunks) {
  if (t_inside) return 1;
  const int threads = std::clamp(ctx.n_threads, 1, kMaxThreads);
  return static_cast<int>(std::clamp<std::int64_t>(chunks, 1, threads));
}

namespace detail {

void run_chunks(const Context& ctx, std::int64_t n, std::int64_t grain, void* state, ChunkBody body) {
  SCW_ASSERT(grain > 0 && n >= 0);
  const std::int64_t chunks = chunk_count(n, grain);
  if (chunks == 0) return;
  if (const int workers = worker_count(ctx, chunks); workers > 1) {
    Loop loop{ctx, n, grain, chunks, state, body, {}, {}, {}};
    if (pool().run(loop, workers - 1)) {
      if (loop.error) std::rethrow_exception(loop.error);
      ctx.check_cancelled("scwarp");
      return;
    }
  }
  for (std::int64_t c = 0; c < chunks; ++c) {
    ctx.check_cancelled("scwarp");
    body(state, c, c * grain, std::min(n, (c + 1) * grain), 0);
  }
}

}  // namespace detail
}  // namespace scw
