#include "scwarp/tl/logistic_regression.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

// Ten iterations, 10 classes, 1 000 genes.
void logistic_regression(benchmark::State& state) {
  const Context ctx = context(state);
  const auto x = dense();
  tl::LogisticRegressionOptions options;
  options.max_iter = 10;
  for (auto _ : state)
    benchmark::DoNotOptimize(tl::logistic_regression(ctx, x.view(), simulated().cluster.view(), 10, options));
}
SCW_BENCHMARK(logistic_regression);

}  // namespace
}  // namespace scw::bench
