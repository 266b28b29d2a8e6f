#include "scwarp/pp/pca.hpp"

#include <benchmark/benchmark.h>

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void pca(benchmark::State& state) {
  const Context ctx = Context::cpu(static_cast<int>(state.range(0)));
  pp::PcaOptions options;
  options.n_comps = 20;
  for (auto _ : state) benchmark::DoNotOptimize(pp::pca(ctx, AnyMatrixView(counts().view()), options));
}
BENCHMARK(pca)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace scw::bench
