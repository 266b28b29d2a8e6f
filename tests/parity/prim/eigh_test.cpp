#include <cmath>

#include "parity/parity.hpp"
#include "prim/eigh/kernel.hpp"

namespace scw::prim {
namespace {

using parity::Guarded;

constexpr std::int64_t kBlock = kEighDeviceBlock;

std::vector<double> uniform(std::int64_t n, std::uint64_t seed) {
  std::vector<double> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 2 * math::random_uniform({seed, 0}, i) - 1;
  return x;
}

struct Orthogonalised {
  std::vector<double> next, coefficients;
  std::int32_t trouble = 0;
};

/// A basis of s orthonormal vectors (made eight at a time by the kernel itself), then `next`.
Orthogonalised run(const Context& ctx, std::int64_t s, std::int64_t m, const std::vector<double>& next) {
  Guarded<double> basis(ctx, uniform(std::max<std::int64_t>(s, 1) * m, 1));
  Guarded<std::int32_t> trouble(ctx, {0});
  for (std::int64_t first = 0; first < s; first += kBlock)
    orthogonalise_kernel(ctx, {basis.view().data, first, m}, {basis.view().data + first * m, kBlock, m}, {},
                         trouble.view());
  Guarded<double> rows(ctx, next);
  auto coefficients = Guarded<double>::poisoned(ctx, kBlock * (s + 3));  // with room between the rows
  orthogonalise_kernel(ctx, {basis.view().data, s, m}, {rows.view().data, kBlock, m},
                       s > 0 ? MatrixView<double>(coefficients.view().data, kBlock, s, s + 3) : MatrixView<double>(),
                       trouble.view());
  basis.host();
  Orthogonalised out{rows.host(), {}, trouble.host()[0]};
  const auto all = coefficients.host();
  for (std::int64_t i = 0; i < kBlock; ++i)
    for (std::int64_t j = 0; j < s; ++j) out.coefficients.push_back(all[static_cast<std::size_t>(i * (s + 3) + j)]);
  return out;
}

TEST(EighParity, OrthogonaliseOnTheCpu) {
  const std::int64_t m = 77;
  const auto r = run(Context::cpu(1), 16, m, uniform(kBlock * m, 2));
  EXPECT_EQ(r.trouble, 0);
  for (std::int64_t i = 0; i < kBlock; ++i)
    for (std::int64_t j = 0; j < kBlock; ++j) {
      double dot = 0;
      for (std::int64_t p = 0; p < m; ++p)
        dot += r.next[static_cast<std::size_t>(i * m + p)] * r.next[static_cast<std::size_t>(j * m + p)];
      EXPECT_NEAR(dot, i == j, 1e-14);
    }
}

TEST(EighParity, OrthogonaliseAgrees) {
  SCW_CUDA_CONTEXT(cuda);
  for (const std::int64_t s : {0, 8, 40})
    for (const std::int64_t m : {48, 77, 1000}) {
      SCOPED_TRACE(testing::Message() << s << " vectors of " << m);
      const auto next = uniform(kBlock * m, 2);
      const auto want = run(Context::cpu(1), s, m, next), got = run(cuda, s, m, next);
      EXPECT_EQ(got.trouble, 0);
      EXPECT_EQ(want.trouble, 0);
      for (std::size_t i = 0; i < want.next.size(); ++i) ASSERT_NEAR(got.next[i], want.next[i], 1e-12);
      for (std::size_t i = 0; i < want.coefficients.size(); ++i)
        ASSERT_NEAR(got.coefficients[i], want.coefficients[i], 1e-12);
      parity::expect_same_bits(got.next, run(cuda, s, m, next).next);
    }
}

TEST(EighParity, DependentVectorsAreReported) {
  std::vector<Context> all{Context::cpu(1)};
  if (unavailable_reason(DeviceType::cuda).empty()) all.push_back(Context::on({DeviceType::cuda, 0}));
  for (const Context& ctx : all) {
    auto next = uniform(kBlock * 100, 3);
    std::copy_n(next.begin(), 100, next.begin() + 500);
    EXPECT_EQ(run(ctx, 8, 100, next).trouble, 1);
    EXPECT_EQ(run(ctx, 8, 100, std::vector<double>(next.size())).trouble, 1);
  }
}

TEST(EighParity, SymmetricProductAgrees) {
  SCW_CUDA_CONTEXT(cuda);
  const Context cpu = Context::cpu(2);
  for (const std::int64_t m : {1, 9, 130, 1003}) {
    SCOPED_TRACE(m);
    auto a = uniform(m * m, 4);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < i; ++j)
        a[static_cast<std::size_t>(i * m + j)] = a[static_cast<std::size_t>(j * m + i)];
    const auto v = uniform(kBlock * m, 5);
    const auto product = [&](const Context& ctx) {
      const Guarded<double> device_a(ctx, a), device_v(ctx, v);
      auto w = Guarded<double>::poisoned(ctx, kBlock * m);
      symmetric_product_kernel(ctx, {device_a.cview().data, m, m}, {device_v.cview().data, kBlock, m},
                               {w.view().data, kBlock, m});
      return w.host();
    };
    const auto want = product(cpu), got = product(cuda);
    for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-13 * static_cast<double>(m)) << i;
    parity::expect_same_bits(got, product(cuda));
  }
}

}  // namespace
}  // namespace scw::prim
