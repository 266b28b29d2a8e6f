#include "scwarp/tl/umap.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void umap(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& g = graph();
  tl::UmapOptions options;
  options.maxiter = 50;
  for (auto _ : state) benchmark::DoNotOptimize(tl::umap(ctx, g.connectivities.view(), options));
}
SCW_BENCHMARK(umap);

}  // namespace
}  // namespace scw::bench
