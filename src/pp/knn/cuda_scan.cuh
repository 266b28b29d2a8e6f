// Exact search by all pairs in double, one block per row: any metric, any layout. Also the last resort of the tile
// search.
#pragma once

#include <string>

#include "core/cuda/cuda_check.cuh"
#include "core/cuda/kernel_attributes.cuh"

#include "pp/knn/body.inl"

namespace scw::pp::cuda {

inline constexpr int kScanThreads = 256;

template <class X>
__global__ void row_terms_kernel(X x, Metric metric, math::RowTerm* out) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < x.n_rows;
       i += std::int64_t{gridDim.x} * blockDim.x)
    out[i] = row_term(x, metric, i);
}

template <class X>
Array<math::RowTerm> row_terms(const Context& ctx, const X& x, Metric metric) {
  Array<math::RowTerm> out(ctx.workspace, x.n_rows, "neighbour row terms", ctx.stream);
  row_terms_kernel<<<scw::cuda::grid_for(x.n_rows, 128), 128, 0, scw::cuda::stream_of(ctx)>>>(x, metric, out.data());
  SCW_CUDA_LAUNCHED("row_terms");
  return out;
}

/// Entry 0 of a list: the cell itself.
template <class M, class X>
__device__ inline void write_self(const M& metric, const X& x, const math::RowTerm* terms, std::int64_t i, int k,
                                  bool similarity, std::int32_t* ids, float* values) {
  ids[i * k] = static_cast<std::int32_t>(i);
  values[i * k] = similarity ? static_cast<float>(metric.value(row_key(metric, x, i, i, terms[i], terms[i]))) : 0.0f;
}

/// The k - 1 nearest others of rows[0..n_given) (null: of all rows). Shared memory: 2 (k - 1 + 256) keys and indices.
/// A list that is kept in order, and a tail that every 256 pairs fill with what is nearer than its last: an entry's
/// place in the new list is the number of entries that are nearer, which no order of the threads can change.
template <class M, class X>
__global__ void __launch_bounds__(kScanThreads)
    scan_kernel(M metric, X x, const math::RowTerm* terms, const std::int32_t* rows, std::int64_t n_given, int k,
                bool similarity, std::int32_t* out_ids, float* out_values) {
  extern __shared__ double scan_shared[];
  __shared__ int count;
  const int others = k - 1, capacity = others + kScanThreads;
  double* const keys = scan_shared;
  double* const sorted_keys = keys + capacity;
  std::int32_t* const ids = reinterpret_cast<std::int32_t*>(sorted_keys + capacity);
  std::int32_t* const sorted_ids = ids + capacity;
  const int t = static_cast<int>(threadIdx.x);
  for (std::int64_t r = blockIdx.x; r < n_given; r += gridDim.x) {
    const std::int64_t i = rows != nullptr ? rows[r] : r;
    int have = 0;
    for (std::int64_t first = 0; first < x.n_rows && others > 0; first += kScanThreads) {
      if (t == 0) count = have;
      __syncthreads();
      const std::int64_t j = first + t;
      bool taken = false;
      if (j < x.n_rows && j != i) {
        const double key = row_key(metric, x, i, j, terms[i], terms[j]);
        const auto id = static_cast<std::int32_t>(j);
        taken = have < others || nearer(key, id, keys[others - 1], ids[others - 1]);
        if (taken) {
          const int slot = atomicAdd(&count, 1);
          keys[slot] = key;
          ids[slot] = id;
        }
      }
      if (__syncthreads_or(taken ? 1 : 0) == 0) continue;  // nobody reads count
      const int filled = count;
      for (int e = t; e < filled; e += kScanThreads) {
        int rank = 0;
        for (int f = 0; f < filled; ++f) rank += nearer(keys[f], ids[f], keys[e], ids[e]) ? 1 : 0;
        if (rank < others) {
          sorted_keys[rank] = keys[e];
          sorted_ids[rank] = ids[e];
        }
      }
      __syncthreads();
      have = filled < others ? filled : others;
      for (int e = t; e < have; e += kScanThreads) {
        keys[e] = sorted_keys[e];
        ids[e] = sorted_ids[e];
      }
      __syncthreads();
    }
    for (int m = t; m < have; m += kScanThreads) {
      out_ids[i * k + 1 + m] = ids[m];
      out_values[i * k + 1 + m] = static_cast<float>(metric.value(keys[m]));
    }
    if (t == 0) write_self(metric, x, terms, i, k, similarity, out_ids, out_values);
    __syncthreads();
  }
}

template <class M, class X>
void scan(const Context& ctx, const M& metric, const X& x, const math::RowTerm* terms, const std::int32_t* rows,
          std::int64_t n_given, KnnResult& out) {
  if (n_given == 0) return;
  constexpr std::size_t kEntry = 2 * (sizeof(double) + sizeof(std::int32_t));
  const std::size_t bytes = static_cast<std::size_t>(out.k - 1 + kScanThreads) * kEntry;
  const auto most = static_cast<std::size_t>(scw::cuda::allow_shared_memory(ctx, &scan_kernel<M, X>));
  if (bytes > most)
    throw NotSupported("pp.neighbors: n_neighbors is too large for the exact search on this device (got " +
                       std::to_string(out.k) + ", expected at most " +
                       std::to_string(most / kEntry - kScanThreads + 1) + "); use device 'cpu'");
  scan_kernel<<<scw::cuda::grid_for(n_given, 1), kScanThreads, bytes, scw::cuda::stream_of(ctx)>>>(
      metric, x, terms, rows, n_given, out.k, out.metric == Metric::inner_product, out.indices.data(),
      out.distances.data());
  SCW_CUDA_LAUNCHED("scan");
}

/// All rows of a matrix.
template <class M, class X>
void scan_all(const Context& ctx, const M& metric, const X& x, KnnResult& out) {
  const auto terms = row_terms(ctx, x, out.metric);
  scan(ctx, metric, x, terms.data(), nullptr, x.n_rows, out);
}

// One translation unit per layout keeps each short to compile.
void scan_dense_float(const Context& ctx, const MatrixView<const float>& x, double p, KnnResult& out);
void scan_dense_double(const Context& ctx, const MatrixView<const double>& x, double p, KnnResult& out);
void scan_sparse_float(const Context& ctx, const CsrView<const float>& x, double p, KnnResult& out);
void scan_sparse_double(const Context& ctx, const CsrView<const double>& x, double p, KnnResult& out);

}  // namespace scw::pp::cuda
