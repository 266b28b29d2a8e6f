#include "scwarp/pp/log1p.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void log1p(benchmark::State& state) {
  const Context ctx = context(state);
  auto x = copy_of(counts());
  for (auto _ : state) pp::log1p(ctx, x.view());
  set_bytes(state, 8);  // floor: one read, one write
}
SCW_BENCHMARK(log1p);

}  // namespace
}  // namespace scw::bench
