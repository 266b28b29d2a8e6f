// Copies over the bus, and host matrices with a CUDA context: the CPU's bits for any cutting into blocks.
#include <cmath>
#include <numeric>

#include "parity/parity.hpp"
#include "scwarp/core/row_blocks.hpp"
#include "scwarp/pp/log1p.hpp"
#include "scwarp/pp/normalize_total.hpp"

namespace scw {
namespace {

struct HostCsr {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;
  std::int32_t n_cols = 300;

  /// Rows of 0 to 99 entries; every seventh is empty.
  explicit HostCsr(std::int64_t n_rows) {
    for (std::int64_t i = 0; i < n_rows; ++i) {
      const std::int64_t count = i % 7 == 3 ? 0 : (i * 37) % 100;
      for (std::int64_t k = 0; k < count; ++k) {
        indices.push_back(static_cast<std::int32_t>(k * 3));
        values.push_back(static_cast<float>(1 + (i * 31 + k * 17) % 50) / 3);
      }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }
  CsrView<float> view() { return {static_cast<std::int64_t>(indptr.size()) - 1, n_cols, indptr, indices, values}; }
};

TEST(Transfers, CudaBringsEveryByteThereAndBack) {
  SCW_CUDA_CONTEXT(cuda);
  for (const int threads : {1, 3, 16})
    for (const std::int64_t n : {1LL, 1000LL, (1LL << 20) + 3, (9LL << 20) + 1, 150LL << 20}) {
      Context ctx = cuda;
      ctx.n_threads = threads;
      std::vector<std::uint8_t> x(static_cast<std::size_t>(n)), y(x.size());
      std::uint32_t state = 1;
      for (auto& b : x) b = static_cast<std::uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
      Array<std::uint8_t> device(ctx.memory, n, "bytes", ctx.stream);
      copy_bytes(ctx, device.data(), ctx.device, x.data(), Device{}, x.size());
      copy_bytes(ctx, y.data(), Device{}, device.data(), ctx.device, x.size());
      EXPECT_TRUE(x == y) << n << " bytes, " << threads << " threads";
    }
}

TEST(Streaming, CudaRowsInPlaceHaveTheCpusBits) {
  SCW_CUDA_CONTEXT(cuda);
  for (const std::int64_t rows : {1, 2, 500, 9000}) {
    HostCsr want(rows);
    const Context cpu = Context::cpu(2);
    pp::normalize_total(cpu, want.view());
    pp::log1p(cpu, want.view());
    for (const std::int64_t block : {0LL, 1LL, 3000LL, 200000LL}) {
      if (block == 1 && rows > 500) continue;
      Context ctx = cuda;
      ctx.block_bytes = block;
      HostCsr got(rows);
      const auto r = pp::normalize_total(ctx, got.view());
      EXPECT_EQ(r.counts.device(), ctx.device);
      pp::log1p(ctx, got.view());
      EXPECT_TRUE(got.values == want.values) << rows << " rows, block " << block;
    }
  }
}

TEST(Streaming, CudaBlocksCoverTheMatrixInOrder) {
  SCW_CUDA_CONTEXT(cuda);
  HostCsr x(1000);
  const AnyMatrixView view = CsrView<const float>(x.view());
  EXPECT_FALSE(is_resident(cuda, view));
  EXPECT_TRUE(is_resident(Context::cpu(), view));
  for (const std::int64_t block_rows : {0, 1, 7, 999, 5000}) {
    std::int64_t next = 0;
    std::vector<float> values;
    ResidentBlocks(view, block_rows).for_each(cuda, [&](std::int64_t first, const AnyMatrixView& block) {
      EXPECT_EQ(first, next);
      EXPECT_TRUE(is_resident(cuda, block));
      next += n_rows(block);
      const auto& b = std::get<CsrView<const float>>(block);
      const auto indptr = to_host<std::int64_t>(cuda, {b.indptr.data, b.n_rows + 1});
      EXPECT_EQ(indptr[0], 0);
      const auto v = to_host<float>(cuda, {b.values.data, indptr[b.n_rows]});
      values.insert(values.end(), v.begin(), v.end());
    });
    EXPECT_EQ(next, 1000);
    EXPECT_TRUE(values == x.values) << block_rows;
  }
}

TEST(Streaming, CudaPaddedDenseRowsAndErrors) {
  SCW_CUDA_CONTEXT(cuda);
  std::vector<double> x(50 * 8);
  std::iota(x.begin(), x.end(), 0.0);
  std::vector<double> want = x;
  pp::log1p(Context::cpu(1), MatrixView<double>(want.data(), 50, 5, 8));
  for (const std::int64_t block : {1, 200, 100000}) {
    Context ctx = cuda;
    ctx.block_bytes = block;
    std::vector<double> got = x;
    pp::log1p(ctx, MatrixView<double>(got.data(), 50, 5, 8));
    EXPECT_TRUE(got == want) << block;
  }
  const auto memory = device_memory(cuda.device);
  const std::size_t used = memory->used_bytes();
  Context ctx = cuda;
  ctx.block_bytes = 200;
  EXPECT_THROW(ResidentBlocks(MatrixView<const double>(x.data(), 50, 5, 8))
                   .for_each(ctx,
                             [](std::int64_t first, const AnyMatrixView&) {
                               if (first > 10) throw InvalidArgument("stop");
                             }),
               InvalidArgument);
  EXPECT_EQ(memory->used_bytes(), used);
}

}  // namespace
}  // namespace scw
