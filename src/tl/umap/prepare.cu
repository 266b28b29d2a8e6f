// What comes before the layout and after it, on CUDA, with the CPU's bits. Bound by memory: a few sweeps over the
// edges.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <vector>

#include "core/cuda/cuda_check.cuh"
#include "core/transfer.hpp"
#include "tl/symmetry.hpp"
#include "tl/umap/cuda_launch.cuh"
#include "tl/umap/kernel.hpp"
#include "tl/umap/start.hpp"

namespace scw::tl::cuda {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;
constexpr std::int64_t kLongRow = 1024;  // rows up to this many edges are ranked by counting

using Word = unsigned long long;

template <class T>
Array<T> scratch(const Context& ctx, std::int64_t n) {
  return Array<T>(ctx.workspace, n, "umap preparation", ctx.stream);
}

template <class T>
void fill_bytes(const Context& ctx, Array<T>& x, int byte) {
  SCW_CUDA(cudaMemsetAsync(x.data(), byte, static_cast<std::size_t>(x.size()) * sizeof(T), scw::cuda::stream_of(ctx)));
}

/// In lane 0.
__device__ unsigned warp_max(unsigned v) {
  for (int offset = 16; offset > 0; offset /= 2) v = max(v, __shfl_down_sync(kAll, v, offset));
  return v;
}

// weights and pruning

struct Seen {
  Word bad, asymmetry, most;
};

/// Floor: the graph is read once, 8 bytes an edge: 0.04 ms for 22M edges.
__global__ void __launch_bounds__(kThreads) weights_kernel(CsrView<const float> g, Seen* seen) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  unsigned most = 0;
  std::uint64_t asymmetry = 0;
  SCW_FOR_WARPS(i, g.n_rows) {
    const std::int64_t end = g.indptr.data[i + 1];
    for (std::int64_t e = g.indptr.data[i] + lane; e < end; e += 32) {
      const float w = g.values.data[e];
      if (!(w >= 0 && w < INFINITY)) {
        atomicMin(&seen->bad, static_cast<Word>(e));
      } else if (w > 0) {
        most = max(most, __float_as_uint(w));
        asymmetry += symmetry_term(i, g.indices.data[e], static_cast<double>(w));
      }
    }
  }
  most = warp_max(most);
  Word sum = asymmetry;
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(kAll, sum, offset);
  if (lane != 0) return;
  atomicMax(&seen->most, static_cast<Word>(most));
  atomicAdd(&seen->asymmetry, sum);
}

void weights(const Context& ctx, const CsrView<const float>& g, UmapWeights& out) {
  const scw::cuda::DeviceScope scope(ctx);
  auto seen = scratch<Seen>(ctx, 1);
  fill_bytes(ctx, seen, 0);
  SCW_CUDA(cudaMemsetAsync(&seen.data()->bad, 0xFF, sizeof(Word), scw::cuda::stream_of(ctx)));
  launch_threads(ctx, "umap_weights", std::min(g.n_rows * 32, kThreads * std::int64_t{1056}), &weights_kernel, g,
                 seen.data());
  const Seen found = read_one(ctx, seen.data());
  out.most = __builtin_bit_cast(float, static_cast<unsigned>(found.most));
  out.bad = static_cast<std::int64_t>(found.bad);  // all ones: -1
  out.symmetric = found.asymmetry == 0;
}

__device__ bool kept(const CsrView<const float>& g, std::int64_t i, std::int64_t e, float cutoff) {
  const float w = g.values.data[e];
  return w > 0 && w >= cutoff && g.indices.data[e] != i;
}

__global__ void count_kept_kernel(CsrView<const float> g, float cutoff, std::int64_t* counts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  SCW_FOR_WARPS(i, g.n_rows) {
    const std::int64_t end = g.indptr.data[i + 1];
    std::int64_t count = 0;
    for (std::int64_t at = g.indptr.data[i]; at < end; at += 32)
      count += __popc(__ballot_sync(kAll, at + lane < end && kept(g, i, at + lane, cutoff)));
    if (lane == 0) counts[i] = count;
  }
}

__global__ void copy_kept_kernel(CsrView<const float> g, float cutoff, const std::int64_t* indptr,
                                 std::int32_t* indices, float* values) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  SCW_FOR_WARPS(i, g.n_rows) {
    const std::int64_t end = g.indptr.data[i + 1];
    std::int64_t to = indptr[i];
    for (std::int64_t at = g.indptr.data[i]; at < end; at += 32) {
      const bool keep = at + lane < end && kept(g, i, at + lane, cutoff);
      const unsigned mask = __ballot_sync(kAll, keep);
      const std::int64_t slot = to + __popc(mask & ((1u << lane) - 1));
      if (keep) {
        indices[slot] = g.indices.data[at + lane];
        values[slot] = g.values.data[at + lane];
      }
      to += __popc(mask);
    }
  }
}

void prune(const Context& ctx, const CsrView<const float>& g, float cutoff, Csr<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  out.n_rows = g.n_rows;
  out.n_cols = g.n_cols;
  out.indptr = Array<std::int64_t>(ctx.workspace, g.n_rows + 1, "umap graph", ctx.stream);
  launch_threads(ctx, "umap_count_kept", g.n_rows * 32, &count_kept_kernel, g, cutoff, out.indptr.data() + 1);
  const std::int64_t total = scan_offsets(ctx, out.indptr);
  if (total == read_one(ctx, g.indptr.data + g.n_rows) - read_one(ctx, g.indptr.data)) {
    out = {};
    return;
  }
  out.indices = Array<std::int32_t>(ctx.workspace, total, "umap graph", ctx.stream);
  out.values = Array<float>(ctx.workspace, total, "umap graph", ctx.stream);
  launch_threads(ctx, "umap_copy_kept", g.n_rows * 32, &copy_kept_kernel, g, cutoff, out.indptr.data(),
                 out.indices.data(), out.values.data());
}

// the start

/// Floats in the order of unsigned numbers.
__device__ unsigned ordered(float v) {
  const unsigned b = __float_as_uint(v + 0.0f);  // one zero
  return (b >> 31) != 0 ? ~b : b | 0x80000000u;
}
__device__ float unordered(unsigned b) { return __uint_as_float((b >> 31) != 0 ? b & 0x7FFFFFFFu : ~b); }

__global__ void largest_kernel(const float* y, std::int64_t size, unsigned* largest) {
  unsigned mine = 0;
  SCW_FOR(k, size) mine = max(mine, __float_as_uint(fabsf(y[k])));
  mine = warp_max(mine);
  if (threadIdx.x % 32 == 0) atomicMax(largest, mine);
}

__global__ void spectral_kernel(float* y, std::int64_t size, const unsigned* largest, RngKey noise) {
  const float top = __uint_as_float(*largest);
  SCW_FOR(k, size) y[k] = umap_spectral(y[k], top, noise, k);
}

__global__ void random_kernel(float* y, std::int64_t size, RngKey key) { SCW_FOR(k, size) y[k] = umap_random(key, k); }

__global__ void given_kernel(float* y, MatrixView<const float> given, Word* bad) {
  SCW_FOR(k, given.n_rows * given.n_cols) {
    const float v = given(k / given.n_cols, k % given.n_cols);
    if (!(fabsf(v) < INFINITY)) atomicMin(bad, static_cast<Word>(k));
    y[k] = v;
  }
}

/// range[2 d], range[2 d + 1]: complement of the lowest and the highest value of axis d, ordered.
__global__ void range_kernel(const float* y, std::int64_t n, int dims, unsigned* range) {
  for (int d = 0; d < dims; ++d) {
    unsigned low = 0;
    unsigned high = 0;
    SCW_FOR(i, n) {
      const unsigned v = ordered(y[i * dims + d]);
      low = max(low, ~v);
      high = max(high, v);
    }
    low = warp_max(low);
    high = warp_max(high);
    if (threadIdx.x % 32 == 0) {
      atomicMax(range + 2 * d, low);
      atomicMax(range + 2 * d + 1, high);
    }
  }
}

__global__ void stretch_kernel(float* y, std::int64_t n, int dims, const unsigned* range) {
  SCW_FOR(k, n * dims) {
    const int d = static_cast<int>(k % dims);
    y[k] = umap_stretch(y[k], unordered(~range[2 * d]), unordered(range[2 * d + 1]));
  }
}

/// Equal rows have equal keys; in two dimensions the key is the row. Stretched values have one zero.
__global__ void row_keys_kernel(const float* y, std::int64_t n, int dims, Word* keys, std::int32_t* rows) {
  SCW_FOR(i, n) {
    Word key = 0;
    for (int d = 0; d < dims; ++d) {
      const Word v = __float_as_uint(y[i * dims + d]);
      key = dims <= 2 ? key << 32 | v : (key ^ v) * 0x9E3779B97F4A7C15ull + (key >> 29);
    }
    keys[i] = key;
    rows[i] = static_cast<std::int32_t>(i);
  }
}

__global__ void equal_rows_kernel(const float* y, std::int64_t n, int dims, const Word* keys, const std::int32_t* rows,
                                  int* found) {
  SCW_FOR(k, n) {
    for (std::int64_t before = k; before-- > 0 && keys[before] == keys[k];) {
      bool equal = true;
      for (int d = 0; d < dims; ++d)
        equal = equal && y[std::int64_t{rows[k]} * dims + d] == y[std::int64_t{rows[before]} * dims + d];
      if (equal) {
        *found = 1;
        break;
      }
    }
  }
}

__global__ void jitter_kernel(float* y, std::int64_t size, float scale, RngKey noise) {
  SCW_FOR(k, size) y[k] += scale * umap_noise(noise, k);
}

bool has_equal_rows(const Context& ctx, const Matrix<float>& y) {
  const std::int64_t n = y.n_rows;
  auto keys = scratch<Word>(ctx, n);
  auto sorted = scratch<Word>(ctx, n);
  auto rows = scratch<std::int32_t>(ctx, n);
  auto sorted_rows = scratch<std::int32_t>(ctx, n);
  auto found = scratch<int>(ctx, 1);
  fill_bytes(ctx, found, 0);
  const int dims = static_cast<int>(y.n_cols);
  launch_threads(ctx, "umap_row_keys", n, &row_keys_kernel, y.data.data(), n, dims, keys.data(), rows.data());
  with_storage(ctx, [&](void* storage, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(storage, bytes, keys.data(), sorted.data(), rows.data(), sorted_rows.data(),
                                           static_cast<int>(n), 0, 64, scw::cuda::stream_of(ctx));
  });
  launch_threads(ctx, "umap_equal_rows", n, &equal_rows_kernel, y.data.data(), n, dims, sorted.data(),
                 sorted_rows.data(), found.data());
  return read_one(ctx, found.data()) != 0;
}

void start(const Context& ctx, UmapStart& s, Matrix<float>& y) {
  const scw::cuda::DeviceScope scope(ctx);
  const std::int64_t size = y.data.size();
  const int dims = static_cast<int>(y.n_cols);
  constexpr std::int64_t kReduce = kThreads * 528;
  if (s.init == UmapInit::spectral) {
    auto largest = scratch<unsigned>(ctx, 1);
    fill_bytes(ctx, largest, 0);
    launch_threads(ctx, "umap_largest", std::min(size, kReduce), &largest_kernel, y.data.data(), size, largest.data());
    launch_threads(ctx, "umap_spectral", size, &spectral_kernel, y.data.data(), size, largest.data(), s.noise);
  } else if (s.init == UmapInit::random) {
    launch_threads(ctx, "umap_random", size, &random_kernel, y.data.data(), size, s.random);
  } else {
    auto bad = scratch<Word>(ctx, 1);
    fill_bytes(ctx, bad, 0xFF);
    launch_threads(ctx, "umap_given", size, &given_kernel, y.data.data(), s.given, bad.data());
    s.bad = static_cast<std::int64_t>(read_one(ctx, bad.data()));
    if (s.bad >= 0) return;
  }
  auto range = scratch<unsigned>(ctx, checked_mul(2, dims));
  fill_bytes(ctx, range, 0);
  launch_threads(ctx, "umap_range", std::min(y.n_rows, kReduce), &range_kernel, y.data.data(), y.n_rows, dims,
                 range.data());
  launch_threads(ctx, "umap_stretch", size, &stretch_kernel, y.data.data(), y.n_rows, dims, range.data());
  if (s.init == UmapInit::array && has_equal_rows(ctx, y))
    launch_threads(ctx, "umap_jitter", size, &jitter_kernel, y.data.data(), size, umap_jitter(y.n_rows, dims), s.noise);
}

// the order

__global__ void samples_kernel(CsrView<const float> g, Word* keys, std::int32_t* cells, Word* n_active) {
  unsigned active = 0;
  SCW_FOR(i, g.n_rows) {
    double sum = 0;
    for (std::int64_t e = g.indptr.data[i]; e < g.indptr.data[i + 1]; ++e) sum += static_cast<double>(g.values.data[e]);
    keys[i] = static_cast<Word>(__double_as_longlong(sum));  // not negative: ordered as the bits
    cells[i] = static_cast<std::int32_t>(i);
    active += sum > 0 ? 1 : 0;
  }
  for (int offset = 16; offset > 0; offset /= 2) active += __shfl_down_sync(kAll, active, offset);
  if (threadIdx.x % 32 == 0) atomicAdd(n_active, static_cast<Word>(active));
}

__global__ void places_kernel(const std::int32_t* order, std::int64_t n, std::int64_t n_active,
                              const std::int64_t* indptr, std::int32_t* place, std::int64_t* lengths,
                              const MatrixView<const float> start, float* y) {
  SCW_FOR(k, n) {
    const std::int64_t i = order[k];
    place[i] = static_cast<std::int32_t>(k);
    if (k < n_active) lengths[k] = indptr[i + 1] - indptr[i];
    for (std::int64_t d = 0; d < start.n_cols; ++d) y[k * start.n_cols + d] = start(i, d);
  }
}

struct LongRow {
  std::int64_t from, to, count;
};

/// Edges of each row by falling weight, equal ones in their order: the place of an edge is the number before it.
__global__ void edges_kernel(CsrView<const float> g, const std::int32_t* order, const std::int32_t* place,
                             std::int64_t n_active, const std::int64_t* indptr, float most, std::int32_t* targets,
                             std::uint32_t* rates, LongRow* long_rows, unsigned* n_long, unsigned room) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  SCW_FOR_WARPS(k, n_active) {
    const std::int64_t from = g.indptr.data[order[k]];
    const std::int64_t count = indptr[k + 1] - indptr[k];
    if (count > kLongRow) {
      if (lane == 0) {
        const unsigned slot = atomicAdd(n_long, 1u);
        if (slot < room) long_rows[slot] = {from, indptr[k], count};
      }
      continue;
    }
    for (std::int64_t mine = 0; mine < count; mine += 32) {
      const bool have = mine + lane < count;
      const float w = have ? g.values.data[from + mine + lane] : 0.0f;
      std::int64_t rank = 0;
      for (std::int64_t other = 0; other < count; other += 32) {
        const float v = other + lane < count ? g.values.data[from + other + lane] : -1.0f;
        for (int l = 0; l < 32; ++l) {
          const float u = __shfl_sync(kAll, v, l);
          rank += u > w || (u == w && other + l < mine + lane) ? 1 : 0;
        }
      }
      if (have) {
        targets[indptr[k] + rank] = place[g.indices.data[from + mine + lane]];
        rates[indptr[k] + rank] = umap_rate(w, most);
      }
    }
  }
}

__global__ void long_row_targets_kernel(const std::int32_t* indices, std::int64_t count, const std::int32_t* place,
                                        std::int32_t* out) {
  SCW_FOR(e, count) out[e] = place[indices[e]];
}
__global__ void long_row_rates_kernel(const float* weights, std::int64_t count, float most, std::uint32_t* out) {
  SCW_FOR(e, count) out[e] = umap_rate(weights[e], most);
}

void order(const Context& ctx, const CsrView<const float>& g, float most, const MatrixView<const float>& start,
           UmapOrder& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = g.n_rows;
  out.order = Array<std::int32_t>(ctx.memory, n, "umap order", ctx.stream);
  {
    auto keys = scratch<Word>(ctx, n);
    auto sorted = scratch<Word>(ctx, n);
    auto cells = scratch<std::int32_t>(ctx, n);
    auto active = scratch<Word>(ctx, 1);
    fill_bytes(ctx, active, 0);
    launch_threads(ctx, "umap_samples", n, &samples_kernel, g, keys.data(), cells.data(), active.data());
    with_storage(ctx, [&](void* storage, std::size_t& bytes) {
      return cub::DeviceRadixSort::SortPairsDescending(storage, bytes, keys.data(), sorted.data(), cells.data(),
                                                       out.order.data(), static_cast<int>(n), 0, 64, stream);
    });
    out.n_active = static_cast<std::int64_t>(read_one(ctx, active.data()));
  }
  auto place = scratch<std::int32_t>(ctx, n);
  out.indptr = Array<std::int64_t>(ctx.memory, out.n_active + 1, "umap graph", ctx.stream);
  out.y = Array<float>(ctx.memory, checked_mul(n, start.n_cols), "umap positions", ctx.stream);
  launch_threads(ctx, "umap_places", n, &places_kernel, out.order.data(), n, out.n_active, g.indptr.data, place.data(),
                 out.indptr.data() + 1, start, out.y.data());
  const std::int64_t edges = scan_offsets(ctx, out.indptr);
  out.targets = Array<std::int32_t>(ctx.memory, edges, "umap graph", ctx.stream);
  out.rates = Array<std::uint32_t>(ctx.memory, edges, "umap graph", ctx.stream);
  const std::int64_t room = std::min(out.n_active, edges / kLongRow);
  auto long_rows = scratch<LongRow>(ctx, room);
  auto n_long = scratch<unsigned>(ctx, 1);
  fill_bytes(ctx, n_long, 0);
  launch_threads(ctx, "umap_edges", out.n_active * 32, &edges_kernel, g, out.order.data(), place.data(), out.n_active,
                 out.indptr.data(), most, out.targets.data(), out.rates.data(), long_rows.data(), n_long.data(),
                 static_cast<unsigned>(room));

  const std::int64_t count = read_one(ctx, n_long.data());
  if (count == 0) return;
  // Hubs one by one. Rows of the list are in any order: each writes its own stretch.
  const auto rows = to_host<LongRow>(ctx, Span<const LongRow>(long_rows.data(), count));
  std::int64_t longest = 0;
  for (const LongRow& row : rows) longest = std::max(longest, row.count);
  auto targets = scratch<std::int32_t>(ctx, longest);
  auto sorted = scratch<float>(ctx, longest);
  const auto sort = [&](const LongRow& row, void* storage, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortPairsDescending(storage, bytes, g.values.data + row.from, sorted.data(),
                                                     targets.data(), out.targets.data() + row.to,
                                                     static_cast<int>(row.count), 0, 32, stream);
  };
  std::size_t bytes = 0;
  SCW_CUDA(sort({0, 0, longest}, nullptr, bytes));
  auto storage = scratch<unsigned char>(ctx, static_cast<std::int64_t>(bytes) + 1);
  for (const LongRow& row : rows) {
    launch_threads(ctx, "umap_long_row", row.count, &long_row_targets_kernel, g.indices.data + row.from, row.count,
                   place.data(), targets.data());
    SCW_CUDA(sort(row, storage.data(), bytes));
    launch_threads(ctx, "umap_long_row", row.count, &long_row_rates_kernel, sorted.data(), row.count, most,
                   out.rates.data() + row.to);
  }
}

__global__ void unorder_kernel(Span<const std::int32_t> order, const float* y, MatrixView<float> out) {
  SCW_FOR(e, order.size * out.n_cols) out(order.data[e / out.n_cols], e % out.n_cols) = y[e];
}

void unorder(const Context& ctx, Span<const std::int32_t> order, Span<const float> y, const MatrixView<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  launch_threads(ctx, "umap_unorder", y.size, &unorder_kernel, order, y.data, out);
}

}  // namespace

SCW_REGISTER(umap_weights_kernel, cuda, &weights);
SCW_REGISTER(umap_prune_kernel, cuda, &prune);
SCW_REGISTER(umap_start_kernel, cuda, &start);
SCW_REGISTER(umap_order_kernel, cuda, &order);
SCW_REGISTER(umap_unorder_kernel, cuda, &unorder);

}  // namespace scw::tl::cuda
