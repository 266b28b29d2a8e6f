#include "tl/umap/spectral.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "math/philox.hpp"
#include "prim/eigsh.hpp"

namespace scw::tl {
namespace {

constexpr std::int64_t kRowGrain = 1024;
constexpr std::uint64_t kEigenTag = 0x65696768;  // streams of random numbers
constexpr std::uint64_t kSmallTag = 0x736D616C;
constexpr std::uint64_t kPlaceTag = 0x706C6163;

/// y = W x, 8 vectors at a time; the sum over a row runs in the order of its entries.
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

struct Components {
  std::vector<std::int32_t> members;  // vertices, component by component
  std::vector<std::int64_t> first;    // of each component, and the end
};

/// Connected components, numbered by their first vertex; members ascending.
Components connected_components(const CsrView<const float>& g) {
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
  Components c;
  c.first.assign(static_cast<std::size_t>(count) + 1, 0);
  for (const std::int32_t l : label) ++c.first[static_cast<std::size_t>(l) + 1];
  std::partial_sum(c.first.begin(), c.first.end(), c.first.begin());
  c.members.resize(label.size());
  auto next = c.first;
  for (std::size_t v = 0; v < label.size(); ++v)
    c.members[static_cast<std::size_t>(next[static_cast<std::size_t>(label[v])]++)] = static_cast<std::int32_t>(v);
  return c;
}

/// The graph of one component with its vertices renumbered, weights normalised to D^-1/2 W D^-1/2.
struct Normalised {
  std::int64_t n = 0;
  Array<std::int64_t> indptr;
  Array<std::int32_t> indices;
  Array<float> values;
  Array<double> root;  // sqrt(degree) / norm: the eigenvector of eigenvalue 1
};

Normalised normalise(const Context& ctx, const CsrView<const float>& g, const std::int32_t* members, std::int64_t n,
                     const std::vector<std::int32_t>& local) {
  Normalised out;
  out.n = n;
  out.indptr = Array<std::int64_t>(ctx.workspace, n + 1, "spectral graph");
  out.indptr[0] = 0;
  for (std::int64_t i = 0; i < n; ++i)
    out.indptr[i + 1] = out.indptr[i] + g.indptr[members[i] + 1] - g.indptr[members[i]];
  out.indices = Array<std::int32_t>(ctx.workspace, out.indptr[n], "spectral graph");
  out.values = Array<float>(ctx.workspace, out.indptr[n], "spectral graph");
  out.root = Array<double>(ctx.workspace, n, "spectral degrees");
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      double degree = 0;
      for (std::int64_t e = g.indptr[members[i]]; e < g.indptr[members[i] + 1]; ++e)
        degree += static_cast<double>(g.values[e]);
      out.root[i] = std::sqrt(degree);
    }
  });
  parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t from = g.indptr[members[i]];
      for (std::int64_t k = 0; k < out.indptr[i + 1] - out.indptr[i]; ++k) {
        const std::int32_t j = local[static_cast<std::size_t>(g.indices[from + k])];
        out.indices[out.indptr[i] + k] = j;
        out.values[out.indptr[i] + k] =
            static_cast<float>(static_cast<double>(g.values[from + k]) / (out.root[i] * out.root[j]));
      }
    }
  });
  double norm = 0;
  for (std::int64_t i = 0; i < n; ++i) norm += out.root[i] * out.root[i];
  norm = std::sqrt(norm);
  for (std::int64_t i = 0; i < n; ++i) out.root[i] /= norm;
  return out;
}

/// Eigenvectors 2 ... dims + 1 of a connected graph of n > dims + 1 vertices, n x dims.
std::vector<float> embed_component(const Context& ctx, const Normalised& g, int dims) {
  const std::int64_t n = g.n;
  std::vector<float> out(static_cast<std::size_t>(checked_mul(n, dims)));
  if (n <= std::max(64, 2 * prim::eigsh_block(dims))) {
    std::vector<double> dense(static_cast<std::size_t>(n * n), 0.0);
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e)
        dense[static_cast<std::size_t>(i * n + g.indices[e])] += static_cast<double>(g.values[e]);
      // Moves the trivial eigenvector from the top of the spectrum to the bottom.
      for (std::int64_t j = 0; j < n; ++j) dense[static_cast<std::size_t>(i * n + j)] -= 2.0 * g.root[i] * g.root[j];
    }
    const auto e = prim::small_eigh(std::move(dense), static_cast<int>(n));
    for (int k = 0; k < dims; ++k) {
      std::int64_t top = 0;
      const auto at = [&](std::int64_t i) { return e.vectors[static_cast<std::size_t>(i * n + k)]; };
      for (std::int64_t i = 1; i < n; ++i)
        if (std::abs(at(i)) > std::abs(at(top)) + 1e-12) top = i;
      const double sign = at(top) < 0 ? -1.0 : 1.0;
      for (std::int64_t i = 0; i < n; ++i)
        out[static_cast<std::size_t>(i * dims + k)] = static_cast<float>(sign * at(i));
    }
    return out;
  }
  prim::EigshOptions options;
  options.n_eigen = dims;
  options.known = g.root.data();
  const auto product = [&](const float* x, float* y, int q) {
    parallel_for(ctx, n, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      multiply_rows(g.indptr.data(), g.indices.data(), g.values.data(), x, y, begin, end, q);
    });
  };
  const prim::Eigsh e = prim::eigsh(ctx, n, product, options);
  std::copy(e.vectors.data.begin(), e.vectors.data.end(), out.begin());
  return out;
}

/// Centres and radii of the components. Up to 2 dims components: on the axes at +1 and -1. More: balls whose volume is
/// the number of cells, the largest in the middle, the others around it by falling size (in two dimensions on a spiral
/// by the golden angle).
void place_components(const Context& ctx, const Components& c, int dims, std::vector<float>& centre,
                      std::vector<float>& radius) {
  const std::int64_t count = static_cast<std::int64_t>(c.first.size()) - 1;
  centre.assign(static_cast<std::size_t>(checked_mul(count, dims)), 0.0f);
  radius.assign(static_cast<std::size_t>(count), 1.0f);
  if (count == 1) return;
  if (count <= 2 * dims) {
    const std::int64_t axes = (count + 1) / 2;
    for (std::int64_t k = 0; k < count; ++k) {
      centre[static_cast<std::size_t>(k * dims + k % axes)] = k < axes ? 1.0f : -1.0f;
      radius[static_cast<std::size_t>(k)] = axes == 1 ? 1.0f : 0.70710678f;
    }
    return;
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto size = [&](std::int64_t k) {
    return c.first[static_cast<std::size_t>(k) + 1] - c.first[static_cast<std::size_t>(k)];
  };
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return size(a) > size(b); });
  const RngKey key = ctx.rng.fold(kPlaceTag);
  double volume = 0;
  for (std::int64_t rank = 0; rank < count; ++rank) {
    const std::int64_t k = order[static_cast<std::size_t>(rank)];
    const double own = static_cast<double>(size(k));
    const double r = std::pow(own, 1.0 / dims);
    // Behind half of the volume so far and its own: neighbours on the spiral are about a radius apart.
    const double distance = rank == 0 ? 0.0 : std::pow(2.0 * volume + own, 1.0 / dims) + r;
    volume += own;
    std::vector<double> direction(static_cast<std::size_t>(dims));
    if (dims == 2) {
      const double angle = static_cast<double>(rank) * 2.399963229728653;
      direction = {std::cos(angle), std::sin(angle)};
    } else {
      double norm = 0;
      for (int d = 0; d < dims; ++d) {
        const math::Philox4 w =
            math::random_words(key, static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(d));
        double g = 0;  // close to normal: the direction is close to uniform
        for (const std::uint32_t v : w.v) g += static_cast<double>(v) * 0x1.0p-32 - 0.5;
        direction[static_cast<std::size_t>(d)] = g;
        norm += g * g;
      }
      for (double& g : direction) g = norm > 0 ? g / std::sqrt(norm) : 0.0;
    }
    for (int d = 0; d < dims; ++d)
      centre[static_cast<std::size_t>(k * dims + d)] =
          static_cast<float>(distance * direction[static_cast<std::size_t>(d)]);
    radius[static_cast<std::size_t>(k)] = static_cast<float>(r);
  }
}

}  // namespace

Matrix<float> spectral_layout(const Context& ctx, const CsrView<const float>& graph, int dims) {
  const std::int64_t n = graph.n_rows;
  Matrix<float> out(ctx.workspace, n, dims, "umap start");
  if (n == 0) return out;
  const Components c = connected_components(graph);
  const std::int64_t count = static_cast<std::int64_t>(c.first.size()) - 1;
  std::vector<std::int32_t> local(static_cast<std::size_t>(n));
  for (std::int64_t k = 0; k < count; ++k)
    for (std::int64_t i = c.first[static_cast<std::size_t>(k)]; i < c.first[static_cast<std::size_t>(k) + 1]; ++i)
      local[static_cast<std::size_t>(c.members[static_cast<std::size_t>(i)])] =
          static_cast<std::int32_t>(i - c.first[static_cast<std::size_t>(k)]);
  std::vector<float> centre;
  std::vector<float> radius;
  place_components(ctx, c, dims, centre, radius);

  const RngKey small_key = ctx.rng.fold(kSmallTag);
  const auto embed = [&](const Context& inner, std::int64_t k) {
    const std::int64_t begin = c.first[static_cast<std::size_t>(k)];
    const std::int64_t size = c.first[static_cast<std::size_t>(k) + 1] - begin;
    const std::int32_t* const members = c.members.data() + begin;
    const float r = radius[static_cast<std::size_t>(k)];
    const float* const middle = centre.data() + k * dims;
    if (size == 1 && count > 1) {
      std::copy(middle, middle + dims, out.data.begin() + std::int64_t{members[0]} * dims);
    } else if (size < 2 * dims || size <= dims + 1) {  // too few vertices for that many eigenvectors
      for (std::int64_t i = 0; i < size; ++i)
        for (int d = 0; d < dims; ++d) {
          const double u =
              math::random_uniform(small_key, static_cast<std::uint64_t>(members[i]), static_cast<std::uint64_t>(d));
          out.data[std::int64_t{members[i]} * dims + d] = middle[d] + r * static_cast<float>(2.0 * u - 1.0);
        }
    } else {
      Context seeded = inner;
      seeded.rng = inner.rng.fold(kEigenTag).fold(static_cast<std::uint64_t>(k));
      const auto y = embed_component(seeded, normalise(seeded, graph, members, size, local), dims);
      float largest = 0;
      for (const float v : y) largest = std::max(largest, std::abs(v));
      const float expansion = largest > 0 ? r / largest : 0.0f;
      for (std::int64_t i = 0; i < size; ++i)
        for (int d = 0; d < dims; ++d)
          out.data[std::int64_t{members[i]} * dims + d] =
              middle[d] + expansion * y[static_cast<std::size_t>(i * dims + d)];
    }
  };
  // Large components use all threads one after the other; small ones run side by side.
  constexpr std::int64_t kLarge = 1000;
  const auto size = [&](std::int64_t k) {
    return c.first[static_cast<std::size_t>(k) + 1] - c.first[static_cast<std::size_t>(k)];
  };
  for (std::int64_t k = 0; k < count; ++k)
    if (size(k) > kLarge) embed(ctx, k);
  parallel_for(ctx, count, 8, [&](std::int64_t begin, std::int64_t end) {
    Context single = ctx;
    single.n_threads = 1;
    single.progress = nullptr;
    for (std::int64_t k = begin; k < end; ++k)
      if (size(k) <= kLarge) embed(single, k);
  });
  return out;
}

}  // namespace scw::tl
