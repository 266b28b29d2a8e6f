#include "scwarp/pp/scale.hpp"

#include <limits>

#include "parity/parity.hpp"
#include "pp/scale/kernel.hpp"
#include "scwarp/pp/gene_moments.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::Guarded;
using parity::HostCsr;

struct Case {
  std::int64_t rows;
  std::int32_t cols;
  bool sparse, to_dense, center, clip, masked;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int32_t>{0, 3}, {1, 1}, {300, 77}, {65, 1000}, {70, 2500}, {7, 5000}, {200, 1028}})
    for (const bool clip : {false, true})
      for (const bool masked : {false, true}) {
        all.push_back({rows, cols, false, false, true, clip, masked});
        all.push_back({rows, cols, false, false, false, clip, masked});
        all.push_back({rows, cols, true, false, false, clip, masked});
        all.push_back({rows, cols, true, true, true, clip, masked});
        all.push_back({rows, cols, true, true, false, clip, masked});
      }
  return all;
}

/// The kernels alone: means and deviations are made up, some of them awkward.
template <class V>
std::vector<V> run(const Context& ctx, const Case& c) {
  auto matrix = HostCsr<V>::random(c.rows, c.cols, 0.3, 11, false);
  for (std::size_t k = 0; k < matrix.values.size(); k += 50) matrix.values[k] = k % 100 == 0 ? V{0} : -V{0};
  if (matrix.values.size() > 40) matrix.values[33] = std::numeric_limits<V>::quiet_NaN();
  std::vector<double> mean(static_cast<std::size_t>(c.cols)), std(mean.size());
  for (std::size_t j = 0; j < mean.size(); ++j) {
    mean[j] = j % 5 == 0 ? 0.0 : 0.1 * static_cast<double>(j % 13) + 1e-3;
    std[j] = j % 7 == 3 ? 1.0 : 0.05 * static_cast<double>(j % 11 + 1);
  }
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(c.rows));
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 != 1;
  DeviceMatrix<V> x(ctx, matrix);
  const Guarded<double> means(ctx, mean), stds(ctx, std);
  const Guarded<std::uint8_t> rows(ctx, mask);
  const double high = c.clip ? 1.5 : std::numeric_limits<double>::infinity();
  const ScaleArguments a{c.center ? means.cview().data : nullptr, stds.cview().data,
                         c.center ? -high : -std::numeric_limits<double>::infinity(), high,
                         c.masked ? rows.cview() : Span<const std::uint8_t>{}};
  if (!c.to_dense) {
    scale_kernel(ctx, x.view(c.sparse), a);
    ctx.synchronize();
    return x.result(c.sparse);
  }
  auto out = Guarded<V>::poisoned(ctx, c.rows * c.cols);
  scale_to_dense_kernel(ctx, CsrView<const V>(std::get<CsrView<V>>(x.view(true))), a,
                        MatrixView<V>(out.view().data, c.rows, c.cols));
  ctx.synchronize();
  return out.host();
}

template <class V>
void check_same_on_cuda(const Context& cuda) {
  const Context cpu = Context::cpu(2);
  for (const Case& c : cases()) parity::expect_same_bits(run<V>(cpu, c), run<V>(cuda, c));
}

TEST(ScaleParity, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_same_on_cuda<float>(cuda);
  check_same_on_cuda<double>(cuda);
}

TEST(ScaleParity, WithItsOwnMoments) {
  SCW_CUDA_CONTEXT(cuda);
  if (!supports("pp.gene_moments", DeviceType::cuda)) GTEST_SKIP() << "pp.gene_moments has no CUDA implementation";
  const auto matrix = HostCsr<float>::random(400, 90, 0.3, 5, false);
  const auto run_on = [&](const Context& ctx, bool center) {
    DeviceMatrix<float> x(ctx, matrix);
    scale(ctx, x.view(!center), {center, 2.0, {}});
    ctx.synchronize();
    return x.result(!center);
  };
  for (const bool center : {true, false})
    parity::expect_same_bits(run_on(Context::cpu(1), center), run_on(cuda, center));
}

TEST(ScaleParity, CpuDenseAndSparseAgree) {
  for (const Case& c : cases()) {
    if (!c.to_dense || c.center) continue;
    Case dense = c;
    dense.sparse = dense.to_dense = false;
    const auto a = run<double>(Context::cpu(1), c), b = run<double>(Context::cpu(1), dense);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t k = 0; k < a.size(); ++k) ASSERT_TRUE(a[k] == b[k] || (a[k] != a[k] && b[k] != b[k])) << k;
  }
}

}  // namespace
}  // namespace scw::pp
