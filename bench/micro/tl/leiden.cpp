#include "scwarp/tl/leiden.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void leiden(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& g = graph();
  for (auto _ : state) benchmark::DoNotOptimize(tl::leiden(ctx, g.connectivities.view()));
}
SCW_BENCHMARK(leiden);

}  // namespace
}  // namespace scw::bench
