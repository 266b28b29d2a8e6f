#include "scwarp/pp/regress_out.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "pp/regress_out/kernel.hpp"
#include "prim/csr_subset/csr_subset.hpp"
#include "prim/dense_by_blocks.hpp"
#include "scwarp/pp/gene_moments.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, MatrixView<const double>, const Slabs&, Span<double>)>
    projection_kernel{"pp.regress_out: projection"};
constinit Kernel<void(const Context&, Span<const double>, Span<const double>, MatrixView<double>)> coefficients_kernel{
    "pp.regress_out: coefficients"};
constinit Kernel<void(const Context&, const AnyMutableDenseView&, MatrixView<const double>, MatrixView<const double>)>
    residual_kernel{"pp.regress_out"};
constinit Kernel<void(const Context&, const AnyCsrView&, MatrixView<const double>, MatrixView<const double>,
                      const AnyMutableDenseView&)>
    residual_to_dense_kernel{"pp.regress_out: residual_to_dense"};
constinit Kernel<void(const Context&, const AnyMutableDenseView&, Span<const std::int32_t>, MatrixView<const double>)>
    subtract_group_means_kernel{"pp.regress_out: subtract_group_means"};
constinit Kernel<void(const Context&, const AnyCsrView&, const AnyMutableDenseView&)> densify_kernel{
    "pp.regress_out: densify"};

SCW_BUILT_ON("pp.regress_out", "pp.gene_moments");

namespace {

constexpr const char* kOp = "pp.regress_out";

AnyMatrixView to_const(const AnyMutableDenseView& x) {
  return std::visit([](const auto& v) { return as_const(v); }, x);
}

constexpr std::int64_t kChunk = 1 << 15;  // cells that share one partial sum

/// Calls change(i) for all cells; the sum of what it returns, within chunks in order, then the chunks in order.
template <class Change>
double change_and_sum(const Context& host, std::int64_t n, const Change& change) {
  std::vector<double> partial(static_cast<std::size_t>(chunk_count(n, kChunk)));
  parallel_chunks(host, n, kChunk, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += change(static_cast<std::size_t>(i));
    partial[static_cast<std::size_t>(chunk)] = sum;
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}
using Column = std::unique_ptr<double[]>;  // first touched by the threads that fill it

/// Ones, then an orthonormal basis of the centred keys; [n x (rank + 1)]. Column r is `made_of[r][0]` plus the sum of
/// made_of[r][1 + k] times key k.
Matrix<double> orthogonal_design(const Context& host, MatrixView<const double> keys,
                                 std::vector<std::vector<double>>& made_of) {
  const std::int64_t n = keys.n_rows;
  const double n_cells = static_cast<double>(n);
  std::vector<Column> basis;
  const auto unit = [&](std::int64_t k) {
    std::vector<double> v(static_cast<std::size_t>(keys.n_cols) + 1, 0.0);
    v[static_cast<std::size_t>(k)] = 1;
    return v;
  };
  made_of = {unit(0)};
  for (std::int64_t k = 0; k < keys.n_cols; ++k) {
    auto column = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(n));
    std::vector<double> parts = unit(k + 1);
    const auto scale_parts = [&](double factor) {
      for (double& part : parts) part *= factor;
    };
    std::vector<double> maxima(static_cast<std::size_t>(chunk_count(n, kChunk)));
    parallel_chunks(host, n, kChunk, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
      double largest = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        column[static_cast<std::size_t>(i)] = keys(i, k);
        largest = std::max(largest, std::abs(keys(i, k)));
      }
      maxima[static_cast<std::size_t>(chunk)] = largest;
    });
    const double largest = *std::max_element(maxima.begin(), maxima.end());
    if (largest == 0) continue;
    // By a power of two, exactly; the squares of any finite key then stay finite.
    const int exponent = std::ilogb(largest);
    double* const v = column.get();
    double sum = 0;
    if (std::abs(exponent) <= 1000) {
      const double factor = std::ldexp(1.0, -exponent);
      sum = change_and_sum(host, n, [=](std::size_t i) { return v[i] *= factor; });
    } else {
      sum = change_and_sum(host, n, [=](std::size_t i) { return v[i] = std::scalbn(v[i], -exponent); });
    }
    parts[static_cast<std::size_t>(k) + 1] = std::scalbn(1.0, -exponent);
    const double mean = sum / n_cells;
    const double rest_mean = change_and_sum(host, n, [=](std::size_t i) { return v[i] -= mean; }) / n_cells;
    parts[0] -= mean;
    parts[0] -= rest_mean;
    const auto square_without_rest = [=](std::size_t i) {
      v[i] -= rest_mean;
      return v[i] * v[i];
    };
    const double length = std::sqrt(change_and_sum(host, n, square_without_rest));
    if (length <= 1e-13 * std::sqrt(n_cells)) continue;  // constant
    scale_parts(1 / length);
    // Twice against every vector of the basis. Each pass over the cells makes a change and the sum that is needed next:
    // the product with the vector that follows, or the square for the norm.
    const std::size_t turns = 2 * basis.size();
    const auto change_then_next = [&](std::size_t turn, const auto& change) {
      const double* const next = turn < turns ? basis[turn % basis.size()].get() : v;
      return change_and_sum(host, n, [=](std::size_t i) {
        v[i] = change(i);
        return next[i] * v[i];
      });
    };
    double product = change_then_next(0, [=](std::size_t i) { return v[i] / length; });
    for (std::size_t turn = 0; turn < turns; ++turn) {
      const double c = product;
      const std::size_t b = turn % basis.size();
      const double* const q = basis[b].get();
      product = change_then_next(turn + 1, [=](std::size_t i) { return v[i] - c * q[i]; });
      for (std::size_t t = 0; t < parts.size(); ++t) parts[t] -= c * made_of[b + 1][t];
    }
    const double rest = std::sqrt(product);
    if (rest <= 1e-10) continue;
    parallel_for(host, n, kChunk, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) v[i] /= rest;
    });
    scale_parts(1 / rest);
    basis.push_back(std::move(column));
    made_of.push_back(std::move(parts));
  }
  const auto p = static_cast<std::int64_t>(basis.size()) + 1;
  Matrix<double> out(host.workspace, n, p, "regressors");
  parallel_for(host, n, kChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      double* const row = out.view().row(i);
      row[0] = 1;
      for (std::int64_t k = 1; k < p; ++k) row[k] = basis[static_cast<std::size_t>(k - 1)][static_cast<std::size_t>(i)];
    }
  });
  return out;
}

/// The regressors on ctx.device, and 1 / |q_r|^2 of its columns.
struct Design {
  Matrix<double> host;
  Array<double> copy;  // empty on the CPU
  std::vector<double> d;
  std::vector<std::vector<double>> made_of;
  MatrixView<const double> q() const {
    return {copy.empty() ? host.data.data() : copy.data(), host.n_rows, host.n_cols};
  }
};

Design make_design(const Context& ctx, MatrixView<const double> keys) {
  Design out;
  out.host = orthogonal_design(ctx.host(), keys, out.made_of);
  out.d.assign(static_cast<std::size_t>(out.host.n_cols), 1.0);
  out.d[0] = 1.0 / static_cast<double>(out.host.n_rows);
  if (ctx.device.type != DeviceType::cpu)
    out.copy = to_device<double>(ctx, std::as_const(out.host).data.view(), "regressors");
  return out;
}

void check_keys(const Context& ctx, MatrixView<const double> keys, std::int64_t rows) {
  SCW_EXPECT_AS(ShapeMismatch, keys.n_rows == rows, kOp, "keys must have one row per cell (got {}, expected {})",
                keys.n_rows, rows);
  std::atomic<bool> all_finite{true};
  parallel_for(ctx.host(), keys.n_rows, kChunk, [&](std::int64_t begin, std::int64_t end) {
    bool finite = true;
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t k = 0; k < keys.n_cols; ++k) finite &= std::isfinite(keys(i, k));
    if (!finite) all_finite = false;
  });
  if (all_finite) return;
  for (std::int64_t i = 0; i < keys.n_rows; ++i)
    for (std::int64_t k = 0; k < keys.n_cols; ++k)
      SCW_EXPECT_AS(DataError, std::isfinite(keys(i, k)), kOp, "key {} of cell {} is not a finite number (got {})", k,
                    i, keys(i, k));
}

void check_codes(Span<const std::int32_t> codes, std::int32_t n_categories, std::int64_t rows) {
  SCW_EXPECT_AS(ShapeMismatch, codes.size == rows, kOp, "codes must have one entry per cell (got {}, expected {})",
                codes.size, rows);
  SCW_EXPECT(n_categories >= 0, kOp, "n_categories must not be negative (got {})", n_categories);
}

/// Rows of a slab: their number depends on the number of cells alone.
std::int64_t slab_rows(const Context& ctx, std::int64_t n) {
  constexpr std::int64_t kMinSlab = 1024, kUnit = 8;
  const std::int64_t slabs = ctx.device.type == DeviceType::cpu ? 64 : 256;
  return std::max(kMinSlab, (n + slabs * kUnit - 1) / (slabs * kUnit) * kUnit);
}

/// d q^T x, [p x genes] on ctx.device. One pass.
Matrix<double> coefficients_of(const Context& ctx, const RowBlocks& x, const Design& design) {
  const MatrixView<const double> q = design.q();
  const std::int64_t n = x.n_rows(), p = q.n_cols, m = x.n_cols();
  Slabs slabs;
  slabs.rows = slab_rows(ctx, n);
  const std::int64_t size = checked_mul(chunk_count(n, slabs.rows), checked_mul(p, m));
  Array<double> partial(ctx.workspace, size, "projections", ctx.stream);
  x.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    const std::int64_t rows = n_rows(block);
    for (std::int64_t r = 0, count = 0; r < rows; r += count) {
      const std::int64_t inside = (first + r) % slabs.rows;
      count = inside == 0 ? rows - r : std::min(rows - r, slabs.rows - inside);
      slabs.first = (first + r) / slabs.rows;
      slabs.begun = inside != 0;
      projection_kernel(ctx, prim::rows_of(block, r, count), {q.row(first + r), count, p, q.ld}, slabs, partial.view());
    }
  });
  Matrix<double> out(ctx.workspace, p, m, "coefficients", ctx.stream);
  const Array<double> d = to_device<double>(ctx, design.d, "regressor norms");
  coefficients_kernel(ctx, std::as_const(partial).view(), d.view(), out.view());
  return out;
}

/// body(first row, rows) for a dense matrix that is changed row by row.
template <class Body>
void change_rows(const Context& ctx, const AnyMutableDenseView& x, const Body& body) {
  stream_rows(ctx, std::visit([](const auto& v) -> AnyMutableMatrixView { return v; }, x), RowParts::all,
              [&](std::int64_t first, const AnyMutableMatrixView& rows) {
                std::visit(
                    [&](const auto& v) {
                      if constexpr (requires { v.ld; }) body(first, v);
                    },
                    rows);
              });
}

/// to <- x, whether sparse or dense.
template <class V>
void densify(const Context& ctx, const AnyMatrixView& x, const MatrixView<V>& to) {
  if (const auto* const dense = std::get_if<MatrixView<const V>>(&x))
    prim::copy_rows(ctx, *dense, to);
  else
    densify_kernel(ctx, std::get<CsrView<const V>>(x), to);
}

/// to <- x - q c.
template <class V>
void residual_of(const Context& ctx, const AnyMatrixView& x, MatrixView<const double> q, MatrixView<const double> c,
                 const MatrixView<V>& to) {
  if (const auto* const csr = std::get_if<CsrView<const V>>(&x)) {
    residual_to_dense_kernel(ctx, *csr, q, c, to);
  } else {
    densify(ctx, x, to);
    residual_kernel(ctx, to, q, c);
  }
}

MatrixView<const double> rows_of(const MatrixView<const double>& q, std::int64_t first, std::int64_t count) {
  return {q.row(first), count, q.n_cols, q.ld};
}

GeneMoments means_of(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes,
                     std::int32_t n_categories) {
  GeneMomentsOptions g;
  g.groups = codes;
  g.n_groups = n_categories;
  return gene_moments(ctx, x, g);
}

}  // namespace

RegressOut regress_out(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> keys) {
  check_keys(ctx, keys, n_rows(to_const(x)));
  RegressOut out;
  if (keys.n_rows == 0) return out;
  const Design design = make_design(ctx, keys);
  out.n_independent = design.q().n_cols - 1;
  const Matrix<double> c = coefficients_of(ctx, ResidentBlocks(to_const(x)), design);
  change_rows(ctx, x, [&](std::int64_t first, const auto& rows) {
    residual_kernel(ctx, rows, rows_of(design.q(), first, rows.n_rows), c.view());
  });
  return out;
}

RegressOut regress_out_to_dense(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out,
                                MatrixView<const double> keys) {
  check_keys(ctx, keys, x.n_rows());
  RegressOut r;
  Design design;
  Matrix<double> c;
  if (keys.n_rows > 0) {
    design = make_design(ctx, keys);
    r.n_independent = design.q().n_cols - 1;
    c = coefficients_of(ctx, x, design);
  }
  const auto make = [&](const AnyMatrixView& rows, std::int64_t first, const auto& to) {
    if (to.n_rows > 0) residual_of(ctx, rows, rows_of(design.q(), first, to.n_rows), std::as_const(c).view(), to);
  };
  out = prim::dense_by_blocks(ctx, x, x.n_cols(), "residuals", make);
  return r;
}

RegressOut regress_out_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                MatrixView<const double> keys) {
  return regress_out_to_dense(ctx, ResidentBlocks(to_any_matrix(x)), out, keys);
}

RegressOut fit_regression(const Context& ctx, const RowBlocks& x, MatrixView<const double> keys) {
  check_keys(ctx, keys, x.n_rows());
  RegressOut out;
  const std::int64_t genes = x.n_cols();
  out.coefficients = Matrix<double>(host_memory(), keys.n_cols + 1, genes, "regression");
  std::fill(out.coefficients.data.begin(), out.coefficients.data.end(), 0.0);
  if (keys.n_rows == 0) return out;
  const Design design = make_design(ctx, keys);
  out.n_independent = design.q().n_cols - 1;
  const Matrix<double> on_device = coefficients_of(ctx, x, design);
  const Array<double> c = to_host<double>(ctx, on_device.data.view());
  for (std::size_t r = 0; r < design.made_of.size(); ++r)
    for (std::int64_t k = 0; k <= keys.n_cols; ++k) {
      const double factor = design.made_of[r][static_cast<std::size_t>(k)];
      double* const row = out.coefficients.view().row(k);
      for (std::int64_t j = 0; j < genes; ++j) row[j] += factor * c[static_cast<std::int64_t>(r) * genes + j];
    }
  return out;
}

void regress_out_categories(const Context& ctx, const AnyMutableDenseView& x, Span<const std::int32_t> codes,
                            std::int32_t n_categories) {
  check_codes(codes, n_categories, n_rows(to_const(x)));
  if (n_categories == 0 || codes.empty()) return;
  const GeneMoments m = means_of(ctx, ResidentBlocks(to_const(x)), codes, n_categories);
  change_rows(ctx, x, [&](std::int64_t first, const auto& rows) {
    subtract_group_means_kernel(ctx, rows, codes.subspan(first, rows.n_rows), m.mean.view());
  });
}

void regress_out_categories_to_dense(const Context& ctx, const RowBlocks& x, AnyDenseMatrix& out,
                                     Span<const std::int32_t> codes, std::int32_t n_categories) {
  check_codes(codes, n_categories, x.n_rows());
  GeneMoments m;
  if (n_categories > 0 && !codes.empty()) m = means_of(ctx, x, codes, n_categories);  // exact: as of the dense matrix
  const auto make = [&](const AnyMatrixView& rows, std::int64_t first, const auto& to) {
    densify(ctx, rows, to);
    if (m.mean.n_rows > 0)
      subtract_group_means_kernel(ctx, to, codes.subspan(first, to.n_rows), std::as_const(m.mean).view());
  };
  out = prim::dense_by_blocks(ctx, x, x.n_cols(), "residuals", make);
}

void regress_out_categories_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                     Span<const std::int32_t> codes, std::int32_t n_categories) {
  regress_out_categories_to_dense(ctx, ResidentBlocks(to_any_matrix(x)), out, codes, n_categories);
}

ResidualBlocks::ResidualBlocks(const RowBlocks& x, MatrixView<const double> keys, MatrixView<const double> coefficients,
                               Span<const std::uint8_t> gene_mask)
    : x_(x), keys_(keys), fit_(coefficients), gene_mask_(gene_mask) {
  SCW_EXPECT_AS(ShapeMismatch, keys.n_rows == x.n_rows() && coefficients.n_rows == keys.n_cols + 1, kOp,
                "keys are {} x {} and coefficients {} x {} (expected {} cells, and one row of coefficients more than "
                "keys)",
                keys.n_rows, keys.n_cols, coefficients.n_rows, coefficients.n_cols, x.n_rows());
  check_genes();
}

ResidualBlocks::ResidualBlocks(const RowBlocks& x, Span<const std::int32_t> codes, MatrixView<const double> means,
                               Span<const std::uint8_t> gene_mask)
    : x_(x), fit_(means), codes_(codes), gene_mask_(gene_mask), categorical_(true) {
  SCW_EXPECT_AS(ShapeMismatch, codes.size == x.n_rows(), kOp,
                "codes must have one entry per cell (got {}, expected {})", codes.size, x.n_rows());
  check_genes();
}

void ResidualBlocks::check_genes() {
  const std::int64_t genes = x_.n_cols();
  SCW_EXPECT_AS(ShapeMismatch, fit_.n_cols == genes && (gene_mask_.empty() || gene_mask_.size == genes), kOp,
                "the fit is of {} genes, the mask has {} entries (expected {})", fit_.n_cols, gene_mask_.size, genes);
  n_cols_ = gene_mask_.empty() ? genes : std::count_if(gene_mask_.begin(), gene_mask_.end(), [](auto k) { return k; });
}

template <class V>
void ResidualBlocks::visit_as(const Context& ctx, const Body& body) const {
  const std::int64_t n = n_rows(), p = fit_.n_rows;
  Matrix<double> fit(ctx.host().workspace, p, n_cols_, "regression");
  for (std::int64_t k = 0; k < p; ++k)
    for (std::int64_t j = 0, at = 0; j < fit_.n_cols; ++j)
      if (gene_mask_.empty() || gene_mask_[j] != 0) fit.view()(k, at++) = fit_(k, j);
  const Array<double> c = to_device<double>(ctx, std::as_const(fit.data).view(), "regression");
  const MatrixView<const double> c_view(c.data(), p, n_cols_);

  // Blocks of whole tiles of PCA where the memory allows it: they need no copy there.
  constexpr std::int64_t kTile = 4096, kBytes = std::int64_t{512} << 20;
  const std::int64_t room =
      std::min(kBytes, available_bytes(ctx) / 8) / std::max<std::int64_t>(1, n_cols_ * std::int64_t{sizeof(V)} + p * 8);
  const std::int64_t most = std::clamp<std::int64_t>(room < kTile ? room : room / kTile * kTile, 1, n);
  Matrix<V> buffer(ctx.workspace, most, n_cols_, "residual block", ctx.stream);
  Array<double> design(ctx.workspace, categorical_ ? 0 : checked_mul(most, p), "regressors", ctx.stream);
  Array<std::int32_t> codes(ctx.workspace, categorical_ ? most : 0, "categories", ctx.stream);
  std::vector<double> host(static_cast<std::size_t>(design.size()));
  Context scratch = ctx;
  scratch.memory = ctx.workspace;

  x_.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    const std::int64_t rows = scw::n_rows(block);
    for (std::int64_t r = 0, count = 0; r < rows; r += count) {
      // Up to the next tile, then whole tiles.
      const std::int64_t inside = most % kTile == 0 ? (first + r) % kTile : 0;
      count = std::min(rows - r, most - inside);
      AnyMatrixView part = prim::rows_of(block, r, count);
      AnyMatrix kept;
      if (!gene_mask_.empty()) {
        kept = prim::subset(scratch, part, {}, gene_mask_);
        part = std::visit([](const auto& m) { return AnyMatrixView(m.view()); }, kept);
      }
      const MatrixView<V> to(buffer.data.data(), count, n_cols_);
      if (categorical_) {
        copy_bytes(ctx, codes.data(), ctx.device, codes_.data + first + r, Device{},
                   static_cast<std::size_t>(count) * sizeof(std::int32_t));
        densify(ctx, part, to);
        subtract_group_means_kernel(ctx, to, std::as_const(codes).view().subspan(0, count), c_view);
      } else {
        for (std::int64_t i = 0; i < count; ++i) {
          double* const row = host.data() + i * p;
          row[0] = 1;
          std::copy_n(keys_.row(first + r + i), p - 1, row + 1);
        }
        copy_bytes(ctx, design.data(), ctx.device, host.data(), Device{},
                   static_cast<std::size_t>(count * p) * sizeof(double));
        residual_of(ctx, part, {std::as_const(design).data(), count, p}, c_view, to);
      }
      body(first + r, MatrixView<const V>(to));
    }
  });
}

void ResidualBlocks::visit(const Context& ctx, RowParts, const Body& body) const {
  if (n_rows() == 0) return;
  if (is_double(ctx))
    visit_as<double>(ctx, body);
  else
    visit_as<float>(ctx, body);
}

}  // namespace scw::pp
