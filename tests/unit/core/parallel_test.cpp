#include "core/parallel.hpp"

#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <vector>

#include "scwarp/core/error.hpp"

namespace scw {
namespace {

class ParallelTest : public testing::TestWithParam<int> {
 protected:
  Context ctx_ = Context::cpu(GetParam());
};

TEST_P(ParallelTest, CoversEverythingOnceInFixedChunks) {
  std::vector<int> seen(1003);
  std::set<std::pair<std::int64_t, std::int64_t>> chunks;
  std::mutex mutex;
  parallel_chunks(ctx_, 1003, 100, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int worker) {
    EXPECT_EQ(begin, chunk * 100);
    EXPECT_GE(worker, 0);
    EXPECT_LT(worker, ctx_.n_threads);
    for (auto i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
    const std::lock_guard lock(mutex);
    chunks.emplace(begin, end);
  });
  EXPECT_EQ(chunks.size(), 11u);
  for (const int s : seen) EXPECT_EQ(s, 1);
}

TEST_P(ParallelTest, RethrowsTheExceptionOfABody) {
  EXPECT_THROW(parallel_for(ctx_, 1000, 1,
                            [](std::int64_t begin, std::int64_t) {
                              if (begin == 500) throw DataError("row 500");
                            }),
               DataError);
}

TEST_P(ParallelTest, StopsWhenCancelled) {
  std::atomic<bool> cancelled{false};
  ctx_.cancelled = &cancelled;
  std::atomic<int> ran{0};
  EXPECT_THROW(parallel_for(ctx_, 100000, 1,
                            [&](std::int64_t, std::int64_t) {
                              if (++ran == 10) cancelled = true;
                            }),
               Cancelled);
  EXPECT_LT(ran, 20);
}

TEST_P(ParallelTest, NestedLoopsRun) {
  std::atomic<int> sum{0};
  parallel_for(ctx_, 10, 1, [&](std::int64_t, std::int64_t) {
    parallel_for(ctx_, 10, 1, [&](std::int64_t, std::int64_t) { ++sum; });
  });
  EXPECT_EQ(sum, 100);
}

TEST_P(ParallelTest, NothingToDo) {
  parallel_for(ctx_, 0, 8, [](std::int64_t, std::int64_t) { FAIL(); });
}

INSTANTIATE_TEST_SUITE_P(Threads, ParallelTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace scw
