#include "scwarp/pp/gene_moments.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void gene_moments(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& x = counts();
  for (auto _ : state) benchmark::DoNotOptimize(pp::gene_moments(ctx, AnyMatrixView(x.view())));
  set_bytes(state, 8);  // floor: one read of values and columns
}
SCW_BENCHMARK(gene_moments);

}  // namespace
}  // namespace scw::bench
