// (A + A^T) / 2 of a graph that is not symmetric, on CUDA, with the CPU's bits: rows of the transpose come from a
// stable sort of the entries by column, and a warp joins a row of both. Floor: the sort, 4 passes of 24 bytes an entry
// each.
#include <cub/device/device_radix_sort.cuh>

#include "core/cuda/cuda_check.cuh"
#include "core/transfer.hpp"
#include "tl/umap/cuda_launch.cuh"
#include "tl/umap/kernel.hpp"

namespace scw::tl::cuda {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;

/// An entry of the transpose: its column, and its weight.
struct Entry {
  std::int32_t id;
  float weight;
};
static_assert(sizeof(Entry) == sizeof(unsigned long long));

template <class T>
Array<T> scratch(const Context& ctx, std::int64_t n) {
  return Array<T>(ctx.workspace, n, "umap transposed graph", ctx.stream);
}

__global__ void entries_kernel(CsrView<const float> g, Entry* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t base = g.indptr.data[0];
  SCW_FOR_WARPS(i, g.n_rows) {
    const std::int64_t end = g.indptr.data[i + 1];
    for (std::int64_t e = g.indptr.data[i] + lane; e < end; e += 32)
      out[e - base] = {static_cast<std::int32_t>(i), g.values.data[e]};
  }
}

/// start[i]: the first of `size` sorted columns that is i or more.
__global__ void starts_kernel(const std::int32_t* sorted, std::int64_t size, std::int64_t n, std::int64_t* start) {
  SCW_FOR(i, n + 1) {
    std::int64_t low = 0, high = size;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (sorted[middle] < i)
        low = middle + 1;
      else
        high = middle;
    }
    start[i] = low;
  }
}

__device__ std::int32_t column(std::int32_t id) { return id; }
__device__ std::int32_t column(const Entry& e) { return e.id; }

/// How many of a sorted row's columns are below j.
template <class T>
__device__ std::int64_t below(const T* row, std::int64_t count, std::int32_t j) {
  std::int64_t low = 0, high = count;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (column(row[middle]) < j)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/// Lengths of the joined rows.
__global__ void __launch_bounds__(kThreads)
    lengths_kernel(CsrView<const float> g, const std::int64_t* start, const Entry* transposed, std::int64_t* lengths) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  SCW_FOR_WARPS(i, g.n_rows) {
    const std::int32_t* const a = g.indices.data + g.indptr.data[i];
    const std::int64_t n_a = g.indptr.data[i + 1] - g.indptr.data[i];
    const Entry* const b = transposed + start[i];
    const std::int64_t n_b = start[i + 1] - start[i];
    std::int64_t common = 0;
    for (std::int64_t at = 0; at < n_a; at += 32) {
      bool both = false;
      if (at + lane < n_a) {
        const std::int64_t k = below(b, n_b, a[at + lane]);
        both = k < n_b && b[k].id == a[at + lane];
      }
      common += __popc(__ballot_sync(kAll, both));
    }
    if (lane == 0) lengths[i] = n_a + n_b - common;
  }
}

/// The place of an entry in its joined row: the entries before it in its own row and in the other, less those in both.
__global__ void __launch_bounds__(kThreads)
    join_kernel(CsrView<const float> g, const std::int64_t* start, const Entry* transposed, const std::int64_t* indptr,
                std::int32_t* indices, float* values) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const unsigned before = (1u << lane) - 1;
  SCW_FOR_WARPS(i, g.n_rows) {
    const std::int64_t from = g.indptr.data[i];
    const std::int32_t* const a = g.indices.data + from;
    const std::int64_t n_a = g.indptr.data[i + 1] - from;
    const Entry* const b = transposed + start[i];
    const std::int64_t n_b = start[i + 1] - start[i];
    const std::int64_t to = indptr[i];
    std::int64_t common = 0;
    for (std::int64_t at = 0; at < n_a; at += 32) {
      const std::int64_t r = at + lane;
      const bool have = r < n_a;
      const std::int64_t k = have ? below(b, n_b, a[r]) : 0;
      const bool both = have && k < n_b && b[k].id == a[r];
      const unsigned mask = __ballot_sync(kAll, both);
      if (have) {
        const std::int64_t place = to + r + k - common - __popc(mask & before);
        float w = 0.5f * g.values.data[from + r];
        if (both) w += 0.5f * b[k].weight;
        indices[place] = a[r];
        values[place] = w;
      }
      common += __popc(mask);
    }
    common = 0;
    for (std::int64_t at = 0; at < n_b; at += 32) {
      const std::int64_t r = at + lane;
      const bool have = r < n_b;
      const std::int64_t k = have ? below(a, n_a, b[r].id) : 0;
      const bool both = have && k < n_a && a[k] == b[r].id;
      const unsigned mask = __ballot_sync(kAll, both);
      if (have && !both) {
        const std::int64_t place = to + r + k - common - __popc(mask & before);
        indices[place] = b[r].id;
        values[place] = 0.5f * b[r].weight;
      }
      common += __popc(mask);
    }
  }
}

void average(const Context& ctx, const CsrView<const float>& g, Csr<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const std::int64_t n = g.n_rows;
  const std::int64_t base = read_one(ctx, g.indptr.data);
  const std::int64_t size = read_one(ctx, g.indptr.data + n) - base;
  auto start = scratch<std::int64_t>(ctx, n + 1);
  auto transposed = scratch<Entry>(ctx, size);
  {
    auto entries = scratch<Entry>(ctx, size);
    auto sorted = scratch<std::int32_t>(ctx, size);
    launch_threads(ctx, "umap_entries", n * 32, &entries_kernel, g, entries.data());
    int bits = 1;
    while ((std::int64_t{1} << bits) < n) ++bits;
    with_storage(ctx, [&](void* storage, std::size_t& bytes) {
      return cub::DeviceRadixSort::SortPairs(storage, bytes, g.indices.data + base, sorted.data(),
                                             reinterpret_cast<const unsigned long long*>(entries.data()),
                                             reinterpret_cast<unsigned long long*>(transposed.data()), size, 0, bits,
                                             scw::cuda::stream_of(ctx));
    });
    launch_threads(ctx, "umap_starts", n + 1, &starts_kernel, sorted.data(), size, n, start.data());
  }
  out.n_rows = n;
  out.n_cols = g.n_cols;
  out.indptr = Array<std::int64_t>(ctx.workspace, n + 1, "umap graph", ctx.stream);
  launch_threads(ctx, "umap_lengths", n * 32, &lengths_kernel, g, start.data(), transposed.data(),
                 out.indptr.data() + 1);
  const std::int64_t total = scan_offsets(ctx, out.indptr);
  out.indices = Array<std::int32_t>(ctx.workspace, total, "umap graph", ctx.stream);
  out.values = Array<float>(ctx.workspace, total, "umap graph", ctx.stream);
  launch_threads(ctx, "umap_join", n * 32, &join_kernel, g, start.data(), transposed.data(), out.indptr.data(),
                 out.indices.data(), out.values.data());
}

}  // namespace

SCW_REGISTER(umap_average_kernel, cuda, &average);

}  // namespace scw::tl::cuda
