#include "scwarp/get/aggregate.hpp"

#include <algorithm>
#include <limits>

#include "parity/parity.hpp"

namespace scw::get {
namespace {

using parity::DeviceMatrix;
using parity::HostCsr;

struct Case {
  std::int64_t rows;
  std::int32_t cols, groups;
  bool whole, sparse, nan;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [rows, cols, groups] : {std::tuple<std::int64_t, std::int32_t, std::int32_t>{0, 3, 2},
                                           {1, 1, 1},
                                           {7, 5, 9},
                                           {700, 83, 5},
                                           {3000, 11, 1},
                                           {40, 9000, 300}})
    for (const bool whole : {true, false})
      for (const bool sparse : {true, false})
        for (const bool nan : {false, true}) all.push_back({rows, cols, groups, whole, sparse, nan});
  return all;
}

template <class V>
HostCsr<V> matrix_of(const Case& c) {
  auto x = HostCsr<V>::random(c.rows, c.cols, 0.6, 17, c.whole);
  for (std::size_t k = 0; k < x.values.size(); ++k) {
    if (x.indices[k] % 3 == 1) x.values[k] = -x.values[k];
    if (k % 23 == 4) x.values[k] = k % 2 == 0 ? V{0} : -V{0};
    if (k % 37 == 9) x.values[k] = std::numeric_limits<V>::infinity();
    if (c.nan && k % 211 == 12) x.values[k] = (k % 2 == 0 ? V{1} : V{-1}) * std::numeric_limits<V>::quiet_NaN();
  }
  return x;
}

template <class V>
std::vector<double> run(const Context& ctx, const Case& c) {
  DeviceMatrix<V> x(ctx, matrix_of<V>(c));
  std::vector<std::int32_t> codes(static_cast<std::size_t>(c.rows));
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = i % 13 == 0 ? -1 : static_cast<std::int32_t>(i * i % static_cast<std::size_t>(c.groups));
  AggregateOptions o;
  o.median = true;
  const Aggregate r = aggregate(ctx, scw::as_const(x.view(c.sparse)), codes, c.groups, o);
  EXPECT_EQ(x.values.host().size(), static_cast<std::size_t>(x.values.cview().size));
  return {r.median.data.begin(), r.median.data.end()};
}

template <class V>
void check_same_on_cuda(const Context& cuda) {
  for (const Case& c : cases()) {
    const auto want = run<V>(Context::cpu(2), c);
    EXPECT_EQ(want.size(), static_cast<std::size_t>(c.groups) * static_cast<std::size_t>(c.cols));
    for (int repeat = 0; repeat < 2; ++repeat) parity::expect_same_bits(want, run<V>(cuda, c));
    if (c.rows >= 700 && !c.nan) {
      EXPECT_TRUE(std::any_of(want.begin(), want.end(), [](double m) { return m > 0; }));
    }
  }
}

TEST(AggregateParity, MediansOnCudaHaveTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_same_on_cuda<float>(cuda);
  check_same_on_cuda<double>(cuda);
}

/// With little memory the genes go through in several blocks.
TEST(AggregateParity, MediansWithinALimit) {
  SCW_CUDA_CONTEXT(cuda);
  const Case c{700, 83, 5, false, true, false};
  const auto want = run<float>(Context::cpu(1), c);
  const auto memory = device_memory(cuda.device);
  const std::size_t before = memory->limit_bytes();
  memory->set_limit_bytes(memory->used_bytes() + 1'500'000);
  std::vector<double> got;
  EXPECT_NO_THROW(got = run<float>(cuda, c));
  memory->set_limit_bytes(before);
  parity::expect_same_bits(want, got);
}

}  // namespace
}  // namespace scw::get
