#include "scwarp/core/context.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "core/fill_device.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/kernel.hpp"

namespace scw {
namespace {

using testing::HasSubstr;
using testing::Not;

void on_cpu(const Context&, int& out) { out = 42; }

TEST(Device, Names) {
  EXPECT_EQ(parse_device("cpu"), Device{});
  EXPECT_EQ(parse_device("cuda"), (Device{DeviceType::cuda, 0}));
  EXPECT_EQ(parse_device("cuda:12"), (Device{DeviceType::cuda, 12}));
  EXPECT_EQ(to_string(parse_device("cuda:3")), "cuda:3");
  for (const char* bad : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1 "})
    EXPECT_THROW(parse_device(bad), InvalidArgument) << bad;
}

TEST(Context, Threads) {
  EXPECT_EQ(Context::cpu().n_threads, available_threads());
  EXPECT_EQ(Context::cpu(3).n_threads, 3);
  EXPECT_THROW(Context::cpu(-1), InvalidArgument);
}

TEST(FillDevice, PiecesCoverEverythingOnce) {
  const Context ctx = Context::cpu(3);
  for (const std::int64_t bytes : {1, 5, 16, 37})
    for (const std::int64_t piece : {1, 4, 16, 100})
      for (std::int64_t lead = 0; lead < std::min<std::int64_t>(piece, 6); ++lead) {
        std::vector<std::byte> out(static_cast<std::size_t>(bytes));
        std::vector<std::pair<std::int64_t, std::int64_t>> pieces;
        std::mutex mutex;
        const auto fill = [&](std::int64_t first, std::int64_t n, std::byte* to) {
          EXPECT_EQ(to, out.data() + first);
          const std::lock_guard lock(mutex);
          pieces.emplace_back(first, n);
        };
        fill_device(ctx, out.data(), bytes, piece, fill, lead);
        std::sort(pieces.begin(), pieces.end());
        std::int64_t at = 0;
        for (const auto& [first, n] : pieces) {
          EXPECT_EQ(first, at);
          at += n;
          EXPECT_TRUE(at == bytes || (at + lead) % piece == 0) << bytes << " " << piece << " " << lead;
          EXPECT_LE(n, piece);
        }
        EXPECT_EQ(at, bytes);
      }
}

TEST(Kernel, RunsTheRegisteredBackendOrNamesWhatIsMissing) {
  constinit static Kernel<void(const Context&, int&)> kernel{"test.kernel"};
  int out = 0;
  try {
    kernel(Context::cpu(1), out);
    FAIL() << "nothing is registered";
  } catch (const NotSupported& e) {
    EXPECT_THAT(e.what(), HasSubstr("test.kernel: has no CPU implementation"));
  }
  kernel.set(DeviceType::cpu, &on_cpu);
  kernel(Context::cpu(1), out);
  EXPECT_EQ(out, 42);
  EXPECT_TRUE(supports("test.kernel", DeviceType::cpu));
  EXPECT_FALSE(supports("test.kernel", DeviceType::cuda));
}

TEST(Kernel, EveryOperationRunsOnTheCpu) {
  int n = 0;
  for (const KernelInfo& k : registered_kernels()) {
    EXPECT_TRUE(k.on[static_cast<int>(DeviceType::cpu)]) << k.name;
    ++n;
  }
  EXPECT_GT(n, 5);
}

TEST(Context, CudaWithoutADeviceSaysWhy) {
  const std::string reason = unavailable_reason(DeviceType::cuda);
  if (reason.empty()) GTEST_SKIP() << "this machine has a CUDA device";
  EXPECT_THAT(reason, Not(HasSubstr("undefined symbol")));  // of the plug-in: something lacks SCW_API
  try {
    Context::on({DeviceType::cuda, 0});
    FAIL();
  } catch (const BackendUnavailable& e) {
    EXPECT_THAT(e.what(), HasSubstr(reason));
  }
  EXPECT_EQ(default_device(), Device{});
}

}  // namespace
}  // namespace scw
