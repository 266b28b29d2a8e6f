// The parts of the spectral start on CUDA, with the CPU's bits.
//
// The product: 23M entries and 8 vectors of 1M cells read 184 MB of graph and gather 32 bytes an entry from vectors of
// 32 MB, which the second-level cache holds: about 0.2 ms, most of a start that needs 20 to 400 products.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <memory>
#include <vector>

#include "core/cuda/cuda_check.cuh"
#include "core/cuda/tolerate.cuh"
#include "core/transfer.hpp"
#include "tl/umap/cuda_launch.cuh"
#include "tl/umap/kernel.hpp"

namespace scw::tl::cuda {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;

template <class T>
Array<T> scratch(const Context& ctx, std::int64_t n) {
  return Array<T>(ctx.workspace, n, "spectral start", ctx.stream);
}

// Components: trees of parents that grow together along edges, the smaller root above; at the end every vertex hangs on
// the first vertex of its component. In between, what a thread reads depends on the order of the threads; the end does
// not.

__global__ void iota_kernel(std::int32_t* out, std::int64_t n) { SCW_FOR(i, n) out[i] = static_cast<std::int32_t>(i); }

/// 8 threads a row.
__global__ void hook_kernel(CsrView<const float> g, std::int32_t* parent, int* changed) {
  SCW_FOR(t, g.n_rows * 8) {
    const std::int64_t u = t / 8;
    const std::int64_t end = g.indptr.data[u + 1];
    for (std::int64_t e = g.indptr.data[u] + t % 8; e < end; e += 8) {
      const std::int32_t a = __ldcg(parent + u);
      const std::int32_t b = __ldcg(parent + g.indices.data[e]);
      if (a == b) continue;
      atomicMin(parent + max(a, b), min(a, b));
      *changed = 1;
    }
  }
}

__global__ void compress_kernel(std::int32_t* parent, std::int64_t n) {
  SCW_FOR(i, n) {
    std::int32_t at = __ldcg(parent + i);
    for (std::int32_t up = __ldcg(parent + at); up != at; up = __ldcg(parent + at)) at = up;
    parent[i] = at;
  }
}

__global__ void roots_kernel(const std::int32_t* parent, std::int64_t n, std::int32_t* is_root) {
  SCW_FOR(i, n) is_root[i] = parent[i] == i ? 1 : 0;
}

/// number: roots up to and with each vertex.
__global__ void labels_kernel(const std::int32_t* parent, std::int64_t n, const std::int32_t* number,
                              std::int32_t* labels) {
  SCW_FOR(i, n) labels[i] = number[parent[i]] - 1;
}

__global__ void starts_kernel(const std::int32_t* sorted, std::int64_t n, std::int64_t* first) {
  SCW_FOR(p, n) {
    if (p == 0 || sorted[p] != sorted[p - 1]) first[sorted[p]] = p;
  }
}

void components(const Context& ctx, const CsrView<const float>& g, UmapComponents& c) {
  const scw::cuda::DeviceScope scope(ctx);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = g.n_rows;
  auto parent = scratch<std::int32_t>(ctx, n);
  auto changed = scratch<int>(ctx, 1);
  launch_threads(ctx, "umap_parents", n, &iota_kernel, parent.data(), n);
  do {
    SCW_CUDA(cudaMemsetAsync(changed.data(), 0, sizeof(int), stream));
    launch_threads(ctx, "umap_hook", n * 8, &hook_kernel, g, parent.data(), changed.data());
    launch_threads(ctx, "umap_compress", n, &compress_kernel, parent.data(), n);
    ctx.check_cancelled("tl.umap");
  } while (read_one(ctx, changed.data()) != 0);

  auto number = scratch<std::int32_t>(ctx, n);
  launch_threads(ctx, "umap_roots", n, &roots_kernel, parent.data(), n, number.data());
  with_storage(ctx, [&](void* storage, std::size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(storage, bytes, number.data(), number.data(), static_cast<int>(n), stream);
  });
  const std::int64_t count = read_one(ctx, number.data() + n - 1);
  c.members = Array<std::int32_t>(ctx.workspace, n, "spectral components", ctx.stream);
  c.first.assign(static_cast<std::size_t>(count) + 1, n);
  if (count == 1) {
    launch_threads(ctx, "umap_members", n, &iota_kernel, c.members.data(), n);
    c.first[0] = 0;
    return;
  }
  auto labels = scratch<std::int32_t>(ctx, n);
  auto sorted = scratch<std::int32_t>(ctx, n);
  launch_threads(ctx, "umap_labels", n, &labels_kernel, parent.data(), n, number.data(), labels.data());
  launch_threads(ctx, "umap_vertices", n, &iota_kernel, parent.data(), n);
  int bits = 1;
  while (bits < 31 && (std::int64_t{1} << bits) < count) ++bits;
  with_storage(ctx, [&](void* storage, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(storage, bytes, labels.data(), sorted.data(), parent.data(),
                                           c.members.data(), static_cast<int>(n), 0, bits, stream);
  });
  auto first = scratch<std::int64_t>(ctx, count);
  launch_threads(ctx, "umap_starts", n, &starts_kernel, sorted.data(), n, first.data());
  copy_bytes(ctx, c.first.data(), Device{}, first.data(), ctx.device,
             static_cast<std::size_t>(count) * sizeof(std::int64_t));
}

// The normalised graph. A chunk is up to kUmapNormChunk rows of one component.

struct Chunk {
  std::int64_t begin, end;
  std::int64_t first;  // row of the component
  std::int64_t component;
};

__global__ void degrees_kernel(CsrView<const float> g, const std::int32_t* members, std::int32_t* place,
                               std::int64_t* lengths, double* root) {
  SCW_FOR(p, g.n_rows) {
    const std::int64_t v = members[p];
    place[v] = static_cast<std::int32_t>(p);
    const std::int64_t begin = g.indptr.data[v];
    const std::int64_t end = g.indptr.data[v + 1];
    lengths[p] = end - begin;
    double degree = 0;
    for (std::int64_t e = begin; e < end; ++e) degree += static_cast<double>(g.values.data[e]);
    root[p] = sqrt(degree);
  }
}

/// A block per chunk: the entries of its rows, 8 threads a row.
__global__ void entries_kernel(CsrView<const float> g, const std::int32_t* members, const Chunk* chunks,
                               std::int64_t n_chunks, const std::int32_t* place, const double* root,
                               const std::int64_t* indptr, std::int32_t* indices, float* values) {
  for (std::int64_t k = blockIdx.x; k < n_chunks; k += gridDim.x) {
    const Chunk c = chunks[k];
    for (std::int64_t t = c.begin * 8 + threadIdx.x; t < c.end * 8; t += blockDim.x) {
      const std::int64_t p = t / 8;
      const std::int64_t from = g.indptr.data[members[p]] - indptr[p];
      for (std::int64_t e = indptr[p] + t % 8; e < indptr[p + 1]; e += 8) {
        const std::int64_t q = place[g.indices.data[from + e]];
        indices[e] = static_cast<std::int32_t>(q - c.first);
        values[e] = static_cast<float>(static_cast<double>(g.values.data[from + e]) / (root[p] * root[q]));
      }
    }
  }
}

__global__ void chunk_norms_kernel(const Chunk* chunks, std::int64_t n_chunks, const double* root, double* partial) {
  SCW_FOR(c, n_chunks) {
    double sum = 0;
#pragma unroll 8
    for (std::int64_t p = chunks[c].begin; p < chunks[c].end; ++p) sum += root[p] * root[p];
    partial[c] = sum;
  }
}

/// first_chunk: of each component, and the end.
__global__ void norms_kernel(const std::int64_t* first_chunk, std::int64_t n_components, const double* partial,
                             double* norms) {
  SCW_FOR(k, n_components) {
    double sum = 0;
#pragma unroll 8
    for (std::int64_t c = first_chunk[k]; c < first_chunk[k + 1]; ++c) sum += partial[c];
    norms[k] = sqrt(sum);
  }
}

__global__ void divide_kernel(const Chunk* chunks, std::int64_t n_chunks, const double* norms, double* root) {
  for (std::int64_t k = blockIdx.x; k < n_chunks; k += gridDim.x) {
    const Chunk c = chunks[k];
    for (std::int64_t p = c.begin + threadIdx.x; p < c.end; p += blockDim.x) root[p] /= norms[c.component];
  }
}

void normalise(const Context& ctx, const CsrView<const float>& g, const UmapComponents& c, UmapNormalised& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = g.n_rows;
  const auto n_components = static_cast<std::int64_t>(c.first.size()) - 1;
  std::vector<Chunk> chunks;
  std::vector<std::int64_t> first_chunk{0};
  for (std::int64_t k = 0; k < n_components; ++k) {
    const std::int64_t first = c.first[static_cast<std::size_t>(k)];
    const std::int64_t end = c.first[static_cast<std::size_t>(k) + 1];
    for (std::int64_t at = first; at < end; at += kUmapNormChunk)
      chunks.push_back({at, std::min(at + kUmapNormChunk, end), first, k});
    first_chunk.push_back(static_cast<std::int64_t>(chunks.size()));
  }
  const auto n_chunks = static_cast<std::int64_t>(chunks.size());
  const auto chunk_list = to_device<Chunk>(ctx, Span<const Chunk>(chunks));
  const auto chunk_starts = to_device<std::int64_t>(ctx, Span<const std::int64_t>(first_chunk));
  auto place = scratch<std::int32_t>(ctx, n);
  auto partial = scratch<double>(ctx, n_chunks);
  auto norms = scratch<double>(ctx, n_components);
  out.indptr = Array<std::int64_t>(ctx.workspace, n + 1, "spectral graph", ctx.stream);
  out.root = Array<double>(ctx.workspace, n, "spectral degrees", ctx.stream);
  launch_threads(ctx, "umap_degrees", n, &degrees_kernel, g, c.members.data(), place.data(), out.indptr.data() + 1,
                 out.root.data());
  SCW_CUDA(cudaMemsetAsync(out.indptr.data(), 0, sizeof(std::int64_t), stream));
  with_storage(ctx, [&](void* storage, std::size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(storage, bytes, out.indptr.data() + 1, out.indptr.data() + 1,
                                         static_cast<int>(n), stream);
  });
  const std::int64_t total = read_one(ctx, out.indptr.data() + n);
  out.indices = Array<std::int32_t>(ctx.workspace, total, "spectral graph", ctx.stream);
  out.values = Array<float>(ctx.workspace, total, "spectral graph", ctx.stream);
  launch_threads(ctx, "umap_entries", n_chunks * kThreads, &entries_kernel, g, c.members.data(), chunk_list.data(),
                 n_chunks, place.data(), out.root.data(), out.indptr.data(), out.indices.data(), out.values.data());
  launch_threads(ctx, "umap_chunk_norms", n_chunks, &chunk_norms_kernel, chunk_list.data(), n_chunks, out.root.data(),
                 partial.data());
  launch_threads(ctx, "umap_norms", n_components, &norms_kernel, chunk_starts.data(), n_components, partial.data(),
                 norms.data());
  launch_threads(ctx, "umap_divide", n_chunks * kThreads, &divide_kernel, chunk_list.data(), n_chunks, norms.data(),
                 out.root.data());
}

// The product: 8 threads a row, a vector each; the entries of a row in their order.

__global__ void __launch_bounds__(kThreads)
    product_kernel(CsrView<const float> g, const float* x, float* y, std::int64_t q, std::int64_t slab) {
  const int b = static_cast<int>(threadIdx.x) % 8;
  x += slab + b;
  y += slab + b;
  SCW_FOR(t, g.n_rows * 8) {
    const std::int64_t i = t / 8;
    const std::int64_t end = g.indptr.data[i + 1];
    float sum = 0;
    std::int64_t e = g.indptr.data[i];
    for (; e + 4 <= end; e += 4) {
      float w[4];
      float v[4];
      for (int u = 0; u < 4; ++u) {
        w[u] = g.values.data[e + u];
        v[u] = x[g.indices.data[e + u] * q];
      }
      for (int u = 0; u < 4; ++u) sum += w[u] * v[u];
    }
    for (; e < end; ++e) sum += g.values.data[e] * x[g.indices.data[e] * q];
    y[i * q] = sum;
  }
}

void product(const Context& ctx, const CsrView<const float>& g, const float* x, float* y, int q) {
  const scw::cuda::DeviceScope scope(ctx);
  for (int slab = 0; slab < q; slab += 8)
    launch_threads(ctx, "umap_product", g.n_rows * 8, &product_kernel, g, x, y, std::int64_t{q}, std::int64_t{slab});
}

// Components side by side: each is a chain of small launches and small results on the host.

class Queues final : public UmapQueues {
 public:
  explicit Queues(const Context& ctx) : ctx_(ctx) {}
  void add(int count) {
    const scw::cuda::DeviceScope scope(ctx_);
    streams.reserve(streams.size() + static_cast<std::size_t>(count));
    for (int k = 0; k < count; ++k) {
      cudaStream_t stream{};
      SCW_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      streams.push_back({stream});
    }
  }
  ~Queues() override {
    for (const StreamHandle& s : streams) {  // what was freed on them may still be in use by them
      scw::cuda::tolerate(cudaStreamSynchronize(static_cast<cudaStream_t>(s.handle)));
      scw::cuda::tolerate(cudaStreamDestroy(static_cast<cudaStream_t>(s.handle)));
    }
  }

 private:
  Context ctx_;
};

void queues(const Context& ctx, int count, std::unique_ptr<UmapQueues>& out) {
  auto made = std::make_unique<Queues>(ctx);
  made->add(count);
  out = std::move(made);
}

// Placing.

__global__ void largest_kernel(const float* y, std::int64_t size, unsigned* largest) {
  unsigned mine = 0;
  SCW_FOR(k, size) mine = max(mine, __float_as_uint(fabsf(y[k])));
  for (int offset = 16; offset > 0; offset /= 2) mine = max(mine, __shfl_down_sync(kAll, mine, offset));
  if (threadIdx.x % 32 == 0) atomicMax(largest, mine);
}

__global__ void put_kernel(MatrixView<const float> y, const std::int32_t* rows, const float* middle,
                           const unsigned* largest, float radius, MatrixView<float> out) {
  const float top = __uint_as_float(*largest);
  const float scale = top > 0 ? radius / top : 0.0f;
  SCW_FOR(e, y.n_rows * y.n_cols) {
    const std::int64_t d = e % y.n_cols;
    out(rows[e / y.n_cols], d) = middle[d] + scale * y.data[e];
  }
}

void put_component(const Context& ctx, const MatrixView<const float>& y, Span<const std::int32_t> rows,
                   const float* middle, float radius, const MatrixView<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const std::int64_t size = y.n_rows * y.n_cols;
  const auto at = to_device<float>(ctx, Span<const float>(middle, y.n_cols));
  auto largest = scratch<unsigned>(ctx, 1);
  SCW_CUDA(cudaMemsetAsync(largest.data(), 0, sizeof(unsigned), scw::cuda::stream_of(ctx)));
  launch_threads(ctx, "umap_largest", std::min<std::int64_t>(size, kThreads * 528), &largest_kernel, y.data, size,
                 largest.data());
  launch_threads(ctx, "umap_put", size, &put_kernel, y, rows.data, at.data(), largest.data(), radius, out);
}

__global__ void put_rows_kernel(MatrixView<const float> y, const std::int32_t* rows, MatrixView<float> out) {
  SCW_FOR(e, y.n_rows * y.n_cols) out(rows[e / y.n_cols], e % y.n_cols) = y.data[e];
}

void put_rows(const Context& ctx, const MatrixView<const float>& y, Span<const std::int32_t> rows,
              const MatrixView<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  launch_threads(ctx, "umap_put_rows", y.n_rows * y.n_cols, &put_rows_kernel, y, rows.data, out);
}

}  // namespace

SCW_REGISTER(umap_components_kernel, cuda, &components);
SCW_REGISTER(umap_normalise_kernel, cuda, &normalise);
SCW_REGISTER(umap_product_kernel, cuda, &product);
SCW_REGISTER(umap_queues_kernel, cuda, &queues);
SCW_REGISTER(umap_put_component_kernel, cuda, &put_component);
SCW_REGISTER(umap_put_rows_kernel, cuda, &put_rows);

}  // namespace scw::tl::cuda
