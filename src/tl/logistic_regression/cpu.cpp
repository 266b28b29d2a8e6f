// Logits by cell from the CSR form, gradients by gene from the CSC form: each thread writes only its own rows, and
// every sum has a fixed order. Parameters are stored gene by gene, the classes of a gene together and padded to whole
// vectors. A matrix in blocks of rows is turned to CSC block by block in every evaluation; sums over cells go on from
// block to block where they stopped, so that the blocks do not show in the bits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
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

/// The non-zero values of dense rows.
template <class V>
Csr<V> to_csr(const Context& ctx, const MatrixView<const V>& x) {
  SCW_EXPECT(x.n_cols <= std::numeric_limits<std::int32_t>::max(), kOp, "at most 2^31 - 1 genes (got {})", x.n_cols);
  Csr<V> out;
  out.n_rows = x.n_rows;
  out.n_cols = static_cast<std::int32_t>(x.n_cols);
  out.indptr = Array<std::int64_t>(ctx.workspace, x.n_rows + 1, "csr indptr");
  out.indptr[0] = 0;
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      out.indptr[i + 1] = x.n_cols - std::count(x.row(i), x.row(i) + x.n_cols, V{0});
  });
  for (std::int64_t i = 0; i < x.n_rows; ++i) out.indptr[i + 1] += out.indptr[i];
  out.indices = Array<std::int32_t>(ctx.workspace, out.indptr[x.n_rows], "csr indices");
  out.values = Array<V>(ctx.workspace, out.indptr[x.n_rows], "csr values");
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t at = out.indptr[i];
      for (std::int64_t j = 0; j < x.n_cols; ++j) {
        if (x(i, j) == 0) continue;
        out.indices[at] = static_cast<std::int32_t>(j);
        out.values[at++] = x(i, j);
      }
    }
  });
  return out;
}

/// Rows of the matrix, by cell and by gene.
template <class V>
struct Rows {
  Csr<V> of_dense;
  CsrView<const V> x;
  Csc<V> columns;

  Rows(const Context& ctx, const AnyMatrixView& block) {
    if (const auto* const dense = std::get_if<MatrixView<const V>>(&block)) {
      of_dense = to_csr(ctx, *dense);
      x = std::as_const(of_dense).view();
    } else {
      x = std::get<CsrView<const V>>(block);
    }
    columns = prim::csr_to_csc(ctx, x);
  }
};

template <class V>
class Problem {
 public:
  Problem(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, std::int32_t n_classes,
          const LogisticRegressionOptions& o)
      : ctx_(ctx),
        x_(x),
        codes_(codes),
        n_logits_(n_classes == 2 ? 1 : n_classes),
        width_((n_logits_ + kPad - 1) / kPad * kPad),
        fit_intercept_(o.fit_intercept) {
    if (const AnyMatrixView* const all = x.whole(ctx)) whole_.emplace(ctx, *all);
    for (const std::int32_t c : codes) n_used_ += c >= 0;
    penalty_ = 1.0 / (o.c * n_used_);
    const std::int64_t chunks = chunk_count(x.n_rows(), kRowGrain);
    losses_.resize(static_cast<std::size_t>(chunks));
    sums_.resize(static_cast<std::size_t>(chunks * width_));
  }

  std::int64_t n_genes() const { return x_.n_cols(); }
  std::int64_t n_logits() const { return n_logits_; }
  std::int64_t width() const { return width_; }
  /// Genes, then the intercept.
  std::int64_t size() const { return (n_genes() + 1) * width_; }

  /// Objective and gradient at w. One pass over x.
  double evaluate(const double* w, double* gradient) {
    std::fill(gradient, gradient + size(), 0.0);
    for_each_block([&](std::int64_t first, const Rows<V>& block) {
      add_residuals(first, block.x, w);
      const Csc<V>& columns = block.columns;
      parallel_for(ctx_, n_genes(), kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t j = begin; j < end; ++j) {
          const std::int64_t at = columns.indptr[j];
          gather_sum(columns.indices.data() + at, columns.values.data() + at, columns.indptr[j + 1] - at,
                     residuals_.data(), width_, gradient + j * width_);
        }
      });
    });
    parallel_for(ctx_, n_genes(), kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin * width_; i < end * width_; ++i)
        gradient[i] = gradient[i] / n_used_ + penalty_ * w[i];
    });
    double* const g0 = gradient + n_genes() * width_;
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

  /// About the diagonal of the Hessian with equal class probabilities, per gene and for the intercept. One pass.
  std::vector<double> diagonal() const {
    const double p = 1.0 / static_cast<double>(n_logits_ == 1 ? 2 : n_logits_);
    const double curvature = p * (1 - p);
    std::vector<double> d(static_cast<std::size_t>(n_genes()) + 1);
    for_each_block([&](std::int64_t, const Rows<V>& block) {
      const Csc<V>& columns = block.columns;
      parallel_for(ctx_, n_genes(), kGeneGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t j = begin; j < end; ++j) {
          double& sum = d[static_cast<std::size_t>(j)];
          for (std::int64_t k = columns.indptr[j]; k < columns.indptr[j + 1]; ++k)
            sum += static_cast<double>(columns.values[k]) * static_cast<double>(columns.values[k]);
        }
      });
    });
    for (std::int64_t j = 0; j < n_genes(); ++j) {
      double& sum = d[static_cast<std::size_t>(j)];
      SCW_EXPECT_AS(DataError, std::isfinite(sum), kOp, "gene {} has NaN or infinite values", j);
      sum = curvature * sum / n_used_ + penalty_;
    }
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
  template <class Body>
  void for_each_block(const Body& body) const {
    if (whole_) return body(std::int64_t{0}, *whole_);
    x_.for_each(ctx_, [&](std::int64_t first, const AnyMatrixView& block) { body(first, Rows<V>(ctx_, block)); });
  }

  /// Residuals of the rows of x, the first of which is row `first` of the matrix, and their part of losses_ and sums_.
  void add_residuals(std::int64_t first, const CsrView<const V>& x, const double* w) {
    if (residuals_.size() < x.n_rows * width_) {
      residuals_ = {};
      residuals_ = Array<double>(ctx_.workspace, checked_mul(x.n_rows, width_), "residuals");
    }
    const double* const intercept = w + n_genes() * width_;
    const std::int64_t last = first + x.n_rows, first_chunk = first / kRowGrain;
    parallel_for(ctx_, chunk_count(last, kRowGrain) - first_chunk, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t chunk = first_chunk + begin; chunk < first_chunk + end; ++chunk) {
        double* const sums = sums_.data() + chunk * width_;
        double& loss = losses_[static_cast<std::size_t>(chunk)];
        if (chunk * kRowGrain >= first) {  // else goes on with what the block before left
          std::fill(sums, sums + width_, 0.0);
          loss = 0;
        }
        for (std::int64_t i = std::max(first, chunk * kRowGrain); i < std::min(last, (chunk + 1) * kRowGrain); ++i) {
          double* const z = residuals_.data() + (i - first) * width_;
          if (codes_[i] < 0) {
            std::fill(z, z + width_, 0.0);
            continue;
          }
          std::copy(intercept, intercept + width_, z);
          const std::int64_t at = x.indptr[i - first];
          gather_sum(x.indices.data + at, x.values.data + at, x.indptr[i - first + 1] - at, w, width_, z);
          loss += n_logits_ == 1 ? binary(z, codes_[i]) : softmax(z, codes_[i]);
          for (std::int64_t c = 0; c < n_logits_; ++c) sums[c] += z[c];
        }
      }
    });
  }

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
  const RowBlocks& x_;
  std::optional<Rows<V>> whole_;  // where x is in memory as a whole
  Span<const std::int32_t> codes_;
  std::int64_t n_logits_, width_;
  bool fit_intercept_;
  double n_used_ = 0, penalty_ = 0;
  Array<double> residuals_;            // [rows of a block x width]
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
void run(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, std::int32_t n_classes,
         const LogisticRegressionOptions& o, LogisticRegression& out) {
  Problem<V> problem(ctx, x, codes, n_classes, o);
  minimise(ctx, problem, o, out);
}

}  // namespace

void logistic_regression(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, std::int32_t n_classes,
                         const LogisticRegressionOptions& o, LogisticRegression& out) {
  if (x.is_double(ctx))
    run<double>(ctx, x, codes, n_classes, o, out);
  else
    run<float>(ctx, x, codes, n_classes, o, out);
}

SCW_REGISTER(logistic_regression_kernel, cpu, &logistic_regression);

}  // namespace scw::tl::cpu
