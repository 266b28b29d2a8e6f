#include "scwarp/pp/log1p.hpp"

#include <benchmark/benchmark.h>

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void log1p(benchmark::State& state) {
  const Context ctx = Context::cpu(static_cast<int>(state.range(0)));
  auto x = copy_of(counts());
  for (auto _ : state) pp::log1p(ctx, x.view());
  set_bytes(state, 8);  // floor: one read, one write
}
BENCHMARK(log1p)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace scw::bench
