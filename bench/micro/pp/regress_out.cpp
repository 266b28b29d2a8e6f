#include "scwarp/pp/regress_out.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

// Two keys, a dense matrix: floor, two reads and one write.
void regress_out(benchmark::State& state) {
  const Context ctx = context(state);
  auto x = dense();
  Matrix<double> keys(host_memory(), x.n_rows, 2);
  for (std::int64_t i = 0; i < x.n_rows; ++i) {
    keys.view()(i, 0) = static_cast<double>(i % 97);
    keys.view()(i, 1) = static_cast<double>(i % 31) * 0.5;
  }
  for (auto _ : state) benchmark::DoNotOptimize(pp::regress_out(ctx, x.view(), std::as_const(keys).view()));
  state.SetBytesProcessed(state.iterations() * x.data.size() * 12);
}
SCW_BENCHMARK(regress_out);

}  // namespace
}  // namespace scw::bench
