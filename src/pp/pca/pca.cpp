#include "scwarp/pp/pca.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "pp/pca/kernel.hpp"
#include "prim/eigh/eigh.hpp"
#include "prim/gemm/kernel.hpp"

#include "pp/pca/body.inl"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, bool, Span<double>)> pca_sums_kernel{
    "pp.pca: sums"};
constinit Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, const RowShift&,
                      const CovarianceMode&, const MatrixView<double>&)>
    pca_covariance_kernel{"pp.pca: covariance"};
constinit Kernel<void(const Context&, const MatrixView<double>&, const CovarianceEnd&)> pca_covariance_end_kernel{
    "pp.pca: covariance_end"};
constinit Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, const RowShift&,
                      const MatrixView<const double>&, Span<const double>, const MatrixView<double>&, Span<double>)>
    pca_apply_kernel{"pp.pca: apply"};
constinit Kernel<void(const Context&, const AnyMatrixView&, const GeneTransform&, const RowShift&,
                      const MatrixView<const double>&, Span<const double>, const ScoresView&)>
    pca_scores_kernel{"pp.pca: scores"};

namespace {

constexpr const char* kOp = "pp.pca";
constexpr std::int64_t kDefaultComps = 50;
constexpr std::uint64_t kStartTag = 0x706361;  // "pca"

using Doubles = std::vector<double>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class V>
V value_of(const CsrView<const V>&);
template <class V>
V value_of(const MatrixView<const V>&);

/// The rows of a source in blocks that start at multiples of kPcaBlockRows: slices where the source's own blocks allow
/// it, else one assembled copy.
class AlignedBlocks {
 public:
  AlignedBlocks(const Context& ctx, const RowBlocks& source) : ctx_(ctx), source_(source) {}

  void for_each(const char* step, const std::function<void(std::int64_t, const AnyMatrixView&)>& body) const {
    const std::int64_t n = source_.n_rows();
    ctx_.report(step, 0, n);
    std::vector<std::pair<AnyMatrixView, Holder>> pending;
    std::int64_t pending_rows = 0, first = 0;
    std::optional<std::size_t> type;
    const auto flush = [&] {
      if (pending.size() == 1) {
        body(first, pending[0].first);
      } else if (pending.size() > 1) {
        const Joined joined = join(pending, pending_rows);
        body(first, joined.view);
      }
      ctx_.synchronize();  // the copies below must outlive the work queued on them
      first += pending_rows;
      pending_rows = 0;
      pending.clear();
      ctx_.report(step, first, n);
    };
    source_.for_each(ctx_, [&](std::int64_t, const AnyMatrixView& block) {
      std::int64_t used = 0;
      const std::int64_t rows = n_rows(block);
      while (used < rows) {
        SCW_EXPECT_AS(DTypeMismatch, !type || *type == block.index(), kOp, "the row blocks have different types");
        type = block.index();
        const std::int64_t position = first + pending_rows;
        std::int64_t take = 0;
        if (pending_rows > 0 || (rows - used < kPcaBlockRows && position + rows - used < n)) {
          take = std::min(rows - used, kPcaBlockRows - pending_rows);  // part of an aligned block
          pending.push_back(keep(slice(block, used, take)));
        } else {
          take = position + rows - used == n ? rows - used : (rows - used) / kPcaBlockRows * kPcaBlockRows;
          pending.emplace_back(slice(block, used, take), Holder{});
        }
        pending_rows += take;
        used += take;
        if (pending_rows >= kPcaBlockRows || first + pending_rows == n) flush();
      }
    });
    SCW_EXPECT_AS(ShapeMismatch, first == n, kOp, "the row blocks end early (got {} rows, expected {})", first, n);
  }

 private:
  struct Holder {
    Array<std::int64_t> indptr;
    Array<std::int32_t> indices;
    Array<float> floats;
    Array<double> doubles;
  };
  struct Joined {
    Holder holder;
    AnyMatrixView view;
  };

  static Array<float>& values_of(Holder& h, float) { return h.floats; }
  static Array<double>& values_of(Holder& h, double) { return h.doubles; }

  AnyMatrixView slice(const AnyMatrixView& x, std::int64_t first, std::int64_t count) const {
    return std::visit(
        [&](const auto& v) -> AnyMatrixView {
          if constexpr (requires { v.indptr; }) {
            return v.rows(first, count);
          } else {
            return std::decay_t<decltype(v)>(v.row(first), count, v.n_cols, v.ld);
          }
        },
        x);
  }

  template <class T>
  void copy(T* dst, const T* src, std::int64_t n) const {
    copy_bytes(ctx_, dst, ctx_.device, src, ctx_.device, static_cast<std::size_t>(n) * sizeof(T));
  }

  /// A copy that stays when the source drops its block.
  std::pair<AnyMatrixView, Holder> keep(const AnyMatrixView& x) const {
    std::vector<std::pair<AnyMatrixView, Holder>> one;
    one.emplace_back(x, Holder{});
    Joined joined = join(one, n_rows(x));
    return {joined.view, std::move(joined.holder)};
  }

  Joined join(const std::vector<std::pair<AnyMatrixView, Holder>>& parts, std::int64_t rows) const {
    return std::visit([&](const auto& first) { return join_as<std::decay_t<decltype(first)>>(parts, rows); },
                      parts[0].first);
  }

  template <class View>
  Joined join_as(const std::vector<std::pair<AnyMatrixView, Holder>>& parts, std::int64_t rows) const {
    using V = decltype(value_of(std::declval<View>()));
    Joined out;
    Array<V>& values = values_of(out.holder, V{});
    const auto part = [&](std::size_t i) -> const View& { return std::get<View>(parts[i].first); };
    if constexpr (requires(View v) { v.indptr; }) {
      std::vector<Array<std::int64_t>> offsets;
      Array<std::int64_t> indptr(host_memory(), rows + 1, "row block");
      indptr[0] = 0;
      std::int64_t row = 0;
      for (std::size_t i = 0; i < parts.size(); ++i) {
        offsets.push_back(to_host<std::int64_t>(ctx_, {part(i).indptr.data, part(i).n_rows + 1}, "row block"));
        for (std::int64_t r = 0; r < part(i).n_rows; ++r, ++row)
          indptr[row + 1] = indptr[row] + offsets.back()[r + 1] - offsets.back()[r];
      }
      const std::int64_t nnz = indptr[rows];
      out.holder.indices = Array<std::int32_t>(ctx_.workspace, nnz, "row block", ctx_.stream);
      values = Array<V>(ctx_.workspace, nnz, "row block", ctx_.stream);
      std::int64_t done = 0;
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const std::int64_t begin = offsets[i][0], count = offsets[i][part(i).n_rows] - begin;
        copy(out.holder.indices.data() + done, part(i).indices.data + begin, count);
        copy(values.data() + done, part(i).values.data + begin, count);
        done += count;
      }
      out.holder.indptr = to_device<std::int64_t>(ctx_, std::as_const(indptr).view());
      out.view = View(rows, part(0).n_cols, std::as_const(out.holder.indptr).view(),
                      std::as_const(out.holder.indices).view(), std::as_const(values).view());
    } else {
      const std::int64_t cols = part(0).n_cols;
      values = Array<V>(ctx_.workspace, checked_mul(rows, cols), "row block", ctx_.stream);
      std::int64_t row = 0;
      for (std::size_t i = 0; i < parts.size(); ++i)
        for (std::int64_t r = 0; r < part(i).n_rows; ++r, ++row) copy(values.data() + row * cols, part(i).row(r), cols);
      out.view = View(std::as_const(values).data(), rows, cols);
    }
    return out;
  }

  const Context& ctx_;
  const RowBlocks& source_;
};

class Driver {
 public:
  Driver(const Context& ctx, const RowBlocks& x, const PcaOptions& o)
      : ctx_(ctx), blocks_(ctx, x), o_(o), n_(x.n_rows()), n_genes_(x.n_cols()), sparse_(x.is_sparse()) {}

  Pca run() {
    check();
    moments();
    centre();
    Pca out;
    const prim::TopEigen eigen = covariance_ ? from_covariance() : from_products();
    out.converged = eigen.converged;
    if (!eigen.converged) ctx_.warn("pp.pca: the eigenvalue iteration stopped before all components converged");
    finish(eigen, out);
    return out;
  }

 private:
  void check() {
    SCW_EXPECT(n_ >= 2, kOp, "needs at least 2 cells (got {})", n_);
    const bool masked = !o_.gene_mask.empty();
    SCW_EXPECT_AS(ShapeMismatch, !masked || o_.gene_mask.size == n_genes_, kOp,
                  "the gene mask has {} entries, the matrix {} genes", o_.gene_mask.size, n_genes_);
    SCW_EXPECT(!o_.max_value || *o_.max_value > 0, kOp, "max_value must be positive (got {})",
               o_.max_value.value_or(0));
    SCW_EXPECT(!o_.max_value || o_.scale, kOp, "max_value is only used with scale=true");
    for (std::int64_t j = 0; j < n_genes_; ++j)
      if (!masked || o_.gene_mask[j] != 0) genes_.push_back(static_cast<std::int32_t>(j));
    m_ = static_cast<std::int64_t>(genes_.size());
    SCW_EXPECT(m_ >= 2, kOp, "needs at least 2 genes in use (got {} of {})", m_, n_genes_);
    const std::int64_t smaller = std::min(n_, m_);
    k_ = o_.n_comps != 0 ? o_.n_comps : (smaller <= kDefaultComps ? smaller - 1 : kDefaultComps);
    const std::int64_t most = o_.solver == PcaSolver::covariance ? smaller : smaller - 1;
    SCW_EXPECT(k_ >= 1 && k_ <= most, kOp, "n_comps must be between 1 and {} for {} cells and {} genes in use (got {})",
               most, n_, m_, k_);
    covariance_ = o_.solver == PcaSolver::covariance ||
                  (o_.solver == PcaSolver::automatic && m_ <= kPcaMaxCovarianceGenes) ||
                  prim::eigh_is_direct(ctx_.device, m_, k_);
  }

  /// Makes the current order of genes_ the order of positions.
  void upload_order() {
    std::vector<std::int32_t> position(at(n_genes_), -1);
    for (std::int64_t p = 0; p < m_; ++p) position[at(genes_[at(p)])] = static_cast<std::int32_t>(p);
    position_ = to_device<std::int32_t>(ctx_, position);
    column_ = to_device<std::int32_t>(ctx_, genes_);
    transform_.position = position_.data();
    transform_.column = column_.data();
    transform_.m = m_;
    transform_.identity = m_ == n_genes_ && !sparse_;
  }

  void set_scaling(const Doubles& center, const Doubles& inverse_scale, double max_value) {
    center_ = center;
    inverse_scale_ = inverse_scale;
    device_center_ = to_device<double>(ctx_, center_);
    device_inverse_scale_ = to_device<double>(ctx_, inverse_scale_);
    transform_.center = device_center_.data();
    transform_.inverse_scale = device_inverse_scale_.data();
    transform_.max_value = max_value;
  }
  void clear_scaling() { transform_.center = nullptr; }

  /// z of x = 0 for the gene at position p.
  double at_zero(std::int64_t p) const { return z_of(0.0, p); }
  double z_of(double x, std::int64_t p) const {
    GeneTransform t = transform_;  // with host pointers
    if (t.center != nullptr) t.center = center_.data();
    t.inverse_scale = inverse_scale_.data();
    return transformed(t, x, p);
  }
  bool on_cuda() const { return ctx_.device.type == DeviceType::cuda; }

  /// Sums of z (or z^2) over all cells, those without a stored entry included. Sums of x on CUDA find its range too.
  Doubles sums(bool squares, const char* step) {
    const bool range = on_cuda() && !squares && transform_.center == nullptr;
    Doubles zero(at((range ? 4 : 2) * m_), 0.0);
    if (range) {
      std::fill_n(zero.begin() + 2 * m_, m_, std::numeric_limits<double>::infinity());
      std::fill_n(zero.begin() + 3 * m_, m_, -std::numeric_limits<double>::infinity());
    }
    Array<double> device = to_device<double>(ctx_, zero);
    blocks_.for_each(step, [&](std::int64_t, const AnyMatrixView& x) {
      pca_sums_kernel(ctx_, x, transform_, squares, device.view());
    });
    const Array<double> host = to_host<double>(ctx_, std::as_const(device).view());
    Doubles out(at(m_));
    stored_.assign(host.begin() + m_, host.begin() + 2 * m_);
    if (range) {
      lowest_.assign(host.begin() + 2 * m_, host.begin() + 3 * m_);
      highest_.assign(host.begin() + 3 * m_, host.end());
    }
    for (std::int64_t p = 0; p < m_; ++p) {
      const double base = at_zero(p);
      out[at(p)] = host[p] + (static_cast<double>(n_) - host[m_ + p]) * (squares ? base * base : base);
    }
    return out;
  }

  /// Mean and standard deviation of each gene, and the mean of z.
  void moments() {
    const double n = static_cast<double>(n_);
    upload_order();
    mean_ = sums(false, "pca: means");
    for (std::int64_t p = 0; p < m_; ++p) {
      mean_[at(p)] /= n;
      SCW_EXPECT_AS(DataError, std::isfinite(mean_[at(p)]), kOp, "gene {} contains NaN or infinity", genes_[at(p)]);
    }
    if (sparse_ && !on_cuda()) order_by_count();
    z_mean_ = mean_;
    if (!o_.scale && covariance_) return;

    set_scaling(mean_, Doubles(at(m_), 1.0), std::numeric_limits<double>::infinity());
    Doubles variance = sums(true, "pca: variances");
    clear_scaling();
    for (double& v : variance) v /= n - 1;
    total_variance_ = std::accumulate(variance.begin(), variance.end(), 0.0);
    if (!o_.scale) return;

    Doubles inverse(at(m_));
    std_.resize(at(m_));
    for (std::int64_t p = 0; p < m_; ++p) {
      std_[at(p)] = variance[at(p)] > 0 ? std::sqrt(variance[at(p)]) : 1.0;
      inverse[at(p)] = 1 / std_[at(p)];
    }
    set_scaling(mean_, inverse, o_.max_value.value_or(std::numeric_limits<double>::infinity()));
    z_mean_ = sums(false, "pca: means of scaled values");
    for (double& v : z_mean_) v /= n;
    if (covariance_) return;
    const Doubles squares = sums(true, "pca: variances of scaled values");
    total_variance_ = 0;
    for (std::int64_t p = 0; p < m_; ++p)
      total_variance_ += (squares[at(p)] - n * z_mean_[at(p)] * z_mean_[at(p)]) / (n - 1);
  }

  /// Rare genes first: in the upper triangle of a sparse product they then meet the most columns, and the common genes
  /// the fewest.
  void order_by_count() {
    std::vector<std::int64_t> order(at(m_));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int64_t a, std::int64_t b) { return stored_[at(a)] < stored_[at(b)]; });
    const auto genes = genes_;
    const Doubles mean = mean_, stored = stored_;
    for (std::int64_t p = 0; p < m_; ++p) {
      genes_[at(p)] = genes[at(order[at(p)])];
      mean_[at(p)] = mean[at(order[at(p)])];
      stored_[at(p)] = stored[at(order[at(p)])];
    }
    upload_order();
  }

  /// Shifts of the rows that the kernels see. The fill of a tile is exact in float, so that the many entries that are
  /// not stored carry no rounding error.
  void centre() {
    Doubles tile_fill(at(m_));
    tile_shift_.resize(at(m_));
    base_.resize(at(m_));
    for (std::int64_t p = 0; p < m_; ++p) {
      base_[at(p)] = at_zero(p);
      tile_fill[at(p)] = static_cast<float>(base_[at(p)] - z_mean_[at(p)]);
      tile_shift_[at(p)] = base_[at(p)] - tile_fill[at(p)];
    }
    device_tile_shift_ = to_device<double>(ctx_, tile_shift_);
    device_fill_ = to_device<double>(ctx_, tile_fill);
    tile_ = {device_tile_shift_.data(), device_fill_.data()};
    row_shift_ = sparse_ ? base_ : tile_shift_;
    device_row_shift_ = to_device<double>(ctx_, row_shift_);
    rows_ = sparse_ ? RowShift{device_row_shift_.data(), nullptr} : tile_;
    // What is left to add to a row: shift - centre.
    remainder_.resize(at(m_));
    for (std::int64_t p = 0; p < m_; ++p)
      remainder_[at(p)] = row_shift_[at(p)] - (o_.zero_center ? z_mean_[at(p)] : 0.0);
  }

  /// Whether sparse rows times dense rows cost less than dense tiles do; the factor is the ratio of their speeds.
  bool sparse_product_pays() const {
    if (!sparse_ || ctx_.device.type != DeviceType::cpu) return false;
    double sparse_work = 0;
    for (std::int64_t p = 0; p < m_; ++p) sparse_work += stored_[at(p)] * static_cast<double>(m_ - p);
    return sparse_work * 2.5 < static_cast<double>(n_) * static_cast<double>(m_) * static_cast<double>(m_) / 2;
  }

  /// What the integers of CUDA's covariance stand for: X = (z - shift) * unit. The value that most entries of a gene
  /// have (what is not stored; in dense expression data, the least) becomes a multiple of 256: its rounding, and the
  /// product of its last digit with others', would not average out as those of changing values do.
  struct Integers {
    Doubles unit, shift, fill;
  };
  Integers integers() const {
    Integers out{Doubles(at(m_)), Doubles(at(m_)), Doubles(at(m_))};
    for (std::int64_t p = 0; p < m_; ++p) {
      const double mean = z_mean_[at(p)], low = z_of(lowest_[at(p)], p), high = z_of(highest_[at(p)], p);
      const double largest = std::max({std::abs(low - mean), std::abs(high - mean), std::abs(base_[at(p)] - mean)});
      const double unit = largest > 0 ? kPcaLargest / largest : 1.0, frequent = sparse_ ? base_[at(p)] : low;
      out.unit[at(p)] = unit;
      out.shift[at(p)] = frequent - 256 * std::nearbyint((frequent - mean) * unit / 256) / unit;
      out.fill[at(p)] = base_[at(p)] - out.shift[at(p)];
    }
    return out;
  }

  prim::TopEigen from_covariance() {
    Matrix<double> c(ctx_.workspace, m_, m_, "covariance", ctx_.stream);
    const bool stored_left = sparse_product_pays();
    Doubles shift = tile_shift_;
    RowShift tile = tile_;
    Array<double> unit, device_shift, device_fill;
    Array<std::int32_t> partial;
    blocks_.for_each("pca: covariance", [&](std::int64_t first, const AnyMatrixView& x) {
      if (first == 0 && on_cuda() && x.index() % 2 == 0) {  // float
        const Integers host = integers();
        shift = host.shift;
        unit = to_device<double>(ctx_, host.unit);
        device_shift = to_device<double>(ctx_, host.shift);
        device_fill = to_device<double>(ctx_, host.fill);
        tile = {device_shift.data(), device_fill.data()};
        const std::int64_t size = checked_mul(pca_padded(m_), pca_padded(m_));
        partial = Array<std::int32_t>(ctx_.workspace, checked_mul(kPcaProducts, size), "covariance", ctx_.stream);
      }
      pca_covariance_kernel(ctx_, x, transform_, tile,
                            {.stored_left = stored_left,
                             .first_block = first == 0,
                             .first_row = first,
                             .n_rows = n_,
                             .unit = unit.data(),
                             .partial = partial.data()},
                            c.view());
    });
    partial = {};
    Doubles left(at(m_)), right(at(m_));
    for (std::int64_t p = 0; p < m_; ++p) {
      right[at(p)] = z_mean_[at(p)] - shift[at(p)];
      left[at(p)] = stored_left ? z_mean_[at(p)] - base_[at(p)] : right[at(p)];
    }
    const Array<double> device_left = to_device<double>(ctx_, left), device_right = to_device<double>(ctx_, right),
                        add = to_device<double>(ctx_, z_mean_);
    Array<double> diagonal(ctx_.workspace, m_, "covariance", ctx_.stream);
    const double n = static_cast<double>(n_);
    pca_covariance_end_kernel(
        ctx_, c.view(),
        {device_left.data(), device_right.data(), o_.zero_center ? nullptr : add.data(), diagonal.data(), n, n - 1});
    const Array<double> variances = to_host<double>(ctx_, std::as_const(diagonal).view());
    total_variance_ = std::accumulate(variances.begin(), variances.end(), 0.0);
    if (!o_.zero_center)
      for (const double z : z_mean_) total_variance_ -= n / (n - 1) * z * z;
    SCW_EXPECT_AS(DataError, std::isfinite(total_variance_), kOp, "the values are too large: their squares overflow");
    ctx_.report("pca: eigenvectors", 0, 0);
    return prim::top_eigenpairs(ctx_, std::as_const(c).view(), k_, ctx_.rng.fold(kStartTag));
  }

  prim::TopEigen from_products() {
    const Array<double> remainder = to_device<double>(ctx_, remainder_);
    const MatrixView<const double> g_column(remainder.data(), m_, 1), g_row(remainder.data(), 1, m_);
    const double factor = 1 / static_cast<double>(n_ - 1);
    return prim::top_eigenpairs(
        ctx_, m_, k_,
        [&](const MatrixView<const double>& v, const MatrixView<double>& w) {
          const Doubles zeros(at(v.n_rows * m_), 0.0);
          copy_bytes(ctx_, w.data, ctx_.device, zeros.data(), Device{}, zeros.size() * sizeof(double));
          Array<double> y_sum = to_device<double>(ctx_, {zeros.data(), v.n_rows});
          Array<double> offset(ctx_.workspace, v.n_rows, "pca offsets", ctx_.stream);
          prim::gemm(ctx_, v, g_column, MatrixView<double>(offset.data(), v.n_rows, 1));
          blocks_.for_each("pca: products", [&](std::int64_t, const AnyMatrixView& x) {
            pca_apply_kernel(ctx_, x, transform_, rows_, v, std::as_const(offset).view(), w, y_sum.view());
          });
          prim::gemm(ctx_, MatrixView<const double>(y_sum.data(), v.n_rows, 1), g_row, w,
                     {.alpha = factor, .beta = factor});
        },
        ctx_.rng.fold(kStartTag));
  }

  void finish(const prim::TopEigen& eigen, Pca& out) {
    const double n = static_cast<double>(n_);
    std::vector<std::int64_t> order(at(m_));  // positions in the order of the genes
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::int64_t a, std::int64_t b) { return genes_[at(a)] < genes_[at(b)]; });

    out.components = Matrix<double>(host_memory(), m_, k_, "pca components");
    Array<double> by_position(host_memory(), m_ * k_, "pca components");
    out.variance = Array<double>(host_memory(), k_, "pca variance");
    out.variance_ratio = Array<double>(host_memory(), k_, "pca variance");
    Doubles offset(at(k_), 0.0);
    const double total = o_.zero_center ? total_variance_ : total_variance_ * (n - 1) / n;
    for (std::int64_t c = 0; c < k_; ++c) {
      const double* v = eigen.vectors.data.data() + c * m_;
      double largest = 0;
      for (const std::int64_t p : order)
        if (std::abs(v[p]) > std::abs(largest)) largest = v[p];
      const double sign = largest < 0 ? -1 : 1;
      double mean_score = 0;
      for (std::int64_t i = 0; i < m_; ++i) {
        const std::int64_t p = order[at(i)];
        out.components.data[i * k_ + c] = sign * v[p];
        by_position[p * k_ + c] = sign * v[p];
        offset[at(c)] += remainder_[at(p)] * sign * v[p];
        mean_score += z_mean_[at(p)] * v[p];
      }
      const double value = eigen.values[at(c)];
      out.variance[c] = std::max(0.0, o_.zero_center ? value : value * (n - 1) / n - mean_score * mean_score);
      out.variance_ratio[c] = total > 0 ? out.variance[c] / total : 0;
    }

    const Array<double> components = to_device<double>(ctx_, std::as_const(by_position).view());
    const Array<double> device_offset = to_device<double>(ctx_, offset);
    const MatrixView<const double> component_view(components.data(), m_, k_);
    const auto project = [&]<class T>(T) {
      Matrix<T> scores(ctx_.memory, n_, k_, "pca scores", ctx_.stream);
      blocks_.for_each("pca: scores", [&](std::int64_t first, const AnyMatrixView& x) {
        const MatrixView<T> part(scores.data.data() + first * k_, n_rows(x), k_);
        pca_scores_kernel(ctx_, x, transform_, rows_, component_view, device_offset.view(), part);
      });
      ctx_.synchronize();
      out.scores = std::move(scores);
    };
    if (o_.double_scores) {
      project(double{});
    } else {
      project(float{});
    }

    out.mean = Array<double>(host_memory(), m_, "pca mean");
    out.genes = Array<std::int64_t>(host_memory(), m_, "pca genes");
    if (o_.scale) out.std = Array<double>(host_memory(), m_, "pca std");
    for (std::int64_t i = 0; i < m_; ++i) {
      const std::int64_t p = order[at(i)];
      out.mean[i] = mean_[at(p)];
      out.genes[i] = genes_[at(p)];
      if (o_.scale) out.std[i] = std_[at(p)];
    }
  }

  const Context& ctx_;
  AlignedBlocks blocks_;
  const PcaOptions& o_;
  std::int64_t n_, n_genes_, m_ = 0, k_ = 0;
  bool sparse_, covariance_ = true;
  std::vector<std::int32_t> genes_;  // by position
  GeneTransform transform_;
  RowShift tile_, rows_;
  double total_variance_ = 0;
  // By position, on the host and on the device.
  Doubles stored_, lowest_, highest_, mean_, std_, z_mean_, center_, inverse_scale_, base_, tile_shift_, row_shift_,
      remainder_;
  Array<std::int32_t> position_, column_;
  Array<double> device_center_, device_inverse_scale_, device_tile_shift_, device_fill_, device_row_shift_;
};

}  // namespace

Pca pca(const Context& ctx, const RowBlocks& x, const PcaOptions& options) { return Driver(ctx, x, options).run(); }

Pca pca(const Context& ctx, const AnyMatrixView& x, const PcaOptions& options) {
  return pca(ctx, ResidentBlocks(x), options);
}

}  // namespace scw::pp
