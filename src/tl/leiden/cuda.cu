// Leiden on CUDA: the passes. Large levels are worked on here in synchronous rounds, levels of up to kSmallVertices by
// Sequential on the host: a few megabytes of copies, and one core is quicker on them than the device would be.
#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "core/transfer.hpp"
#include "tl/leiden/cuda_level.cuh"
#include "tl/leiden/kernel.hpp"
#include "tl/leiden/sequential.hpp"

namespace scw::tl::cuda {

DeviceSpace::DeviceSpace(const Context& ctx, std::int64_t n, std::int64_t n_edges) {
  const auto make = [&](auto& a, std::int64_t size, const char* tag) {
    a = std::remove_reference_t<decltype(a)>(ctx.workspace, size, tag, ctx.stream);
  };
  make(target, n, "leiden proposals");
  make(refined, n, "leiden refinement");
  make(joined, n, "leiden refinement rounds");
  make(map, 2 * n + 1, "leiden map");
  make(list, n, "leiden active vertices");
  make(next, n, "leiden next vertices");
  make(flag, n + 16, "leiden flags");
  make(state, n + 16, "leiden states");
  make(grown, n + 16, "leiden refinement sizes");
  make(here, n, "leiden weights");
  make(there, n, "leiden weights");
  make(cluster_strength, 2 * n, "leiden cluster strengths");
  make(entering, 2 * n, "leiden strengths that enter");
  make(leaving, 2 * n, "leiden strengths that leave");
  make(first_in, 2 * n, "leiden first to enter");
  make(first_out, 2 * n, "leiden first to leave");
  make(noise, kNoiseSize, "leiden noise");
  make(counters, kCounters, "leiden counters");
  fill_zero(ctx, entering.data(), 2 * n);
  fill_zero(ctx, leaving.data(), 2 * n);
  fill_zero(ctx, first_in.data(), 2 * n);
  fill_zero(ctx, first_out.data(), 2 * n);
  batch_entries = batch_entries_for(ctx, n_edges);
}

namespace {

__global__ void first_labels_kernel(std::int64_t n, std::int32_t* label) {
  SCW_FOR_ITEMS(v, n) label[v] = static_cast<std::int32_t>(v);
}
__global__ void project_kernel(std::int64_t n, const std::int32_t* parent, const std::int32_t* coarse,
                               std::int32_t* label) {
  SCW_FOR_ITEMS(v, n) label[v] = coarse[parent[v]];
}

class Run {
 public:
  Run(const Context& ctx, const DeviceInput& input, DeviceSpace& space, double resolution, const LeidenOptions& options,
      std::int64_t start)
      : ctx_(ctx),
        host_(ctx.host()),
        input_(input),
        space_(space),
        quality_(resolution, input.total(), input.scale()),
        key_(ctx.rng.fold(kRngTag).fold(static_cast<std::uint64_t>(start))),
        sequential_(host_, kSmallVertices, quality_, options.theta, key_),
        label_(scratch<std::int32_t>(ctx, input.n(), "leiden labels")),
        parent_(scratch<std::int32_t>(ctx, input.n(), "leiden hierarchy")) {
    const std::vector<std::int64_t> noise = refinement_noise(quality_, options.theta);
    copy_bytes(ctx, space.noise.data(), ctx.device, noise.data(), Device{}, noise.size() * sizeof(std::int64_t));
    launch(ctx, "leiden first labels", input.n(), first_labels_kernel, input.n(), label_.data());
  }

  /// One pass over all levels; the number of moves.
  std::int64_t pass() {
    depth_ = 0;
    std::int64_t moves = move_level(input_, label_.data());
    bool coarser = coarsen(input_, label_.data(), parent_.data());
    while (coarser) {
      DeviceLevel& level = levels_[depth_++];
      if (level.n <= kSmallVertices) {
        moves += finish_on_host(level);
        break;
      }
      moves += move_level(level, level.label.data());
      coarser = coarsen(level, level.label.data(), level.parent.data());
    }
    for (std::size_t d = depth_; d-- > 1;) {
      DeviceLevel& fine = levels_[d - 1];
      project(fine.n, fine.parent.data(), levels_[d].label.data(), fine.label.data());
    }
    if (depth_ > 0) project(input_.n(), parent_.data(), levels_[0].label.data(), label_.data());
    levels_.clear();
    ++pass_;
    return moves;
  }

  const std::int32_t* label() const { return label_.data(); }
  const Quality& quality() const { return quality_; }

 private:
  RngKey level_key() const {
    return key_.fold(static_cast<std::uint64_t>(std::min(pass_, kExploringPasses))).fold(depth_);
  }
  // Level: the input or a DeviceLevel.
  template <class Level>
  std::int64_t move_level(const Level& level, std::int32_t* label) {
    return level.visit(
        [&](const auto& graph) { return move(ctx_, graph, quality_, level_key(), label, space_, clusters_); });
  }
  template <class Level>
  bool coarsen(const Level& level, const std::int32_t* label, std::int32_t* parent) {
    return level.visit([&](const auto& graph) {
      if (clusters_ == graph.n) return false;
      DeviceLevel& next = levels_.emplace_back();
      refine(ctx_, graph, quality_, level_key(), label, space_);
      return aggregate(ctx_, graph, label, space_, parent, next);
    });
  }
  void project(std::int64_t n, const std::int32_t* parent, const std::int32_t* coarse, std::int32_t* label) {
    launch(ctx_, "leiden project", n, project_kernel, n, parent, coarse, label);
  }

  std::int64_t finish_on_host(DeviceLevel& level) {
    const Array<std::int64_t> offsets = to_host<std::int64_t>(ctx_, std::as_const(level.offsets).view());
    const Array<std::int64_t> strength = to_host<std::int64_t>(ctx_, std::as_const(level.strength).view());
    const Array<std::int64_t> wide = to_host<std::int64_t>(ctx_, std::as_const(level.wide_weight).view());
    const Array<std::uint32_t> narrow = to_host<std::uint32_t>(ctx_, std::as_const(level.narrow_weight).view());
    const Array<std::int32_t> to = to_host<std::int32_t>(ctx_, std::as_const(level.to).view());
    const Array<std::int32_t> id = to_host<std::int32_t>(ctx_, std::as_const(level.id).view());
    Array<std::int32_t> label = to_host<std::int32_t>(ctx_, std::as_const(level.label).view());
    Array<SumEdge> edges(host_.workspace, level.n_edges, "leiden level edges");
    for (std::int64_t e = 0; e < level.n_edges; ++e) edges[e] = {to[e], level.narrow ? narrow[e] : wide[e]};
    const GraphView<SumEdge> view{level.n,      offsets.data(),  offsets.data() + 1,
                                  edges.data(), strength.data(), id.data()};
    const std::int64_t moves = sequential_.pass(view, label.data(), pass_, depth_);
    copy_bytes(ctx_, level.label.data(), ctx_.device, label.data(), Device{},
               static_cast<std::size_t>(level.n) * sizeof(std::int32_t));
    return moves;
  }

  const Context& ctx_;
  const Context host_;
  const DeviceInput& input_;
  DeviceSpace& space_;
  const Quality quality_;
  const RngKey key_;
  Sequential sequential_;
  int pass_ = 0;
  std::size_t depth_ = 0;
  std::int64_t clusters_ = 0;
  Array<std::int32_t> label_, parent_;
  std::deque<DeviceLevel> levels_;
};

/// Small graphs: a copy to the host, and the CPU's version.
template <class V>
void on_host(const Context& ctx, const CsrView<const V>& graph, Span<const double> resolutions,
             const LeidenOptions& options, Span<Leiden> results) {
  const Context host = ctx.host();
  Array<std::int64_t> indptr = to_host<std::int64_t>(ctx, graph.indptr);
  const std::int64_t first = indptr[0], nnz = indptr[graph.n_rows] - first;
  for (std::int64_t& p : indptr) p -= first;
  const Array<std::int32_t> indices = to_host<std::int32_t>(ctx, graph.indices.subspan(first, nnz));
  const Array<V> values = to_host<V>(ctx, Span<const V>(graph.values).subspan(first, nnz));
  const CsrView<const V> view(graph.n_rows, graph.n_cols, std::as_const(indptr).view(), indices.view(), values.view());
  leiden_kernel(host, view, resolutions, options, results);
  for (Leiden& r : results) {
    Array<std::int32_t> labels(ctx.memory, graph.n_rows, "leiden labels", ctx.stream);
    copy_bytes(ctx, labels.data(), ctx.device, r.labels.data(), Device{},
               static_cast<std::size_t>(graph.n_rows) * sizeof(std::int32_t));
    r.labels = std::move(labels);
  }
}

Leiden cluster(const Context& ctx, const DeviceInput& input, DeviceSpace& space, double resolution,
               const LeidenOptions& options, std::int64_t start, bool compared, Wide& quality) {
  Leiden out;
  out.labels = Array<std::int32_t>(ctx.memory, input.n(), "leiden labels", ctx.stream);
  Run run(ctx, input, space, resolution, options, start);
  while (options.n_iterations < 0 || out.n_iterations < options.n_iterations) {
    ctx.report("leiden", out.n_iterations, std::max(0, options.n_iterations));
    ++out.n_iterations;
    if (run.pass() == 0) {
      out.converged = true;
      break;
    }
  }
  const std::vector<std::int64_t> sizes = finish(ctx, input, run.label(), out.labels.data());
  out.n_clusters = static_cast<std::int32_t>(sizes.size());
  out.cluster_sizes = Array<std::int64_t>(host_memory(), out.n_clusters, "leiden cluster sizes");
  std::copy(sizes.begin(), sizes.end(), out.cluster_sizes.begin());
  out.modularity = input.modularity(ctx, out.labels.data(), out.n_clusters, resolution);
  if (compared) quality = quality_of(ctx, input, run.quality(), out.labels.data(), out.n_clusters);
  return out;
}

}  // namespace

void leiden(const Context& ctx, const AnyCsrView& graph, Span<const double> resolutions, const LeidenOptions& options,
            Span<Leiden> results) {
  const scw::cuda::DeviceScope scope(ctx);
  if (std::visit([](const auto& g) { return g.n_rows; }, graph) <= kSmallVertices) {
    std::visit([&](const auto& g) { on_host(ctx, g, resolutions, options, results); }, graph);
    return;
  }
  const DeviceInput input(ctx, graph, options.use_weights);
  DeviceSpace space(ctx, input.n(), input.n_edges());
  const std::int64_t starts = number_of_starts(options.n_starts, input.n_edges());
  for (std::int64_t r = 0; r < resolutions.size; ++r) {
    Wide best = 0;
    for (std::int64_t start = 0; start < starts; ++start) {
      Wide quality = 0;
      Leiden result = cluster(ctx, input, space, resolutions[r], options, start, starts > 1, quality);
      if (start > 0 && quality <= best) continue;  // the first of equals
      best = quality;
      results[r] = std::move(result);
    }
  }
}

SCW_REGISTER(leiden_kernel, cuda, &leiden);

}  // namespace scw::tl::cuda
