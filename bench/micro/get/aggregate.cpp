#include "scwarp/get/aggregate.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void aggregate(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& x = logged();
  get::AggregateOptions options;
  options.sum = options.mean = options.var = true;
  for (auto _ : state) benchmark::DoNotOptimize(get::aggregate(ctx, x.view(), simulated().cluster.view(), 10, options));
  set_bytes(state, 8);  // floor: one read of values and columns
}
SCW_BENCHMARK(aggregate);

}  // namespace
}  // namespace scw::bench
