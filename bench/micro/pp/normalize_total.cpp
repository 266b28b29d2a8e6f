#include "scwarp/pp/normalize_total.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void normalize_total(benchmark::State& state) {
  const Context ctx = context(state);
  auto x = copy_of(counts());
  for (auto _ : state) pp::normalize_total(ctx, x.view(), {.target_sum = 1e4});
  set_bytes(state, 12);  // floor: read for the sums, read and write for the scaling
}
SCW_BENCHMARK(normalize_total);

}  // namespace
}  // namespace scw::bench
