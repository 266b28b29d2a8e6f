#include "scwarp/pp/pca.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void pca(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& x = counts();
  pp::PcaOptions options;
  options.n_comps = 20;
  for (auto _ : state) benchmark::DoNotOptimize(pp::pca(ctx, AnyMatrixView(x.view()), options));
}
SCW_BENCHMARK(pca);

}  // namespace
}  // namespace scw::bench
