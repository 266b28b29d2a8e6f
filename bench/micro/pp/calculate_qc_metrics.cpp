#include "scwarp/pp/calculate_qc_metrics.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void calculate_qc_metrics(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& x = counts();
  for (auto _ : state)
    benchmark::DoNotOptimize(pp::calculate_qc_metrics(ctx, x.view(), {.families = {}, .percent_top = {50, 500}}));
  set_bytes(state, 8);  // floor: one read of values and columns
}
SCW_BENCHMARK(calculate_qc_metrics);

}  // namespace
}  // namespace scw::bench
