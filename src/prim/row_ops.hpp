// for_each_row and row_reduce on the CPU; row_ops.cuh has the same functions for CUDA, with the same bits.
//
// A row sum is a fixed tree: lane l of 32 adds the entries l, l + 32, ... of the row in double, then the lanes are
// added as a butterfly (16, 8, 4, 2, 1). "Entry" means stored entry for CSR and column for dense rows.
//
// Functors (named structs with SCW_HD operator(), see a body.inl):
//   map     double operator()(V value, std::int32_t column) const             for row_reduce
//   update  V      operator()(V value, std::int64_t row, std::int32_t column) const   for for_each_value
#pragma once

#include <cstdint>

#include "core/parallel.hpp"
#include "scwarp/core/views.hpp"

namespace scw::prim::cpu {

inline constexpr std::int64_t kRowGrain = 512;

inline double lane_tree(double* lanes) {
  for (int offset = 16; offset > 0; offset /= 2)
    for (int l = 0; l < offset; ++l) lanes[l] += lanes[l + offset];
  return lanes[0];
}

template <class V, class Map>
double reduce_row(const V* values, const std::int32_t* columns, std::int64_t count, const Map& map) {
  double lanes[32] = {};
  std::int64_t k = 0;
  const auto column = [columns](std::int64_t i) {
    return columns != nullptr ? columns[i] : static_cast<std::int32_t>(i);
  };
  for (; k + 32 <= count; k += 32)
    for (int l = 0; l < 32; ++l) lanes[l] += map(values[k + l], column(k + l));
  for (int l = 0; k + l < count; ++l) lanes[l] += map(values[k + l], column(k + l));
  return lane_tree(lanes);
}

/// out[i] = sum over row i of map(value, column).
template <class V, class Map>
void row_reduce(const Context& ctx, const CsrView<V>& x, const Map& map, Span<double> out) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      out[i] =
          reduce_row(x.values.data + x.indptr[i], x.indices.data + x.indptr[i], x.indptr[i + 1] - x.indptr[i], map);
  });
}
template <class V, class Map>
void row_reduce(const Context& ctx, const MatrixView<V>& x, const Map& map, Span<double> out) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      out[i] = reduce_row(x.row(i), static_cast<const std::int32_t*>(nullptr), x.n_cols, map);
  });
}

/// value = update(value, row, column) for every entry.
template <class V, class Update>
void for_each_value(const Context& ctx, const CsrView<V>& x, const Update& update) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t k = x.indptr[i]; k < x.indptr[i + 1]; ++k) x.values[k] = update(x.values[k], i, x.indices[k]);
  });
}
template <class V, class Update>
void for_each_value(const Context& ctx, const MatrixView<V>& x, const Update& update) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j < x.n_cols; ++j) x(i, j) = update(x(i, j), i, static_cast<std::int32_t>(j));
  });
}

/// row_reduce and for_each_value in one pass, while a row is in the cache: value = update.given(out[i])(value, column)
/// in row i.
template <class V, class Map, class Update>
void reduce_then_update(const Context& ctx, const CsrView<V>& x, const Map& map, const Update& update,
                        Span<double> out) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = x.indptr[i], last = x.indptr[i + 1];
      out[i] = reduce_row(x.values.data + first, x.indices.data + first, last - first, map);
      const auto own = update.given(out[i]);
      for (std::int64_t k = first; k < last; ++k) x.values[k] = own(x.values[k], x.indices[k]);
    }
  });
}
template <class V, class Map, class Update>
void reduce_then_update(const Context& ctx, const MatrixView<V>& x, const Map& map, const Update& update,
                        Span<double> out) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      out[i] = reduce_row(x.row(i), static_cast<const std::int32_t*>(nullptr), x.n_cols, map);
      const auto own = update.given(out[i]);
      for (std::int64_t j = 0; j < x.n_cols; ++j) x(i, j) = own(x(i, j), static_cast<std::int32_t>(j));
    }
  });
}

/// visit(value, row, column) for every entry, in any order over rows.
template <class V, class Visit>
void visit_values(const Context& ctx, const CsrView<V>& x, const Visit& visit) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t k = x.indptr[i]; k < x.indptr[i + 1]; ++k) visit(x.values[k], i, x.indices[k]);
  });
}
template <class V, class Visit>
void visit_values(const Context& ctx, const MatrixView<V>& x, const Visit& visit) {
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j < x.n_cols; ++j) visit(x(i, j), i, static_cast<std::int32_t>(j));
  });
}

}  // namespace scw::prim::cpu
