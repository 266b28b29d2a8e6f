#include "scwarp/pp/normalize_total.hpp"

#include "parity/parity.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::HostCsr;

struct Case {
  std::int64_t rows;
  std::int32_t cols;
  bool whole, sparse;
  NormalizeTotalOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool sparse : {true, false})
    for (const bool whole : {true, false})
      for (const auto& [rows, cols] :
           {std::pair<std::int64_t, std::int32_t>{0, 3}, {1, 1}, {300, 77}, {65, 1000}, {9, 20000}})
        for (const auto& options :
             {NormalizeTotalOptions{}, NormalizeTotalOptions{1e4, false, 0.05}, NormalizeTotalOptions{{}, true, 0.1}})
          all.push_back({rows, cols, whole, sparse, options});
  return all;
}

template <class V>
std::pair<std::vector<V>, NormalizeTotal> run(const Context& ctx, const Case& c) {
  DeviceMatrix<V> x(ctx, HostCsr<V>::random(c.rows, c.cols, 0.2, 7, c.whole));
  auto r = normalize_total(ctx, x.view(c.sparse), c.options);
  ctx.synchronize();
  return {x.result(c.sparse), std::move(r)};
}

template <class V>
void check_same_on_cuda(const Context& cuda) {
  const Context cpu = Context::cpu(2);
  for (const Case& c : cases()) {
    const auto [want, w] = run<V>(cpu, c);
    for (int repeat = 0; repeat < 3; ++repeat) {
      const auto [got, g] = run<V>(cuda, c);
      parity::expect_same_bits(want, got);
      EXPECT_EQ(w.target_sum, g.target_sum);
      EXPECT_EQ(w.n_empty, g.n_empty);
    }
  }
}

TEST(NormalizeTotalParity, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_same_on_cuda<float>(cuda);
  check_same_on_cuda<double>(cuda);
}

TEST(NormalizeTotalParity, CpuScalesEveryCellToTheTarget) {
  for (const Case& c : cases()) {
    if (c.options.exclude_highly_expressed) continue;
    const auto [got, r] = run<double>(Context::cpu(1), c);
    if (c.sparse) continue;
    for (std::int64_t i = 0; i < c.rows; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < c.cols; ++j) sum += got[static_cast<std::size_t>(i * c.cols + j)];
      EXPECT_NEAR(sum, r.counts[i] > 0 ? r.target_sum : 0.0, 1e-9 * r.target_sum);
    }
  }
}

}  // namespace
}  // namespace scw::pp
