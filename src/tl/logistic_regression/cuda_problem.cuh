// Objective and gradient at a point: memory and launches. CSR goes through cuda_products.cuh; dense x through cuBLAS,
// whose gradient is cut into blocks of rows that are added in double, as the tiles of CSR are.
// Floor of an evaluation: see cuda.cuh.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/cuda/kernel_attributes.cuh"
#include "core/transfer.hpp"
#include "prim/cublas.cuh"
#include "tl/logistic_regression/cuda_objective.cuh"

namespace scw::tl::cuda::logreg {

constexpr const char* kOp = "tl.logistic_regression";
inline constexpr std::int64_t kDenseRows = 4096;  // rows whose products are added in the type of x

template <class X>
inline constexpr bool kIsCsr = false;
template <class S>
inline constexpr bool kIsCsr<CsrView<S>> = true;

/// c = a op(b), column-major, for `count` matrices.
inline cublasStatus_t gemm_batched(cublasHandle_t h, cublasOperation_t b_op, int m, int n, int k, const float* a,
                                   int lda, long long a_step, const float* b, int ldb, long long b_step, float* c,
                                   int ldc, long long c_step, int count) {
  const float one = 1, zero = 0;
  return cublasSgemmStridedBatched(h, CUBLAS_OP_N, b_op, m, n, k, &one, a, lda, a_step, b, ldb, b_step, &zero, c, ldc,
                                   c_step, count);
}
inline cublasStatus_t gemm_batched(cublasHandle_t h, cublasOperation_t b_op, int m, int n, int k, const double* a,
                                   int lda, long long a_step, const double* b, int ldb, long long b_step, double* c,
                                   int ldc, long long c_step, int count) {
  const double one = 1, zero = 0;
  return cublasDgemmStridedBatched(h, CUBLAS_OP_N, b_op, m, n, k, &one, a, lda, a_step, b, ldb, b_step, &zero, c, ldc,
                                   c_step, count);
}

template <class S, class X>
class Problem {
 public:
  Problem(const Context& ctx, const X& x, Span<const std::int32_t> codes, std::int32_t n_classes,
          const LogisticRegressionOptions& o)
      : ctx_(ctx), stream_(scw::cuda::stream_of(ctx)), x_(x), fit_intercept_(o.fit_intercept) {
    constexpr int kMost = kMostClasses<S>;
    classes_.n_logits = n_classes == 2 ? 1 : n_classes;
    classes_.most = kMost;
    classes_.n_chunks = (classes_.n_logits + kMost - 1) / kMost;
    const int rest = classes_.n_logits - (classes_.n_chunks - 1) * kMost;
    classes_.last = rest <= 4 ? 4 : rest <= 8 ? 8 : rest <= 16 ? 16 : rest <= 20 ? 20 : 32;
    classes_.n_genes = x.n_cols;
    classes_.n_rows = x.n_rows;
    for (const std::int32_t c : codes) n_used_ += c >= 0 ? 1 : 0;
    penalty_ = 1.0 / (o.c * n_used_);
    SCW_CUDA(cudaDeviceGetAttribute(&sms_, cudaDevAttrMultiProcessorCount, ctx.device.id));
    SCW_CUDA(cudaDeviceGetAttribute(&shared_, cudaDevAttrMaxSharedMemoryPerBlockOptin, ctx.device.id));
    shared_ -= 1024;  // static variables
    codes_ = to_device<std::int32_t>(ctx, codes, "classes");
    logits_ = make<S>(checked_mul(x.n_rows, classes_.padded()), "logits");
    gathered_ = make<S>(size(), "weights");
    losses_ = make<double>(kRowBlocks, "losses");
    sums_ = make<double>(std::int64_t{kRowBlocks} * kMost, "residual sums");
    stats_ = make<double>(3 * kStatBlocks, "objective");
    evaluation_ = make<Evaluation>(1, "objective");
    if constexpr (kIsCsr<X>)
      prepare_sparse();
    else
      slabs_dense_ = make<S>(checked_mul(dense_batches() + 1, checked_mul(classes_.n_genes, widest())), "gradients");
  }

  std::int64_t size() const { return classes_.n_parameters(); }
  const Classes& classes() const { return classes_; }
  S* gathered() { return gathered_.data(); }
  template <class T>
  Array<T> make(std::int64_t n, const char* tag) const {
    return Array<T>(ctx_.workspace, n, tag, ctx_.stream);
  }

  /// Objective and gradient at w, whose copy is in gathered(); waits for the device.
  Evaluation evaluate(const double* w, const double* direction, const double* start_slope, double* gradient) {
    for (int c = 0; c < classes_.n_chunks; ++c) logits(c);
    residuals_kernel<S>
        <<<kRowBlocks, kThreads, 0, stream_>>>(classes_, codes_.data(), w, logits_.data(), losses_.data());
    SCW_CUDA_LAUNCHED("logistic_regression: residuals");
    for (int c = 0; c < classes_.n_chunks; ++c) {
      const int width = classes_.width(c);
      S* const residuals = logits_.data() + classes_.logits(c);
      residual_sums_kernel<S><<<kRowBlocks, kThreads, 0, stream_>>>(residuals, classes_.n_rows, width, sums_.data());
      SCW_CUDA_LAUNCHED("logistic_regression: residual_sums");
      const std::int64_t n = (classes_.n_genes + 1) * width;
      const auto merge = [&](const auto* slabs, std::int64_t n_slabs) {
        merge_kernel<<<scw::cuda::grid_for(n, kThreads, 1 << 30), kThreads, 0, stream_>>>(
            slabs, n_slabs, sums_.data(), classes_.n_genes, width, fit_intercept_, n_used_, penalty_,
            w + classes_.parameters(c), gradient + classes_.parameters(c));
        SCW_CUDA_LAUNCHED("logistic_regression: merge");
      };
      if constexpr (kIsCsr<X>) {
        by_width(width, [&]<int K>() {
          if constexpr (K <= kMostClasses<S>) {
            SCW_CUDA(cudaFuncSetAttribute(gradient_kernel<S, K>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_));
            gradient_kernel<S, K>
                <<<n_slabs_, kWide, static_cast<std::size_t>(tiles_.rows * row_bytes<S>(K)), stream_>>>(
                    tiles_, residuals, slabs_.data());
          }
        });
        SCW_CUDA_LAUNCHED("logistic_regression: gradient");
        merge(slabs_.data(), n_slabs_);
      } else {
        dense_gradient(residuals, width);
        merge(slabs_dense_.data(), dense_batches() + (x_.n_rows % kDenseRows != 0 ? 1 : 0));
      }
    }
    stats_kernel<<<kStatBlocks, kThreads, 0, stream_>>>(classes_, w, gradient, direction, stats_.data());
    SCW_CUDA_LAUNCHED("logistic_regression: stats");
    evaluation_kernel<<<1, 32, 0, stream_>>>(stats_.data(), losses_.data(), start_slope, n_used_, penalty_,
                                             evaluation_.data());
    SCW_CUDA_LAUNCHED("logistic_regression: evaluation");
    Evaluation e{};
    copy_bytes(ctx_, &e, Device{}, evaluation_.data(), ctx_.device, sizeof e);
    return e;
  }

  /// About the diagonal of the Hessian: exact were all class probabilities equal.
  Array<double> diagonal() {
    const std::int64_t n_genes = classes_.n_genes;
    Array<double> squares;
    std::int64_t n_parts = 1;
    if constexpr (kIsCsr<X>) {
      squares = make<double>(n_genes, "squares");
      if (n_genes > 0)
        squares_kernel<S>
            <<<scw::cuda::grid_for(n_genes, kThreads / 32, 1 << 30), kThreads, 0, stream_>>>(tiles_, squares.data());
    } else {
      n_parts = std::min<std::int64_t>(128, x_.n_rows);
      squares = make<double>(n_parts * n_genes, "squares");
      if (n_genes > 0)
        squares_dense_kernel<S>
            <<<dim3(scw::cuda::grid_for(n_genes, kThreads), static_cast<unsigned>(n_parts)), kThreads, 0, stream_>>>(
                x_, squares.data());
    }
    SCW_CUDA_LAUNCHED("logistic_regression: squares");
    const Array<double> parts = to_host<double>(ctx_, std::as_const(squares).view());
    const double p = 1.0 / static_cast<double>(classes_.n_logits == 1 ? 2 : classes_.n_logits);
    const double curvature = p * (1 - p);
    std::vector<double> out(static_cast<std::size_t>(size()));
    for (std::int64_t j = 0; j <= n_genes; ++j) {
      double sum = 0;
      for (std::int64_t b = 0; b < n_parts && j < n_genes; ++b) sum += parts[b * n_genes + j];
      if (!(sum <= std::numeric_limits<double>::max()))
        throw DataError(std::string(kOp) + ": gene " + std::to_string(j) + " has NaN or infinite values");
      const double d = j < n_genes ? curvature * sum / n_used_ + penalty_ : curvature;
      for (int k = 0; k < classes_.padded(); ++k) out[static_cast<std::size_t>(classes_.parameter(j, k))] = d;
    }
    return to_device<double>(ctx_, out, "diagonal");
  }

 private:
  int widest() const { return classes_.n_chunks > 1 ? classes_.most : classes_.last; }
  std::int64_t dense_batches() const { return classes_.n_rows / kDenseRows; }

  /// f<K> for the width of a chunk of classes; Classes::last has no others.
  template <class F>
  static void by_width(int width, const F& f) {
    switch (width) {
      case 4:
        f.template operator()<4>();
        break;
      case 8:
        f.template operator()<8>();
        break;
      case 16:
        f.template operator()<16>();
        break;
      case 20:
        f.template operator()<20>();
        break;
      default:
        f.template operator()<32>();
        break;
    }
  }

  /// Entries by gene, and the ranges of genes of the logits.
  void prepare_sparse() {
    std::int64_t ends[2] = {0, 0};
    copy_bytes(ctx_, ends, Device{}, x_.indptr.data, ctx_.device, sizeof(std::int64_t));
    copy_bytes(ctx_, ends + 1, Device{}, x_.indptr.data + x_.n_rows, ctx_.device, sizeof(std::int64_t));
    const std::int64_t nnz = ends[1] - ends[0];
    // Tiles: as many rows as fit, and as many tiles as multiprocessors (times a whole number).
    const std::int64_t most = std::min<std::int64_t>(shared_ / row_bytes<S>(widest()), 1 << 16);
    const std::int64_t at_least = (x_.n_rows + most - 1) / most;
    const std::int64_t wanted = (at_least + sms_ - 1) / sms_ * sms_;
    tiles_.rows = std::min(most, std::max<std::int64_t>(32, (x_.n_rows + wanted - 1) / wanted));
    tiles_.n = (x_.n_rows + tiles_.rows - 1) / tiles_.rows;
    tiles_.n_rows = x_.n_rows;
    tiles_.n_genes = x_.n_cols;
    tiles_.indptr = x_.indptr.data;
    starts_ = make<std::uint32_t>(checked_mul(tiles_.n, std::int64_t{x_.n_cols} + 1), "gene starts");
    tile_rows_ = make<std::uint16_t>(nnz, "entries by gene");
    tile_values_ = make<S>(nnz, "entries by gene");
    tiles_.starts = starts_.data();
    tiles_.row = tile_rows_.data();
    tiles_.value = tile_values_.data();
    const std::int64_t counters = std::int64_t{x_.n_cols} * 4;
    const bool in_shared = counters <= shared_ - 8192;
    scw::cuda::allow_shared_memory(ctx_, &transpose_kernel<S>);
    transpose_kernel<S><<<static_cast<unsigned>(tiles_.n), kTransposeThreads,
                          in_shared ? static_cast<std::size_t>(counters) : 0, stream_>>>(x_, tiles_, in_shared);
    SCW_CUDA_LAUNCHED("logistic_regression: transpose");
    n_slabs_ = static_cast<unsigned>(std::min<std::int64_t>(tiles_.n, sms_));
    slabs_ = make<double>(checked_mul(n_slabs_, checked_mul(classes_.n_genes, widest())), "gradients");
    // Where in each row the ranges of genes end whose weights fit shared memory.
    range_ = static_cast<std::int32_t>(std::min<std::int64_t>(shared_ / row_bytes<S>(widest()), x_.n_cols));
    n_ranges_ = range_ > 0 ? (std::int64_t{x_.n_cols} + range_ - 1) / range_ : 0;
    splits_ = make<std::int32_t>(checked_mul(std::max<std::int64_t>(0, n_ranges_ - 1), x_.n_rows), "row positions");
    for (std::int64_t r = 0; r + 1 < n_ranges_; ++r) {
      split_kernel<S><<<scw::cuda::grid_for(x_.n_rows, kThreads, 1 << 30), kThreads, 0, stream_>>>(
          x_, static_cast<std::int32_t>((r + 1) * range_), splits_.data() + r * x_.n_rows);
      SCW_CUDA_LAUNCHED("logistic_regression: split");
    }
  }

  /// x w of a chunk, without intercepts.
  void logits(int chunk) {
    const int width = classes_.width(chunk);
    const S* const weights = gathered_.data() + classes_.parameters(chunk);
    S* const z = logits_.data() + classes_.logits(chunk);
    if constexpr (kIsCsr<X>) {
      if (n_ranges_ == 0)
        SCW_CUDA(cudaMemsetAsync(z, 0, static_cast<std::size_t>(x_.n_rows * width) * sizeof(S), stream_));
      for (std::int64_t r = 0; r < n_ranges_; ++r) {
        const auto first = static_cast<std::int32_t>(r * range_);
        const std::int32_t n = std::min(range_, x_.n_cols - first);
        by_width(width, [&]<int K>() {
          if constexpr (K <= kMostClasses<S>) {
            SCW_CUDA(cudaFuncSetAttribute(logits_kernel<S, K>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_));
            logits_kernel<S, K>
                <<<static_cast<unsigned>(sms_), kWide, static_cast<std::size_t>(n * row_bytes<S>(K)), stream_>>>(
                    x_, codes_.data(), r > 0 ? splits_.data() + (r - 1) * x_.n_rows : nullptr,
                    r + 1 < n_ranges_ ? splits_.data() + r * x_.n_rows : nullptr, first, n, weights, z);
          }
        });
        SCW_CUDA_LAUNCHED("logistic_regression: logits");
      }
    } else {
      // Row-major z = x w is column-major z' = w' x'.
      const scw::cuda::BlasHandle handle(ctx_);
      constexpr std::int64_t kMostRows = 1 << 20;
      for (std::int64_t i = 0; i < x_.n_rows && x_.n_cols > 0; i += kMostRows)
        SCW_CUBLAS(gemm_batched(handle, CUBLAS_OP_N, width, static_cast<int>(std::min(kMostRows, x_.n_rows - i)),
                                static_cast<int>(x_.n_cols), weights, width, 0, x_.row(i), static_cast<int>(x_.ld), 0,
                                z + i * width, width, 0, 1));
    }
  }

  /// Blocks of rows apart, to be added in double.
  void dense_gradient(const S* residuals, int width) {
    if constexpr (!kIsCsr<X>) {
      if (x_.n_cols == 0) return;
      const scw::cuda::BlasHandle handle(ctx_);
      const std::int64_t batches = dense_batches(), rest = x_.n_rows - batches * kDenseRows;
      const std::int64_t step = x_.n_cols * width;
      const auto part = [&](std::int64_t first, std::int64_t rows, S* out, std::int64_t count) {
        if (rows == 0 || count == 0) return;
        SCW_CUBLAS(gemm_batched(handle, CUBLAS_OP_T, width, static_cast<int>(x_.n_cols), static_cast<int>(rows),
                                residuals + first * width, width, kDenseRows * width, x_.row(first),
                                static_cast<int>(x_.ld), kDenseRows * x_.ld, out, width, step,
                                static_cast<int>(count)));
      };
      part(0, kDenseRows, slabs_dense_.data(), batches);
      part(batches * kDenseRows, rest, slabs_dense_.data() + batches * step, 1);
    }
  }

  const Context& ctx_;
  cudaStream_t stream_;
  X x_;
  bool fit_intercept_;
  Classes classes_;
  double n_used_ = 0, penalty_ = 0;
  int sms_ = 0, shared_ = 0;
  Array<std::int32_t> codes_;
  Array<S> logits_, gathered_;
  Array<double> losses_, sums_, stats_;
  Array<Evaluation> evaluation_;
  // CSR
  Tiles<S> tiles_;
  Array<std::uint32_t> starts_;
  Array<std::uint16_t> tile_rows_;
  Array<S> tile_values_;
  Array<double> slabs_;
  unsigned n_slabs_ = 0;
  Array<std::int32_t> splits_;
  std::int32_t range_ = 0;
  std::int64_t n_ranges_ = 0;
  // dense
  Array<S> slabs_dense_;
};

}  // namespace scw::tl::cuda::logreg
