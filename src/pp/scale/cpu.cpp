#include <algorithm>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/scale/kernel.hpp"

#include "pp/scale/body.inl"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kRowGrain = 64;

// Null means are handled by a table of zeros: x - 0 is x.
SCW_CLONES void scale_row(float* x, std::int64_t n, const double* mean, const double* std, double low, double high) {
  for (std::int64_t j = 0; j < n; ++j)
    x[j] = static_cast<float>(scaled_value(static_cast<double>(x[j]), mean[j], std[j], low, high));
}
SCW_CLONES void scale_row(double* x, std::int64_t n, const double* mean, const double* std, double low, double high) {
  for (std::int64_t j = 0; j < n; ++j) x[j] = scaled_value(x[j], mean[j], std[j], low, high);
}
/// Entries of one or more rows: the standard deviation is gathered.
SCW_CLONES void scale_entries(float* x, const std::int32_t* columns, std::int64_t n, const double* std, double low,
                              double high) {
  for (std::int64_t k = 0; k < n; ++k)
    x[k] = static_cast<float>(scaled_value(static_cast<double>(x[k]), 0.0, std[columns[k]], low, high));
}
SCW_CLONES void scale_entries(double* x, const std::int32_t* columns, std::int64_t n, const double* std, double low,
                              double high) {
  for (std::int64_t k = 0; k < n; ++k) x[k] = scaled_value(x[k], 0.0, std[columns[k]], low, high);
}
SCW_CLONES void scatter_row(const float* x, const std::int32_t* columns, std::int64_t n, const double* mean,
                            const double* std, double low, double high, float* out) {
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int32_t j = columns[k];
    out[j] = static_cast<float>(scaled_value(static_cast<double>(x[k]), mean[j], std[j], low, high));
  }
}
SCW_CLONES void scatter_row(const double* x, const std::int32_t* columns, std::int64_t n, const double* mean,
                            const double* std, double low, double high, double* out) {
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int32_t j = columns[k];
    out[j] = scaled_value(x[k], mean[j], std[j], low, high);
  }
}

std::vector<double> means_of(const ScaleArguments& a, std::int64_t n) {
  return a.mean != nullptr ? std::vector<double>(a.mean, a.mean + n)
                           : std::vector<double>(static_cast<std::size_t>(n), 0.0);
}

template <class V>
void apply(const Context& ctx, const MatrixView<V>& x, const ScaleArguments& a) {
  const std::vector<double> mean = means_of(a, x.n_cols);
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      if (a.mask.empty() || a.mask[i] != 0) scale_row(x.row(i), x.n_cols, mean.data(), a.std, a.low, a.high);
  });
}
template <class V>
void apply(const Context& ctx, const CsrView<V>& x, const ScaleArguments& a) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (!a.mask.empty() && a.mask[i] == 0) continue;
      const std::int64_t k = x.indptr[i];
      scale_entries(x.values.data + k, x.indices.data + k, x.indptr[i + 1] - k, a.std, a.low, a.high);
    }
  });
}

}  // namespace

void scale(const Context& ctx, const AnyMutableMatrixView& x, const ScaleArguments& a) {
  std::visit([&](const auto& v) { apply(ctx, v, a); }, x);
}

void scale_to_dense(const Context& ctx, const AnyCsrView& x, const ScaleArguments& a, const AnyMutableMatrixView& out) {
  std::visit(
      [&](const auto& v) {
        using V = std::remove_const_t<std::remove_pointer_t<decltype(v.values.data)>>;
        const auto& to = std::get<MatrixView<V>>(out);
        const std::vector<double> mean = means_of(a, v.n_cols);
        std::vector<V> zero(mean.size());  // what a zero becomes
        for (std::size_t j = 0; j < zero.size(); ++j)
          zero[j] = static_cast<V>(scaled_value(0.0, mean[j], a.std[j], a.low, a.high));
        parallel_for(ctx, v.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            V* const row = to.row(i);
            const std::int64_t k = v.indptr[i], n = v.indptr[i + 1] - k;
            if (!a.mask.empty() && a.mask[i] == 0) {
              std::fill(row, row + to.n_cols, V{0});
              for (std::int64_t e = k; e < k + n; ++e) row[v.indices[e]] = v.values[e];
              continue;
            }
            std::copy(zero.begin(), zero.end(), row);
            scatter_row(v.values.data + k, v.indices.data + k, n, mean.data(), a.std, a.low, a.high, row);
          }
        });
      },
      x);
}

SCW_REGISTER(scale_kernel, cpu, &scale);
SCW_REGISTER(scale_to_dense_kernel, cpu, &scale_to_dense);

}  // namespace scw::pp::cpu
