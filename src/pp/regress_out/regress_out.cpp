#include "scwarp/pp/regress_out.hpp"

#include <cmath>
#include <vector>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "pp/regress_out/kernel.hpp"
#include "scwarp/pp/gene_moments.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMutableDenseView&, MatrixView<const double>, Span<const double>)>
    remove_projection_kernel{"pp.regress_out"};
constinit Kernel<void(const Context&, const AnyMutableDenseView&, Span<const std::int32_t>, MatrixView<const double>)>
    subtract_group_means_kernel{"pp.regress_out: subtract_group_means"};
constinit Kernel<void(const Context&, const AnyCsrView&, const AnyMutableDenseView&)> densify_kernel{
    "pp.regress_out: densify"};

namespace {

constexpr const char* kOp = "pp.regress_out";

AnyMatrixView to_const(const AnyMutableDenseView& x) {
  return std::visit([](const auto& v) { return as_const(v); }, x);
}

/// Ones, then an orthonormal basis of the centred keys; [n x (rank + 1)].
Matrix<double> orthogonal_design(const Context& host, MatrixView<const double> keys) {
  const std::int64_t n = keys.n_rows;
  std::vector<std::vector<double>> basis;
  const auto norm = [](const std::vector<double>& v) {
    double sum = 0;
    for (const double x : v) sum += x * x;
    return std::sqrt(sum);
  };
  for (std::int64_t k = 0; k < keys.n_cols; ++k) {
    std::vector<double> column(static_cast<std::size_t>(n));
    double largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      column[static_cast<std::size_t>(i)] = keys(i, k);
      largest = std::max(largest, std::abs(keys(i, k)));
    }
    if (largest == 0) continue;
    const int exponent = std::ilogb(largest);
    for (double& v : column) v = std::scalbn(v, -exponent);  // exact; the squares of any finite key then stay finite
    for (int pass = 0; pass < 2; ++pass) {                   // the second mean is what the first left over
      double mean = 0;
      for (const double v : column) mean += v;
      mean /= static_cast<double>(n);
      for (double& v : column) v -= mean;
    }
    const double length = norm(column);
    if (length <= 1e-13 * std::sqrt(static_cast<double>(n))) continue;  // constant
    for (double& v : column) v /= length;
    for (int pass = 0; pass < 2; ++pass)
      for (const auto& q : basis) {
        double c = 0;
        for (std::size_t i = 0; i < column.size(); ++i) c += q[i] * column[i];
        for (std::size_t i = 0; i < column.size(); ++i) column[i] -= c * q[i];
      }
    const double rest = norm(column);
    if (rest <= 1e-10) continue;
    for (double& v : column) v /= rest;
    basis.push_back(std::move(column));
  }
  const auto p = static_cast<std::int64_t>(basis.size()) + 1;
  Matrix<double> out(host.workspace, n, p, "regressors");
  for (std::int64_t i = 0; i < n; ++i) {
    out.view()(i, 0) = 1;
    for (std::int64_t k = 1; k < p; ++k)
      out.view()(i, k) = basis[static_cast<std::size_t>(k - 1)][static_cast<std::size_t>(i)];
  }
  return out;
}

void check_keys(MatrixView<const double> keys, std::int64_t rows) {
  SCW_EXPECT_AS(ShapeMismatch, keys.n_rows == rows, kOp, "keys must have one row per cell (got {}, expected {})",
                keys.n_rows, rows);
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

template <class Body>
void with_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out, const Body& body) {
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        Matrix<V> dense(ctx.memory, v.n_rows, v.n_cols, "residuals", ctx.stream);
        densify_kernel(ctx, x, dense.view());
        body(AnyMutableDenseView(dense.view()));
        out = std::move(dense);
      },
      x);
}

}  // namespace

RegressOut regress_out(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> keys) {
  check_keys(keys, n_rows(to_const(x)));
  RegressOut out;
  if (keys.n_rows == 0) return out;
  const Matrix<double> q = orthogonal_design(ctx.host(), keys);
  std::vector<double> d(static_cast<std::size_t>(q.n_cols), 1.0);
  d[0] = 1.0 / static_cast<double>(q.n_rows);
  out.n_independent = q.n_cols - 1;
  if (ctx.device.type == DeviceType::cpu) {
    remove_projection_kernel(ctx, x, q.view(), Span<const double>(d));
    return out;
  }
  const Array<double> on_device = to_device<double>(ctx, q.data.view());
  remove_projection_kernel(ctx, x, MatrixView<const double>(on_device.data(), q.n_rows, q.n_cols),
                           Span<const double>(d));
  return out;
}

RegressOut regress_out_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                MatrixView<const double> keys) {
  check_keys(keys, n_rows(to_any_matrix(x)));
  RegressOut r;
  with_dense(ctx, x, out, [&](const AnyMutableDenseView& dense) { r = regress_out(ctx, dense, keys); });
  return r;
}

void regress_out_categories(const Context& ctx, const AnyMutableDenseView& x, Span<const std::int32_t> codes,
                            std::int32_t n_categories) {
  check_codes(codes, n_categories, n_rows(to_const(x)));
  if (n_categories == 0 || codes.empty()) return;
  GeneMomentsOptions g;
  g.groups = codes;
  g.n_groups = n_categories;
  const GeneMoments m = gene_moments(ctx, to_const(x), g);
  subtract_group_means_kernel(ctx, x, codes, m.mean.view());
}

void regress_out_categories_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                     Span<const std::int32_t> codes, std::int32_t n_categories) {
  check_codes(codes, n_categories, n_rows(to_any_matrix(x)));
  with_dense(ctx, x, out,
             [&](const AnyMutableDenseView& dense) { regress_out_categories(ctx, dense, codes, n_categories); });
}

}  // namespace scw::pp
