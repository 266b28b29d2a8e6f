#include "scwarp/pp/normalize_total.hpp"

#include <benchmark/benchmark.h>

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void normalize_total(benchmark::State& state) {
  const Context ctx = Context::cpu(static_cast<int>(state.range(0)));
  auto x = copy_of(counts());
  for (auto _ : state) pp::normalize_total(ctx, x.view(), {.target_sum = 1e4});
  set_bytes(state, 12);  // floor: read for the sums, read and write for the scaling
}
BENCHMARK(normalize_total)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace scw::bench
