// Weights and graphs on CUDA: the row functions of body.inl, one thread per row. The other direction of an edge comes
// from a stable sort of all edges by their end, which leaves them in the order of their beginning. The only thing that
// the host waits for is the number of edges.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "core/cuda/cuda_check.cuh"
#include "core/transfer.hpp"
#include "pp/neighbors/kernel.hpp"

#include "pp/neighbors/body.inl"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 128;

struct Edge {
  std::int32_t id;
  float weight;
};

#define SCW_FOR_ROWS(i, n)                                                            \
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < (n); \
       i += std::int64_t{gridDim.x} * blockDim.x)

template <class... Args, class... Given>
void launch(const Context& ctx, const char* name, std::int64_t n, void (*kernel)(Args...), Given... given) {
  if (n == 0) return;
  kernel<<<scw::cuda::grid_for(n, kThreads), kThreads, 0, scw::cuda::stream_of(ctx)>>>(given...);
  SCW_CUDA_LAUNCHED(name);
}

template <class T>
Array<T> scratch(const Context& ctx, std::int64_t n) {
  return Array<T>(ctx.workspace, n, "connectivities", ctx.stream);
}

__global__ void convert_kernel(KnnView knn, float* out) {
  SCW_FOR_ROWS(i, knn.n) similarities_to_distances(knn.distances.data + i * knn.k, knn.k, out + i * knn.k);
}

__global__ void row_sums_kernel(KnnView knn, const float* distances, double* sums) {
  SCW_FOR_ROWS(i, knn.n) sums[i] = math::row_sum(distances + i * knn.k, knn.k);
}

__global__ void group_sums_kernel(std::int64_t n, const double* values, double* sums) {
  SCW_FOR_ROWS(g, (n + kSumGroup - 1) / kSumGroup) sums[g] = group_sum(values, n, g);
}

/// total: sum of all distances.
__global__ void fuzzy_kernel(KnnView knn, const float* distances, const double* total, float* weights) {
  const double overall_mean = *total / (static_cast<double>(knn.n) * knn.k);
  SCW_FOR_ROWS(i, knn.n) {
    const float* const d = distances + i * knn.k;
    const math::FuzzyRow row = math::fuzzy_row(d, knn.k, overall_mean);
    for (int j = 0; j < knn.k; ++j) weights[i * knn.k + j] = math::fuzzy_weight(static_cast<double>(d[j]), row);
  }
}

__global__ void widths_kernel(KnnView knn, const float* distances, double* space, double* widths) {
  SCW_FOR_ROWS(i, knn.n) widths[i] = median_squared(distances + i * knn.k, knn.k, space + i * knn.k);
}

__global__ void gauss_weights_kernel(KnnView knn, const float* distances, const double* widths, float* weights) {
  SCW_FOR_ROWS(i, knn.n) {
    weights[i * knn.k] = 0;  // the cell itself
    for (int j = 1; j < knn.k; ++j) {
      const std::int32_t id = knn.indices.data[i * knn.k + j];
      const double d = static_cast<double>(distances[i * knn.k + j]);
      weights[i * knn.k + j] =
          id < 0 || id >= knn.n ? 0.0f : static_cast<float>(math::gauss_weight(d * d, widths[i], widths[id]));
    }
  }
}

__global__ void sorted_ids_kernel(KnnView knn, std::int32_t* sorted) {
  const int m = knn.k - 1;
  SCW_FOR_ROWS(i, knn.n) {
    std::int32_t* const row = sorted + i * m;
    for (int j = 0; j < m; ++j) {
      const std::int32_t id = knn.indices.data[i * knn.k + 1 + j];
      int at = j;
      for (; at > 0 && row[at - 1] > id; --at) row[at] = row[at - 1];
      row[at] = id;
    }
  }
}

__global__ void overlaps_kernel(KnnView knn, const std::int32_t* sorted, float* weights) {
  const int m = knn.k - 1;
  SCW_FOR_ROWS(i, knn.n) {
    weights[i * knn.k] = 0;  // the cell itself
    for (int j = 1; j < knn.k; ++j) {
      const std::int32_t id = knn.indices.data[i * knn.k + j];
      weights[i * knn.k + j] = id < 0 || id >= knn.n ? 0.0f : overlap(sorted + i * m, sorted + std::int64_t{id} * m, m);
    }
  }
}

/// What the host reads: the first entry that is no cell, and the number of edges of the result.
struct Status {
  unsigned long long first_outside;
  std::int64_t size;
};

constexpr int kWarpEdges = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

/// Forward edges of each row, sorted by column, and all of them as (end, (beginning, weight)) for the sort; the end of
/// what is no edge is n. `wide`: one thread per row, else one warp, whose lanes hold the row.
__global__ void forward_kernel(KnnView knn, const float* weights, Edge* forward, std::int32_t* degree,
                               std::int32_t* ends, Edge* edges, Status* status) {
  const std::int64_t k = knn.k;
  SCW_FOR_ROWS(i, knn.n) {
    Edge* const row = forward + i * k;
    std::int32_t count = 0;
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int32_t id = knn.indices.data[i * k + j];
      const Edge e{id, weights[i * k + j]};
      if (id >= knn.n) atomicMin(&status->first_outside, static_cast<unsigned long long>(i * k + j));
      const bool edge = id >= 0 && id < knn.n && id != i && e.weight > 0;  // a cell itself has no weight
      ends[i * k + j] = edge ? id : static_cast<std::int32_t>(knn.n);
      edges[i * k + j] = {static_cast<std::int32_t>(i), e.weight};
      if (!edge) continue;
      int at = count++;
      for (; at > 0 && row[at - 1].id > e.id; --at) row[at] = row[at - 1];
      row[at] = e;
    }
    degree[i] = count;
  }
}
__global__ void forward_warp_kernel(KnnView knn, const float* weights, Edge* forward, std::int32_t* degree,
                                    std::int32_t* ends, Edge* edges, Status* status) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * blockDim.x / 32, k = knn.k;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32; i < knn.n; i += warps) {
    std::int32_t id = -1;
    float weight = 0;
    if (lane < k) {
      id = knn.indices.data[i * k + lane];
      weight = weights[i * k + lane];
      if (id >= knn.n) atomicMin(&status->first_outside, static_cast<unsigned long long>(i * k + lane));
    }
    const bool edge = id >= 0 && id < knn.n && id != i && weight > 0;  // a cell itself has no weight
    if (lane < k) {
      ends[i * k + lane] = edge ? id : static_cast<std::int32_t>(knn.n);
      edges[i * k + lane] = {static_cast<std::int32_t>(i), weight};
    }
    int rank = 0;
    for (int f = 0; f < k; ++f) {
      const std::int32_t other = __shfl_sync(kAllLanes, edge ? id : -1, f);
      rank += other >= 0 && (other < id || (other == id && f < lane)) ? 1 : 0;
    }
    if (edge) forward[i * k + rank] = {id, weight};
    const unsigned votes = __ballot_sync(kAllLanes, edge);
    if (lane == 0) degree[i] = __popc(votes);
  }
}

/// start[i]: first edge that ends at i; start[n]: how many edges there are.
__global__ void starts_kernel(std::int64_t n, std::int64_t size, const std::int32_t* ends, std::int64_t* start) {
  SCW_FOR_ROWS(e, size + 1) {
    const std::int64_t last = e > 0 ? ends[e - 1] : -1, end = e < size ? ends[e] : n;
    for (std::int64_t i = last + 1; i <= end; ++i) start[i] = e;
  }
}

__global__ void size_kernel(std::int64_t n, const std::int64_t* indptr, Status* status) {
  if (blockIdx.x == 0 && threadIdx.x == 0) status->size = indptr[n];
}

struct Counter {
  std::int64_t count = 0;
  __device__ void operator()(std::int32_t, float) { ++count; }
};
struct Writer {
  std::int32_t* indices;
  float* values;
  __device__ void operator()(std::int32_t id, float w) {
    *indices++ = id;
    *values++ = w;
  }
};

/// emit(column, weight) for row i of the joined graph, columns increasing.
template <class Join, class Emit>
__device__ void merge(std::int64_t i, const Edge* a, const Edge* a_end, const Edge* b, const Edge* b_end,
                      const Join& join, Emit& emit) {
  while (a != a_end || b != b_end) {
    std::int32_t id = 0;
    float w = 0;
    if (b == b_end || (a != a_end && a->id < b->id)) {
      id = a->id;
      w = join(a->weight, 0.0f);
      ++a;
    } else if (a == a_end || b->id < a->id) {
      id = b->id;
      w = join(b->weight, 0.0f);
      ++b;
    } else {
      id = a->id;
      w = id > i ? join(a->weight, b->weight) : join(b->weight, a->weight);
      ++a;
      ++b;
    }
    if (w > 0) emit(id, w);
  }
}

template <class Join>
__global__ void count_kernel(std::int64_t n, std::int64_t k, const Edge* forward, const std::int32_t* degree,
                             const std::int64_t* start, const Edge* backward, Join join, std::int64_t* counts) {
  SCW_FOR_ROWS(i, n) {
    Counter counter;
    merge(i, forward + i * k, forward + i * k + degree[i], backward + start[i], backward + start[i + 1], join, counter);
    counts[i] = counter.count;
  }
}

template <class Join>
__global__ void fill_kernel(std::int64_t n, std::int64_t k, const Edge* forward, const std::int32_t* degree,
                            const std::int64_t* start, const Edge* backward, Join join, const std::int64_t* indptr,
                            std::int32_t* indices, float* values) {
  SCW_FOR_ROWS(i, n) {
    Writer writer{indices + indptr[i], values + indptr[i]};
    merge(i, forward + i * k, forward + i * k + degree[i], backward + start[i], backward + start[i + 1], join, writer);
  }
}

template <class Join>
void symmetrize(const Context& ctx, const KnnView& knn, const float* weights, const Join& join, Csr<float>& out) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = knn.n, k = knn.k, all = checked_mul(n, k);
  auto forward = scratch<Edge>(ctx, all);
  auto degree = scratch<std::int32_t>(ctx, n);
  auto status = scratch<Status>(ctx, 1);
  auto start = scratch<std::int64_t>(ctx, n + 1);
  auto backward = scratch<Edge>(ctx, all);
  SCW_CUDA(cudaMemsetAsync(status.data(), 0xFF, sizeof(Status), stream));
  {
    auto ends = scratch<std::int32_t>(ctx, all), sorted = scratch<std::int32_t>(ctx, all);
    auto edges = scratch<Edge>(ctx, all);
    const bool warps = k <= kWarpEdges;
    launch(ctx, "forward", warps ? checked_mul(n, 32) : n, warps ? &forward_warp_kernel : &forward_kernel, knn, weights,
           forward.data(), degree.data(), ends.data(), edges.data(), status.data());
    int bits = 1;
    while ((std::int64_t{1} << bits) <= n) ++bits;
    std::size_t bytes = 0;
    const auto as_bits = [](const Edge* e) { return reinterpret_cast<const unsigned long long*>(e); };
    const auto as_mutable = [](Edge* e) { return reinterpret_cast<unsigned long long*>(e); };
    static_assert(sizeof(Edge) == sizeof(unsigned long long));
    SCW_CUDA(cub::DeviceRadixSort::SortPairs(nullptr, bytes, ends.data(), sorted.data(), as_bits(edges.data()),
                                             as_mutable(backward.data()), all, 0, bits, stream));
    auto space = scratch<std::uint8_t>(ctx, static_cast<std::int64_t>(bytes));
    SCW_CUDA(cub::DeviceRadixSort::SortPairs(space.data(), bytes, ends.data(), sorted.data(), as_bits(edges.data()),
                                             as_mutable(backward.data()), all, 0, bits, stream));
    launch(ctx, "starts", all + 1, &starts_kernel, n, all, static_cast<const std::int32_t*>(sorted.data()),
           start.data());
  }
  auto counts = scratch<std::int64_t>(ctx, n + 1);
  SCW_CUDA(cudaMemsetAsync(counts.data() + n, 0, sizeof(std::int64_t), stream));
  launch(ctx, "count", n, &count_kernel<Join>, n, k, forward.data(), degree.data(), start.data(), backward.data(), join,
         counts.data());
  out.n_rows = n;
  out.n_cols = static_cast<std::int32_t>(n);
  out.indptr = Array<std::int64_t>(ctx.memory, n + 1, "connectivities", ctx.stream);
  std::size_t bytes = 0;
  SCW_CUDA(cub::DeviceScan::ExclusiveSum(nullptr, bytes, counts.data(), out.indptr.data(), n + 1, stream));
  auto space = scratch<std::uint8_t>(ctx, static_cast<std::int64_t>(bytes));
  SCW_CUDA(cub::DeviceScan::ExclusiveSum(space.data(), bytes, counts.data(), out.indptr.data(), n + 1, stream));
  launch(ctx, "size", 1, &size_kernel, n, static_cast<const std::int64_t*>(out.indptr.data()), status.data());
  const Status seen = to_host<Status>(ctx, std::as_const(status).view())[0];
  if (seen.first_outside != ~0ull)
    throw InvalidArgument("pp.neighbors: cell " + std::to_string(seen.first_outside / static_cast<std::uint64_t>(k)) +
                          " has a neighbour that is no cell (expected below " + std::to_string(n) + ")");
  out.indices = Array<std::int32_t>(ctx.memory, seen.size, "connectivities", ctx.stream);
  out.values = Array<float>(ctx.memory, seen.size, "connectivities", ctx.stream);
  launch(ctx, "fill", n, &fill_kernel<Join>, n, k, forward.data(), degree.data(), start.data(), backward.data(), join,
         out.indptr.data(), out.indices.data(), out.values.data());
}

/// Width of each row: d^2 / 4 of the wanted-th smallest entry, by bisection over the bits of a float (which order as
/// the numbers do, once negative ones are flipped).
__global__ void dense_widths_kernel(MatrixView<const float> distances, int wanted, double* widths) {
  __shared__ int below;
  for (std::int64_t i = blockIdx.x; i < distances.n_rows; i += gridDim.x) {
    unsigned low = 0, high = 0xFFFFFFFFu;  // smallest bound with at least `wanted` entries at or below it
    while (low < high) {
      const unsigned mid = low + (high - low) / 2;
      if (threadIdx.x == 0) below = 0;
      __syncthreads();
      int mine = 0;
      for (std::int64_t j = threadIdx.x; j < distances.n_cols; j += blockDim.x) {
        const unsigned bits = __float_as_uint(distances(i, j));
        mine += ((bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u) <= mid ? 1 : 0;
      }
      atomicAdd(&below, mine);
      __syncthreads();
      if (below >= wanted)
        high = mid;
      else
        low = mid + 1;
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      const double d = static_cast<double>(__uint_as_float((low & 0x80000000u) != 0 ? low & 0x7FFFFFFFu : ~low));
      widths[i] = d * d / 4.0;
    }
    __syncthreads();
  }
}

__global__ void dense_gauss_kernel(MatrixView<const float> distances, const double* widths, MatrixView<float> out) {
  const std::int64_t n = distances.n_rows;
  SCW_FOR_ROWS(at, n * n) {
    const std::int64_t i = at / n, j = at - i * n;
    const double d = static_cast<double>(distances(i, j));
    const double w = math::gauss_weight(d * d, widths[i], widths[j]);
    out(i, j) = w > 1e-14 ? static_cast<float>(w) : 0.0f;
  }
}

__global__ void distance_graph_cells_kernel(KnnView knn, std::int64_t* indptr, std::int32_t* indices, float* values) {
  const std::int64_t m = knn.k - 1;
  SCW_FOR_ROWS(i, knn.n + 1) {
    indptr[i] = i * m;
    for (std::int64_t j = 0; i < knn.n && j < m; ++j) {
      indices[i * m + j] = knn.indices.data[i * knn.k + 1 + j];
      values[i * m + j] = knn.distances.data[i * knn.k + 1 + j];
    }
  }
}

}  // namespace

void connectivities(const Context& ctx, const KnnView& knn, const ConnectivityOptions& options, Csr<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const std::int64_t size = checked_mul(knn.n, knn.k);
  const float* distances = knn.distances.data;
  Array<float> converted;
  if (options.metric == Metric::inner_product && options.method != ConnectivityMethod::jaccard) {
    converted = scratch<float>(ctx, size);
    launch(ctx, "convert", knn.n, &convert_kernel, knn, converted.data());
    distances = converted.data();
  }
  auto weights = scratch<float>(ctx, size);
  switch (options.method) {
    case ConnectivityMethod::umap: {
      auto sums = scratch<double>(ctx, knn.n);
      launch(ctx, "row_sums", knn.n, &row_sums_kernel, knn, distances, sums.data());
      auto other = scratch<double>(ctx, (knn.n + kSumGroup - 1) / kSumGroup);
      for (std::int64_t n = knn.n; n > 1; n = (n + kSumGroup - 1) / kSumGroup) {
        launch(ctx, "group_sums", (n + kSumGroup - 1) / kSumGroup, &group_sums_kernel, n,
               static_cast<const double*>(sums.data()), other.data());
        sums.swap(other);
      }
      launch(ctx, "fuzzy", knn.n, &fuzzy_kernel, knn, distances, static_cast<const double*>(sums.data()),
             weights.data());
      return symmetrize(ctx, knn, weights.data(), math::FuzzyUnion{}, out);
    }
    case ConnectivityMethod::gauss: {
      auto space = scratch<double>(ctx, size), widths = scratch<double>(ctx, knn.n);
      launch(ctx, "widths", knn.n, &widths_kernel, knn, distances, space.data(), widths.data());
      launch(ctx, "gauss_weights", knn.n, &gauss_weights_kernel, knn, distances,
             static_cast<const double*>(widths.data()), weights.data());
      return symmetrize(ctx, knn, weights.data(), math::Larger{}, out);
    }
    case ConnectivityMethod::jaccard: {
      auto sorted = scratch<std::int32_t>(ctx, checked_mul(knn.n, knn.k - 1));
      launch(ctx, "sorted_ids", knn.n, &sorted_ids_kernel, knn, sorted.data());
      launch(ctx, "overlaps", knn.n, &overlaps_kernel, knn, static_cast<const std::int32_t*>(sorted.data()),
             weights.data());
      return symmetrize(ctx, knn, weights.data(), math::Mean{}, out);
    }
  }
}

void gauss_kernel(const Context& ctx, const MatrixView<const float>& distances, int n_neighbors,
                  const MatrixView<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  auto widths = scratch<double>(ctx, distances.n_rows);
  dense_widths_kernel<<<scw::cuda::grid_for(distances.n_rows, 1), 256, 0, scw::cuda::stream_of(ctx)>>>(
      distances, n_neighbors, widths.data());
  SCW_CUDA_LAUNCHED("dense_widths");
  launch(ctx, "dense_gauss", checked_mul(distances.n_rows, distances.n_rows), &dense_gauss_kernel, distances,
         static_cast<const double*>(widths.data()), out);
}

void distance_graph(const Context& ctx, const KnnView& knn, Csr<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  launch(ctx, "distance_graph", knn.n + 1, &distance_graph_cells_kernel, knn, out.indptr.data(), out.indices.data(),
         out.values.data());
}

SCW_REGISTER(connectivities_kernel, cuda, &connectivities);
SCW_REGISTER(gauss_kernel_kernel, cuda, &gauss_kernel);
SCW_REGISTER(distance_graph_kernel, cuda, &distance_graph);

}  // namespace scw::pp::cuda
