#include "scwarp/tl/score_genes.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void score_genes(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& x = logged();
  std::vector<std::int32_t> genes, control;
  for (std::int32_t j = 0; j < 50; ++j) genes.push_back(j * 7);
  for (std::int32_t j = 0; j < 50; ++j) control.push_back(j * 11 + 3);
  for (auto _ : state) benchmark::DoNotOptimize(tl::score_genes(ctx, x.view(), genes, control));
  set_bytes(state, 4);  // floor: one read of the column indices
}
SCW_BENCHMARK(score_genes);

}  // namespace
}  // namespace scw::bench
