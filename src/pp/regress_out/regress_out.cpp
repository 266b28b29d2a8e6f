#include "scwarp/pp/regress_out.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "pp/regress_out/kernel.hpp"
#include "scwarp/pp/gene_moments.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMutableDenseView&, MatrixView<const double>, Span<const double>)>
    remove_projection_kernel{"pp.regress_out"};
constinit Kernel<void(const Context&, const AnyCsrView&, MatrixView<const double>, Span<const double>,
                      const AnyMutableDenseView&)>
    residual_to_dense_kernel{"pp.regress_out: residual_to_dense"};
constinit Kernel<void(const Context&, const AnyMutableDenseView&, Span<const std::int32_t>, MatrixView<const double>)>
    subtract_group_means_kernel{"pp.regress_out: subtract_group_means"};
constinit Kernel<void(const Context&, const AnyCsrView&, const AnyMutableDenseView&)> densify_kernel{
    "pp.regress_out: densify"};

namespace {

constexpr const char* kOp = "pp.regress_out";

AnyMatrixView to_const(const AnyMutableDenseView& x) {
  return std::visit([](const auto& v) { return as_const(v); }, x);
}

constexpr std::int64_t kChunk = 1 << 15;  // cells that share one partial sum

/// Sum of term(i) over all cells: within chunks in order, then the chunks in order.
template <class Term>
double sum_over(const Context& host, std::int64_t n, const Term& term) {
  std::vector<double> partial(static_cast<std::size_t>(chunk_count(n, kChunk)));
  parallel_chunks(host, n, kChunk, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += term(static_cast<std::size_t>(i));
    partial[static_cast<std::size_t>(chunk)] = sum;
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}
using Column = std::unique_ptr<double[]>;  // first touched by the threads that fill it

template <class Change>
void change_all(const Context& host, std::int64_t n, Column& column, const Change& change) {
  parallel_for(host, n, kChunk, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      column[i] = change(column[i], i);
  });
}

/// Ones, then an orthonormal basis of the centred keys; [n x (rank + 1)].
Matrix<double> orthogonal_design(const Context& host, MatrixView<const double> keys) {
  const std::int64_t n = keys.n_rows;
  const double n_cells = static_cast<double>(n);
  std::vector<Column> basis;
  const auto norm = [&](const Column& v) {
    return std::sqrt(sum_over(host, n, [&](std::size_t i) { return v[i] * v[i]; }));
  };
  for (std::int64_t k = 0; k < keys.n_cols; ++k) {
    auto column = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(n));
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
    if (std::abs(exponent) <= 1000) {
      const double factor = std::ldexp(1.0, -exponent);
      change_all(host, n, column, [=](double v, std::size_t) { return v * factor; });
    } else {
      change_all(host, n, column, [=](double v, std::size_t) { return std::scalbn(v, -exponent); });
    }
    for (int pass = 0; pass < 2; ++pass) {  // the second mean is what the first left over
      const double mean = sum_over(host, n, [&](std::size_t i) { return column[i]; }) / n_cells;
      change_all(host, n, column, [=](double v, std::size_t) { return v - mean; });
    }
    const double length = norm(column);
    if (length <= 1e-13 * std::sqrt(n_cells)) continue;  // constant
    change_all(host, n, column, [=](double v, std::size_t) { return v / length; });
    for (int pass = 0; pass < 2; ++pass)
      for (const auto& q : basis) {
        const double c = sum_over(host, n, [&](std::size_t i) { return q[i] * column[i]; });
        change_all(host, n, column, [&, c](double v, std::size_t i) { return v - c * q[i]; });
      }
    const double rest = norm(column);
    if (rest <= 1e-10) continue;
    change_all(host, n, column, [=](double v, std::size_t) { return v / rest; });
    basis.push_back(std::move(column));
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
  MatrixView<const double> q() const {
    return {copy.empty() ? host.data.data() : copy.data(), host.n_rows, host.n_cols};
  }
};

Design make_design(const Context& ctx, MatrixView<const double> keys) {
  Design out;
  out.host = orthogonal_design(ctx.host(), keys);
  out.d.assign(static_cast<std::size_t>(out.host.n_cols), 1.0);
  out.d[0] = 1.0 / static_cast<double>(out.host.n_rows);
  if (ctx.device.type != DeviceType::cpu)
    out.copy = to_device<double>(ctx, std::as_const(out.host).data.view(), "regressors");
  return out;
}

void check_keys(MatrixView<const double> keys, std::int64_t rows) {
  SCW_EXPECT_AS(ShapeMismatch, keys.n_rows == rows, kOp, "keys must have one row per cell (got {}, expected {})",
                keys.n_rows, rows);
  const double* const end = keys.data + keys.n_rows * keys.n_cols;
  if (keys.ld == keys.n_cols && std::all_of(keys.data, end, [](double v) { return std::isfinite(v); })) return;
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

/// make(view) fills a new dense matrix of the shape and value type of x.
template <class Make>
void new_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out, const Make& make) {
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        Matrix<V> dense(ctx.memory, v.n_rows, v.n_cols, "residuals", ctx.stream);
        make(AnyMutableDenseView(dense.view()));
        out = std::move(dense);
      },
      x);
}

}  // namespace

RegressOut regress_out(const Context& ctx, const AnyMutableDenseView& x, MatrixView<const double> keys) {
  check_keys(keys, n_rows(to_const(x)));
  RegressOut out;
  if (keys.n_rows == 0) return out;
  const Design design = make_design(ctx, keys);
  out.n_independent = design.q().n_cols - 1;
  remove_projection_kernel(ctx, x, design.q(), Span<const double>(design.d));
  return out;
}

RegressOut regress_out_to_dense(const Context& ctx, const AnyCsrView& x, AnyDenseMatrix& out,
                                MatrixView<const double> keys) {
  check_keys(keys, n_rows(to_any_matrix(x)));
  RegressOut r;
  const Design design = keys.n_rows > 0 ? make_design(ctx, keys) : Design{};
  new_dense(ctx, x, out, [&](const AnyMutableDenseView& dense) {
    if (keys.n_rows == 0) return;
    r.n_independent = design.q().n_cols - 1;
    residual_to_dense_kernel(ctx, x, design.q(), Span<const double>(design.d), dense);
  });
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
  GeneMomentsOptions g;
  g.groups = codes;
  g.n_groups = n_categories;
  GeneMoments m;
  if (n_categories > 0 && !codes.empty()) m = gene_moments(ctx, to_any_matrix(x), g);  // exact: as of the dense matrix
  new_dense(ctx, x, out, [&](const AnyMutableDenseView& dense) {
    densify_kernel(ctx, x, dense);
    if (m.mean.n_rows > 0) subtract_group_means_kernel(ctx, dense, codes, m.mean.view());
  });
}

}  // namespace scw::pp
