#include "scwarp/pp/knn.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

// 15 neighbours on 30 components. Exact floor: cells^2 x columns multiply-adds.
void knn(benchmark::State& state, pp::KnnAlgorithm algorithm) {
  const Context ctx = context(state);
  const auto& x = scores();
  pp::KnnOptions options;
  options.algorithm = algorithm;
  for (auto _ : state) benchmark::DoNotOptimize(pp::knn(ctx, x.view(), options));
}
void knn_exact(benchmark::State& state) { knn(state, pp::KnnAlgorithm::brute); }
void knn_nn_descent(benchmark::State& state) { knn(state, pp::KnnAlgorithm::nn_descent); }
SCW_BENCHMARK(knn_exact);
SCW_BENCHMARK(knn_nn_descent);

}  // namespace
}  // namespace scw::bench
