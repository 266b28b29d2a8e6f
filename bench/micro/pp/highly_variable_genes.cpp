#include "scwarp/pp/highly_variable_genes.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void highly_variable_genes(benchmark::State& state, pp::HvgFlavor flavor) {
  const Context ctx = context(state);
  const auto& x = flavor == pp::HvgFlavor::seurat ? logged() : counts();
  pp::HighlyVariableGenesOptions options;
  options.flavor = flavor;
  options.n_top_genes = 2000;
  for (auto _ : state) benchmark::DoNotOptimize(pp::highly_variable_genes(ctx, x.view(), options));
  set_bytes(state, flavor == pp::HvgFlavor::seurat ? 8 : 16);  // floor: one read, two for seurat_v3
}
void hvg_seurat(benchmark::State& state) { highly_variable_genes(state, pp::HvgFlavor::seurat); }
void hvg_seurat_v3(benchmark::State& state) { highly_variable_genes(state, pp::HvgFlavor::seurat_v3); }
SCW_BENCHMARK(hvg_seurat);
SCW_BENCHMARK(hvg_seurat_v3);

}  // namespace
}  // namespace scw::bench
