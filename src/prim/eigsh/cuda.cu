// Blocks of vectors on CUDA, with the CPU's bits. Sums over rows: a thread walks a chunk for one pair of columns, then
// one thread per pair adds the chunks: latency, about 10 us each at any n, between filters of dozens of products.
#include <algorithm>

#include "core/cuda/cuda_check.cuh"
#include "core/transfer.hpp"
#include "math/philox.hpp"
#include "prim/eigsh/kernel.hpp"

namespace scw::prim::cuda {
namespace {

constexpr int kThreads = 256;

#define SCW_FOR(i, n)                                                                 \
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < (n); \
       i += std::int64_t{gridDim.x} * blockDim.x)

__global__ void randomise_kernel(float* x, std::int64_t n, int q, RngKey key) {
  SCW_FOR(k, n * (q / 4)) {
    const std::int64_t i = k / (q / 4);
    const auto b = static_cast<std::uint64_t>(k % (q / 4) * 4);
    const math::Philox4 r = math::random_words(key, static_cast<std::uint64_t>(i), b);
    for (int w = 0; w < 4; ++w)
      x[i * q + static_cast<std::int64_t>(b) + w] = static_cast<float>(static_cast<std::int32_t>(r.v[w])) * 0x1.0p-31f;
  }
}

__global__ void filter_kernel(const float* ax, const float* x, float* previous, std::int64_t size, float centre,
                              float scale1, float scale2) {
  SCW_FOR(k, size) previous[k] = scale1 * (ax[k] - centre * x[k]) - scale2 * previous[k];
}

struct GramTerm {
  const float *x, *y;
  int q;
  __device__ double operator()(std::int64_t i, int k) const {
    return static_cast<double>(x[i * q + k / q]) * static_cast<double>(y[i * q + k % q]);
  }
};
struct DotTerm {
  const double* v;
  const float* x;
  int q;
  __device__ double operator()(std::int64_t i, int b) const { return v[i] * static_cast<double>(x[i * q + b]); }
};
/// Small matrices and vectors of the usual block of 8 go along with the launch: no copy that waits.
struct Small {
  double v[64];
};
struct ResidualTerm {
  const float *ax, *x;
  const double* theta;  // null: in `small`
  Small small;
  int q;
  __device__ double operator()(std::int64_t i, int b) const {
    const double t = theta != nullptr ? theta[b] : small.v[b];
    const double r = static_cast<double>(ax[i * q + b]) - t * static_cast<double>(x[i * q + b]);
    return r * r;
  }
};

/// partial[chunk][k] = sum of term(i, k) over the rows of the chunk, in their order.
template <class Term>
__global__ void chunk_sums_kernel(std::int64_t n, int count, Term term, double* partial) {
  const std::int64_t begin = std::int64_t{blockIdx.x} * kEigshChunk;
  const std::int64_t end = begin + kEigshChunk < n ? begin + kEigshChunk : n;
  for (int k = static_cast<int>(threadIdx.x); k < count; k += static_cast<int>(blockDim.x)) {
    double sum = 0;
#pragma unroll 8
    for (std::int64_t i = begin; i < end; ++i) sum += term(i, k);
    partial[std::int64_t{blockIdx.x} * count + k] = sum;
  }
}

__global__ void add_chunks_kernel(std::int64_t n_chunks, int count, const double* partial, double* sums) {
  SCW_FOR(k, count) {
    double sum = 0;
#pragma unroll 16
    for (std::int64_t c = 0; c < n_chunks; ++c) sum += partial[c * count + k];
    sums[k] = sum;
  }
}

/// A thread per row; row sums in the order of the columns.
__global__ void rotate8_kernel(float* x, std::int64_t n, const Small m) {
  SCW_FOR(i, n) {
    double row[8];
    for (int b = 0; b < 8; ++b) row[b] = 0;
    for (int a = 0; a < 8; ++a) {
      const double xa = static_cast<double>(x[i * 8 + a]);
      for (int b = 0; b < 8; ++b) row[b] += xa * m.v[a * 8 + b];
    }
    for (int b = 0; b < 8; ++b) x[i * 8 + b] = static_cast<float>(row[b]);
  }
}

/// Any q; wide: a row for every thread.
__global__ void rotate_kernel(float* x, std::int64_t n, int q, const double* m, double* wide) {
  double* const row = wide + (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * q;
  SCW_FOR(i, n) {
    for (int b = 0; b < q; ++b) row[b] = 0;
    for (int a = 0; a < q; ++a) {
      const double xa = static_cast<double>(x[i * q + a]);
      for (int b = 0; b < q; ++b) row[b] += xa * m[a * q + b];
    }
    for (int b = 0; b < q; ++b) x[i * q + b] = static_cast<float>(row[b]);
  }
}

__global__ void deflate_kernel(float* x, std::int64_t n, int q, const double* v, const double* dot) {
  SCW_FOR(k, n * q) x[k] = static_cast<float>(static_cast<double>(x[k]) - v[k / q] * dot[k % q]);
}

/// top[j]: the size of the largest entry of column j above, and the complement of its row: the first of equals wins.
__global__ void top_kernel(const float* x, std::int64_t n, int q, int k, unsigned long long* top) {
  for (int j = 0; j < k; ++j) {
    unsigned long long best = 0;
    SCW_FOR(i, n) {
      const unsigned long long size = __float_as_uint(fabsf(x[i * q + j]));
      const unsigned long long at = size << 32 | (0xFFFFFFFFull - static_cast<unsigned long long>(i));
      best = at > best ? at : best;
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      const unsigned long long other = __shfl_down_sync(0xFFFFFFFFu, best, offset);
      best = other > best ? other : best;
    }
    if (threadIdx.x % 32 == 0) atomicMax(top + j, best);
  }
}

__global__ void extract_kernel(const float* x, std::int64_t n, int q, int k, const unsigned long long* top,
                               float* out) {
  SCW_FOR(e, n * k) {
    const int j = static_cast<int>(e % k);
    const auto row = static_cast<std::int64_t>(0xFFFFFFFFull - (top[j] & 0xFFFFFFFFull));
    const float sign = x[row * q + j] < 0 ? -1.0f : 1.0f;
    out[e] = sign * x[e / k * q + j];
  }
}

class Space final : public EigshSpace {
 public:
  Space(const Context& ctx, std::int64_t n, int q)
      : ctx_(ctx),
        n_(n),
        q_(q),
        chunks_((n + kEigshChunk - 1) / kEigshChunk),
        partial_(ctx.workspace, checked_mul(chunks_, checked_mul(q, q)), "eigsh sums", ctx.stream),
        sums_(ctx.workspace, checked_mul(q, q), "eigsh sums", ctx.stream),
        small_(ctx.workspace, checked_mul(q, q), "eigsh matrix", ctx.stream) {
    if (q != 8)
      wide_ =
          Array<double>(ctx.workspace, checked_mul(std::int64_t{kWideBlocks} * kThreads, q), "eigsh rows", ctx.stream);
  }

  void randomise(float* x, RngKey key) override {
    const scw::cuda::DeviceScope scope(ctx_);
    randomise_kernel<<<grid(n_ * (q_ / 4)), kThreads, 0, stream()>>>(x, n_, q_, key);
    SCW_CUDA_LAUNCHED("eigsh_randomise");
  }
  void filter(const float* ax, const float* x, float* previous, float centre, float scale1, float scale2) override {
    const scw::cuda::DeviceScope scope(ctx_);
    filter_kernel<<<grid(n_ * q_), kThreads, 0, stream()>>>(ax, x, previous, n_ * q_, centre, scale1, scale2);
    SCW_CUDA_LAUNCHED("eigsh_filter");
  }
  void gram(const float* x, const float* y, std::vector<double>& g) override {
    sum(q_ * q_, GramTerm{x, y, q_});
    download(q_ * q_, g);
  }
  void rotate(float* x, const std::vector<double>& m) override {
    const scw::cuda::DeviceScope scope(ctx_);
    if (q_ == 8) {
      rotate8_kernel<<<grid(n_), kThreads, 0, stream()>>>(x, n_, small_of(m));
    } else {
      upload(m);
      rotate_kernel<<<std::min(grid(n_), static_cast<unsigned>(kWideBlocks)), kThreads, 0, stream()>>>(
          x, n_, q_, small_.data(), wide_.data());
    }
    SCW_CUDA_LAUNCHED("eigsh_rotate");
  }
  void deflate(float* x, const double* v) override {
    const scw::cuda::DeviceScope scope(ctx_);
    sum(q_, DotTerm{v, x, q_});
    deflate_kernel<<<grid(n_ * q_), kThreads, 0, stream()>>>(x, n_, q_, v, sums_.data());
    SCW_CUDA_LAUNCHED("eigsh_deflate");
  }
  void residuals(const float* ax, const float* x, const std::vector<double>& theta,
                 std::vector<double>& squares) override {
    const bool along = q_ == 8;
    if (!along) upload(theta);
    sum(q_, ResidualTerm{ax, x, along ? nullptr : small_.data(), along ? small_of(theta) : Small{}, q_});
    download(q_, squares);
  }
  void extract(const float* x, int k, float* out) override {
    const scw::cuda::DeviceScope scope(ctx_);
    Array<unsigned long long> top(ctx_.workspace, k, "eigsh signs", ctx_.stream);
    SCW_CUDA(cudaMemsetAsync(top.data(), 0, static_cast<std::size_t>(k) * sizeof(unsigned long long), stream()));
    top_kernel<<<scw::cuda::grid_for(n_, kThreads, 528), kThreads, 0, stream()>>>(x, n_, q_, k, top.data());
    SCW_CUDA_LAUNCHED("eigsh_top");
    extract_kernel<<<grid(n_ * k), kThreads, 0, stream()>>>(x, n_, q_, k, top.data(), out);
    SCW_CUDA_LAUNCHED("eigsh_extract");
  }

 private:
  static constexpr int kWideBlocks = 264;

  cudaStream_t stream() const { return scw::cuda::stream_of(ctx_); }
  static unsigned grid(std::int64_t n) { return scw::cuda::grid_for(n, kThreads); }

  template <class Term>
  void sum(int count, const Term& term) {
    const scw::cuda::DeviceScope scope(ctx_);
    const unsigned threads = static_cast<unsigned>(std::min((count + 31) / 32 * 32, 1024));
    chunk_sums_kernel<<<static_cast<unsigned>(chunks_), threads, 0, stream()>>>(n_, count, term, partial_.data());
    SCW_CUDA_LAUNCHED("eigsh_chunk_sums");
    add_chunks_kernel<<<grid(count), kThreads, 0, stream()>>>(chunks_, count, partial_.data(), sums_.data());
    SCW_CUDA_LAUNCHED("eigsh_add_chunks");
  }
  static Small small_of(const std::vector<double>& x) {
    Small out{};
    std::copy(x.begin(), x.end(), out.v);
    return out;
  }
  void upload(const std::vector<double>& x) {
    copy_bytes(ctx_, small_.data(), ctx_.device, x.data(), Device{}, x.size() * sizeof(double));
  }
  void download(int count, std::vector<double>& out) {
    out.resize(static_cast<std::size_t>(count));
    copy_bytes(ctx_, out.data(), Device{}, sums_.data(), ctx_.device, out.size() * sizeof(double));
  }

  const Context& ctx_;
  std::int64_t n_;
  int q_;
  std::int64_t chunks_;
  Array<double> partial_, sums_, small_, wide_;
};

void make_space(const Context& ctx, std::int64_t n, int q, std::unique_ptr<EigshSpace>& out) {
  out = std::make_unique<Space>(ctx, n, q);
}

}  // namespace

SCW_REGISTER(eigsh_space_kernel, cuda, &make_space);

}  // namespace scw::prim::cuda
