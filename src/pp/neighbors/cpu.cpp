#include <algorithm>
#include <atomic>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "pp/neighbors/kernel.hpp"

#include "pp/neighbors/body.inl"

namespace scw::pp::cpu {
namespace {

constexpr std::int64_t kGrain = 1024;

struct Edge {
  std::int32_t id;
  float weight;
};

SCW_CLONES void fuzzy_weights(const KnnView& knn, const float* distances, double overall_mean, std::int64_t begin,
                              std::int64_t end, float* weights) {
  for (std::int64_t i = begin; i < end; ++i) {
    const float* const d = distances + i * knn.k;
    const math::FuzzyRow row = math::fuzzy_row(d, knn.k, overall_mean);
    for (int j = 0; j < knn.k; ++j) weights[i * knn.k + j] = math::fuzzy_weight(static_cast<double>(d[j]), row);
  }
}

void fuzzy(const Context& ctx, const KnnView& knn, const float* distances, float* weights) {
  Array<double> sums(ctx.workspace, knn.n, "connectivities");
  parallel_for(ctx, knn.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) sums[i] = math::row_sum(distances + i * knn.k, knn.k);
  });
  for (std::int64_t n = knn.n; n > 1; n = (n + kSumGroup - 1) / kSumGroup)
    for (std::int64_t g = 0; g * kSumGroup < n; ++g) sums[g] = group_sum(sums.data(), n, g);  // g is read before
  const double mean = knn.n > 0 ? sums[0] / (static_cast<double>(knn.n) * knn.k) : 0.0;
  parallel_for(ctx, knn.n, kGrain,
               [&](std::int64_t begin, std::int64_t end) { fuzzy_weights(knn, distances, mean, begin, end, weights); });
}

void gauss(const Context& ctx, const KnnView& knn, const float* distances, float* weights) {
  Array<double> widths(ctx.workspace, knn.n, "connectivities");
  parallel_for(ctx, knn.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> scratch(static_cast<std::size_t>(knn.k));
    for (std::int64_t i = begin; i < end; ++i) widths[i] = median_squared(distances + i * knn.k, knn.k, scratch.data());
  });
  parallel_for(ctx, knn.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (int j = 1; j < knn.k; ++j) {
        const std::int32_t id = knn.indices[i * knn.k + j];
        const double d = static_cast<double>(distances[i * knn.k + j]);
        weights[i * knn.k + j] = id < 0 ? 0.0f : static_cast<float>(math::gauss_weight(d * d, widths[i], widths[id]));
      }
  });
}

void jaccard(const Context& ctx, const KnnView& knn, float* weights) {
  const int m = knn.k - 1;
  Array<std::int32_t> sorted(ctx.workspace, checked_mul(knn.n, m), "connectivities");
  parallel_for(ctx, knn.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::copy_n(knn.indices.data + i * knn.k + 1, m, sorted.data() + i * m);
      std::sort(sorted.data() + i * m, sorted.data() + (i + 1) * m);
    }
  });
  parallel_for(ctx, knn.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (int j = 1; j < knn.k; ++j) {
        const std::int32_t id = knn.indices[i * knn.k + j];
        weights[i * knn.k + j] =
            id < 0 ? 0.0f : overlap(sorted.data() + i * m, sorted.data() + std::int64_t{id} * m, m);
      }
  });
}

/// out_ij = join(w_ij, w_ji); weights of 0, the diagonal and missing neighbours are left out.
template <class Join>
void symmetrize(const Context& ctx, const KnnView& knn, const float* weights, const Join& join, Csr<float>& out) {
  const std::int64_t n = knn.n, k = knn.k;
  const auto by_id = [](const Edge& a, const Edge& b) { return a.id < b.id; };
  Array<Edge> forward(ctx.workspace, checked_mul(n, k), "connectivities");
  Array<std::int32_t> degree(ctx.workspace, n, "connectivities");
  Array<std::int64_t> start(ctx.workspace, n + 1, "connectivities"), next(ctx.workspace, n, "connectivities");
  std::fill(next.begin(), next.end(), std::int64_t{0});
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      Edge* const row = forward.data() + i * k;
      std::int32_t count = 0;
      for (std::int64_t j = 0; j < k; ++j) {
        const Edge e{knn.indices[i * k + j], weights[i * k + j]};
        if (e.id < 0 || e.id == i || !(e.weight > 0)) continue;
        row[count++] = e;
        std::atomic_ref(next[e.id]).fetch_add(1, std::memory_order_relaxed);
      }
      std::sort(row, row + count, by_id);
      degree[i] = count;
    }
  });
  start[0] = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    start[i + 1] = start[i] + next[i];
    next[i] = start[i];
  }
  // The other direction: places within a row depend on the threads, the order after sorting does not.
  Array<Edge> backward(ctx.workspace, start[n], "connectivities");
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int32_t j = 0; j < degree[i]; ++j) {
        const Edge& e = forward[i * k + j];
        backward[std::atomic_ref(next[e.id]).fetch_add(1, std::memory_order_relaxed)] = {static_cast<std::int32_t>(i),
                                                                                         e.weight};
      }
  });
  out.n_rows = n;
  out.n_cols = static_cast<std::int32_t>(n);
  out.indptr = Array<std::int64_t>(ctx.memory, n + 1, "connectivities");
  const auto merge = [&](std::int64_t i, const auto& emit) {
    const Edge *a = forward.data() + i * k, *b = backward.data() + start[i];
    const Edge *const a_end = a + degree[i], *const b_end = backward.data() + start[i + 1];
    while (a != a_end || b != b_end) {
      if (b == b_end || (a != a_end && a->id < b->id)) {
        emit(a->id, join(a->weight, 0.0f));
        ++a;
      } else if (a == a_end || b->id < a->id) {
        emit(b->id, join(b->weight, 0.0f));
        ++b;
      } else {
        // Same operands for (i, j) and (j, i), so that the result is symmetric to the last bit.
        emit(a->id, a->id > i ? join(a->weight, b->weight) : join(b->weight, a->weight));
        ++a;
        ++b;
      }
    }
  };
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::sort(backward.data() + start[i], backward.data() + start[i + 1], by_id);
      std::int64_t count = 0;
      merge(i, [&](std::int32_t, float w) { count += w > 0 ? 1 : 0; });
      out.indptr[i + 1] = count;
    }
  });
  out.indptr[0] = 0;
  for (std::int64_t i = 0; i < n; ++i) out.indptr[i + 1] += out.indptr[i];
  out.indices = Array<std::int32_t>(ctx.memory, out.indptr[n], "connectivities");
  out.values = Array<float>(ctx.memory, out.indptr[n], "connectivities");
  parallel_for(ctx, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t at = out.indptr[i];
      merge(i, [&](std::int32_t id, float w) {
        if (!(w > 0)) return;
        out.indices[at] = id;
        out.values[at++] = w;
      });
    }
  });
}

}  // namespace

void connectivities(const Context& ctx, const KnnView& knn, const ConnectivityOptions& options, Csr<float>& out) {
  for (std::int64_t i = 0; i < knn.indices.size; ++i)
    SCW_EXPECT(knn.indices[i] < knn.n, "pp.neighbors", "cell {} has the neighbour {}, but there are {} cells",
               i / knn.k, knn.indices[i], knn.n);
  const std::int64_t size = checked_mul(knn.n, knn.k);
  const float* distances = knn.distances.data;
  Array<float> converted;
  if (options.metric == Metric::inner_product && options.method != ConnectivityMethod::jaccard) {
    converted = Array<float>(ctx.workspace, size, "connectivities");
    parallel_for(ctx, knn.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        similarities_to_distances(distances + i * knn.k, knn.k, converted.data() + i * knn.k);
    });
    distances = converted.data();
  }
  Array<float> weights(ctx.workspace, size, "connectivities");
  switch (options.method) {
    case ConnectivityMethod::umap:
      fuzzy(ctx, knn, distances, weights.data());
      return symmetrize(ctx, knn, weights.data(), math::FuzzyUnion{}, out);
    case ConnectivityMethod::gauss:
      gauss(ctx, knn, distances, weights.data());
      return symmetrize(ctx, knn, weights.data(), math::Larger{}, out);
    case ConnectivityMethod::jaccard:
      jaccard(ctx, knn, weights.data());
      return symmetrize(ctx, knn, weights.data(), math::Mean{}, out);
  }
}

void gauss_kernel(const Context& ctx, const MatrixView<const float>& distances, int n_neighbors,
                  const MatrixView<float>& out) {
  const std::int64_t n = distances.n_rows;
  Array<double> widths(ctx.workspace, n, "connectivities");
  parallel_for(ctx, n, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(n));
    for (std::int64_t i = begin; i < end; ++i) {
      std::copy_n(distances.row(i), n, row.begin());
      std::nth_element(row.begin(), row.begin() + (n_neighbors - 1), row.end());
      const auto d = static_cast<double>(row[static_cast<std::size_t>(n_neighbors - 1)]);
      widths[i] = d * d / 4.0;
    }
  });
  parallel_for(ctx, n, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        const double d = static_cast<double>(distances(i, j));
        const double w = math::gauss_weight(d * d, widths[i], widths[j]);
        out(i, j) = w > 1e-14 ? static_cast<float>(w) : 0.0f;
      }
  });
}

void distance_graph(const Context& ctx, const KnnView& knn, Csr<float>& out) {
  const std::int64_t m = knn.k - 1;
  out.indptr[0] = 0;
  parallel_for(ctx, knn.n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      out.indptr[i + 1] = (i + 1) * m;
      std::copy_n(knn.indices.data + i * knn.k + 1, m, out.indices.data() + i * m);
      std::copy_n(knn.distances.data + i * knn.k + 1, m, out.values.data() + i * m);
    }
  });
}

SCW_REGISTER(connectivities_kernel, cpu, &connectivities);
SCW_REGISTER(gauss_kernel_kernel, cpu, &gauss_kernel);
SCW_REGISTER(distance_graph_kernel, cpu, &distance_graph);

}  // namespace scw::pp::cpu
