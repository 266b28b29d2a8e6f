// CSR to CSC and back, for matrices whose file wants the other layout.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

/// Transposes rows of an n_major x n_minor matrix; the result's rows are sorted.
template <class V>
Csr<V> transpose(const Context& ctx, std::int64_t n_major, std::int64_t n_minor, const Array<std::int64_t>& indptr,
                 const Array<std::int32_t>& indices, const Array<V>& values) {
  Csr<V> out;
  out.n_rows = n_minor;
  out.n_cols = static_cast<std::int32_t>(n_major);
  out.indptr = Array<std::int64_t>(ctx.memory, n_minor + 1, "transposed indptr");
  std::fill(out.indptr.begin(), out.indptr.end(), 0);
  for (const std::int32_t i : indices) ++out.indptr[i + 1];
  for (std::int64_t i = 0; i < n_minor; ++i) out.indptr[i + 1] += out.indptr[i];
  out.indices = Array<std::int32_t>(ctx.memory, indices.size(), "transposed indices");
  out.values = Array<V>(ctx.memory, values.size(), "transposed values");
  // Each range of result rows is one pass over the input, so that threads write apart from each other.
  const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(n_minor, ctx.n_threads));
  Array<std::int64_t> next(ctx.workspace, n_minor, "transpose cursor");
  std::copy_n(out.indptr.data(), n_minor, next.data());
  const auto part_begin = [&](std::int64_t part) {
    const auto target = indices.size() / parts * part;
    return part == parts
               ? n_minor
               : std::min<std::int64_t>(
                     n_minor, std::lower_bound(out.indptr.begin(), out.indptr.end(), target) - out.indptr.begin());
  };
  parallel_for(ctx, parts, 1, [&](std::int64_t part, std::int64_t) {
    const std::int64_t first = part_begin(part), last = part_begin(part + 1);
    for (std::int64_t j = 0; j < n_major; ++j)
      for (std::int64_t p = indptr[j]; p < indptr[j + 1]; ++p) {
        const std::int32_t i = indices[p];
        if (i < first || i >= last) continue;
        const std::int64_t q = next[i]++;
        out.indices[q] = static_cast<std::int32_t>(j);
        out.values[q] = values[p];
      }
  });
  return out;
}

}  // namespace scw::io
