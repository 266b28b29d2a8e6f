#include "scwarp/core/memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "core/backend.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/error.hpp"

namespace scw {
namespace {

using testing::HasSubstr;

TEST(Memory, CountsTagsAndPeak) {
  const auto memory = std::make_shared<TrackedMemory>(host_memory());
  {
    Array<double> a(memory, 1000, "a");
    {
      const Array<float> b(memory, 500, "b");
      EXPECT_EQ(memory->used_bytes(), 10000u);
      ASSERT_EQ(memory->holders().size(), 2u);
      EXPECT_EQ(memory->holders()[0].tag, "a");
      EXPECT_EQ(memory->holders()[1].bytes, 2000u);
    }
    EXPECT_EQ(memory->used_bytes(), 8000u);
    EXPECT_EQ(memory->peak_bytes(), 10000u);
    memory->reset_peak();
    EXPECT_EQ(memory->peak_bytes(), 8000u);
    Array<double> moved = std::move(a);
    EXPECT_EQ(memory->used_bytes(), 8000u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(moved.data()) % 64, 0u);
  }
  EXPECT_EQ(memory->used_bytes(), 0u);
  EXPECT_TRUE(memory->holders().empty());
}

TEST(Memory, LimitNamesRequestUseAndHolders) {
  const auto memory = std::make_shared<TrackedMemory>(host_memory(), 1000);
  const Array<char> a(memory, 600, "graph");
  try {
    const Array<char> b(memory, 500, "scores");
    FAIL() << "over the limit";
  } catch (const OutOfMemory& e) {
    EXPECT_THAT(e.what(), HasSubstr("'scores' asked for 500 bytes"));
    EXPECT_THAT(e.what(), HasSubstr("limit 1000"));
    EXPECT_THAT(e.what(), HasSubstr("graph 600"));
    EXPECT_THAT(e.what(), HasSubstr("1100 bytes would fit"));
  }
  EXPECT_EQ(memory->used_bytes(), 600u);
  memory->set_limit_bytes(1100);
  EXPECT_NO_THROW(Array<char>(memory, 500, "scores"));
}

TEST(Memory, SizesThatOverflowAreErrors) {
  EXPECT_THROW(checked_mul(std::int64_t{1} << 40, std::int64_t{1} << 40), OutOfMemory);
  EXPECT_THROW(checked_mul(-1, 4), OutOfMemory);
  EXPECT_THROW(checked_add(INT64_MAX, 1), OutOfMemory);
  EXPECT_EQ(checked_mul(std::int64_t{1} << 31, 3), std::int64_t{3} << 31);
  EXPECT_THROW(Array<double>(host_memory(), std::int64_t{1} << 61), OutOfMemory);
  EXPECT_THROW(Matrix<double>(host_memory(), std::int64_t{1} << 40, std::int64_t{1} << 40), OutOfMemory);
}

TEST(Memory, WhatCanBeMadeAgainIsGivenUpBeforeARequestIsRefused) {
  const auto memory = std::make_shared<TrackedMemory>(host_memory(), 1000);
  auto cached = std::make_unique<Array<char>>(memory, 600, "cache");
  int asked = 0;
  memory->set_reclaim([&] {
    ++asked;
    cached.reset();
  });
  const Array<char> a(memory, 300, "fits");
  EXPECT_EQ(asked, 0);
  const Array<char> b(memory, 500, "graph");
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(memory->used_bytes(), 800u);
  EXPECT_THROW(Array<char>(memory, 500, "more"), OutOfMemory);
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(memory->used_bytes(), 800u);
}

TEST(Memory, BuffersGoBackToWhereTheyCameFrom) {
  const auto first = std::make_shared<TrackedMemory>(host_memory()), second = std::make_shared<TrackedMemory>(first);
  const auto memory = std::make_shared<TrackedMemory>(first);
  {
    const Array<char> a(memory, 100, "old");
    memory->set_upstream(second);
    const Array<char> b(memory, 50, "new");
    EXPECT_EQ(second->used_bytes(), 50u);
    EXPECT_EQ(first->used_bytes(), 150u);
  }
  EXPECT_EQ(first->used_bytes(), 0u);
  EXPECT_EQ(second->used_bytes(), 0u);
}

TEST(Memory, AvailableBytesKeepToTheLimit) { EXPECT_GT(available_bytes(Context::cpu()), std::int64_t{1} << 40); }

TEST(Memory, FreeWithAPool) {
  using detail::free_with_pool;
  EXPECT_EQ(free_with_pool(100, 0, 0, 0), 100u);
  EXPECT_EQ(free_with_pool(100, 30, 10, 0), 120u);  // what the pool has unused, and the rest of the device
  // A pool with a largest size is all that there is, however much the device has.
  EXPECT_EQ(free_with_pool(100, 40, 0, 40), 40u);
  EXPECT_EQ(free_with_pool(100, 40, 15, 40), 25u);
  EXPECT_EQ(free_with_pool(100, 40, 40, 40), 0u);
  EXPECT_EQ(free_with_pool(100, 48, 48, 40), 0u);  // the driver rounds up
  EXPECT_EQ(free_with_pool(5, 10, 10, 40), 5u);    // given back to the driver, and taken by others since
}

#ifndef __SANITIZE_THREAD__  // which minds that a process with threads forks
TEST(Memory, AForkedChildAllocatesWhateverTheOtherThreadsDid) {
  // Many tags make the list of holders slow: the lock is nearly always held when the process forks.
  std::vector<std::string> tags(2000);
  std::vector<Array<char>> arrays;
  for (auto& tag : tags) {
    tag = "fork " + std::to_string(&tag - tags.data());
    arrays.emplace_back(host_memory(), 1, tag.c_str());
  }
  const std::jthread other([](const std::stop_token& stop) {
    while (!stop.stop_requested()) static_cast<void>(host_memory()->holders());
  });
  int status = 0;
  for (int i = 0; i < 30 && status == 0; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGALRM, SIG_DFL);
      alarm(5);  // a child that hangs ends with a signal
      { const Array<char> a(host_memory(), 100, "child"); }
      _exit(0);
    }
    ASSERT_GT(child, 0);
    ASSERT_EQ(waitpid(child, &status, 0), child);
  }
  EXPECT_EQ(status, 0) << "the child did not end by itself";
  const Array<char> a(host_memory(), 100, "parent");
}
#endif

TEST(Memory, AnEmptyArrayHoldsNothing) {
  const Array<int> a(host_memory(), 0);
  EXPECT_EQ(a.data(), nullptr);
  EXPECT_TRUE(a.empty());
}

}  // namespace
}  // namespace scw
