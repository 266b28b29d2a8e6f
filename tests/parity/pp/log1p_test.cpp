#include "scwarp/pp/log1p.hpp"

#include <cmath>
#include <limits>

#include "parity/parity.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::HostCsr;

/// Values over the whole range of the type, and the special ones.
template <class V>
HostCsr<V> wide_values(std::uint64_t seed) {
  auto x = HostCsr<V>::random(200, 90, 0.3, seed, false);
  for (std::size_t k = 0; k < x.values.size(); ++k)
    x.values[k] = static_cast<V>(std::exp((math::random_uniform({seed, 1}, k) - 0.5) * 120));
  const V special[] = {V{-1},
                       V{-2},
                       V{0},
                       V(-0.5),
                       std::numeric_limits<V>::infinity(),
                       std::numeric_limits<V>::max(),
                       std::numeric_limits<V>::denorm_min(),
                       V(1e-4),
                       V(-1e-4)};
  std::copy(std::begin(special), std::end(special), x.values.begin());
  return x;
}

template <class V>
std::vector<V> run(const Context& ctx, bool sparse, const Log1pOptions& options) {
  DeviceMatrix<V> x(ctx, wide_values<V>(5));
  log1p(ctx, x.view(sparse), options);
  ctx.synchronize();
  return x.result(sparse);
}

template <class V>
void check_same_on_cuda(const Context& cuda) {
  for (const bool sparse : {true, false})
    for (const auto& options : {Log1pOptions{}, Log1pOptions{2.0}, Log1pOptions{10.0}}) {
      const auto want = run<V>(Context::cpu(2), sparse, options);
      const auto got = run<V>(cuda, sparse, options);
      ASSERT_EQ(want.size(), got.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        if (std::isnan(want[i]) && std::isnan(got[i])) continue;  // payloads may differ
        ASSERT_EQ(want[i], got[i]) << i;
      }
    }
}

TEST(Log1pParity, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_same_on_cuda<float>(cuda);
  check_same_on_cuda<double>(cuda);
}

TEST(Log1pParity, CpuAgainstLibm) {
  const auto x = wide_values<double>(5);
  const auto got = run<double>(Context::cpu(1), true, {});
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double want = std::log1p(x.values[i]);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got[i]));
    } else if (std::isinf(want)) {
      EXPECT_EQ(got[i], want);
    } else {
      EXPECT_NEAR(got[i], want, 1e-15 * std::abs(want));
    }
  }
}

}  // namespace
}  // namespace scw::pp
