// Weights and graphs on CUDA: the row functions of body.inl, one thread per row; sums over rows are made on the host in
// row order, so that they have the CPU's bits.
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

__global__ void fuzzy_kernel(KnnView knn, const float* distances, double overall_mean, float* weights) {
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
    for (int j = 1; j < knn.k; ++j) {
      const std::int32_t id = knn.indices.data[i * knn.k + j];
      const double d = static_cast<double>(distances[i * knn.k + j]);
      weights[i * knn.k + j] = id < 0 ? 0.0f : static_cast<float>(math::gauss_weight(d * d, widths[i], widths[id]));
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
    for (int j = 1; j < knn.k; ++j) {
      const std::int32_t id = knn.indices.data[i * knn.k + j];
      weights[i * knn.k + j] = id < 0 ? 0.0f : overlap(sorted + i * m, sorted + std::int64_t{id} * m, m);
    }
  }
}

__global__ void first_outside_kernel(KnnView knn, unsigned long long* first) {
  SCW_FOR_ROWS(at, knn.indices.size) {
    if (knn.indices.data[at] >= knn.n) atomicMin(first, static_cast<unsigned long long>(at));
  }
}

/// Forward edges of each row, sorted by column, and how many edges point at each cell.
__global__ void forward_kernel(KnnView knn, const float* weights, Edge* forward, std::int32_t* degree,
                               unsigned long long* pointing) {
  const std::int64_t k = knn.k;
  SCW_FOR_ROWS(i, knn.n) {
    Edge* const row = forward + i * k;
    std::int32_t count = 0;
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int32_t id = knn.indices.data[i * k + j];
      if (id < 0 || id == i) continue;  // a cell itself has no weight
      const Edge e{id, weights[i * k + j]};
      if (!(e.weight > 0)) continue;
      atomicAdd(pointing + e.id, 1ull);
      int at = count++;
      for (; at > 0 && row[at - 1].id > e.id; --at) row[at] = row[at - 1];
      row[at] = e;
    }
    degree[i] = count;
  }
}

/// next[i]: where the next edge that points at i goes. Places depend on the order of the threads; sort_kernel follows.
__global__ void backward_kernel(KnnView knn, const Edge* forward, const std::int32_t* degree, unsigned long long* next,
                                Edge* backward) {
  SCW_FOR_ROWS(i, knn.n) {
    for (std::int32_t j = 0; j < degree[i]; ++j) {
      const Edge e = forward[i * knn.k + j];
      backward[atomicAdd(next + e.id, 1ull)] = {static_cast<std::int32_t>(i), e.weight};
    }
  }
}

/// Heapsort of each row by column: some cells are neighbours of thousands.
__global__ void sort_kernel(std::int64_t n, const std::int64_t* start, Edge* backward) {
  SCW_FOR_ROWS(i, n) {
    Edge* const row = backward + start[i];
    const std::int64_t m = start[i + 1] - start[i];
    const auto sift = [row](std::int64_t at, std::int64_t end) {
      const Edge e = row[at];
      for (std::int64_t child = 2 * at + 1; child < end; child = 2 * at + 1) {
        if (child + 1 < end && row[child + 1].id > row[child].id) ++child;
        if (row[child].id <= e.id) break;
        row[at] = row[child];
        at = child;
      }
      row[at] = e;
    };
    for (std::int64_t at = m / 2; at-- > 0;) sift(at, m);
    for (std::int64_t end = m; end-- > 1;) {
      const Edge e = row[end];
      row[end] = row[0];
      row[0] = e;
      sift(0, end);
    }
  }
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

/// Exclusive sums of n counts on ctx.device, by way of the host: n + 1 entries.
template <class T>
Array<std::int64_t> offsets(const Context& ctx, const Array<T>& counts, std::int64_t& total) {
  const auto host = to_host<T>(ctx, counts.view());
  Array<std::int64_t> sums(host_memory(), counts.size() + 1, "connectivities");
  sums[0] = 0;
  for (std::int64_t i = 0; i < counts.size(); ++i) sums[i + 1] = sums[i] + static_cast<std::int64_t>(host[i]);
  total = sums[counts.size()];
  Array<std::int64_t> out(ctx.memory, sums.size(), "connectivities", ctx.stream);
  copy_bytes(ctx, out.data(), ctx.device, sums.data(), Device{},
             static_cast<std::size_t>(sums.size()) * sizeof(std::int64_t));
  return out;
}

template <class Join>
void symmetrize(const Context& ctx, const KnnView& knn, const float* weights, const Join& join, Csr<float>& out) {
  const std::int64_t n = knn.n, k = knn.k;
  auto forward = scratch<Edge>(ctx, checked_mul(n, k));
  auto degree = scratch<std::int32_t>(ctx, n);
  auto pointing = scratch<unsigned long long>(ctx, n);
  if (n > 0)
    SCW_CUDA(cudaMemsetAsync(pointing.data(), 0, static_cast<std::size_t>(n) * sizeof(unsigned long long),
                             scw::cuda::stream_of(ctx)));
  launch(ctx, "forward", n, &forward_kernel, knn, weights, forward.data(), degree.data(), pointing.data());
  std::int64_t edges = 0, size = 0;
  const auto start = offsets(ctx, pointing, edges);
  auto backward = scratch<Edge>(ctx, edges);
  copy_bytes(ctx, pointing.data(), ctx.device, start.data(), ctx.device,
             static_cast<std::size_t>(n) * sizeof(std::int64_t));
  launch(ctx, "backward", n, &backward_kernel, knn, forward.data(), degree.data(), pointing.data(), backward.data());
  launch(ctx, "sort", n, &sort_kernel, n, start.data(), backward.data());
  auto counts = scratch<std::int64_t>(ctx, n);
  launch(ctx, "count", n, &count_kernel<Join>, n, k, forward.data(), degree.data(), start.data(), backward.data(), join,
         counts.data());
  out.n_rows = n;
  out.n_cols = static_cast<std::int32_t>(n);
  out.indptr = offsets(ctx, counts, size);
  out.indices = Array<std::int32_t>(ctx.memory, size, "connectivities", ctx.stream);
  out.values = Array<float>(ctx.memory, size, "connectivities", ctx.stream);
  launch(ctx, "fill", n, &fill_kernel<Join>, n, k, forward.data(), degree.data(), start.data(), backward.data(), join,
         out.indptr.data(), out.indices.data(), out.values.data());
}

void check_ids(const Context& ctx, const KnnView& knn) {
  if (knn.indices.size == 0) return;
  auto first = scratch<unsigned long long>(ctx, 1);
  SCW_CUDA(cudaMemsetAsync(first.data(), 0xFF, sizeof(unsigned long long), scw::cuda::stream_of(ctx)));
  launch(ctx, "first_outside", knn.indices.size, &first_outside_kernel, knn, first.data());
  const auto at = to_host<unsigned long long>(ctx, std::as_const(first).view())[0];
  if (at != ~0ull)
    throw InvalidArgument("pp.neighbors: cell " + std::to_string(at / static_cast<unsigned long long>(knn.k)) +
                          " has a neighbour that is no cell (expected below " + std::to_string(knn.n) + ")");
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
  check_ids(ctx, knn);
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
      const auto host = to_host<double>(ctx, std::as_const(sums).view());
      double total = 0;
      for (std::int64_t i = 0; i < knn.n; ++i) total += host[i];
      const double mean = knn.n > 0 ? total / (static_cast<double>(knn.n) * knn.k) : 0.0;
      launch(ctx, "fuzzy", knn.n, &fuzzy_kernel, knn, distances, mean, weights.data());
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
