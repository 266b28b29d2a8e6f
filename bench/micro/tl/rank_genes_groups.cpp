#include "scwarp/tl/rank_genes_groups.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void rank_genes_groups(benchmark::State& state, tl::RankTest test) {
  const Context ctx = context(state);
  const auto& x = logged();
  tl::RankGenesGroupsOptions options;
  options.test = test;
  for (auto _ : state)
    benchmark::DoNotOptimize(tl::rank_genes_groups(ctx, x.view(), simulated().cluster.view(), 10, options));
}
void t_test(benchmark::State& state) { rank_genes_groups(state, tl::RankTest::t_test); }
void wilcoxon(benchmark::State& state) { rank_genes_groups(state, tl::RankTest::wilcoxon); }
SCW_BENCHMARK(t_test);
SCW_BENCHMARK(wilcoxon);

}  // namespace
}  // namespace scw::bench
