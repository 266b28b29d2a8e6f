#include "scwarp/pp/sqrt.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void sqrt(benchmark::State& state) {
  const Context ctx = context(state);
  auto x = copy_of(counts());
  for (auto _ : state) pp::sqrt(ctx, x.view());
  set_bytes(state, 8);  // floor: one read, one write
}
SCW_BENCHMARK(sqrt);

}  // namespace
}  // namespace scw::bench
