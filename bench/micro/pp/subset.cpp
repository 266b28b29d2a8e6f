#include "scwarp/pp/subset.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

// Half of the cells and a fifth of the genes: floor, one read of the column indices.
void subset(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& x = counts();
  std::vector<std::uint8_t> cells(static_cast<std::size_t>(x.n_rows)), genes(static_cast<std::size_t>(x.n_cols));
  for (std::size_t i = 0; i < cells.size(); ++i) cells[i] = i % 2 == 0;
  for (std::size_t j = 0; j < genes.size(); ++j) genes[j] = j % 5 == 0;
  for (auto _ : state) benchmark::DoNotOptimize(pp::subset(ctx, x.view(), cells, genes));
  set_bytes(state, 4);
}
SCW_BENCHMARK(subset);

}  // namespace
}  // namespace scw::bench
