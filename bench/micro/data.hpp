// The data of the micro benchmarks: 10 000 simulated cells x 10 000 genes, made once.
#pragma once

#include <benchmark/benchmark.h>

#include <cstring>
#include <utility>
#include <variant>

#include "scwarp/datasets/simulate.hpp"
#include "scwarp/pp/log1p.hpp"
#include "scwarp/pp/neighbors.hpp"
#include "scwarp/pp/normalize_total.hpp"
#include "scwarp/pp/pca.hpp"

/// Runs f(state) with 1 and 2 threads (state.range(0)) by the wall clock.
#define SCW_BENCHMARK(f) BENCHMARK(f)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond)

namespace scw::bench {

inline Context context(const benchmark::State& state) { return Context::cpu(static_cast<int>(state.range(0))); }

inline const datasets::Simulated& simulated() {
  static const auto data =
      datasets::simulate(Context::cpu(), {.n_cells = 10000, .n_genes = 10000, .n_clusters = 10, .n_batches = 3});
  return data;
}
inline const Csr<float>& counts() { return simulated().counts; }

/// A copy that an operation may change.
inline Csr<float> copy_of(const Csr<float>& x) {
  Csr<float> y;
  y.n_rows = x.n_rows;
  y.n_cols = x.n_cols;
  const auto copy = [](const auto& from, auto& to) {
    to = std::remove_reference_t<decltype(to)>(host_memory(), from.size());
    std::memcpy(to.data(), from.data(), static_cast<std::size_t>(from.size()) * sizeof(*from.data()));
  };
  copy(x.indptr, y.indptr);
  copy(x.indices, y.indices);
  copy(x.values, y.values);
  return y;
}

/// Normalised and logarithmised.
inline const Csr<float>& logged() {
  static const auto data = [] {
    const Context ctx = Context::cpu();
    auto x = copy_of(counts());
    pp::normalize_total(ctx, x.view());
    pp::log1p(ctx, x.view());
    return x;
  }();
  return data;
}

/// [10 000 x 1 000]: every tenth gene, dense.
inline Matrix<float> dense() {
  const auto& x = logged();
  Matrix<float> d(host_memory(), x.n_rows, x.n_cols / 10);
  std::memset(d.data.data(), 0, static_cast<std::size_t>(d.data.size()) * sizeof(float));
  for (std::int64_t i = 0; i < x.n_rows; ++i)
    for (auto k = x.indptr[i]; k < x.indptr[i + 1]; ++k)
      if (x.indices[k] % 10 == 0) d.view()(i, x.indices[k] / 10) = x.values[k];
  return d;
}

/// [10 000 x 30] principal components.
inline const Matrix<float>& scores() {
  static const auto data = [] {
    pp::PcaOptions options;
    options.n_comps = 30;
    return std::get<Matrix<float>>(pp::pca(Context::cpu(), AnyMatrixView(logged().view()), options).scores);
  }();
  return data;
}

/// Neighbour graph of the scores, k = 15.
inline const pp::Neighbors& graph() {
  static const auto data = pp::neighbors(Context::cpu(), scores().view());
  return data;
}

/// GB/s for an operation that moves `bytes` per stored value.
template <class State>
void set_bytes(State& state, double bytes_per_value) {
  state.SetBytesProcessed(static_cast<std::int64_t>(static_cast<double>(state.iterations()) * bytes_per_value *
                                                    static_cast<double>(counts().values.size())));
}

}  // namespace scw::bench
