#include "prim/eigh/eigh.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "math/philox.hpp"
#include "prim/blas.hpp"
#include "prim/eigh/kernel.hpp"
#include "prim/gemm/kernel.hpp"

namespace scw::prim {

constinit Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                      Span<const double>, Span<double>)>
    residual_norms_kernel{"prim.eigh: residual_norms"};
constinit Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<double>&,
                      const MatrixView<double>&, Span<std::int32_t>)>
    orthogonalise_kernel{"prim.eigh: orthogonalise"};
constinit Kernel<void(const Context&, const MatrixView<const double>&, const MatrixView<const double>&,
                      const MatrixView<double>&)>
    symmetric_product_kernel{"prim.eigh: symmetric_product"};

namespace {

constexpr int kMaxCycles = 200;
constexpr double kMeasurable = 1e-10;  // eigenvalues of a normalised Gram matrix that rounding leaves accurate

/// Block: wide enough for BLAS-3 speed, narrow enough for a high polynomial degree. On the GPU the products are cheap,
/// and the small eigenvalue problems on the host are what costs: a smaller basis.
struct Plan {
  std::int64_t block, extra, growth, direct;  // direct: LAPACK alone is faster below
  double tolerance;
};
constexpr Plan kPlans[kDeviceTypeCount] = {{16, 64, 304, 512, 1e-9}, {kEighDeviceBlock, 30, 128, 256, 1e-7}};

const Plan& plan_for(Device device) { return kPlans[static_cast<int>(device.type)]; }
std::int64_t kept_vectors(const Plan& plan, std::int64_t k) { return std::min(2 * k, k + plan.extra); }

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The basis V (rows), W = A V and T = V A V' of the iteration.
class Lanczos {
 public:
  /// on_device: the new vectors are made orthonormal without a look from the host (orthogonalise_kernel).
  Lanczos(const Context& ctx, std::int64_t m, std::int64_t k, const BlockOperator& op, RngKey key, bool on_device)
      : ctx_(ctx),
        plan_(plan_for(ctx.device)),
        block_(plan_.block),
        kept_(kept_vectors(plan_, k)),
        m_(m),
        k_(k),
        limit_(eigh_basis_limit(ctx.device, k)),
        on_device_(on_device),
        op_(op),
        key_(key),
        v_(ctx.workspace, limit_, m, "eigh basis", ctx.stream),
        w_(ctx.workspace, limit_, m, "eigh products", ctx.stream),
        next_(ctx.workspace, block_, m, "eigh block", ctx.stream),
        spare_(ctx.workspace, std::max(kept_, block_), m, "eigh block", ctx.stream),
        small_(ctx.workspace, checked_mul(limit_, limit_), "eigh coefficients", ctx.stream),
        device_t_(ctx.workspace, on_device ? limit_ * limit_ : 0, "eigh coefficients", ctx.stream),
        trouble_(ctx.workspace, on_device ? 1 : 0, "eigh coefficients", ctx.stream),
        t_(at(limit_ * limit_)) {}

  /// Nothing if the vectors on the device became too dependent for its one way to separate them.
  std::optional<TopEigen> run() {
    if (on_device_) {
      const std::int32_t none = 0;
      copy_bytes(ctx_, trouble_.data(), ctx_.device, &none, Device{}, sizeof none);
      to(device_t_.data(), t_.data(), limit_ * limit_);  // fetch() reads whole rows
    }
    Array<double> start(host_memory(), block_ * m_, "eigh start");
    for (std::int64_t i = 0; i < block_; ++i) draw(start.data() + i * m_);
    to(next_.data.data(), start.data(), block_ * m_);
    if (on_device_) {
      orthogonalise_kernel(ctx_, {v_.data.data(), 0, m_}, next_.view(), {}, trouble_.view());
    } else {
      project(nullptr);
    }
    TopEigen out;
    for (int cycle = 0;; ++cycle) {
      const std::int64_t before = size_;
      while (size_ + block_ <= limit_) expand();
      if (on_device_ && !fetch(before)) return std::nullopt;
      std::vector<double> s = t_packed(), values(at(size_));
      blas::eigh(size_, s.data(), values.data());
      // Descending order: row i of s belongs to values[size - 1 - i] after the reversal below.
      std::reverse(values.begin(), values.end());
      std::vector<double> top(at(kept_ * size_));
      for (std::int64_t i = 0; i < kept_; ++i)
        std::copy_n(s.data() + (size_ - 1 - i) * size_, size_, top.data() + i * size_);
      compress(top, values);
      out.converged = converged(values);
      if (out.converged || cycle == kMaxCycles) {
        out.values.assign(values.begin(), values.begin() + k_);
        out.vectors = Matrix<double>(host_memory(), k_, m_, "eigenvectors");
        copy_bytes(ctx_, out.vectors.data.data(), Device{}, v_.data.data(), ctx_.device, bytes(k_ * m_));
        out.n_products = products_;
        return out;
      }
    }
  }

 private:
  static std::size_t bytes(std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(double); }
  void to(double* device, const double* host, std::int64_t n) {
    copy_bytes(ctx_, device, ctx_.device, host, Device{}, bytes(n));
  }
  void from(double* host, const double* device, std::int64_t n) {
    copy_bytes(ctx_, host, Device{}, device, ctx_.device, bytes(n));
  }
  MatrixView<double> rows(Matrix<double>& x, std::int64_t first, std::int64_t count) {
    return {x.data.data() + first * m_, count, m_};
  }

  void draw(double* row) {
    const RngKey key = key_.fold(static_cast<std::uint64_t>(drawn_++));
    for (std::int64_t j = 0; j < m_; ++j) row[j] = 2 * math::random_uniform(key, static_cast<std::uint64_t>(j)) - 1;
  }

  /// Appends next_ to the basis, multiplies it by A and makes the following next_.
  void expand() {
    copy_bytes(ctx_, v_.data.data() + size_ * m_, ctx_.device, next_.data.data(), ctx_.device, bytes(block_ * m_));
    op_(rows(v_, size_, block_), rows(w_, size_, block_));
    ++products_;
    size_ += block_;
    copy_bytes(ctx_, next_.data.data(), ctx_.device, w_.data.data() + (size_ - block_) * m_, ctx_.device,
               bytes(block_ * m_));
    if (on_device_) {
      const MatrixView<double> h(device_t_.data() + (size_ - block_) * limit_, block_, size_, limit_);
      orthogonalise_kernel(ctx_, rows(v_, 0, size_), next_.view(), h, trouble_.view());
      return;
    }
    std::vector<double> h(at(block_ * size_));
    project(&h);
    set_coefficients(size_ - block_, h.data(), size_);
  }

  /// Rows and columns [first, first + block) of T from the products h ([block x (first + block)]) of the new vectors.
  void set_coefficients(std::int64_t first, const double* h, std::int64_t ld) {
    for (std::int64_t i = 0; i < block_; ++i)
      for (std::int64_t j = 0; j < first + block_; ++j) {
        t(first + i, j) = h[i * ld + j];
        t(j, first + i) = h[i * ld + j];
      }
    for (std::int64_t i = 0; i < block_; ++i)  // the diagonal block came from one side: make it symmetric
      for (std::int64_t j = 0; j < i; ++j) {
        const double mean = (h[i * ld + first + j] + h[j * ld + first + i]) / 2;
        t(first + i, first + j) = mean;
        t(first + j, first + i) = mean;
      }
  }

  /// Takes the coefficients of the vectors since `first` from the device; false if something went wrong there.
  bool fetch(std::int64_t first) {
    std::int32_t trouble = 0;
    copy_bytes(ctx_, &trouble, Device{}, trouble_.data(), ctx_.device, sizeof trouble);
    if (trouble != 0) return false;
    std::vector<double> h(at((size_ - first) * limit_));
    from(h.data(), device_t_.data() + first * limit_, (size_ - first) * limit_);
    for (std::int64_t s = first; s < size_; s += block_) set_coefficients(s, h.data() + (s - first) * limit_, limit_);
    return true;
  }

  /// Makes next_ orthonormal and orthogonal to the basis; first_coefficients receives next_ V' of the first pass.
  void project(std::vector<double>* first_coefficients) {
    const MatrixView<double> next = next_.view();
    bool done = false;
    for (int pass = 0; pass < 2 || !done; ++pass) {
      SCW_ASSERT(pass < 20);
      if (size_ > 0) {
        const MatrixView<double> h(small_.data(), block_, size_);
        gemm(ctx_, next, rows(v_, 0, size_), h, {.trans_b = true});
        if (pass == 0 && first_coefficients != nullptr) from(first_coefficients->data(), h.data, block_ * size_);
        gemm(ctx_, h, rows(v_, 0, size_), next, {.alpha = -1, .beta = 1});
      }
      done = orthonormalise();
    }
  }

  /// One pass of orthonormalisation through the Gram matrix, after Stathopoulos & Wu 2002, SIAM J. Sci. Comput. 23:2165
  /// (SVQB). Directions too small for the Gram matrix to measure are only separated here and normalised in the next
  /// pass: to drop them would leave their residuals in the result for good. Returns whether it changed next_ little.
  bool orthonormalise() {
    const MatrixView<double> next = next_.view();
    const MatrixView<double> g_device(small_.data(), block_, block_);
    gemm(ctx_, next, next, g_device, {.trans_b = true});
    std::vector<double> g(at(block_ * block_)), values(at(block_)), inverse(at(block_));
    from(g.data(), g_device.data, block_ * block_);
    bool done = true;
    for (std::int64_t i = 0; i < block_; ++i) {
      const double d = g[at(i * block_ + i)];
      if (!(d > 1e-290)) {  // nothing left of this vector: the operator's range is exhausted
        std::vector<double> row(at(m_));
        draw(row.data());
        to(next_.data.data() + i * m_, row.data(), m_);
        return false;
      }
      done = done && std::abs(d - 1) < 0.1;
      inverse[at(i)] = 1 / std::sqrt(d);
    }
    for (std::int64_t i = 0; i < block_; ++i)
      for (std::int64_t j = 0; j < block_; ++j) g[at(i * block_ + j)] *= inverse[at(i)] * inverse[at(j)];
    blas::eigh(block_, g.data(), values.data());
    done = done && values[0] > 0.9;
    for (std::int64_t i = 0; i < block_; ++i) {
      const double f = values[at(i)] > kMeasurable ? 1 / std::sqrt(values[at(i)]) : 1;
      for (std::int64_t j = 0; j < block_; ++j) g[at(i * block_ + j)] *= f * inverse[at(j)];
    }
    to(small_.data(), g.data(), block_ * block_);
    gemm(ctx_, g_device, next, rows(spare_, 0, block_));
    copy_bytes(ctx_, next_.data.data(), ctx_.device, spare_.data.data(), ctx_.device, bytes(block_ * m_));
    return done;
  }

  /// Replaces the basis by its leading Ritz vectors (rows of top).
  void compress(const std::vector<double>& top, const std::vector<double>& values) {
    const std::int64_t kept = kept_;
    to(small_.data(), top.data(), kept * size_);
    const MatrixView<const double> s(small_.data(), kept, size_);
    for (Matrix<double>* x : {&v_, &w_}) {
      gemm(ctx_, s, rows(*x, 0, size_), rows(spare_, 0, kept));
      copy_bytes(ctx_, x->data.data(), ctx_.device, spare_.data.data(), ctx_.device, bytes(kept * m_));
    }
    size_ = kept;
    std::fill(t_.begin(), t_.end(), 0.0);
    for (std::int64_t i = 0; i < kept; ++i) t(i, i) = values[at(i)];
  }

  bool converged(const std::vector<double>& values) {
    to(small_.data(), values.data(), k_);
    residual_norms_kernel(ctx_, rows(w_, 0, k_), rows(v_, 0, k_), {small_.data(), k_}, {small_.data() + k_, k_});
    std::vector<double> norms(at(k_));
    from(norms.data(), small_.data() + k_, k_);
    const double rounding = 4e-15 * std::sqrt(static_cast<double>(m_)) * std::abs(values[0]);
    for (std::int64_t i = 0; i < k_; ++i)
      if (!(norms[at(i)] <= plan_.tolerance * std::abs(values[at(i)]) + rounding)) return false;
    return true;
  }

  double& t(std::int64_t i, std::int64_t j) { return t_[at(i * limit_ + j)]; }
  std::vector<double> t_packed() const {
    std::vector<double> out(at(size_ * size_));
    for (std::int64_t i = 0; i < size_; ++i) std::copy_n(t_.data() + i * limit_, size_, out.data() + i * size_);
    return out;
  }

  const Context& ctx_;
  const Plan& plan_;
  std::int64_t block_, kept_, m_, k_, limit_;
  bool on_device_;
  const BlockOperator& op_;
  RngKey key_;
  Matrix<double> v_, w_, next_, spare_;
  Array<double> small_, device_t_;
  Array<std::int32_t> trouble_;
  std::vector<double> t_;
  std::int64_t size_ = 0;
  int products_ = 0;
  std::int64_t drawn_ = 0;
};

TopEigen direct(const Context& ctx, const MatrixView<const double>& a, std::int64_t k) {
  SCW_ASSERT(a.ld == a.n_cols);
  const std::int64_t m = a.n_rows;
  Array<double> full = to_host<double>(ctx, Span<const double>(a.data, m * m), "eigh matrix");
  std::vector<double> values(at(m));
  blas::eigh(m, full.data(), values.data());
  TopEigen out;
  out.vectors = Matrix<double>(host_memory(), k, m, "eigenvectors");
  for (std::int64_t i = 0; i < k; ++i) {
    out.values.push_back(values[at(m - 1 - i)]);
    std::copy_n(full.data() + (m - 1 - i) * m, m, out.vectors.data.data() + i * m);
  }
  return out;
}

}  // namespace

std::int64_t eigh_basis_limit(Device device, std::int64_t k) {
  const Plan& plan = plan_for(device);
  return kept_vectors(plan, k) + std::max(plan.growth, (k + plan.block) / plan.block * plan.block);
}

bool eigh_is_direct(Device device, std::int64_t m, std::int64_t k) {
  const Plan& plan = plan_for(device);
  return m <= std::max(plan.direct, eigh_basis_limit(device, k) + plan.block);
}

TopEigen top_eigenpairs(const Context& ctx, std::int64_t m, std::int64_t k, const BlockOperator& op, RngKey key) {
  SCW_ASSERT(k > 0 && !eigh_is_direct(ctx.device, m, k));
  if (ctx.device.type == DeviceType::cuda)
    if (auto out = Lanczos(ctx, m, k, op, key, true).run()) return std::move(*out);
  return *Lanczos(ctx, m, k, op, key, false).run();
}

TopEigen top_eigenpairs(const Context& ctx, const MatrixView<const double>& a, std::int64_t k, RngKey key) {
  SCW_ASSERT(a.n_rows == a.n_cols && k > 0 && k <= a.n_rows);
  if (eigh_is_direct(ctx.device, a.n_rows, k)) return direct(ctx, a, k);
  return top_eigenpairs(
      ctx, a.n_rows, k,
      [&](const MatrixView<const double>& v, const MatrixView<double>& w) { symmetric_product_kernel(ctx, a, v, w); },
      key);
}

}  // namespace scw::prim
