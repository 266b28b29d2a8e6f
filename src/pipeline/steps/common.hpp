// What the steps share: results on the host, shapes for the estimates.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "math/elementary.hpp"
#include "scwarp/anndata.hpp"
#include "scwarp/estimate.hpp"
#include "scwarp/pipeline/pipeline.hpp"

namespace scw::pipeline {

/// Results of operations, wherever they are, on the host.
template <class T>
std::vector<T> to_vector(const Context& ctx, const Array<T>& a) {
  std::vector<T> out(static_cast<std::size_t>(a.size()));
  copy_bytes(ctx, out.data(), Device{}, a.data(), a.device(), out.size() * sizeof(T));
  return out;
}

/// Flags and codes for operations that read them on ctx.device. Keeps a reference to the values.
template <class T>
class OnDevice {
 public:
  OnDevice(const Context& ctx, const std::vector<T>& values) : values_(values) {
    if (ctx.device != Device{}) copy_ = to_device<T>(ctx, Span<const T>(values), "flags and codes");
  }
  Span<const T> view() const { return copy_.empty() ? Span<const T>(values_) : std::as_const(copy_).view(); }

 private:
  const std::vector<T>& values_;
  Array<T> copy_;
};

template <class To, class From>
std::vector<To> cast(const From& values) {
  std::vector<To> out;
  out.reserve(static_cast<std::size_t>(values.size()));
  for (const auto v : values) out.push_back(static_cast<To>(v));
  return out;
}

/// Sums of counts have the type of X, or int64 if the file holds whole numbers.
enum class SumType : std::uint8_t { f32, f64, i64 };
inline SumType sum_type(const MatrixElement& x) {
  const auto& stored = x.stored_dtype;
  if (stored.starts_with("int") || stored.starts_with("uint") || stored == "bool") return SumType::i64;
  return x.data.index() % 2 == 0 ? SumType::f32 : SumType::f64;
}

template <class T>
std::vector<std::conditional_t<std::is_same_v<T, float>, float, double>> log1p_of(const std::vector<T>& values) {
  using Out = std::conditional_t<std::is_same_v<T, float>, float, double>;
  std::vector<Out> out;
  out.reserve(values.size());
  for (const T v : values) out.push_back(math::log1p(static_cast<Out>(v)));
  return out;
}

template <class Visit>
void with_sum_type(SumType type, Visit&& visit) {
  if (type == SumType::f32)
    visit(float{});
  else if (type == SumType::f64)
    visit(double{});
  else
    visit(std::int64_t{});
}

inline const MatrixElement& require_X(const AnnData& data, const char* op) {
  SCW_EXPECT(data.X.has_value(), op, "there is no X");
  return *data.X;
}

/// For the estimates of the operations: X as it is, or its first n_cols columns made dense.
inline estimate::Shape shape_for(const Shape& s, int n_threads) {
  return {s.device, n_threads, s.n_obs, s.n_vars, s.nnz, s.value_bytes, s.sparse, s.streamed, 0, s.limit_bytes};
}
inline estimate::Shape dense_shape(const Shape& s, int n_threads, std::int64_t n_cols, int value_bytes) {
  return {s.device,    n_threads, s.n_obs,    n_cols, checked_mul(s.n_obs, n_cols),
          value_bytes, false,     s.streamed, 0,      s.limit_bytes};
}
/// X of the variable genes, taken to hold half of the entries.
inline estimate::Shape few_genes_shape(const Shape& s, int n_threads, std::int64_t n_cols) {
  estimate::Shape e = shape_for(s, n_threads);
  e.n_cols = n_cols;
  e.nnz = s.sparse ? s.nnz / 2 : checked_mul(s.n_obs, n_cols);
  return e;
}
inline bool on_host(const Shape& s) { return s.device == DeviceType::cpu; }
/// X of some cells or genes is made where X is.
inline estimate::Need subset_of(const Shape& s, int n_threads, std::int64_t n_cols, std::int64_t nnz) {
  return s.streamed ? estimate::Need{} : estimate::subset(shape_for(s, n_threads), s.n_obs, n_cols, nnz);
}

/// The genes that PCA and the dense steps before it work on: as many as were asked for, or a guess.
inline std::int64_t variable_genes(const RunOptions& o, const Shape& s) {
  return o.n_top_genes > 0 ? std::min(o.n_top_genes, s.n_vars) : s.n_vars / 5;
}
/// Whether the flavour of variable genes reads counts, so that the step comes before normalising.
inline bool on_counts(const std::string& flavor) { return flavor.starts_with("seurat_v3"); }
/// Whether X becomes dense; else scaling and regression are done inside the PCA.
inline bool makes_dense(const RunOptions& o) { return o.scaling == "explicit"; }

}  // namespace scw::pipeline
