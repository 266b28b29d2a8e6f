#include "scwarp/datasets/simulate.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void simulate(benchmark::State& state) {
  const Context ctx = context(state);
  for (auto _ : state) benchmark::DoNotOptimize(datasets::simulate(ctx, {.n_cells = 2000, .n_genes = 5000}));
}
SCW_BENCHMARK(simulate);

}  // namespace
}  // namespace scw::bench
