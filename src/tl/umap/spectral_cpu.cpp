// The parts of the spectral start on the CPU.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "tl/umap/kernel.hpp"

namespace scw::tl::cpu {
namespace {

constexpr std::int64_t kRowGrain = 1024;

void components(const Context& ctx, const CsrView<const float>& g, UmapComponents& c) {
  std::vector<std::int32_t> label(static_cast<std::size_t>(g.n_rows), -1);
  std::vector<std::int32_t> stack;
  std::int32_t count = 0;
  for (std::int64_t v = 0; v < g.n_rows; ++v) {
    if (label[static_cast<std::size_t>(v)] >= 0) continue;
    label[static_cast<std::size_t>(v)] = count;
    stack.push_back(static_cast<std::int32_t>(v));
    while (!stack.empty()) {
      const std::int32_t u = stack.back();
      stack.pop_back();
      for (std::int64_t e = g.indptr[u]; e < g.indptr[u + 1]; ++e) {
        std::int32_t& l = label[static_cast<std::size_t>(g.indices[e])];
        if (l < 0) {
          l = count;
          stack.push_back(g.indices[e]);
        }
      }
    }
    ++count;
  }
  c.first.assign(static_cast<std::size_t>(count) + 1, 0);
  for (const std::int32_t l : label) ++c.first[static_cast<std::size_t>(l) + 1];
  std::partial_sum(c.first.begin(), c.first.end(), c.first.begin());
  c.members = Array<std::int32_t>(ctx.workspace, g.n_rows, "spectral components");
  auto next = c.first;
  for (std::size_t v = 0; v < label.size(); ++v)
    c.members[next[static_cast<std::size_t>(label[v])]++] = static_cast<std::int32_t>(v);
}

void normalise(const Context& ctx, const CsrView<const float>& g, const UmapComponents& c, UmapNormalised& out) {
  const std::int64_t n = g.n_rows;
  out.indptr = Array<std::int64_t>(ctx.workspace, n + 1, "spectral graph");
  out.indptr[0] = 0;
  for (std::int64_t p = 0; p < n; ++p)
    out.indptr[p + 1] = out.indptr[p] + g.indptr[c.members[p] + 1] - g.indptr[c.members[p]];
  out.indices = Array<std::int32_t>(ctx.workspace, out.indptr[n], "spectral graph");
  out.values = Array<float>(ctx.workspace, out.indptr[n], "spectral graph");
  out.root = Array<double>(ctx.workspace, n, "spectral degrees");
  Array<std::int32_t> place(ctx.workspace, n, "spectral order");
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int32_t v = c.members[p];
      place[v] = static_cast<std::int32_t>(p);
      double degree = 0;
      for (std::int64_t e = g.indptr[v]; e < g.indptr[v + 1]; ++e) degree += static_cast<double>(g.values[e]);
      out.root[p] = std::sqrt(degree);
    }
  });
  const auto component_of = [&](std::int64_t p) {
    return std::upper_bound(c.first.begin(), c.first.end(), p) - c.first.begin() - 1;
  };
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    auto k = static_cast<std::size_t>(component_of(begin));
    for (std::int64_t p = begin; p < end; ++p) {
      while (p >= c.first[k + 1]) ++k;
      const std::int64_t from = g.indptr[c.members[p]] - out.indptr[p];
      for (std::int64_t e = out.indptr[p]; e < out.indptr[p + 1]; ++e) {
        const std::int32_t q = place[g.indices[from + e]];
        out.indices[e] = static_cast<std::int32_t>(q - c.first[k]);
        out.values[e] = static_cast<float>(static_cast<double>(g.values[from + e]) / (out.root[p] * out.root[q]));
      }
    }
  });
  for (std::size_t k = 0; k + 1 < c.first.size(); ++k) {
    const std::int64_t begin = c.first[k];
    const std::int64_t size = c.first[k + 1] - begin;
    double norm = 0;
    for (std::int64_t at = 0; at < size; at += kUmapNormChunk) {
      double chunk = 0;
      for (std::int64_t i = at; i < std::min(at + kUmapNormChunk, size); ++i)
        chunk += out.root[begin + i] * out.root[begin + i];
      norm += chunk;
    }
    norm = std::sqrt(norm);
    for (std::int64_t i = 0; i < size; ++i) out.root[begin + i] /= norm;
  }
}

/// 8 vectors at a time; the sum over a row runs in the order of its entries.
SCW_CLONES void multiply_rows(const std::int64_t* indptr, const std::int32_t* indices, const float* values,
                              const float* x, float* y, std::int64_t begin, std::int64_t end, std::int64_t q) {
  for (std::int64_t i = begin; i < end; ++i)
    for (std::int64_t slab = 0; slab < q; slab += 8) {
      float sum[8] = {};
      for (std::int64_t e = indptr[i]; e < indptr[i + 1]; ++e) {
        const float* const xe = x + indices[e] * q + slab;
        const float w = values[e];
        for (int b = 0; b < 8; ++b) sum[b] += w * xe[b];
      }
      for (int b = 0; b < 8; ++b) y[i * q + slab + b] = sum[b];
    }
}

void product(const Context& ctx, const CsrView<const float>& g, const float* x, float* y, int q) {
  parallel_for(ctx, g.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    multiply_rows(g.indptr.data, g.indices.data, g.values.data, x, y, begin, end, q);
  });
}

void queues(const Context&, int, std::unique_ptr<UmapQueues>& out) { out = std::make_unique<UmapQueues>(); }

void put_component(const Context&, const MatrixView<const float>& y, Span<const std::int32_t> rows, const float* middle,
                   float radius, const MatrixView<float>& out) {
  float largest = 0;
  for (std::int64_t i = 0; i < y.n_rows; ++i)
    for (std::int64_t d = 0; d < y.n_cols; ++d) largest = std::max(largest, std::abs(y(i, d)));
  const float scale = largest > 0 ? radius / largest : 0.0f;
  for (std::int64_t i = 0; i < y.n_rows; ++i)
    for (std::int64_t d = 0; d < y.n_cols; ++d) out(rows[i], d) = middle[d] + scale * y(i, d);
}

void put_rows(const Context&, const MatrixView<const float>& y, Span<const std::int32_t> rows,
              const MatrixView<float>& out) {
  for (std::int64_t i = 0; i < y.n_rows; ++i) std::copy_n(y.row(i), y.n_cols, out.row(rows[i]));
}

}  // namespace

SCW_REGISTER(umap_components_kernel, cpu, &components);
SCW_REGISTER(umap_normalise_kernel, cpu, &normalise);
SCW_REGISTER(umap_product_kernel, cpu, &product);
SCW_REGISTER(umap_queues_kernel, cpu, &queues);
SCW_REGISTER(umap_put_component_kernel, cpu, &put_component);
SCW_REGISTER(umap_put_rows_kernel, cpu, &put_rows);

}  // namespace scw::tl::cpu
