// Logits by cell from the CSR form, gradients by gene from the CSC form: each thread writes only its own rows, and
// every sum has a fixed order. Parameters are stored gene by gene, the classes of a gene together and padded to whole
// vectors.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "math/elementary.hpp"
#include "prim/csr_to_csc.hpp"
#include "tl/logistic_regression/kernel.hpp"

namespace scw::tl::cpu {
namespace {

constexpr const char* kOp = "tl.logistic_regression";
constexpr std::int64_t kRowGrain = 128;
constexpr std::int64_t kGeneGrain = 64;
constexpr std::int64_t kSumGrain = 1 << 19;  // vectors of parameters are small beside the matrix: mostly one thread
constexpr std::int64_t kPad = 8;
constexpr std::size_t kHistory = 10;

/// out[0, width) += sum over the list of value * table[index][0, width).
template <class V>
inline void gather_sum_loop(const std::int32_t* index, const V* value, std::int64_t count, const double* table,
                            std::int64_t width, double* out) {
  for (std::int64_t k = 0; k < count; ++k) {
    const double v = static_cast<double>(value[k]);
    const double* const row = table + std::int64_t{index[k]} * width;
    for (std::int64_t c = 0; c < width; ++c) out[c] += v * row[c];
  }
}
SCW_CLONES void gather_sum(const std::int32_t* index, const float* value, std::int64_t count, const double* table,
                           std::int64_t width, double* out) {
  gather_sum_loop(index, value, count, table, width, out);
}
SCW_CLONES void gather_sum(const std::int32_t* index, const double* value, std::int64_t count, const double* table,
                           std::int64_t width, double* out) {
  gather_sum_loop(index, value, count, table, width, out);
}

template <class V>
class Problem {
 public:
  Problem(const Context& ctx, const CsrView<const V>& x, Span<const std::int32_t> codes, std::int32_t n_classes,
          const LogisticRegressionOptions& o)
      : ctx_(ctx),
        x_(x),
        columns_(prim::csr_to_csc(ctx, x)),
        codes_(codes),
        n_logits_(n_classes == 2 ? 1 : n_classes),
        width_((n_logits_ + kPad - 1) / kPad * kPad),
        fit_intercept_(o.fit_intercept),
        residuals_(ctx.workspace, checked_mul(x.n_rows, width_), "residuals") {
    for (const std::int32_t c : codes) n_used_ += c >= 0;
    penalty_ = 1.0 / (o.c * n_used_);
    const std::int64_t chunks = chunk_count(x.n_rows, kRowGrain);
    losses_.resize(static_cast<std::size_t>(chunks));
    sums_.resize(static_cast<std::size_t>(chunks * width_));
  }

  std::int64_t n_genes() const { return x_.n_cols; }
  std::int64_t n_logits() const { return n_logits_; }
  std::int64_t width() const { return width_; }
  /// Genes, then the intercept.
  std::int64_t size() const { return (n_genes() + 1) * width_; }

  /// Objective and gradient at w.
  double evaluate(const double* w, double* gradient) {
    const double* const intercept = w + n_genes() * width_;
    parallel_chunks(ctx_, x_.n_rows, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
      double* const sums = sums_.data() + chunk * width_;
      std::fill(sums, sums + width_, 0.0);
      double loss = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        double* const z = residuals_.data() + i * width_;
        if (codes_[i] < 0) {
          std::fill(z, z + width_, 0.0);
          continue;
        }
        std::copy(intercept, intercept + width_, z);
        const std::int64_t at = x_.indptr[i];
        gather_sum(x_.indices.data + at, x_.values.data + at, x_.indptr[i + 1] - at, w, width_, z);
        loss += n_logits_ == 1 ? binary(z, codes_[i]) : softmax(z, codes_[i]);
        for (std::int64_t c = 0; c < n_logits_; ++c) sums[c] += z[c];
      }
      losses_[static_cast<std::size_t>(chunk)] = loss;
    });
    parallel_for(ctx_, n_genes(), kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = begin; j < end; ++j) {
        double* const g = gradient + j * width_;
        std::fill(g, g + width_, 0.0);
        const std::int64_t at = columns_.indptr[j];
        gather_sum(columns_.indices.data() + at, columns_.values.data() + at, columns_.indptr[j + 1] - at,
                   residuals_.data(), width_, g);
        for (std::int64_t c = 0; c < width_; ++c) g[c] = g[c] / n_used_ + penalty_ * w[j * width_ + c];
      }
    });
    double* const g0 = gradient + n_genes() * width_;
    std::fill(g0, g0 + width_, 0.0);
    double loss = 0;
    for (std::size_t chunk = 0; chunk < losses_.size(); ++chunk) {
      loss += losses_[chunk];
      if (fit_intercept_)
        for (std::int64_t c = 0; c < n_logits_; ++c)
          g0[c] += sums_[chunk * static_cast<std::size_t>(width_) + static_cast<std::size_t>(c)];
    }
    for (std::int64_t c = 0; c < width_; ++c) g0[c] /= n_used_;
    return loss / n_used_ + 0.5 * penalty_ * dot(w, w, n_genes() * width_);
  }

  /// About the diagonal of the Hessian with equal class probabilities, per gene and for the intercept.
  std::vector<double> diagonal() const {
    const double p = 1.0 / static_cast<double>(n_logits_ == 1 ? 2 : n_logits_);
    const double curvature = p * (1 - p);
    std::vector<double> d(static_cast<std::size_t>(n_genes()) + 1);
    parallel_for(ctx_, n_genes(), kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = begin; j < end; ++j) {
        double sum = 0;
        for (std::int64_t k = columns_.indptr[j]; k < columns_.indptr[j + 1]; ++k)
          sum += static_cast<double>(columns_.values[k]) * static_cast<double>(columns_.values[k]);
        SCW_EXPECT_AS(DataError, std::isfinite(sum), kOp, "gene {} has NaN or infinite values", j);
        d[static_cast<std::size_t>(j)] = curvature * sum / n_used_ + penalty_;
      }
    });
    d.back() = curvature;
    return d;
  }

  double dot(const double* a, const double* b, std::int64_t n) const {
    std::vector<double> parts(static_cast<std::size_t>(chunk_count(n, kSumGrain)));
    parallel_chunks(ctx_, n, kSumGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
      double lanes[kPad] = {};
      for (std::int64_t i = begin; i < end; i += kPad)  // n is a multiple of the padding
        for (std::int64_t l = 0; l < kPad; ++l) lanes[l] += a[i + l] * b[i + l];
      double sum = 0;
      for (const double lane : lanes) sum += lane;
      parts[static_cast<std::size_t>(chunk)] = sum;
    });
    double sum = 0;
    for (const double part : parts) sum += part;
    return sum;
  }

 private:
  /// Logits become probabilities minus the indicator of the class; returns -log p(class).
  double softmax(double* z, std::int32_t label) const {
    const double top = *std::max_element(z, z + n_logits_);
    const double at_label = z[label];
    double total = 0;
    for (std::int64_t c = 0; c < n_logits_; ++c) {
      z[c] = math::exp(z[c] - top);
      total += z[c];
    }
    for (std::int64_t c = 0; c < n_logits_; ++c) z[c] /= total;
    z[label] -= 1.0;
    std::fill(z + n_logits_, z + width_, 0.0);
    return math::log_positive(total) + top - at_label;
  }
  double binary(double* z, std::int32_t label) const {
    const double margin = label == 1 ? z[0] : -z[0];
    const double e = math::exp(-std::abs(margin));
    const double p_wrong = margin >= 0 ? e / (1 + e) : 1 / (1 + e);
    const double loss = math::log1p(e) + (margin < 0 ? -margin : 0.0);
    z[0] = label == 1 ? -p_wrong : p_wrong;
    std::fill(z + 1, z + width_, 0.0);
    return loss;
  }

  const Context& ctx_;
  CsrView<const V> x_;
  Csc<V> columns_;
  Span<const std::int32_t> codes_;
  std::int64_t n_logits_, width_;
  bool fit_intercept_;
  double n_used_ = 0, penalty_ = 0;
  Array<double> residuals_;            // [n_cells x width]
  std::vector<double> losses_, sums_;  // per chunk of cells
};

template <class V>
void minimise(const Context& ctx, Problem<V>& problem, const LogisticRegressionOptions& o, LogisticRegression& out) {
  const std::int64_t n = problem.size();
  const std::int64_t width = problem.width();
  const auto make = [&] {
    Array<double> a(ctx.workspace, n, "L-BFGS vectors");
    std::fill(a.begin(), a.end(), 0.0);
    return a;
  };
  const auto elements = [&](const auto& f) {
    parallel_for(ctx, n, kSumGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) f(i);
    });
  };
  const std::vector<double> diagonal = problem.diagonal();
  const auto scaled = [&](std::int64_t i, double v) { return v / diagonal[static_cast<std::size_t>(i / width)]; };

  Array<double> w = make(), gradient = make(), direction = make(), next = make(), next_gradient = make(), work = make();
  std::vector<Array<double>> s, y;
  std::vector<double> rho;
  double objective = problem.evaluate(w.data(), gradient.data());
  const auto largest = [&] {
    double m = 0;
    for (const double g : gradient) m = std::max(m, std::abs(g));
    return m;
  };
  out.max_gradient = largest();
  for (out.n_iterations = 0; out.max_gradient > o.tol && out.n_iterations < o.max_iter; ++out.n_iterations) {
    ctx.check_cancelled(kOp);
    ctx.report("logistic regression", out.n_iterations, o.max_iter);
    // direction = -H gradient by the two loops, H0 = gamma / diagonal.
    elements([&](std::int64_t i) { direction[i] = -gradient[i]; });
    std::vector<double> alpha(s.size());
    for (std::size_t h = s.size(); h-- > 0;) {
      alpha[h] = rho[h] * problem.dot(s[h].data(), direction.data(), n);
      elements([&](std::int64_t i) { direction[i] -= alpha[h] * y[h][i]; });
    }
    double gamma = 1.0;
    if (!s.empty()) {
      elements([&](std::int64_t i) { work[i] = scaled(i, y.back()[i]); });
      gamma = 1.0 / (rho.back() * problem.dot(y.back().data(), work.data(), n));
    }
    elements([&](std::int64_t i) { direction[i] = gamma * scaled(i, direction[i]); });
    for (std::size_t h = 0; h < s.size(); ++h) {
      const double beta = rho[h] * problem.dot(y[h].data(), direction.data(), n);
      elements([&](std::int64_t i) { direction[i] += (alpha[h] - beta) * s[h][i]; });
    }
    const double slope = problem.dot(gradient.data(), direction.data(), n);
    if (!(slope < 0)) break;  // rounding: as good as it gets

    double step = 1.0, low = 0, high = std::numeric_limits<double>::infinity();
    double value = 0;
    bool found = false;
    for (int trial = 0; trial < 40; ++trial) {
      elements([&](std::int64_t i) { next[i] = w[i] + step * direction[i]; });
      value = problem.evaluate(next.data(), next_gradient.data());
      const double next_slope = problem.dot(next_gradient.data(), direction.data(), n);
      // Near the optimum the decrease drowns in the rounding of the objective: there the slope decides (Hager & Zhang
      // 2005, SIAM J. Optim. 16:170, approximate Wolfe conditions).
      const bool decreased = value <= objective + 1e-4 * step * slope ||
                             (value <= objective + 1e-12 * std::abs(objective) && next_slope <= -0.8 * slope);
      if (!decreased) {
        high = step;
      } else if (next_slope < 0.9 * slope) {
        low = step;
      } else {
        found = true;
        break;
      }
      step = std::isinf(high) ? 2 * low : (low + high) / 2;
    }
    if (!found && !(value < objective)) break;  // no descent left in double precision

    Array<double> ds, dy;
    if (s.size() == kHistory) {
      ds = std::move(s.front());
      dy = std::move(y.front());
      s.erase(s.begin());
      y.erase(y.begin());
      rho.erase(rho.begin());
    } else {
      ds = make();
      dy = make();
    }
    elements([&](std::int64_t i) {
      ds[i] = next[i] - w[i];
      dy[i] = next_gradient[i] - gradient[i];
    });
    const double curvature = problem.dot(ds.data(), dy.data(), n);
    if (curvature > 0) {
      s.push_back(std::move(ds));
      y.push_back(std::move(dy));
      rho.push_back(1.0 / curvature);
    }
    w.swap(next);
    gradient.swap(next_gradient);
    objective = value;
    out.max_gradient = largest();
  }
  ctx.report("logistic regression", o.max_iter, o.max_iter);
  out.converged = out.max_gradient <= o.tol;

  out.coefficients = Matrix<double>(host_memory(), problem.n_logits(), problem.n_genes(), "coefficients");
  for (std::int64_t k = 0; k < problem.n_logits(); ++k) {
    for (std::int64_t j = 0; j < problem.n_genes(); ++j)
      out.coefficients.data[k * problem.n_genes() + j] = w[j * width + k];
    out.intercepts.push_back(w[problem.n_genes() * width + k]);
  }
}

template <class V>
void run(const Context& ctx, const CsrView<const V>& x, Span<const std::int32_t> codes, std::int32_t n_classes,
         const LogisticRegressionOptions& o, LogisticRegression& out) {
  Problem<V> problem(ctx, x, codes, n_classes, o);
  minimise(ctx, problem, o, out);
}

template <class V>
void run(const Context& ctx, const MatrixView<const V>& x, Span<const std::int32_t> codes, std::int32_t n_classes,
         const LogisticRegressionOptions& o, LogisticRegression& out) {
  SCW_EXPECT(x.n_cols <= std::numeric_limits<std::int32_t>::max(), kOp, "at most 2^31 - 1 genes (got {})", x.n_cols);
  Csr<V> sparse;
  sparse.n_rows = x.n_rows;
  sparse.n_cols = static_cast<std::int32_t>(x.n_cols);
  sparse.indptr = Array<std::int64_t>(ctx.workspace, x.n_rows + 1, "csr indptr");
  sparse.indptr[0] = 0;
  for (std::int64_t i = 0; i < x.n_rows; ++i)
    sparse.indptr[i + 1] = sparse.indptr[i] + (x.n_cols - std::count(x.row(i), x.row(i) + x.n_cols, V{0}));
  sparse.indices = Array<std::int32_t>(ctx.workspace, sparse.indptr[x.n_rows], "csr indices");
  sparse.values = Array<V>(ctx.workspace, sparse.indptr[x.n_rows], "csr values");
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t at = sparse.indptr[i];
      for (std::int64_t j = 0; j < x.n_cols; ++j) {
        if (x(i, j) == 0) continue;
        sparse.indices[at] = static_cast<std::int32_t>(j);
        sparse.values[at++] = x(i, j);
      }
    }
  });
  run(ctx, std::as_const(sparse).view(), codes, n_classes, o, out);
}

}  // namespace

void logistic_regression(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                         std::int32_t n_classes, const LogisticRegressionOptions& o, LogisticRegression& out) {
  std::visit([&](const auto& v) { run(ctx, v, codes, n_classes, o, out); }, x);
}

SCW_REGISTER(logistic_regression_kernel, cpu, &logistic_regression);

}  // namespace scw::tl::cpu
