// The input graph of Leiden on CUDA: checks, A + A^T where it is not symmetric, the integer form, modularity, and the
// numbering of the result. Each is one or two passes over the graph.
#include <algorithm>
#include <utility>
#include <vector>

#include "core/transfer.hpp"
#include "tl/leiden/cuda_rows.cuh"

namespace scw::tl::cuda {
namespace {

struct Totals {
  unsigned long long bad_row;  // the first one, n if there is none
  unsigned long long asymmetry;
  unsigned long long most;  // the bits of the largest weight: order as the weights, which are not negative
  unsigned long long sum;
};

/// Stored entries are edges unless they are 0.
template <class V>
struct Entries {
  CsrView<const V> graph;
  bool weighted;
  __device__ std::int64_t begin(std::int64_t i) const { return graph.indptr.data[i]; }
  __device__ std::int64_t end(std::int64_t i) const { return graph.indptr.data[i + 1]; }
  __device__ std::int32_t to(std::int64_t e) const { return graph.indices.data[e]; }
  __device__ double weight(std::int64_t e) const {
    const V w = graph.values.data[e];
    return weighted || w == 0 ? static_cast<double>(w) : 1.0;
  }
};

template <class V>
__global__ void __launch_bounds__(kThreads) check_kernel(Entries<V> x, Totals* totals) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  std::uint64_t asymmetry = 0;
  double most = 0;
  SCW_FOR_WARPS(i, x.graph.n_rows) {
    bool bad = false;
    const std::int64_t begin = x.begin(i);
    for (std::int64_t e = begin + lane; e < x.end(i); e += 32) {
      const std::int32_t j = x.to(e);
      const V w = x.graph.values.data[e];
      bad = bad || j < 0 || j >= x.graph.n_rows || !(w >= 0) || !isfinite(w) || (e > begin && x.to(e - 1) >= j);
      const double weight = x.weight(e);
      if (weight == 0) continue;
      asymmetry += symmetry_term(i, j, weight);
      most = weight > most ? weight : most;
    }
    if (bad) atomicMin(&totals->bad_row, static_cast<unsigned long long>(i));
  }
  const auto all = static_cast<unsigned long long>(warp_sum(static_cast<std::int64_t>(asymmetry)));
  for (int offset = 16; offset > 0; offset /= 2) {
    const double o = __shfl_xor_sync(kAll, most, offset);
    most = o > most ? o : most;
  }
  if (lane != 0) return;
  atomicAdd(&totals->asymmetry, all);
  atomicMax(&totals->most, static_cast<unsigned long long>(math::bits_of(most)));
}

/// The fixed-point sum of the weights, and the entries of each row that are edges and no loops.
template <class V>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(Entries<V> x, prim::FixedScale fixed, std::int64_t* degree, Totals* totals) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  std::int64_t sum = 0;
  SCW_FOR_WARPS(i, x.graph.n_rows) {
    std::int64_t count = 0;
    for (std::int64_t e = x.begin(i) + lane; e < x.end(i); e += 32) {
      const double w = x.weight(e);
      if (w == 0) continue;
      sum += fixed.quantise(w);
      count += x.to(e) != i ? 1 : 0;
    }
    count = warp_sum(count);
    if (lane == 0) degree[i] = count;
  }
  sum = warp_sum(sum);
  if (lane == 0) atomicAdd(&totals->sum, static_cast<unsigned long long>(sum));
}

/// to, weights: null where the matrix itself will do.
template <class V>
__global__ void __launch_bounds__(kThreads)
    integers_kernel(Entries<V> x, double scale, const std::int64_t* offsets, std::int32_t* to, std::uint32_t* weights,
                    std::int64_t* strength, Totals* totals) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  std::int64_t total = 0;
  SCW_FOR_WARPS(i, x.graph.n_rows) {
    std::int64_t at = offsets[i], k = 0;
    const std::int64_t end = x.end(i);
    for (std::int64_t e = x.begin(i); e < end; e += 32) {
      const double w = e + lane < end ? x.weight(e + lane) : 0;
      const std::int64_t weight = w == 0 ? 0 : integer_weight(w, scale);
      k += weight;
      const bool edge = weight > 0 && x.to(e + lane) != i;
      const unsigned mask = __ballot_sync(kAll, edge);
      if (edge) {
        const std::int64_t slot = at + __popc(mask & ((1u << lane) - 1));
        if (to != nullptr) to[slot] = x.to(e + lane);
        if (weights != nullptr) weights[slot] = static_cast<std::uint32_t>(weight);
      }
      at += __popc(mask);
    }
    k = warp_sum(k);
    if (lane == 0) strength[i] = k;
    total += lane == 0 ? k : 0;
  }
  total = warp_sum(total);
  if (lane == 0) atomicAdd(&totals->sum, static_cast<unsigned long long>(total));
}

/// The entries of A + A^T in each row, counts starting at 0; what is on both sides counts twice, zeros do not.
template <class V>
__global__ void __launch_bounds__(kThreads) count_both_kernel(Entries<V> x, std::int64_t* counts) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, x.graph.n_rows) {
    std::int64_t count = 0;
    for (std::int64_t e = x.begin(i) + lane; e < x.end(i); e += 32) {
      if (x.weight(e) == 0) continue;
      ++count;
      add(counts + x.to(e), 1);
    }
    count = warp_sum(count);
    if (lane == 0 && count > 0) add(counts + i, count);
  }
}

/// Those of a batch of rows, at places that are drawn from place[row]: they are sorted, and what is added up are two.
template <class V>
__global__ void __launch_bounds__(kThreads)
    both_kernel(Entries<V> x, int bits, RowBatch batch, std::int64_t* place, std::uint64_t* keys, double* values) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const auto put = [&](std::int64_t slot, std::int64_t row, std::int64_t column, double w) {
    keys[slot] = static_cast<std::uint64_t>(row - batch.first_row) << bits | static_cast<std::uint64_t>(column);
    if (values != nullptr) values[slot] = w;
  };
  SCW_FOR_WARPS(i, x.graph.n_rows) {
    const bool own = i >= batch.first_row && i < batch.last_row;
    const std::int64_t end = x.end(i);
    for (std::int64_t e = x.begin(i); e < end; e += 32) {
      const std::int64_t j = e + lane < end ? x.to(e + lane) : -1;
      const bool mirrored = j >= batch.first_row && j < batch.last_row;
      const double w = j >= 0 && (own || mirrored) ? x.weight(e + lane) : 0;
      const unsigned mask = own ? __ballot_sync(kAll, w != 0) : 0;
      if (mask != 0) {
        std::int64_t at = lane == 0 ? draw(place + i, __popc(mask)) - batch.begin : 0;
        at = __shfl_sync(kAll, static_cast<long long>(at), 0);
        if (w != 0) put(at + __popc(mask & ((1u << lane) - 1)), i, j, w);
      }
      if (mirrored && w != 0) put(draw(place + j, 1) - batch.begin, j, i, w);
    }
  }
}

template <class V>
__global__ void __launch_bounds__(kThreads)
    modularity_kernel(Entries<V> x, prim::FixedScale fixed, const std::int32_t* labels, std::int64_t* strength,
                      Totals* totals) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  std::int64_t inside = 0;
  SCW_FOR_WARPS(i, x.graph.n_rows) {
    const std::int32_t label = labels[i];
    std::int64_t k = 0;
    for (std::int64_t e = x.begin(i) + lane; e < x.end(i); e += 32) {
      const std::int64_t q = fixed.quantise(x.weight(e));
      k += q;
      inside += labels[x.to(e)] == label ? q : 0;
    }
    k = warp_sum(k);
    if (lane == 0) add(strength + label, k);
  }
  inside = warp_sum(inside);
  if (lane == 0) atomicAdd(&totals->sum, static_cast<unsigned long long>(inside));
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    quality_kernel(DeviceGraph<W> graph, const std::int32_t* labels, std::int64_t* strength, Totals* totals) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  std::int64_t inside = 0;
  SCW_FOR_WARPS(i, graph.n) {
    const std::int32_t label = labels[i];
    for (std::int64_t e = graph.offsets[i] + lane; e < graph.offsets[i + 1]; e += 32)
      inside += labels[graph.to[e]] == label ? static_cast<std::int64_t>(graph.weight_at(e)) : 0;
    if (lane == 0) add(strength + label, graph.strength[i]);
  }
  inside = warp_sum(inside);
  if (lane == 0) atomicAdd(&totals->sum, static_cast<unsigned long long>(inside));
}

__global__ void iota_kernel(std::int64_t n, std::int32_t* x) {
  SCW_FOR_ITEMS(i, n) x[i] = static_cast<std::int32_t>(i);
}

/// The root of v's tree; halves the paths on the way. Parents have smaller numbers.
__device__ inline std::int32_t root_of(std::int32_t* parent, std::int32_t v) {
  std::int32_t p = *static_cast<volatile std::int32_t*>(parent + v);
  while (p != v) {
    const std::int32_t above = *static_cast<volatile std::int32_t*>(parent + p);
    if (above != p) atomicMin(parent + v, above);
    v = p;
    p = above;
  }
  return v;
}

/// Joins the trees of neighbours with the same label: the root of a part becomes its smallest vertex.
template <class W>
__global__ void __launch_bounds__(kThreads)
    parts_kernel(DeviceGraph<W> graph, const std::int32_t* label, std::int32_t* parent) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  SCW_FOR_WARPS(i, graph.n) {
    const auto v = static_cast<std::int32_t>(i);
    const std::int32_t mine = label[v];
    for (std::int64_t e = graph.offsets[v] + lane; e < graph.offsets[v + 1]; e += 32) {
      const std::int32_t u = graph.to[e];
      if (u > v || label[u] != mine) continue;
      std::int32_t a = root_of(parent, v), b = root_of(parent, u);
      while (a != b) {
        const std::int32_t high = a > b ? a : b, low = a > b ? b : a;
        const std::int32_t old = atomicCAS(parent + high, high, low);
        if (old == high) break;
        a = root_of(parent, old);
        b = root_of(parent, low);
      }
    }
  }
}

__global__ void roots_kernel(std::int64_t n, std::int32_t* parent, std::int32_t* part, std::int32_t* size) {
  const std::int64_t rounded = (n + 31) / 32 * 32;
  SCW_FOR_ITEMS(i, rounded) {
    const std::int32_t root = i < n ? root_of(parent, static_cast<std::int32_t>(i)) : -1;
    const unsigned peers = __match_any_sync(kAll, root);
    if (i >= n) continue;
    part[i] = root;
    if ((static_cast<int>(threadIdx.x) & 31) == __ffs(static_cast<int>(peers)) - 1)
      atomicAdd(size + root, __popc(peers));
  }
}

__global__ void list_roots_kernel(std::int64_t n, const std::int32_t* size, std::int32_t* list,
                                  unsigned long long* count) {
  const std::int64_t rounded = (n + 31) / 32 * 32;
  SCW_FOR_ITEMS(i, rounded) append(i < n && size[i] > 0, static_cast<std::int32_t>(i), list, count);
}
__global__ void pick_kernel(std::int64_t n, const std::int32_t* list, const std::int32_t* from, std::int32_t* to) {
  SCW_FOR_ITEMS(i, n) to[i] = from[list[i]];
}
__global__ void rank_kernel(std::int64_t n, const std::int32_t* list, std::int32_t* rank) {
  SCW_FOR_ITEMS(i, n) rank[list[i]] = static_cast<std::int32_t>(i);
}
__global__ void labels_kernel(std::int64_t n, const std::int32_t* part, const std::int32_t* rank, std::int32_t* out) {
  SCW_FOR_ITEMS(i, n) out[i] = rank[part[i]];
}

class DeviceTotals {
 public:
  explicit DeviceTotals(const Context& ctx, std::int64_t n = 0)
      : ctx_(ctx), data_(scratch<Totals>(ctx, 1, "leiden totals")) {
    const Totals start{static_cast<unsigned long long>(n), 0, 0, 0};
    copy_bytes(ctx, data_.data(), ctx.device, &start, Device{}, sizeof(Totals));
  }
  Totals* get() { return data_.data(); }
  Totals host() const {
    Totals t{};
    read_back<Totals>(ctx_, &t, data_.data(), 1);
    return t;
  }

 private:
  const Context& ctx_;
  Array<Totals> data_;
};

}  // namespace

DeviceInput::DeviceInput(const Context& ctx, const AnyCsrView& graph, bool use_weights)
    : graph_(graph), n_(std::visit([](const auto& g) { return g.n_rows; }, graph)), weighted_(use_weights) {
  std::visit([&](const auto& g) { read(ctx, g); }, graph_);
}

template <class V>
void DeviceInput::read(const Context& ctx, const CsrView<const V>& graph) {
  std::int64_t bounds[2] = {0, 0};
  read_back<std::int64_t>(ctx, bounds, graph.indptr.data, 1);
  read_back<std::int64_t>(ctx, bounds + 1, graph.indptr.data + n_, 1);
  terms_ = bounds[1] - bounds[0];
  DeviceTotals totals(ctx, n_);
  launch_warps(ctx, "leiden check", n_, check_kernel<V>, Entries<V>{graph, weighted_}, totals.get());
  const Totals t = totals.host();
  if (t.bad_row < static_cast<unsigned long long>(n_)) {
    const auto row = static_cast<std::int64_t>(t.bad_row);
    std::int64_t at[2] = {0, 0};
    read_back<std::int64_t>(ctx, at, graph.indptr.data + row, 2);
    const Array<std::int32_t> indices = to_host<std::int32_t>(ctx, graph.indices.subspan(at[0], at[1] - at[0]));
    const Array<V> values = to_host<V>(ctx, Span<const V>(graph.values).subspan(at[0], at[1] - at[0]));
    check_row<V>("tl.leiden", row, n_, indices.view(), values.view());
  }
  if (t.asymmetry == 0) {
    convert(ctx, graph, bounds[0], terms_, math::from_bits(t.most));
  } else {
    symmetrise(ctx, graph);
    terms_ = checked_mul(2, terms_);
    weighted_ = true;
    graph_ = std::as_const(own_).view();
    const CsrView<const double> sum = std::as_const(own_).view();
    DeviceTotals again(ctx, n_);
    launch_warps(ctx, "leiden check", n_, check_kernel<double>, Entries<double>{sum, weighted_}, again.get());
    convert(ctx, sum, 0, own_.indices.size(), math::from_bits(again.host().most));
  }
}

template <class V>
void DeviceInput::symmetrise(const Context& ctx, const CsrView<const V>& graph) {
  const Entries<V> entries{graph, weighted_};
  const int bits = bits_for(n_);
  own_.n_rows = n_;
  own_.n_cols = static_cast<std::int32_t>(n_);
  own_.indptr = scratch<std::int64_t>(ctx, n_ + 1, "leiden symmetric offsets");
  Array<std::int64_t> before = scratch<std::int64_t>(ctx, n_ + 1, "leiden transposed offsets");
  Array<std::int64_t> place = scratch<std::int64_t>(ctx, n_, "leiden transposed places");
  fill_zero(ctx, before.data(), n_ + 1);
  launch_warps(ctx, "leiden both directions", n_, count_both_kernel<V>, entries, before.data());
  exclusive_scan(ctx, before.data(), n_);
  std::int64_t both = 0;
  read_back<std::int64_t>(ctx, &both, before.data() + n_, 1);
  std::vector<RowBatch> batches{{0, n_, 0, both}};
  const std::int64_t batch_entries = batch_entries_for(ctx, both);
  if (both > batch_entries) batches = row_batches(ctx, before.data(), n_, both, batch_entries);
  const auto fill = [&](const RowBatch& batch, std::uint64_t* keys, double* values) {
    start_places(ctx, batch, before.data(), place.data());
    launch_warps(ctx, "leiden both directions", n_, both_kernel<V>, entries, bits, batch, place.data(), keys, values);
  };
  sum_rows<double, double>(ctx, batches, bits, fill, own_.indptr.data(), own_.indices, own_.values);
}

template <class V>
void DeviceInput::convert(const Context& ctx, const CsrView<const V>& graph, std::int64_t first, std::int64_t entries,
                          double most) {
  const Entries<V> x{graph, weighted_};
  check_total("tl.leiden", most);
  fixed_ = weight_scale(most, terms_);
  offsets_ = scratch<std::int64_t>(ctx, n_ + 1, "leiden offsets");
  strength_ = scratch<std::int64_t>(ctx, n_, "leiden strengths");
  DeviceTotals sums(ctx);
  fill_zero(ctx, offsets_.data() + n_, 1);
  launch_warps(ctx, "leiden sums", n_, sum_kernel<V>, x, fixed_, offsets_.data(), sums.get());
  exclusive_scan(ctx, offsets_.data(), n_);
  fixed_total_ = static_cast<std::int64_t>(sums.host().sum);
  const double total = prim::fixed_sum(fixed_total_, fixed_);
  check_total("tl.leiden", total);
  scale_ = integer_scale(total, most);
  read_back<std::int64_t>(ctx, &n_edges_, offsets_.data() + n_, 1);
  // Where every entry is an edge, the matrix itself is read later on.
  const bool all = n_edges_ == entries;
  edges_ = graph.indices.data + first;
  if (!all) {
    to_ = scratch<std::int32_t>(ctx, n_edges_, "leiden edges");
    edges_ = to_.data();
  }
  if constexpr (std::is_same_v<V, float>)
    if (all && weighted_) caller_weight_ = graph.values.data + first;
  if (caller_weight_ == nullptr) weight_ = scratch<std::uint32_t>(ctx, n_edges_, "leiden edge weights");
  DeviceTotals strengths(ctx);
  launch_warps(ctx, "leiden integers", n_, integers_kernel<V>, x, scale_,
               static_cast<const std::int64_t*>(offsets_.data()), to_.data(), weight_.data(), strength_.data(),
               strengths.get());
  total_ = static_cast<std::int64_t>(strengths.host().sum);
  max_degree_ = max_degree(ctx, offsets_.data(), n_);
}

template <class V>
double DeviceInput::modularity_of_graph(const Context& ctx, const CsrView<const V>& graph, const std::int32_t* labels,
                                        std::int64_t n_labels, double resolution) const {
  Array<std::int64_t> strength = scratch<std::int64_t>(ctx, n_labels, "leiden cluster strengths");
  fill_zero(ctx, strength.data(), n_labels);
  DeviceTotals totals(ctx);
  launch_warps(ctx, "leiden modularity", n_, modularity_kernel<V>, Entries<V>{graph, weighted_}, fixed_, labels,
               strength.data(), totals.get());
  const Array<std::int64_t> host = to_host<std::int64_t>(ctx, std::as_const(strength).view());
  return modularity_of(fixed_total_, static_cast<std::int64_t>(totals.host().sum), host.view(), resolution);
}

double DeviceInput::modularity(const Context& ctx, const std::int32_t* labels, std::int64_t n_labels,
                               double resolution) const {
  return std::visit([&](const auto& g) { return modularity_of_graph(ctx, g, labels, n_labels, resolution); }, graph_);
}

std::vector<std::int64_t> finish(const Context& ctx, const DeviceInput& input, const std::int32_t* label,
                                 std::int32_t* out) {
  const std::int64_t n = input.n();
  Array<std::int32_t> parent = scratch<std::int32_t>(ctx, n, "leiden parts");
  Array<std::int32_t> part = scratch<std::int32_t>(ctx, n, "leiden parts");
  Array<std::int32_t> size = scratch<std::int32_t>(ctx, n, "leiden sizes");
  Array<std::int32_t> list = scratch<std::int32_t>(ctx, n, "leiden clusters");
  Array<unsigned long long> count = scratch<unsigned long long>(ctx, 1, "leiden number of clusters");
  fill_zero(ctx, size.data(), n);
  fill_zero(ctx, count.data(), 1);
  launch(ctx, "leiden parts", n, iota_kernel, n, parent.data());
  input.visit([&]<class W>(const DeviceGraph<W>& graph) {
    launch_warps(ctx, "leiden parts", n, parts_kernel<W>, graph, label, parent.data());
  });
  launch(ctx, "leiden roots", n, roots_kernel, n, parent.data(), part.data(), size.data());
  launch(ctx, "leiden roots", n, list_roots_kernel, n, static_cast<const std::int32_t*>(size.data()), list.data(),
         count.data());
  unsigned long long clusters = 0;
  read_back<unsigned long long>(ctx, &clusters, count.data(), 1);
  const auto m = static_cast<std::int64_t>(clusters);
  Array<std::int32_t> picked = scratch<std::int32_t>(ctx, m, "leiden sizes");
  launch(ctx, "leiden sizes", m, pick_kernel, m, static_cast<const std::int32_t*>(list.data()),
         static_cast<const std::int32_t*>(size.data()), picked.data());
  const Array<std::int32_t> roots = to_host<std::int32_t>(ctx, std::as_const(list).view().subspan(0, m));
  const Array<std::int32_t> sizes = to_host<std::int32_t>(ctx, std::as_const(picked).view());
  std::vector<std::pair<std::int64_t, std::int32_t>> order(static_cast<std::size_t>(m));  // (-size, first vertex)
  for (std::int64_t i = 0; i < m; ++i) order[static_cast<std::size_t>(i)] = {-std::int64_t{sizes[i]}, roots[i]};
  std::sort(order.begin(), order.end());
  std::vector<std::int32_t> sorted(order.size());
  std::vector<std::int64_t> result(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    sorted[i] = order[i].second;
    result[i] = -order[i].first;
  }
  const Array<std::int32_t> device_sorted = to_device<std::int32_t>(ctx, Span<const std::int32_t>(sorted));
  launch(ctx, "leiden ranks", m, rank_kernel, m, device_sorted.data(), parent.data());
  launch(ctx, "leiden labels", n, labels_kernel, n, static_cast<const std::int32_t*>(part.data()),
         static_cast<const std::int32_t*>(parent.data()), out);
  return result;
}

Wide quality_of(const Context& ctx, const DeviceInput& input, const Quality& quality, const std::int32_t* label,
                std::int64_t clusters) {
  Array<std::int64_t> strength = scratch<std::int64_t>(ctx, clusters, "leiden cluster strengths");
  fill_zero(ctx, strength.data(), clusters);
  DeviceTotals totals(ctx);
  input.visit([&]<class W>(const DeviceGraph<W>& graph) {
    launch_warps(ctx, "leiden quality", graph.n, quality_kernel<W>, graph, label, strength.data(), totals.get());
  });
  const Array<std::int64_t> host = to_host<std::int64_t>(ctx, std::as_const(strength).view());
  return quality.total(static_cast<std::int64_t>(totals.host().sum), host.view());
}

}  // namespace scw::tl::cuda
