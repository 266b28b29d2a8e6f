// What comes before the layout and after it, on the CPU.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/parallel.hpp"
#include "prim/csr_to_csc.hpp"
#include "tl/symmetry.hpp"
#include "tl/umap/kernel.hpp"
#include "tl/umap/start.hpp"

namespace scw::tl::cpu {
namespace {

constexpr std::int64_t kGrain = 4096;

void weights(const Context& ctx, const CsrView<const float>& g, UmapWeights& out) {
  struct Part {
    UmapWeights weights;
    std::uint64_t asymmetry = 0;
  };
  std::vector<Part> partial(static_cast<std::size_t>(chunk_count(g.n_rows, kGrain)));
  parallel_chunks(ctx, g.n_rows, kGrain, [&](std::int64_t c, std::int64_t begin, std::int64_t end, int) {
    Part& mine = partial[static_cast<std::size_t>(c)];
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e) {
        const float w = g.values[e];
        if (!(w >= 0 && std::isfinite(w))) {
          mine.weights.bad = e;
          return;
        }
        if (w == 0) continue;
        mine.weights.most = std::max(mine.weights.most, w);
        mine.asymmetry += symmetry_term(i, g.indices[e], static_cast<double>(w));
      }
  });
  std::uint64_t asymmetry = 0;
  for (const Part& p : partial) {
    out.most = std::max(out.most, p.weights.most);
    if (out.bad < 0) out.bad = p.weights.bad;
    asymmetry += p.asymmetry;
  }
  out.symmetric = asymmetry == 0;
}

void average(const Context& ctx, const CsrView<const float>& g, Csr<float>& out) {
  Context inner = ctx;
  inner.memory = ctx.workspace;
  const Csc<float> transposed = prim::csr_to_csc(inner, g);
  const CscView<const float> t = transposed.view();
  const std::int64_t n = g.n_rows;
  /// put(column, weight) for row i of the average, columns increasing.
  const auto merge = [&](std::int64_t i, const auto& put) {
    std::int64_t k = t.indptr[i];
    const std::int64_t end = t.indptr[i + 1];
    for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e) {
      const std::int32_t j = g.indices[e];
      for (; k < end && t.indices[k] < j; ++k) put(t.indices[k], 0.5f * t.values[k]);
      float w = 0.5f * g.values[e];
      if (k < end && t.indices[k] == j) w += 0.5f * t.values[k++];
      put(j, w);
    }
    for (; k < end; ++k) put(t.indices[k], 0.5f * t.values[k]);
  };
  out.n_rows = n;
  out.n_cols = g.n_cols;
  out.indptr = Array<std::int64_t>(ctx.workspace, n + 1, "umap graph");
  out.indptr[0] = 0;
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t count = 0;
      merge(i, [&](std::int32_t, float) { ++count; });
      out.indptr[i + 1] = count;
    }
  });
  std::partial_sum(out.indptr.begin(), out.indptr.end(), out.indptr.begin());
  out.indices = Array<std::int32_t>(ctx.workspace, out.indptr[n], "umap graph");
  out.values = Array<float>(ctx.workspace, out.indptr[n], "umap graph");
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t to = out.indptr[i];
      merge(i, [&](std::int32_t j, float w) {
        out.indices[to] = j;
        out.values[to++] = w;
      });
    }
  });
}

void prune(const Context& ctx, const CsrView<const float>& g, float cutoff, Csr<float>& out) {
  out.n_rows = g.n_rows;
  out.n_cols = g.n_cols;
  out.indptr = Array<std::int64_t>(ctx.workspace, g.n_rows + 1, "umap graph");
  const auto keep = [&](std::int64_t i, std::int64_t e) {
    return g.indices[e] != i && g.values[e] > 0 && g.values[e] >= cutoff;
  };
  out.indptr[0] = 0;
  parallel_for(ctx, g.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t count = 0;
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e) count += keep(i, e) ? 1 : 0;
      out.indptr[i + 1] = count;
    }
  });
  std::partial_sum(out.indptr.begin(), out.indptr.end(), out.indptr.begin());
  if (out.indptr[g.n_rows] == g.nnz()) {
    out = {};
    return;
  }
  out.indices = Array<std::int32_t>(ctx.workspace, out.indptr[g.n_rows], "umap graph");
  out.values = Array<float>(ctx.workspace, out.indptr[g.n_rows], "umap graph");
  parallel_for(ctx, g.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t to = out.indptr[i];
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e)
        if (keep(i, e)) {
          out.indices[to] = g.indices[e];
          out.values[to++] = g.values[e];
        }
    }
  });
}

bool has_equal_rows(const Matrix<float>& y) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(y.n_rows));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto row = [&](std::int64_t i) { return y.data.data() + i * y.n_cols; };
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return std::lexicographical_compare(row(a), row(a) + y.n_cols, row(b), row(b) + y.n_cols);
  });
  for (std::size_t k = 1; k < order.size(); ++k)
    if (std::equal(row(order[k]), row(order[k]) + y.n_cols, row(order[k - 1]))) return true;
  return false;
}

void stretch(Matrix<float>& y) {
  for (std::int64_t d = 0; d < y.n_cols; ++d) {
    float low = std::numeric_limits<float>::infinity();
    float high = -low;
    for (std::int64_t i = 0; i < y.n_rows; ++i) {
      low = std::min(low, y.data[i * y.n_cols + d]);
      high = std::max(high, y.data[i * y.n_cols + d]);
    }
    low += 0.0f;  // of the two zeros, the positive one
    high += 0.0f;
    for (std::int64_t i = 0; i < y.n_rows; ++i) {
      float& v = y.data[i * y.n_cols + d];
      v = umap_stretch(v, low, high);
    }
  }
}

void start(const Context&, UmapStart& s, Matrix<float>& y) {
  const std::int64_t dims = y.n_cols;
  if (s.init == UmapInit::spectral) {
    float largest = 0;
    for (const float v : y.data) largest = std::max(largest, std::abs(v));
    for (std::int64_t k = 0; k < y.data.size(); ++k) y.data[k] = umap_spectral(y.data[k], largest, s.noise, k);
  } else if (s.init == UmapInit::random) {
    for (std::int64_t k = 0; k < y.data.size(); ++k) y.data[k] = umap_random(s.random, k);
  } else {
    for (std::int64_t k = 0; k < y.data.size(); ++k) {
      y.data[k] = s.given(k / dims, k % dims);
      if (!std::isfinite(y.data[k])) {
        s.bad = k;
        return;
      }
    }
  }
  stretch(y);
  if (s.init == UmapInit::array && has_equal_rows(y)) {
    const float scale = umap_jitter(y.n_rows, dims);
    for (std::int64_t k = 0; k < y.data.size(); ++k) y.data[k] += scale * umap_noise(s.noise, k);
  }
}

void order(const Context& ctx, const CsrView<const float>& graph, float most, const MatrixView<const float>& start,
           UmapOrder& out) {
  const std::int64_t n = graph.n_rows;
  // Cells by falling number of samples: the cells of a vector group have about the same number of steps.
  Array<double> samples(ctx.workspace, n, "umap expected samples");
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      samples[i] = 0;
      for (std::int64_t e = graph.indptr[i]; e < graph.indptr[i + 1]; ++e)
        samples[i] += static_cast<double>(graph.values[e]);
    }
  });
  out.order = Array<std::int32_t>(ctx.memory, n, "umap order");
  std::iota(out.order.begin(), out.order.end(), 0);
  std::stable_sort(out.order.begin(), out.order.end(),
                   [&](std::int32_t i, std::int32_t j) { return samples[i] > samples[j]; });
  Array<std::int32_t> place(ctx.workspace, n, "umap order");
  for (std::int64_t k = 0; k < n; ++k) place[out.order[k]] = static_cast<std::int32_t>(k);
  while (out.n_active < n && samples[out.order[out.n_active]] > 0) ++out.n_active;

  out.indptr = Array<std::int64_t>(ctx.memory, out.n_active + 1, "umap graph");
  out.indptr[0] = 0;
  for (std::int64_t k = 0; k < out.n_active; ++k)
    out.indptr[k + 1] = out.indptr[k] + graph.indptr[out.order[k] + 1] - graph.indptr[out.order[k]];
  out.targets = Array<std::int32_t>(ctx.memory, out.indptr[out.n_active], "umap graph");
  out.rates = Array<std::uint32_t>(ctx.memory, out.indptr[out.n_active], "umap graph");
  out.y = Array<float>(ctx.memory, checked_mul(n, start.n_cols), "umap positions");
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t i = out.order[k];
      std::copy_n(start.row(i), start.n_cols, out.y.data() + k * start.n_cols);
      if (k >= out.n_active) continue;
      // Strong edges first: what a weak edge to another cluster does is then seen by the cell's neighbours before their
      // pull undoes it, which is what moves clusters towards each other.
      std::vector<std::int64_t> by_weight(static_cast<std::size_t>(graph.indptr[i + 1] - graph.indptr[i]));
      std::iota(by_weight.begin(), by_weight.end(), graph.indptr[i]);
      std::stable_sort(by_weight.begin(), by_weight.end(),
                       [&](std::int64_t e, std::int64_t f) { return graph.values[e] > graph.values[f]; });
      std::int64_t to = out.indptr[k];
      for (const std::int64_t e : by_weight) {
        out.targets[to] = place[graph.indices[e]];
        out.rates[to++] = umap_rate(graph.values[e], most);
      }
    }
  });
}

void unorder(const Context&, Span<const std::int32_t> order, Span<const float> y, const MatrixView<float>& out) {
  for (std::int64_t k = 0; k < order.size; ++k) std::copy_n(y.data + k * out.n_cols, out.n_cols, out.row(order[k]));
}

}  // namespace

SCW_REGISTER(umap_weights_kernel, cpu, &weights);
SCW_REGISTER(umap_average_kernel, cpu, &average);
SCW_REGISTER(umap_prune_kernel, cpu, &prune);
SCW_REGISTER(umap_start_kernel, cpu, &start);
SCW_REGISTER(umap_order_kernel, cpu, &order);
SCW_REGISTER(umap_unorder_kernel, cpu, &unorder);

}  // namespace scw::tl::cpu
