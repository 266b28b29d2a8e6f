#include "tl/umap/spectral.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "math/philox.hpp"
#include "prim/eigsh/eigsh.hpp"
#include "tl/umap/kernel.hpp"

namespace scw::tl {

constinit Kernel<void(const Context&, const CsrView<const float>&, UmapComponents&)> umap_components_kernel{
    "tl.umap: components"};
constinit Kernel<void(const Context&, const CsrView<const float>&, const UmapComponents&, UmapNormalised&)>
    umap_normalise_kernel{"tl.umap: Laplacian"};
constinit Kernel<void(const Context&, const CsrView<const float>&, const float*, float*, int)> umap_product_kernel{
    "tl.umap: product"};
constinit Kernel<void(const Context&, int, std::unique_ptr<UmapQueues>&)> umap_queues_kernel{"tl.umap: queues"};
constinit Kernel<void(const Context&, const MatrixView<const float>&, Span<const std::int32_t>, const float*, float,
                      const MatrixView<float>&)>
    umap_put_component_kernel{"tl.umap: component"};
constinit Kernel<void(const Context&, const MatrixView<const float>&, Span<const std::int32_t>,
                      const MatrixView<float>&)>
    umap_put_rows_kernel{"tl.umap: rows"};

namespace {

constexpr std::uint64_t kEigenTag = 0x65696768;  // streams of random numbers
constexpr std::uint64_t kSmallTag = 0x736D616C;
constexpr std::uint64_t kPlaceTag = 0x706C6163;

/// Components up to this size are embedded on the host, side by side; larger ones on ctx.device.
constexpr std::int64_t kSmall = 1000;

/// Components at once on a device.
constexpr std::int64_t kQueues = 8;

/// Up to this size by the dense solver.
std::int64_t dense_limit(int dims) { return std::max(64, 2 * prim::eigsh_block(dims)); }

/// A component: rows, and the eigenvector of eigenvalue 1.
struct Component {
  CsrView<const float> graph;
  const double* root = nullptr;
};

/// Eigenvectors 2 ... dims + 1 of a component on the host, n x dims.
std::vector<float> embed_dense(const Component& c, int dims) {
  const CsrView<const float>& g = c.graph;
  const std::int64_t n = g.n_rows;
  std::vector<float> out(static_cast<std::size_t>(checked_mul(n, dims)));
  std::vector<double> dense(static_cast<std::size_t>(n * n), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t e = g.indptr[i]; e < g.indptr[i + 1]; ++e)
      dense[static_cast<std::size_t>(i * n + g.indices[e])] += static_cast<double>(g.values[e]);
    // Moves the trivial eigenvector from the top of the spectrum to the bottom.
    for (std::int64_t j = 0; j < n; ++j) dense[static_cast<std::size_t>(i * n + j)] -= 2.0 * c.root[i] * c.root[j];
  }
  const auto e = prim::small_eigh(std::move(dense), static_cast<int>(n));
  for (int k = 0; k < dims; ++k) {
    std::int64_t top = 0;
    const auto at = [&](std::int64_t i) { return e.vectors[static_cast<std::size_t>(i * n + k)]; };
    for (std::int64_t i = 1; i < n; ++i)
      if (std::abs(at(i)) > std::abs(at(top)) + 1e-12) top = i;
    const double sign = at(top) < 0 ? -1.0 : 1.0;
    for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i * dims + k)] = static_cast<float>(sign * at(i));
  }
  return out;
}

/// The same by iteration, on ctx.device, where the component is.
Matrix<float> embed_sparse(const Context& ctx, const Component& c, int dims) {
  prim::EigshOptions options;
  options.n_eigen = dims;
  options.known = c.root;
  const auto product = [&](const float* x, float* y, int q) { umap_product_kernel(ctx, c.graph, x, y, q); };
  return prim::eigsh(ctx, c.graph.n_rows, product, options).vectors;
}

/// Centres and radii of the components. Up to 2 dims components: on the axes at +1 and -1. More: balls whose volume is
/// the number of cells, the largest in the middle, the others around it by falling size (in two dimensions on a spiral
/// by the golden angle).
void place_components(const Context& ctx, const UmapComponents& c, int dims, std::vector<float>& centre,
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

/// Rows [begin, end) of the normalised graph on the host. Indices and values start at entry `base`.
struct HostRows {
  Array<std::int64_t> indptr;
  Array<std::int32_t> members, indices;
  Array<float> values;
  Array<double> root;
  std::int64_t begin = 0;

  HostRows(const Context& ctx, const UmapNormalised& g, const UmapComponents& c, std::int64_t from, std::int64_t to)
      : indptr(to_host<std::int64_t>(ctx, g.indptr.view().subspan(from, to - from + 1))),
        members(to_host<std::int32_t>(ctx, c.members.view().subspan(from, to - from))),
        root(to_host<double>(ctx, g.root.view().subspan(from, to - from))),
        begin(from) {
    const std::int64_t base = indptr[0];
    const std::int64_t count = indptr[to - from] - base;
    indices = to_host<std::int32_t>(ctx, g.indices.view().subspan(base, count));
    values = to_host<float>(ctx, g.values.view().subspan(base, count));
    for (std::int64_t& p : indptr) p -= base;
  }

  Component component(std::int64_t from, std::int64_t to) const {
    const std::int64_t n = to - from;
    return {
        {n, static_cast<std::int32_t>(n), indptr.view().subspan(from - begin, n + 1), indices.view(), values.view()},
        root.data() + (from - begin)};
  }
};

}  // namespace

Matrix<float> spectral_layout(const Context& ctx, const CsrView<const float>& graph, int dims) {
  const std::int64_t n = graph.n_rows;
  Matrix<float> out(ctx.workspace, n, dims, "umap start", ctx.stream);
  if (n == 0) return out;
  UmapComponents c;
  umap_components_kernel(ctx, graph, c);
  UmapNormalised normalised;
  umap_normalise_kernel(ctx, graph, c, normalised);
  const std::size_t count = c.first.size() - 1;
  std::vector<float> centre;
  std::vector<float> radius;
  place_components(ctx, c, dims, centre, radius);
  const auto first = [&](std::size_t k) { return c.first[k]; };
  const auto size = [&](std::size_t k) { return c.first[k + 1] - c.first[k]; };
  const auto middle = [&](std::size_t k) { return centre.data() + k * static_cast<std::size_t>(dims); };
  const std::int64_t small = std::max(kSmall, dense_limit(dims));
  const auto seeded = [&](const Context& base, std::size_t k) {
    Context own = base;
    own.rng = ctx.rng.fold(kEigenTag).fold(static_cast<std::uint64_t>(k));
    return own;
  };

  std::vector<std::size_t> large;
  for (std::size_t k = 0; k < count; ++k)
    if (size(k) > small) large.push_back(k);
  const auto embed_large = [&](const Context& base, std::size_t k) {
    const Component component{{size(k), static_cast<std::int32_t>(size(k)),
                               std::as_const(normalised.indptr).view().subspan(first(k), size(k) + 1),
                               std::as_const(normalised.indices).view(), std::as_const(normalised.values).view()},
                              normalised.root.data() + first(k)};
    const Matrix<float> y = embed_sparse(seeded(base, k), component, dims);
    umap_put_component_kernel(base, y.view(), std::as_const(c.members).view().subspan(first(k), size(k)), middle(k),
                              radius[k], out.view());
  };
  // On a device side by side as well, each on a queue of its own, the longest first.
  std::stable_sort(large.begin(), large.end(), [&](std::size_t a, std::size_t b) { return size(a) > size(b); });
  const auto n_large = static_cast<std::int64_t>(large.size());
  std::unique_ptr<UmapQueues> queues;
  umap_queues_kernel(ctx, static_cast<int>(std::min<std::int64_t>({n_large, ctx.n_threads, kQueues})), queues);
  if (queues->streams.size() < 2) {
    for (const std::size_t k : large) embed_large(ctx, k);
  } else {
    ctx.synchronize();
    Context host = ctx.host();
    host.n_threads = static_cast<int>(queues->streams.size());
    parallel_chunks(host, n_large, 1, [&](std::int64_t chunk, std::int64_t, std::int64_t, int worker) {
      Context own = ctx;
      own.stream = queues->streams[static_cast<std::size_t>(worker)];
      own.progress = nullptr;
      embed_large(own, large[static_cast<std::size_t>(chunk)]);
      own.synchronize();
    });
  }

  // Small components, a run of neighbours at a time.
  Context single = ctx.host();
  single.n_threads = 1;
  single.progress = nullptr;
  const RngKey small_key = ctx.rng.fold(kSmallTag);
  for (std::size_t from = 0; from < count; ++from) {
    if (size(from) > small) continue;
    std::size_t to = from + 1;
    while (to < count && size(to) <= small) ++to;
    const HostRows rows(ctx, normalised, c, first(from), first(to));
    Matrix<float> placed(host_memory(), first(to) - first(from), dims, "umap start");
    const auto embed = [&](std::size_t k) {
      const std::int64_t own = size(k);
      const float r = radius[k];
      const MatrixView<float> y(placed.data.data() + (first(k) - first(from)) * dims, own, dims);
      if (own == 1 && count > 1) {
        std::copy_n(middle(k), dims, y.data);
      } else if (own < 2 * dims || own <= dims + 1) {  // too few vertices for that many eigenvectors
        for (std::int64_t i = 0; i < own; ++i)
          for (int d = 0; d < dims; ++d) {
            const auto vertex = static_cast<std::uint64_t>(rows.members[first(k) - first(from) + i]);
            const double u = math::random_uniform(small_key, vertex, static_cast<std::uint64_t>(d));
            y(i, d) = middle(k)[d] + r * static_cast<float>(2.0 * u - 1.0);
          }
      } else {
        const Component component = rows.component(first(k), first(k + 1));
        std::vector<float> v;
        if (own <= dense_limit(dims)) {
          v = embed_dense(component, dims);
        } else {
          const Matrix<float> sparse = embed_sparse(seeded(single, k), component, dims);
          v.assign(sparse.data.begin(), sparse.data.end());
        }
        std::vector<std::int32_t> in_order(static_cast<std::size_t>(own));
        std::iota(in_order.begin(), in_order.end(), 0);
        umap_put_component_kernel(single, {v.data(), own, dims}, in_order, middle(k), r, y);
      }
    };
    parallel_for(ctx.host(), static_cast<std::int64_t>(to - from), 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) embed(from + static_cast<std::size_t>(k));
    });
    const std::int64_t n_rows = first(to) - first(from);
    if (ctx.device == Device{}) {
      umap_put_rows_kernel(ctx, placed.view(), rows.members.view(), out.view());
    } else {
      const Array<float> there = to_device<float>(ctx, std::as_const(placed.data).view(), "umap start");
      umap_put_rows_kernel(ctx, {there.data(), n_rows, dims},
                           std::as_const(c.members).view().subspan(first(from), n_rows), out.view());
    }
    from = to;
  }
  return out;
}

}  // namespace scw::tl
