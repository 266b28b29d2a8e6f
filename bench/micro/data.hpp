// The data of the micro benchmarks: 10 000 simulated cells x 10 000 genes, made once.
#pragma once

#include <cstring>

#include "scwarp/datasets/simulate.hpp"

namespace scw::bench {

inline const Csr<float>& counts() {
  static const auto data = datasets::simulate(Context::cpu(), {.n_cells = 10000, .n_genes = 10000, .n_clusters = 10});
  return data.counts;
}

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

/// GB/s for an operation that moves `bytes` per stored value.
template <class State>
void set_bytes(State& state, double bytes_per_value) {
  state.SetBytesProcessed(static_cast<std::int64_t>(static_cast<double>(state.iterations()) * bytes_per_value *
                                                    static_cast<double>(counts().values.size())));
}

}  // namespace scw::bench
