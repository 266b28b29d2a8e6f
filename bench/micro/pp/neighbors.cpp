#include "scwarp/pp/neighbors.hpp"

#include "micro/data.hpp"

namespace scw::bench {
namespace {

// The weights alone: knn has a benchmark of its own.
void connectivities(benchmark::State& state) {
  const Context ctx = context(state);
  const pp::KnnResult& knn = graph().knn;
  const pp::KnnView view{knn.n, knn.k, knn.indices.view(), knn.distances.view()};
  for (auto _ : state) benchmark::DoNotOptimize(pp::connectivities(ctx, view));
}
SCW_BENCHMARK(connectivities);

}  // namespace
}  // namespace scw::bench
