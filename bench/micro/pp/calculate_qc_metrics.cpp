#include "scwarp/pp/calculate_qc_metrics.hpp"

#include <benchmark/benchmark.h>

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void calculate_qc_metrics(benchmark::State& state) {
  const Context ctx = Context::cpu(static_cast<int>(state.range(0)));
  for (auto _ : state)
    benchmark::DoNotOptimize(
        pp::calculate_qc_metrics(ctx, counts().view(), {.families = {}, .percent_top = {50, 500}}));
  set_bytes(state, 8);  // floor: one read of values and columns
}
BENCHMARK(calculate_qc_metrics)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace scw::bench
