#include "scwarp/pp/normalize_pearson_residuals.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

void normalize_pearson_residuals(benchmark::State& state) {
  const Context ctx = context(state);
  auto x = dense();
  for (auto _ : state) {
    AnyDenseMatrix out;
    benchmark::DoNotOptimize(pp::normalize_pearson_residuals(ctx, std::as_const(x).view(), out));
  }
  state.SetBytesProcessed(state.iterations() * x.data.size() * 12);  // floor: two reads, one write
}
SCW_BENCHMARK(normalize_pearson_residuals);

}  // namespace
}  // namespace scw::bench
