// Leiden on CUDA: the levels of the hierarchy on the device, and what the steps share.
#pragma once

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/cuda/cuda_check.cuh"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "tl/leiden/graph.hpp"
#include "tl/leiden/rules.hpp"

namespace scw::tl::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;

template <class T>
Array<T> scratch(const Context& ctx, std::int64_t n, const char* tag) {
  return Array<T>(ctx.workspace, n, tag, ctx.stream);
}
template <class T>
void fill_zero(const Context& ctx, T* data, std::int64_t n) {
  if (n > 0) SCW_CUDA(cudaMemsetAsync(data, 0, static_cast<std::size_t>(n) * sizeof(T), scw::cuda::stream_of(ctx)));
}
/// -1 in every element.
inline void fill_none(const Context& ctx, std::int32_t* data, std::int64_t n) {
  if (n > 0)
    SCW_CUDA(
        cudaMemsetAsync(data, 0xFF, static_cast<std::size_t>(n) * sizeof(std::int32_t), scw::cuda::stream_of(ctx)));
}
template <class T>
void copy_within(const Context& ctx, T* to, const T* from, std::int64_t n) {
  if (n > 0)
    SCW_CUDA(cudaMemcpyAsync(to, from, static_cast<std::size_t>(n) * sizeof(T), cudaMemcpyDeviceToDevice,
                             scw::cuda::stream_of(ctx)));
}
template <class T>
void read_back(const Context& ctx, T* host, const T* device, std::int64_t n) {
  copy_bytes(ctx, host, Device{}, device, ctx.device, static_cast<std::size_t>(n) * sizeof(T));
}

#define SCW_FOR_ITEMS(i, n)                                                           \
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < (n); \
       i += std::int64_t{gridDim.x} * blockDim.x)
#define SCW_FOR_WARPS(i, n)                                                                  \
  for (std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32; i < (n); \
       i += std::int64_t{gridDim.x} * (blockDim.x / 32))

/// One thread per item.
template <class... Args, class... Given>
void launch(const Context& ctx, const char* name, std::int64_t n, void (*kernel)(Args...), Given... given) {
  if (n == 0) return;
  kernel<<<scw::cuda::grid_for(n, kThreads), kThreads, 0, scw::cuda::stream_of(ctx)>>>(given...);
  SCW_CUDA_LAUNCHED(name);
}
/// One warp per item.
template <class... Args, class... Given>
void launch_warps(const Context& ctx, const char* name, std::int64_t n, void (*kernel)(Args...), Given... given) {
  if (n == 0) return;
  kernel<<<scw::cuda::grid_for(n, kWarps), kThreads, 0, scw::cuda::stream_of(ctx)>>>(given...);
  SCW_CUDA_LAUNCHED(name);
}

/// A level, on the device; no loops. W: integers, or float for the caller's own weights, which become integers as they
/// are read: no copy of them is held.
template <class W>
struct DeviceGraph {
  std::int64_t n, n_edges;
  const std::int64_t* offsets;
  const std::int32_t* to;
  const W* weight;
  const std::int64_t* strength;
  const std::int32_t* id;  // null: the vertex itself
  std::int64_t max_degree;
  double scale;  // of integer_weight, where W is float

  __device__ auto weight_at(std::int64_t e) const {
    if constexpr (std::is_same_v<W, float>)
      return static_cast<std::uint32_t>(integer_weight(static_cast<double>(weight[e]), scale));
    else
      return weight[e];
  }
};
template <class W>
using Weight = std::conditional_t<std::is_same_v<W, float>, std::uint32_t, W>;

/// Weights have 32 bits where the strengths have.
struct DeviceLevel {
  std::int64_t n = 0, n_edges = 0, max_degree = 0;
  bool narrow = false;
  Array<std::int64_t> offsets, strength, wide_weight;
  Array<std::uint32_t> narrow_weight;
  Array<std::int32_t> to, id, label, parent;  // parent: the vertex of the next level

  /// f(DeviceGraph).
  template <class F>
  auto visit(F&& f) const {
    return narrow ? f(view(narrow_weight.data())) : f(view(wide_weight.data()));
  }

 private:
  template <class W>
  DeviceGraph<W> view(const W* weight) const {
    return {n, n_edges, offsets.data(), to.data(), weight, strength.data(), id.data(), max_degree, 1};
  }
};

/// Arrays that all levels share, for the largest: n vertices.
struct DeviceSpace {
  Array<std::int32_t> target, refined, joined, map;  // map [2n + 1]
  Array<std::int32_t> list, next;                    // vertices of a round
  Array<std::uint8_t> flag, state, grown;            // [n + 16]
  Array<std::int64_t> here, there;                   // weights of the proposals; refined clusters: strengths and cuts
  Array<std::int64_t> cluster_strength, entering, leaving;  // [2n]
  Array<std::uint64_t> first_in, first_out;                 // [2n]
  Array<std::int64_t> noise;
  Array<unsigned long long> counters;
  std::int64_t batch_entries;

  DeviceSpace(const Context& ctx, std::int64_t n, std::int64_t n_edges);
};
enum Counter { kActive, kTakingPart, kMoved, kLarge, kMaxDegree, kCounters };

/// Rows above this degree are worked on by a block with a hash table, in shared memory up to kSharedDegree.
inline constexpr std::int64_t kWarpDegree = 128;
inline constexpr std::int64_t kSharedSlots = 2048, kSharedDegree = kSharedSlots / 2;

/// Tables in device memory for rows above kSharedDegree, one for each of so many blocks.
struct LargeTables {
  Array<std::int32_t> keys;
  Array<std::int64_t> sums;
  std::int64_t slots = 0;  // a power of two
  unsigned blocks = 0;

  LargeTables(const Context& ctx, std::int64_t max_degree);
};

/// Local moving from and to `label`; the new labels are 0 to clusters - 1, whose strengths are in
/// space.cluster_strength. Returns the number of moves.
template <class W>
std::int64_t move(const Context& ctx, const DeviceGraph<W>& graph, const Quality& quality, RngKey key,
                  std::int32_t* label, DeviceSpace& space, std::int64_t& clusters);

/// space.refined[v] = the vertex that stands for the refined cluster of v.
template <class W>
void refine(const Context& ctx, const DeviceGraph<W>& graph, const Quality& quality, RngKey key,
            const std::int32_t* label, DeviceSpace& space);

/// The graph of the refined clusters; false if nothing was merged. parent [n].
template <class W>
bool aggregate(const Context& ctx, const DeviceGraph<W>& graph, const std::int32_t* label, DeviceSpace& space,
               std::int32_t* parent, DeviceLevel& level);

std::int64_t max_degree(const Context& ctx, const std::int64_t* offsets, std::int64_t n);

/// Sums before each element, in place; data has n + 1 elements of which the last becomes the sum of all.
void exclusive_scan(const Context& ctx, std::int32_t* data, std::int64_t n);
void exclusive_scan(const Context& ctx, std::int64_t* data, std::int64_t n);

/// How many entries are sorted by row and column at once, kSortedEntryBytes each: what fits ctx.block_bytes or, by
/// default, kSortBytes and a quarter of the memory that is left. Results do not depend on it.
std::int64_t batch_entries_for(const Context& ctx, std::int64_t entries);

/// The entries of consecutive rows: those at begin to end, were all of them in the order of their rows.
struct RowBatch {
  std::int64_t first_row, last_row, begin, end;
};
/// Batches of rows with together at most batch_entries entries, or of a single row with more. before [n_rows + 1]: how
/// many entries the rows before each have.
std::vector<RowBatch> row_batches(const Context& ctx, const std::int64_t* before, std::int64_t n_rows,
                                  std::int64_t entries, std::int64_t batch_entries);
/// place[row] = before[row] for the rows of a batch.
inline void start_places(const Context& ctx, const RowBatch& batch, const std::int64_t* before, std::int64_t* place) {
  copy_within(ctx, place + batch.first_row, before + batch.first_row, batch.last_row - batch.first_row);
}
/// Writes the batch's entries, in any order: keys (row - first_row) << bits | column, and values unless that is null.
template <class T>
using FillBatch = std::function<void(const RowBatch& batch, std::uint64_t* keys, T* values)>;
/// Rows sorted by column in which each column occurs once, with the sum of its values, from entries in any order;
/// offsets [n_rows + 1]. Returns how many entries there are. Holds kSortedEntryBytes for each entry of the largest
/// batch, beside the result; where there are several batches, what they come to is counted first.
template <class T, class Sum>
std::int64_t sum_rows(const Context& ctx, const std::vector<RowBatch>& batches, int bits, const FillBatch<T>& fill,
                      std::int64_t* offsets, Array<std::int32_t>& to, Array<Sum>& sums);

inline int bits_for(std::int64_t values) {
  int bits = 1;
  while ((std::int64_t{1} << bits) < values) ++bits;
  return bits;
}

/// The checked input, on the device: the matrix itself or A + A^T, and its integer form.
class DeviceInput {
 public:
  DeviceInput(const Context& ctx, const AnyCsrView& graph, bool use_weights);

  std::int64_t n() const { return n_; }
  double scale() const { return scale_; }
  std::int64_t total() const { return total_; }
  std::int64_t n_edges() const { return n_edges_; }
  /// f(DeviceGraph).
  template <class F>
  auto visit(F&& f) const {
    return caller_weight_ != nullptr ? f(view(caller_weight_)) : f(view(weight_.data()));
  }
  double modularity(const Context& ctx, const std::int32_t* labels, std::int64_t n_labels, double resolution) const;

 private:
  template <class V>
  void read(const Context& ctx, const CsrView<const V>& graph);
  template <class V>
  void convert(const Context& ctx, const CsrView<const V>& graph, std::int64_t first, std::int64_t entries,
               double most);
  template <class V>
  void symmetrise(const Context& ctx, const CsrView<const V>& graph);
  template <class V>
  double modularity_of_graph(const Context& ctx, const CsrView<const V>& graph, const std::int32_t* labels,
                             std::int64_t n_labels, double resolution) const;
  template <class W>
  DeviceGraph<W> view(const W* weight) const {
    return {n_, n_edges_, offsets_.data(), edges_, weight, strength_.data(), nullptr, max_degree_, scale_};
  }

  AnyCsrView graph_;
  std::int64_t n_;
  bool weighted_;
  std::int64_t terms_ = 0;  // entries that may be added up
  prim::FixedScale fixed_;
  std::int64_t fixed_total_ = 0;
  double scale_ = 1;
  std::int64_t total_ = 0, n_edges_ = 0, max_degree_ = 0;
  Csr<double> own_;
  Array<std::int64_t> offsets_, strength_;
  // Copies without loops and zeros, where the matrix has some; weight_ also where its weights are not float.
  Array<std::int32_t> to_;
  Array<std::uint32_t> weight_;
  const std::int32_t* edges_ = nullptr;
  const float* caller_weight_ = nullptr;
};

/// Splits the clusters into their connected parts and numbers them by size, then smallest vertex; the sizes.
std::vector<std::int64_t> finish(const Context& ctx, const DeviceInput& input, const std::int32_t* label,
                                 std::int32_t* out);
/// The integer quality of numbered clusters.
Wide quality_of(const Context& ctx, const DeviceInput& input, const Quality& quality, const std::int32_t* label,
                std::int64_t clusters);

}  // namespace scw::tl::cuda
