// Host memory that ends while TrackedMemory keeps its books.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "scwarp/core/memory.hpp"

// The sanitizers have an operator new of their own.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SCW_OWN_NEW 0
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SCW_OWN_NEW 0
#endif
#ifndef SCW_OWN_NEW
#define SCW_OWN_NEW 1
#endif

#if SCW_OWN_NEW
namespace {
thread_local int t_left = -1;  // allocations of this thread that succeed before all fail; negative: no end
}

// Not inlined: GCC would see new and free, or malloc and delete, as a pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (t_left == 0) throw std::bad_alloc();
  if (t_left > 0) --t_left;
  if (void* const p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace scw {
namespace {

class Counting final : public MemoryResource {
 public:
  Device device() const override { return {}; }
  void* allocate(std::size_t bytes, StreamHandle, const char*) override {
    ++held;
    return std::malloc(bytes);
  }
  void deallocate(void* p, std::size_t, StreamHandle) noexcept override {
    --held;
    std::free(p);
  }
  int held = 0;
};

constexpr const char* kTag = "a tag that is too long to be kept inside a string";

TEST(MemoryExhausted, ARequestThatFailsLeavesNothing) {
  const auto from = std::make_shared<Counting>();
  const auto memory = std::make_shared<TrackedMemory>(from);
  void* p = nullptr;
  int failed = 0;
  for (; p == nullptr && failed < 100; ++failed) {
    t_left = failed;
    try {
      p = memory->allocate(100, {}, kTag);
    } catch (const std::bad_alloc&) {
    }
    t_left = -1;
    if (p != nullptr) break;
    EXPECT_EQ(from->held, 0) << "after " << failed;
    EXPECT_EQ(memory->used_bytes(), 0u) << "after " << failed;
    EXPECT_TRUE(memory->holders().empty()) << "after " << failed;
  }
  EXPECT_GT(failed, 1);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(memory->used_bytes(), 100u);
  ASSERT_EQ(memory->holders().size(), 1u);
  EXPECT_EQ(memory->holders()[0].tag, kTag);
  memory->deallocate(p, 100, {});
  EXPECT_EQ(from->held, 0);
}

TEST(MemoryExhausted, GivingBackNeedsNone) {
  const auto from = std::make_shared<Counting>();
  const auto memory = std::make_shared<TrackedMemory>(from);
  void* const p = memory->allocate(100, {}, kTag);
  t_left = 0;
  memory->deallocate(p, 100, {});
  t_left = -1;
  EXPECT_EQ(from->held, 0);
  EXPECT_EQ(memory->used_bytes(), 0u);
  EXPECT_TRUE(memory->holders().empty());
}

}  // namespace
}  // namespace scw
#endif
