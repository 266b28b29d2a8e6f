#include "scwarp/pp/gene_moments.hpp"

#include <benchmark/benchmark.h>

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void gene_moments(benchmark::State& state) {
  const Context ctx = Context::cpu(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(pp::gene_moments(ctx, AnyMatrixView(counts().view())));
  set_bytes(state, 8);  // floor: one read of values and columns
}
BENCHMARK(gene_moments)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace scw::bench
