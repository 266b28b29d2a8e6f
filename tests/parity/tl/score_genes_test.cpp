#include "scwarp/tl/score_genes.hpp"

#include <cmath>
#include <limits>

#include "parity/parity.hpp"

namespace scw::tl {
namespace {

using parity::DeviceMatrix;
using parity::HostCsr;

struct Result {
  std::vector<double> score, mean;
};

template <class V>
Result run(const Context& ctx, std::int64_t rows, std::int32_t cols, bool sparse, bool with_nan) {
  auto matrix = HostCsr<V>::random(rows, cols, 0.3, 41, false);
  for (std::size_t k = 0; with_nan && k < matrix.values.size(); k += 37)
    matrix.values[k] = k % 2 == 0 ? std::numeric_limits<V>::quiet_NaN() : std::numeric_limits<V>::infinity();
  DeviceMatrix<V> x(ctx, matrix);
  std::vector<std::int32_t> genes, control;
  for (std::int32_t j = 0; j < cols; ++j) {
    if (j % 5 == 0) genes.push_back(j);
    if (j % 3 != 1) control.push_back(j);
  }
  const auto view = scw::as_const(x.view(sparse));
  const auto score = score_genes(ctx, view, genes, control);
  const auto mean = nan_mean_of_genes(ctx, view);
  return {{score.begin(), score.end()}, {mean.begin(), mean.end()}};
}

template <class V>
void check_same_on_cuda(const Context& cuda) {
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int32_t>{0, 3}, {1, 1}, {300, 77}, {65, 1000}, {33, 15000}})
    for (const bool sparse : {true, false})
      for (const bool with_nan : {false, true}) {
        const auto want = run<V>(Context::cpu(2), rows, cols, sparse, with_nan);
        const auto got = run<V>(cuda, rows, cols, sparse, with_nan);
        // The sign and payload of a NaN are not part of the promise.
        for (const auto& [a, b] : {std::pair{&want.score, &got.score}, std::pair{&want.mean, &got.mean}}) {
          ASSERT_EQ(a->size(), b->size());
          for (std::size_t i = 0; i < a->size(); ++i)
            ASSERT_TRUE((*a)[i] == (*b)[i] || ((*a)[i] != (*a)[i] && (*b)[i] != (*b)[i]))
                << i << ": " << (*a)[i] << " and " << (*b)[i];
        }
      }
}

TEST(ScoreGenesParity, CudaHasTheValuesOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_same_on_cuda<float>(cuda);
  check_same_on_cuda<double>(cuda);
}

TEST(ScoreGenesParity, CpuScoresAreNotTrivial) {
  const auto r = run<double>(Context::cpu(1), 300, 77, true, false);
  double largest = 0;
  for (const double s : r.score) largest = std::max(largest, std::abs(s));
  EXPECT_GT(largest, 0.1);
}

}  // namespace
}  // namespace scw::tl
