#include <algorithm>
#include <cmath>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "math/philox.hpp"
#include "prim/eigsh/kernel.hpp"

namespace scw::prim::cpu {
namespace {

constexpr std::int64_t kRowGrain = 4096;  // of loops that sum nothing

/// g += x^T y over rows [begin, end), q x q; both row-major with q columns, products in double.
SCW_CLONES void gram_rows(const float* x, const float* y, std::int64_t begin, std::int64_t end, int q, double* g) {
  for (std::int64_t i = begin; i < end; ++i)
    for (int a = 0; a < q; ++a) {
      const double xa = static_cast<double>(x[i * q + a]);
      for (int b = 0; b < q; ++b) g[a * q + b] += xa * static_cast<double>(y[i * q + b]);
    }
}

SCW_CLONES void filter_values(const float* ax, const float* x, float* previous, std::int64_t begin, std::int64_t end,
                              float centre, float scale1, float scale2) {
  for (std::int64_t k = begin; k < end; ++k) previous[k] = scale1 * (ax[k] - centre * x[k]) - scale2 * previous[k];
}

/// x <- x * m in place, m q x q.
SCW_CLONES void rotate_rows(float* x, std::int64_t begin, std::int64_t end, int q, const double* m, double* row) {
  for (std::int64_t i = begin; i < end; ++i) {
    for (int b = 0; b < q; ++b) row[b] = 0;
    for (int a = 0; a < q; ++a) {
      const double xa = static_cast<double>(x[i * q + a]);
      for (int b = 0; b < q; ++b) row[b] += xa * m[a * q + b];
    }
    for (int b = 0; b < q; ++b) x[i * q + b] = static_cast<float>(row[b]);
  }
}

class Space final : public EigshSpace {
 public:
  Space(const Context& ctx, std::int64_t n, int q) : ctx_(ctx), n_(n), q_(q) {}

  void randomise(float* x, RngKey key) override {
    parallel_for(ctx_, n_, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int b = 0; b < q_; b += 4) {
          const math::Philox4 r = math::random_words(key, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(b));
          for (int w = 0; w < 4; ++w)
            x[i * q_ + b + w] = static_cast<float>(static_cast<std::int32_t>(r.v[w])) * 0x1.0p-31f;
        }
    });
  }

  void filter(const float* ax, const float* x, float* previous, float centre, float scale1, float scale2) override {
    parallel_for(ctx_, n_, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      filter_values(ax, x, previous, begin * q_, end * q_, centre, scale1, scale2);
    });
  }

  void gram(const float* x, const float* y, std::vector<double>& g) override {
    sum_chunks(static_cast<std::size_t>(q_) * static_cast<std::size_t>(q_), g,
               [&](std::int64_t begin, std::int64_t end, double* s) { gram_rows(x, y, begin, end, q_, s); });
  }

  void rotate(float* x, const std::vector<double>& m) override {
    parallel_for(ctx_, n_, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      std::vector<double> row(static_cast<std::size_t>(q_));
      rotate_rows(x, begin, end, q_, m.data(), row.data());
    });
  }

  void deflate(float* x, const double* v) override {
    std::vector<double> dot;
    sum_chunks(static_cast<std::size_t>(q_), dot, [&](std::int64_t begin, std::int64_t end, double* s) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int b = 0; b < q_; ++b) s[b] += v[i] * static_cast<double>(x[i * q_ + b]);
    });
    parallel_for(ctx_, n_, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int b = 0; b < q_; ++b)
          x[i * q_ + b] =
              static_cast<float>(static_cast<double>(x[i * q_ + b]) - v[i] * dot[static_cast<std::size_t>(b)]);
    });
  }

  void residuals(const float* ax, const float* x, const std::vector<double>& theta,
                 std::vector<double>& squares) override {
    sum_chunks(static_cast<std::size_t>(q_), squares, [&](std::int64_t begin, std::int64_t end, double* s) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int b = 0; b < q_; ++b) {
          const double r = static_cast<double>(ax[i * q_ + b]) -
                           theta[static_cast<std::size_t>(b)] * static_cast<double>(x[i * q_ + b]);
          s[b] += r * r;
        }
    });
  }

  void extract(const float* x, int k, float* out) override {
    for (int j = 0; j < k; ++j) {
      std::int64_t top = 0;
      for (std::int64_t i = 1; i < n_; ++i)
        if (std::abs(x[i * q_ + j]) > std::abs(x[top * q_ + j])) top = i;
      const float sign = x[top * q_ + j] < 0 ? -1.0f : 1.0f;
      for (std::int64_t i = 0; i < n_; ++i) out[i * k + j] = sign * x[i * q_ + j];
    }
  }

 private:
  /// sums = the sums of `count` values that add(begin, end, s) adds to s for the rows of each chunk.
  template <class Add>
  void sum_chunks(std::size_t count, std::vector<double>& sums, const Add& add) const {
    std::vector<double> partial(static_cast<std::size_t>(chunk_count(n_, kEigshChunk)) * count, 0.0);
    parallel_chunks(ctx_, n_, kEigshChunk, [&](std::int64_t c, std::int64_t begin, std::int64_t end, int) {
      add(begin, end, partial.data() + static_cast<std::size_t>(c) * count);
    });
    sums.assign(count, 0.0);
    for (std::size_t c = 0; c < partial.size(); c += count)
      for (std::size_t k = 0; k < count; ++k) sums[k] += partial[c + k];
  }

  const Context& ctx_;
  std::int64_t n_;
  int q_;
};

void make_space(const Context& ctx, std::int64_t n, int q, std::unique_ptr<EigshSpace>& out) {
  out = std::make_unique<Space>(ctx, n, q);
}

}  // namespace

SCW_REGISTER(eigsh_space_kernel, cpu, &make_space);

}  // namespace scw::prim::cpu
