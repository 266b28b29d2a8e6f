// L-BFGS with cpu.cpp's steps: the two loops and the line search. Vectors and scalars of the two loops stay on the
// device (a dot product's parts are summed by the kernel that needs it), so that only evaluations are waited for.
// Floor: 32 bytes a parameter and step of the loops, at most 22 steps: 0.1 ms an iteration for 28k genes and 20
// classes at 4.3 TB/s, a small part of an evaluation.
#pragma once

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "tl/logistic_regression/cuda_problem.cuh"

namespace scw::tl::cuda::logreg {

inline constexpr std::size_t kHistory = 10;  // pairs of the L-BFGS

/// The sum of kVectorBlocks partial sums, in every thread, in a fixed order.
__device__ inline double sum_parts(const double* parts) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  double v = parts[lane] + parts[lane + 32];
  static_assert(kVectorBlocks == 64);
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

/// One step of the two loops of L-BFGS: v changes by a multiple of u that a dot product gives (its parts_in), and the
/// parts of the next dot product, v.probe, come out.
enum class Loop { start, backward, scale, forward };
struct LoopStep {
  Loop kind = Loop::start;
  const double* parts_in = nullptr;
  double* parts_out = nullptr;
  const double* u = nullptr;
  const double* probe = nullptr;
  const double* rho = nullptr;     // 1 / (s.y) of the pair
  double* alpha = nullptr;         // of the pair
  const double* scaled = nullptr;  // scale: y.y / diagonal of the last pair; null: none
};

static __global__ void __launch_bounds__(kThreads) loop_kernel(std::int64_t n, LoopStep s, double* v) {
  __shared__ double shared[kThreads / 32];
  double factor = 1;
  if (s.kind == Loop::backward || s.kind == Loop::forward) {
    factor = *s.rho * sum_parts(s.parts_in);
    if (s.kind == Loop::backward) {
      if (blockIdx.x == 0 && threadIdx.x == 0) *s.alpha = factor;
      factor = -factor;
    } else {
      factor = *s.alpha - factor;
    }
  } else if (s.kind == Loop::scale && s.scaled != nullptr) {
    const double curvature = *s.rho * *s.scaled;
    factor = curvature > 0 ? 1 / curvature : 1.0;
  }
  double dot = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{kVectorBlocks} * kThreads) {
    double x = 0;
    if (s.kind == Loop::start)
      x = -s.u[i];
    else if (s.kind == Loop::scale)
      x = factor * (v[i] / s.u[i]);
    else
      x = fma(factor, s.u[i], v[i]);
    v[i] = x;
    if (s.probe != nullptr) dot = fma(x, s.probe[i], dot);
  }
  dot = block_sum(dot, shared);
  if (threadIdx.x == 0) s.parts_out[blockIdx.x] = dot;
}

/// next = w + step * direction, also in the type of the gathers.
template <class S>
__global__ void __launch_bounds__(kThreads)
    step_kernel(std::int64_t n, const double* w, double step, const double* direction, double* next, S* gathered) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * kThreads) {
    const double v = fma(step, direction[i], w[i]);
    next[i] = v;
    gathered[i] = static_cast<S>(v);
  }
}

/// s = next - w, y = next_gradient - gradient, and the parts of s.y and y.y / diagonal.
static __global__ void __launch_bounds__(kThreads)
    pair_kernel(std::int64_t n, const double* w, const double* next, const double* gradient,
                const double* next_gradient, const double* diagonal, double* s, double* y, double* parts) {
  __shared__ double shared[kThreads / 32];
  double sy = 0, yy = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += std::int64_t{kVectorBlocks} * kThreads) {
    const double ds = next[i] - w[i], dy = next_gradient[i] - gradient[i];
    s[i] = ds;
    y[i] = dy;
    sy = fma(ds, dy, sy);
    yy = fma(dy, dy / diagonal[i], yy);
  }
  sy = block_sum(sy, shared);
  yy = block_sum(yy, shared);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sy;
    parts[kVectorBlocks + blockIdx.x] = yy;
  }
}
/// scalars: rho and y.y / diagonal of a pair.
static __global__ void pair_scalars_kernel(const double* parts, double* scalars) {
  if (threadIdx.x != 0) return;
  double sy = 0, yy = 0;
  for (int b = 0; b < kVectorBlocks; ++b) {
    sy += parts[b];
    yy += parts[kVectorBlocks + b];
  }
  scalars[0] = sy > 0 ? 1 / sy : 0.0;
  scalars[1] = yy;
}

template <class S, class X>
void minimise(const Context& ctx, const X& x, Span<const std::int32_t> codes, std::int32_t n_classes,
              const LogisticRegressionOptions& o, LogisticRegression& out) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  Problem<S, X> problem(ctx, x, codes, n_classes, o);
  const std::int64_t n = problem.size();
  const auto make = [&] {
    Array<double> a = problem.template make<double>(n, "L-BFGS vectors");
    SCW_CUDA(cudaMemsetAsync(a.data(), 0, static_cast<std::size_t>(n) * sizeof(double), stream));
    return a;
  };
  const Array<double> diagonal = problem.diagonal();
  Array<double> w = make(), gradient = make(), direction = make(), next = make(), next_gradient = make();
  Array<double> parts = problem.template make<double>(2 * kVectorBlocks, "partial sums");
  Array<double> pair_parts = problem.template make<double>(2 * kVectorBlocks, "partial sums");
  Array<double> alpha = problem.template make<double>(static_cast<std::int64_t>(kHistory), "L-BFGS scalars");
  struct Pair {
    Array<double> s, y, scalars;  // scalars: 1 / (s.y), y.y / diagonal
  };
  std::vector<Pair> pairs;
  int side = 0;
  const auto loop = [&](LoopStep step) {
    step.parts_in = parts.data() + side * kVectorBlocks;
    side ^= 1;
    step.parts_out = parts.data() + side * kVectorBlocks;
    loop_kernel<<<kVectorBlocks, kThreads, 0, stream>>>(n, step, direction.data());
    SCW_CUDA_LAUNCHED("logistic_regression: loop");
  };
  const auto move = [&](double step) {
    step_kernel<S><<<scw::cuda::grid_for(n, kThreads, 1024), kThreads, 0, stream>>>(n, w.data(), step, direction.data(),
                                                                                    next.data(), problem.gathered());
    SCW_CUDA_LAUNCHED("logistic_regression: step");
  };
  SCW_CUDA(cudaMemsetAsync(parts.data(), 0, 2 * kVectorBlocks * sizeof(double), stream));

  move(0);  // all 0
  Evaluation now = problem.evaluate(w.data(), direction.data(), parts.data(), gradient.data());
  out.max_gradient = now.largest;
  // What the rounding of the gathered weights and logits may move the objective by.
  constexpr double kNoise = sizeof(S) == 4 ? 1e-7 : 1e-12;
  for (out.n_iterations = 0; !(out.max_gradient <= o.tol) && out.n_iterations < o.max_iter; ++out.n_iterations) {
    ctx.check_cancelled(kOp);
    ctx.report("logistic regression", out.n_iterations, o.max_iter);
    // direction = -H gradient by the two loops, H0 = gamma / diagonal.
    const std::size_t m = pairs.size();
    loop({.kind = Loop::start, .u = gradient.data(), .probe = m > 0 ? pairs[m - 1].s.data() : nullptr});
    for (std::size_t h = m; h-- > 0;)
      loop({.kind = Loop::backward,
            .u = pairs[h].y.data(),
            .probe = h > 0 ? pairs[h - 1].s.data() : nullptr,
            .rho = pairs[h].scalars.data(),
            .alpha = alpha.data() + h});
    loop({.kind = Loop::scale,
          .u = diagonal.data(),
          .probe = m > 0 ? pairs[0].y.data() : gradient.data(),
          .rho = m > 0 ? pairs[m - 1].scalars.data() : nullptr,
          .scaled = m > 0 ? pairs[m - 1].scalars.data() + 1 : nullptr});
    for (std::size_t h = 0; h < m; ++h)
      loop({.kind = Loop::forward,
            .u = pairs[h].s.data(),
            .probe = h + 1 < m ? pairs[h + 1].y.data() : gradient.data(),
            .rho = pairs[h].scalars.data(),
            .alpha = alpha.data() + h});
    const double* const start_slope = parts.data() + side * kVectorBlocks;

    double step = 1.0, low = 0, high = std::numeric_limits<double>::infinity();
    Evaluation trial{};
    bool found = false, downhill = true;
    for (int t = 0; t < 40 && downhill; ++t) {
      move(step);
      trial = problem.evaluate(next.data(), direction.data(), start_slope, next_gradient.data());
      const double slope = trial.start_slope;
      downhill = slope < 0;
      if (!downhill) break;  // rounding: as good as it gets
      // As in cpu.cpp: near the optimum the slope decides.
      const bool decreased = trial.value <= now.value + 1e-4 * step * slope ||
                             (trial.value <= now.value + kNoise * std::abs(now.value) && trial.slope <= -0.8 * slope);
      if (!decreased) {
        high = step;
      } else if (trial.slope < 0.9 * slope) {
        low = step;
      } else {
        found = true;
        break;
      }
      step = std::isinf(high) ? 2 * low : (low + high) / 2;
    }
    if (!downhill || (!found && !(trial.value < now.value))) break;

    Pair pair;
    if (pairs.size() == kHistory) {
      pair = std::move(pairs.front());
      pairs.erase(pairs.begin());
    } else {
      pair = {make(), make(), problem.template make<double>(2, "L-BFGS scalars")};
    }
    if (step * (trial.slope - trial.start_slope) > 0) {
      pair_kernel<<<kVectorBlocks, kThreads, 0, stream>>>(n, w.data(), next.data(), gradient.data(),
                                                          next_gradient.data(), diagonal.data(), pair.s.data(),
                                                          pair.y.data(), pair_parts.data());
      SCW_CUDA_LAUNCHED("logistic_regression: pair");
      pair_scalars_kernel<<<1, 32, 0, stream>>>(pair_parts.data(), pair.scalars.data());
      SCW_CUDA_LAUNCHED("logistic_regression: pair_scalars");
      pairs.push_back(std::move(pair));
    }
    w.swap(next);
    gradient.swap(next_gradient);
    now = trial;
    out.max_gradient = now.largest;
  }
  ctx.report("logistic regression", o.max_iter, o.max_iter);
  out.converged = out.max_gradient <= o.tol;

  const Classes& classes = problem.classes();
  const Array<double> host = to_host<double>(ctx, std::as_const(w).view());
  out.coefficients = Matrix<double>(host_memory(), classes.n_logits, classes.n_genes, "coefficients");
  for (int k = 0; k < classes.n_logits; ++k) {
    for (std::int64_t j = 0; j < classes.n_genes; ++j)
      out.coefficients.data[k * classes.n_genes + j] = host[classes.parameter(j, k)];
    out.intercepts.push_back(host[classes.parameter(classes.n_genes, k)]);
  }
}

}  // namespace scw::tl::cuda::logreg
