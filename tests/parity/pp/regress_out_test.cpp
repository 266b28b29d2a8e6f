#include "scwarp/pp/regress_out.hpp"

#include <cmath>

#include "parity/parity.hpp"
#include "pp/regress_out/kernel.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::Guarded;
using parity::HostCsr;

constexpr std::pair<std::int64_t, std::int32_t> kShapes[] = {{0, 3},     {1, 1},    {300, 77},  {65, 1000},
                                                             {3000, 30}, {9, 3000}, {200, 1028}};

std::vector<double> keys_of(std::int64_t rows, std::int64_t k) {
  std::vector<double> keys(static_cast<std::size_t>(rows * k));
  const RngKey key{3, 0};
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = 1000 * math::random_uniform(key, i) - 200;
  return keys;
}

template <class V>
std::vector<V> run(const Context& ctx, std::int64_t rows, std::int32_t cols, bool sparse, std::int64_t n_keys) {
  DeviceMatrix<V> x(ctx, HostCsr<V>::random(rows, cols, 0.3, 21, false));
  const auto keys = keys_of(rows, n_keys);
  const MatrixView<const double> k(keys.data(), rows, n_keys);
  if (!sparse) {
    regress_out(ctx, std::get<MatrixView<V>>(x.view(false)), k);
    ctx.synchronize();
    return x.result(false);
  }
  AnyDenseMatrix out;
  regress_out_to_dense(ctx, CsrView<const V>(std::get<CsrView<V>>(x.view(true))), out, k);
  const auto& m = std::get<Matrix<V>>(out);
  std::vector<V> host(static_cast<std::size_t>(m.data.size()));
  copy_bytes(ctx, host.data(), Device{}, m.data.data(), ctx.device, host.size() * sizeof(V));
  return host;
}

template <class V>
void check_close_on_cuda(const Context& cuda, std::int64_t largest = INT64_MAX) {
  const Context cpu = Context::cpu(2);
  const double bound = sizeof(V) == 4 ? 2e-6 : 1e-11;  // values are below 12
  for (const auto& [rows, cols] : kShapes)
    for (const bool sparse : {true, false})
      for (const std::int64_t n_keys : {0, 1, 2, 3, 6}) {
        if (rows * cols > largest) continue;
        const auto want = run<V>(cpu, rows, cols, sparse, n_keys);
        const auto got = run<V>(cuda, rows, cols, sparse, n_keys);
        ASSERT_EQ(want.size(), got.size());
        for (std::size_t i = 0; i < want.size(); ++i)
          ASSERT_NEAR(static_cast<double>(want[i]), static_cast<double>(got[i]), bound)
              << i << " of " << rows << " x " << cols << ", keys " << n_keys << ", sparse " << sparse;
        parity::expect_same_bits(got, run<V>(cuda, rows, cols, sparse, n_keys));
      }
}

TEST(RegressOutParity, CudaIsCloseToTheCpuAndRepeats) {
  SCW_CUDA_CONTEXT(cuda);
  check_close_on_cuda<float>(cuda);
  check_close_on_cuda<double>(cuda);
}

/// For the sanitizers.
TEST(RegressOutParity, Small) {
  SCW_CUDA_CONTEXT(cuda);
  check_close_on_cuda<float>(cuda, 30000);
}

/// The kernels of the categorical key alone.
template <class V>
std::vector<V> subtract(const Context& ctx, std::int64_t rows, std::int32_t cols) {
  DeviceMatrix<V> x(ctx, HostCsr<V>::random(rows, cols, 0.3, 22, false));
  std::vector<std::int32_t> code(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < code.size(); ++i) code[i] = static_cast<std::int32_t>(i % 5) - 1;
  std::vector<double> mean(static_cast<std::size_t>(3 * cols));
  for (std::size_t j = 0; j < mean.size(); ++j) mean[j] = 0.01 * static_cast<double>(j % 97);
  const Guarded<std::int32_t> codes(ctx, code);
  const Guarded<double> means(ctx, mean);
  auto out = Guarded<V>::poisoned(ctx, rows * cols);
  const MatrixView<V> dense(out.view().data, rows, cols);
  densify_kernel(ctx, CsrView<const V>(std::get<CsrView<V>>(x.view(true))), dense);
  subtract_group_means_kernel(ctx, dense, codes.cview(), MatrixView<const double>(means.cview().data, 3, cols));
  ctx.synchronize();
  return out.host();
}

TEST(RegressOutParity, CategoriesHaveTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  const Context cpu = Context::cpu(2);
  for (const auto& [rows, cols] : kShapes) {
    parity::expect_same_bits(subtract<float>(cpu, rows, cols), subtract<float>(cuda, rows, cols));
    parity::expect_same_bits(subtract<double>(cpu, rows, cols), subtract<double>(cuda, rows, cols));
  }
}

TEST(RegressOutParity, CpuResidualsAreOrthogonalToTheKeys) {
  const std::int64_t rows = 300, cols = 77;
  const auto keys = keys_of(rows, 2);
  for (const bool sparse : {true, false}) {
    const auto y = run<double>(Context::cpu(2), rows, cols, sparse, 2);
    double largest = 0;
    for (std::int64_t j = 0; j < cols; ++j)
      for (std::int64_t k = 0; k < 2; ++k) {
        double sum = 0;
        for (std::int64_t i = 0; i < rows; ++i)
          sum += y[static_cast<std::size_t>(i * cols + j)] * keys[static_cast<std::size_t>(i * 2 + k)];
        largest = std::max(largest, std::abs(sum));
      }
    EXPECT_LT(largest, 1e-8);
  }
}

}  // namespace
}  // namespace scw::pp
