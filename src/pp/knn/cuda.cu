// Exact search on CUDA. Dense rows and the five tile metrics: float scores by shared-memory tiles choose candidates
// within the bound of search.hpp, which are scored again in double by the function that the CPU uses. Everything else:
// all pairs.
#include <cmath>

#include "core/transfer.hpp"
#include "pp/knn/cuda_scan.cuh"

namespace scw::pp::cuda {
namespace {

constexpr int kTile = 64;  // queries and columns of a tile
constexpr int kDepthStep = 16;
constexpr int kThreads = 256;      // 16 x 16, 4 x 4 scores each
constexpr int kPitch = kTile + 4;  // keeps float4 loads aligned
constexpr std::int64_t kBatch = 32768;
constexpr float kLowest = -3e38f;
constexpr float kClosed = 3e38f;

struct Candidate {
  float lower;
  std::int32_t id;
};

/// Float rows: z [n x depth], e and g as in search.hpp.
struct FloatRows {
  const float *z, *g, *e;
  std::int64_t n, depth;
};

template <class V>
__global__ void origin_kernel(MatrixView<const V> x, std::int64_t step, double* origin) {
  for (std::int64_t k = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; k < x.n_cols;
       k += std::int64_t{gridDim.x} * blockDim.x) {
    double sum = 0;
    std::int64_t used = 0;
    for (std::int64_t i = 0; i < x.n_rows; i += step, ++used) sum += static_cast<double>(x(i, k));
    origin[k] = sum / static_cast<double>(used);
  }
}

/// Largest |x - origin|, as the bits of a double (which order as the numbers do).
template <class V>
__global__ void largest_kernel(MatrixView<const V> x, const double* origin, unsigned long long* largest) {
  unsigned long long most = 0;
  const std::int64_t size = x.n_rows * x.n_cols;
  for (std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < size;
       at += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t i = at / x.n_cols, k = at - i * x.n_cols;
    const double v = math::magnitude(static_cast<double>(x(i, k)) - origin[k]);
    const auto bits = static_cast<unsigned long long>(math::bits_of(v));
    most = bits > most ? bits : most;
  }
  atomicMax(largest, most);
}

/// One warp per row.
template <class V>
__global__ void float_rows_kernel(MatrixView<const V> x, const math::RowTerm* terms, const double* origin, double scale,
                                  bool unit, bool euclidean, double factor, float* z, float* g, float* e) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * blockDim.x / 32;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const double times = !unit ? scale : (terms[i].scale > 0 ? 1.0 / terms[i].scale : 0.0);
    const double shift = unit ? terms[i].shift : 0.0;
    double half = 0;
    for (std::int64_t k = lane; k < x.n_cols; k += 32) {
      const auto v = static_cast<float>((static_cast<double>(x(i, k)) - origin[k] - shift) * times);
      z[i * x.n_cols + k] = v;
      half += 0.5 * static_cast<double>(v) * static_cast<double>(v);
    }
    for (int offset = 16; offset > 0; offset /= 2) half += __shfl_down_sync(0xFFFFFFFFu, half, offset);
    if (lane == 0) {
      const double error = factor * half + 1e-30;
      e[i] = static_cast<float>(error);
      g[i] = static_cast<float>((euclidean ? half : 0.0) - 2.0 * error);
    }
  }
}

/// By one warp: drops the candidates of a row that cannot be neighbours; returns how many are left.
__device__ int prune(Candidate* list, int count, int wanted, float own_e, const float* e, float& threshold) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if (count < wanted) return count;
  float bar = kLowest;
  for (int c = lane; c < count; c += 32) {
    const float v = list[c].lower;
    int rank = 0;
    for (int f = 0; f < count; ++f) rank += (list[f].lower > v || (list[f].lower == v && f < c)) ? 1 : 0;
    if (rank == wanted - 1) bar = v;
  }
  for (int offset = 16; offset > 0; offset /= 2) bar = fmaxf(bar, __shfl_xor_sync(0xFFFFFFFFu, bar, offset));
  int kept = 0;
  for (int base = 0; base < count; base += 32) {
    const int c = base + lane;
    Candidate mine{0.0f, 0};
    bool keep = false;
    if (c < count) {
      mine = list[c];
      keep = mine.lower + (2.0f * own_e + 4.0f * e[mine.id]) >= bar;
    }
    // Every lane has read before any lane writes, and writes go to places already read.
    const unsigned votes = __ballot_sync(0xFFFFFFFFu, keep);
    if (keep) list[kept + __popc(votes & ((1u << lane) - 1u))] = mine;
    kept += __popc(votes);
    __syncwarp();
  }
  threshold = fmaxf(threshold, bar - own_e);
  return kept;
}

/// 64 queries per block against all rows.
__global__ void __launch_bounds__(kThreads) tile_kernel(FloatRows rows, std::int64_t first, std::int64_t n_queries,
                                                        int others, int capacity, Candidate* candidates, int* counts) {
  __shared__ float a[kDepthStep][kPitch], b[kDepthStep][kPitch];
  __shared__ float thresholds[kTile], own_e[kTile];
  __shared__ int filled[kTile];
  const int t = static_cast<int>(threadIdx.x), tx = t % 16, ty = t / 16, warp = t / 32;
  const std::int64_t query = std::int64_t{blockIdx.x} * kTile;  // in this batch
  if (t < kTile) {
    const bool used = query + t < n_queries;
    thresholds[t] = used ? kLowest : kClosed;
    own_e[t] = used ? rows.e[first + query + t] : 0.0f;
    filled[t] = 0;
  }
  __syncthreads();
  const int load_row = t / 4, load_k = (t % 4) * 4;
  const std::int64_t a_row = first + query + load_row;
  const bool a_used = query + load_row < n_queries;
  for (std::int64_t column = 0; column < rows.n; column += kTile) {
    float acc[4][4];
    for (int c = 0; c < 4; ++c) {
      const std::int64_t j = column + tx * 4 + c;
      const float start = j < rows.n ? -rows.g[j] : kLowest;
      for (int r = 0; r < 4; ++r) acc[r][c] = start;
    }
    const std::int64_t b_row = column + load_row;
    for (std::int64_t k0 = 0; k0 < rows.depth; k0 += kDepthStep) {
      for (int u = 0; u < 4; ++u) {
        const std::int64_t k = k0 + load_k + u;
        a[load_k + u][load_row] = a_used && k < rows.depth ? rows.z[a_row * rows.depth + k] : 0.0f;
        b[load_k + u][load_row] = b_row < rows.n && k < rows.depth ? rows.z[b_row * rows.depth + k] : 0.0f;
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepthStep; ++k) {
        const float4 av = *reinterpret_cast<const float4*>(&a[k][ty * 4]);
        const float4 bv = *reinterpret_cast<const float4*>(&b[k][tx * 4]);
        const float as[4] = {av.x, av.y, av.z, av.w}, bs[4] = {bv.x, bv.y, bv.z, bv.w};
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) acc[r][c] = __fmaf_rn(as[r], bs[c], acc[r][c]);
      }
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = ty * 4 + r;
      const float threshold = thresholds[row];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const std::int64_t j = column + tx * 4 + c;
        if (!(acc[r][c] > threshold) || j >= rows.n || j == first + query + row) continue;
        // There is room: rows with less than a tile of it were pruned or closed.
        const int slot = atomicAdd(&filled[row], 1);
        candidates[(query + row) * capacity + slot] = {acc[r][c] - 4.0f * rows.e[j] - own_e[row],
                                                       static_cast<std::int32_t>(j)};
      }
    }
    __syncthreads();
    for (int row = warp * 8; row < warp * 8 + 8; ++row) {
      const int count = filled[row];
      if (count <= capacity - kTile || thresholds[row] == kClosed) continue;
      float threshold = thresholds[row];
      const int left = prune(candidates + (query + row) * capacity, count, others, own_e[row], rows.e, threshold);
      __syncwarp();
      if (t % 32 == 0) {
        const bool closed = left > capacity - kTile;  // scores do not separate this row: left to the scan
        filled[row] = closed ? -1 : left;
        thresholds[row] = closed ? kClosed : threshold;
      }
    }
    __syncthreads();
  }
  if (t < kTile && query + t < n_queries) counts[query + t] = filled[t];
}

/// One warp per query: candidates scored in double; an entry's place is the number of nearer ones.
template <class M, class X>
__global__ void finish_kernel(M metric, X x, const math::RowTerm* terms, const float* e, std::int64_t first,
                              std::int64_t n_queries, int k, int capacity, bool similarity, Candidate* candidates,
                              const int* counts, double* keys, std::int32_t* out_ids, float* out_values,
                              std::int32_t* open, int* n_open) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * blockDim.x / 32;
  for (std::int64_t q = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32; q < n_queries; q += warps) {
    const std::int64_t i = first + q;
    if (counts[q] < 0) {
      if (lane == 0) open[atomicAdd(n_open, 1)] = static_cast<std::int32_t>(i);
      continue;
    }
    Candidate* const list = candidates + q * capacity;
    double* const key = keys + q * capacity;
    float unused = 0;
    const int count = prune(list, counts[q], k - 1, e[i], e, unused);
    for (int c = lane; c < count; c += 32) key[c] = row_key(metric, x, i, list[c].id, terms[i], terms[list[c].id]);
    __syncwarp();
    for (int c = lane; c < count; c += 32) {
      int rank = 0;
      for (int f = 0; f < count; ++f) rank += nearer(key[f], list[f].id, key[c], list[c].id) ? 1 : 0;
      if (rank >= k - 1) continue;
      out_ids[i * k + 1 + rank] = list[c].id;
      out_values[i * k + 1 + rank] = static_cast<float>(metric.value(key[c]));
    }
    if (lane == 0) write_self(metric, x, terms, i, k, similarity, out_ids, out_values);
    __syncwarp();
  }
}

template <class M, class V>
void tile_search(const Context& ctx, const M& metric, const MatrixView<const V>& x, KnnResult& out) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t n = x.n_rows, depth = x.n_cols;
  const bool euclidean = out.metric == Metric::euclidean || out.metric == Metric::sqeuclidean;
  const bool unit = out.metric == Metric::cosine || out.metric == Metric::correlation;
  const auto terms = row_terms(ctx, x, out.metric);
  const auto array = [&]<class T>(T, std::int64_t size) {
    return Array<T>(ctx.workspace, size, "neighbour search", ctx.stream);
  };

  auto origin = array(double{}, depth);
  SCW_CUDA(cudaMemsetAsync(origin.data(), 0, static_cast<std::size_t>(depth) * sizeof(double), stream));
  double scale = 1.0;
  if (!unit && depth > 0) {
    if (euclidean) {
      const std::int64_t step = std::max<std::int64_t>(1, n / 4096);
      origin_kernel<<<scw::cuda::grid_for(depth, 64), 64, 0, stream>>>(x, step, origin.data());
      SCW_CUDA_LAUNCHED("origin");
    }
    auto largest = array(0ull, 1);
    SCW_CUDA(cudaMemsetAsync(largest.data(), 0, sizeof(unsigned long long), stream));
    largest_kernel<<<scw::cuda::grid_for(checked_mul(n, depth), 256, 2048), 256, 0, stream>>>(x, origin.data(),
                                                                                              largest.data());
    SCW_CUDA_LAUNCHED("largest");
    const auto bits = to_host<unsigned long long>(ctx, std::as_const(largest).view());
    const double most = math::from_bits(bits[0]);
    if (most > 0 && std::isfinite(most)) scale = std::ldexp(1.0, -std::ilogb(most) - 1);
  }
  auto z = array(float{}, checked_mul(n, depth)), g = array(float{}, n), e = array(float{}, n);
  const double factor = static_cast<double>(depth + 24) * 0x1.0p-24 * 1.01;
  float_rows_kernel<<<scw::cuda::grid_for(n, 8), 256, 0, stream>>>(x, terms.data(), origin.data(), scale, unit,
                                                                   euclidean, factor, z.data(), g.data(), e.data());
  SCW_CUDA_LAUNCHED("float_rows");

  const int others = out.k - 1, capacity = 3 * others + 128;
  const std::int64_t batch = std::min(kBatch, n);
  auto candidates = array(Candidate{}, checked_mul(batch, capacity));
  auto keys = array(double{}, checked_mul(batch, capacity));
  auto counts = array(int{}, batch), n_open = array(int{}, 1);
  auto open = array(std::int32_t{}, n);
  SCW_CUDA(cudaMemsetAsync(n_open.data(), 0, sizeof(int), stream));
  const FloatRows rows{z.data(), g.data(), e.data(), n, depth};
  for (std::int64_t first = 0; first < n; first += batch) {
    ctx.check_cancelled("pp.neighbors");
    const std::int64_t queries = std::min(batch, n - first);
    tile_kernel<<<static_cast<unsigned>((queries + kTile - 1) / kTile), kThreads, 0, stream>>>(
        rows, first, queries, others, capacity, candidates.data(), counts.data());
    SCW_CUDA_LAUNCHED("knn tile");
    finish_kernel<<<scw::cuda::grid_for(queries, 8), 256, 0, stream>>>(
        metric, x, terms.data(), e.data(), first, queries, out.k, capacity, out.metric == Metric::inner_product,
        candidates.data(), counts.data(), keys.data(), out.indices.data(), out.distances.data(), open.data(),
        n_open.data());
    SCW_CUDA_LAUNCHED("knn finish");
    if (n > batch) {
      ctx.synchronize();
      ctx.report("neighbours", first + queries, n);
    }
  }
  out.n_rescanned = to_host<int>(ctx, std::as_const(n_open).view())[0];
  scan(ctx, metric, x, terms.data(), open.data(), out.n_rescanned, out);
}

template <class V>
void dense_search(const Context& ctx, const MatrixView<const V>& x, double p, KnnResult& out) {
  switch (out.k > 1 ? out.metric : Metric::manhattan) {
    case Metric::euclidean:
      return tile_search(ctx, math::Euclidean{}, x, out);
    case Metric::sqeuclidean:
      return tile_search(ctx, math::SquaredEuclidean{}, x, out);
    case Metric::cosine:
      return tile_search(ctx, math::Cosine{}, x, out);
    case Metric::correlation:
      return tile_search(ctx, math::Correlation{}, x, out);
    case Metric::inner_product:
      return tile_search(ctx, math::InnerProduct{}, x, out);
    default:
      break;
  }
  if constexpr (std::is_same_v<V, float>)
    scan_dense_float(ctx, x, p, out);
  else
    scan_dense_double(ctx, x, p, out);
}

__device__ inline bool is_bad(double v, bool non_negative) { return !isfinite(v) || (non_negative && v < 0); }

template <class V>
__global__ void bad_row_kernel(MatrixView<const V> x, bool non_negative, unsigned long long* first) {
  const std::int64_t size = x.n_rows * x.n_cols;
  for (std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < size;
       at += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t i = at / x.n_cols;
    if (is_bad(static_cast<double>(x(i, at - i * x.n_cols)), non_negative))
      atomicMin(first, static_cast<unsigned long long>(i));
  }
}
template <class V>
__global__ void bad_row_kernel(CsrView<const V> x, bool non_negative, unsigned long long* first) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < x.n_rows;
       i += std::int64_t{gridDim.x} * blockDim.x)
    for (std::int64_t e = x.indptr.data[i]; e < x.indptr.data[i + 1]; ++e)
      if (is_bad(static_cast<double>(x.values.data[e]), non_negative))
        atomicMin(first, static_cast<unsigned long long>(i));
}

template <class M, class X>
__global__ void pairwise_cells_kernel(M metric, X x, const math::RowTerm* terms, bool similarity,
                                      MatrixView<float> out) {
  const std::int64_t size = x.n_rows * x.n_rows;
  for (std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < size;
       at += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t i = at / x.n_rows, j = at - i * x.n_rows;
    out(i, j) =
        i == j && !similarity ? 0.0f : static_cast<float>(metric.value(row_key(metric, x, i, j, terms[i], terms[j])));
  }
}

struct Search {
  const Context& ctx;
  double p;
  KnnResult& out;
  void operator()(const MatrixView<const float>& x) const { dense_search(ctx, x, p, out); }
  void operator()(const MatrixView<const double>& x) const { dense_search(ctx, x, p, out); }
  void operator()(const CsrView<const float>& x) const { scan_sparse_float(ctx, x, p, out); }
  void operator()(const CsrView<const double>& x) const { scan_sparse_double(ctx, x, p, out); }
};

}  // namespace

void knn_brute(const Context& ctx, const AnyMatrixView& x, const KnnOptions& options, KnnResult& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(Search{ctx, options.p, out}, x);
}

void knn_bad_row(const Context& ctx, const AnyMatrixView& x, bool non_negative, std::int64_t& first_bad) {
  const scw::cuda::DeviceScope scope(ctx);
  first_bad = -1;
  if (n_rows(x) == 0) return;
  Array<unsigned long long> first(ctx.workspace, 1, "value check", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(first.data(), 0xFF, sizeof(unsigned long long), scw::cuda::stream_of(ctx)));
  std::visit(
      [&](const auto& v) {
        bad_row_kernel<<<scw::cuda::grid_for(v.n_rows, 4, 4096), 256, 0, scw::cuda::stream_of(ctx)>>>(v, non_negative,
                                                                                                      first.data());
        SCW_CUDA_LAUNCHED("bad_row");
      },
      x);
  first_bad = static_cast<std::int64_t>(to_host<unsigned long long>(ctx, std::as_const(first).view())[0]);
}

void pairwise(const Context& ctx, const AnyMatrixView& x, Metric metric, double p, const MatrixView<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const auto all_pairs = [&](const auto& v) {
    const auto terms = row_terms(ctx, v, metric);
    visit_metric(metric, p, [&](const auto& m) {
      pairwise_cells_kernel<<<scw::cuda::grid_for(checked_mul(v.n_rows, v.n_rows), 256, 1 << 16), 256, 0,
                              scw::cuda::stream_of(ctx)>>>(m, v, terms.data(), metric == Metric::inner_product, out);
      SCW_CUDA_LAUNCHED("pairwise");
    });
  };
  if (const auto* f = std::get_if<MatrixView<const float>>(&x)) all_pairs(*f);
  if (const auto* d = std::get_if<MatrixView<const double>>(&x)) all_pairs(*d);
}

SCW_REGISTER(knn_brute_kernel, cuda, &knn_brute);
SCW_REGISTER(knn_bad_row_kernel, cuda, &knn_bad_row);
SCW_REGISTER(pairwise_kernel, cuda, &pairwise);

}  // namespace scw::pp::cuda
