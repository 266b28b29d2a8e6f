#include "scwarp/pp/scale.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void scale_dense(benchmark::State& state) {
  const Context ctx = context(state);
  auto x = dense();
  for (auto _ : state) benchmark::DoNotOptimize(pp::scale(ctx, x.view(), {.max_value = 10}));
  state.SetBytesProcessed(state.iterations() * x.data.size() * 12);  // floor: two reads, one write
}
SCW_BENCHMARK(scale_dense);

void scale_sparse(benchmark::State& state) {
  const Context ctx = context(state);
  auto x = copy_of(logged());
  for (auto _ : state) benchmark::DoNotOptimize(pp::scale(ctx, x.view(), {.zero_center = false}));
  set_bytes(state, 12);
}
SCW_BENCHMARK(scale_sparse);

}  // namespace
}  // namespace scw::bench
