// Rank sums on CUDA. Genes are taken in blocks whose entries fit the workspace; a block goes through
//   keys    one integer for each stored entry of the block: (gene, value, group), in any order   (cuda_keys.cuh)
//   sort    by (gene, value), with a reference also by group: radix, CUB                          (here)
//   sums    tiles of one gene: integer accumulators of each group in shared memory                (cuda_sums.cuh)
//   ranks   tiles of one gene: runs of equal values from head flags                               (cuda_ranks.cuh)
// Nothing depends on the order in which entries are written, added or merged: every sum is an integer.
//
// Floor, float: 16 bytes an entry for the matrix (read twice), 16 for the keys written and their histogram, 16 for each
// 8 bits of (gene, value) sorted (about 37 bits on log-normalised data: 5 passes), 16 for two walks: 128 bytes an
// entry, 57 ms for 1.9e9 entries at 4.3 TB/s.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <thrust/iterator/transform_iterator.h>

#include "core/cuda/kernel_attributes.cuh"
#include "core/parallel.hpp"
#include "core/transfer.hpp"
#include "tl/rank_genes_groups/cuda_keys.cuh"
#include "tl/rank_genes_groups/cuda_ranks.cuh"
#include "tl/rank_genes_groups/cuda_sums.cuh"

namespace scw::tl::cuda {

namespace ranks {

inline constexpr std::int64_t kBlockBytes = std::int64_t{4} << 30;  // of keys, sorted and unsorted together

/// Bytes that blocks of keys may take: most of what is left, and a limit leaves.
inline std::int64_t block_bytes(const Context& ctx) { return std::min(kBlockBytes, available_bytes(ctx) / 10 * 8); }

template <class T>
Array<T> zeroed(const Context& ctx, std::int64_t n, const char* tag) {
  Array<T> a(ctx.workspace, n, tag, ctx.stream);
  if (n > 0) SCW_CUDA(cudaMemsetAsync(a.data(), 0, static_cast<std::size_t>(n) * sizeof(T), scw::cuda::stream_of(ctx)));
  return a;
}

/// The rank sums of one matrix, which comes in blocks of rows of type X; an object for the time of a call.
template <class V, class X>
class Ranker {
  using Key = typename Bits<V>::Key;
  using Value = typename Bits<V>::Value;

 public:
  Ranker(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, const RankSpec& spec,
         const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out)
      : ctx_(ctx),
        stream_(scw::cuda::stream_of(ctx)),
        x_(x),
        spec_(spec),
        map_(map),
        moments_(moments),
        out_(out),
        n_genes_(moments.n_genes),
        n_codes_(spec.n_groups + 1),
        // Cells outside of all groups take part in ranks against the rest only.
        taking_part_(spec.reference < 0 ? n_codes_ : spec.n_groups),
        n_ranked_(codes.size),
        codes_(to_device<std::int32_t>(ctx, codes, "cell groups")) {
    std::vector<std::int64_t> sizes(static_cast<std::size_t>(n_codes_), 0);
    for (const std::int32_t c : codes) ++sizes[static_cast<std::size_t>(c)];
    if (spec.reference >= 0) reference_size_ = sizes[static_cast<std::size_t>(spec.reference)];
    sizes_ = to_device<std::int64_t>(ctx, sizes, "group sizes");
  }

  void run() {
    if (!count()) return;
    const std::int64_t all = checked_mul(n_codes_, n_genes_);
    const std::int64_t tested = checked_mul(spec_.n_groups, n_genes_);
    const std::int64_t tie_rows = spec_.reference < 0 ? 1 : spec_.n_groups;
    sum_low_ = zeroed<U64>(ctx_, all, "group sums");
    sum_high_ = zeroed<U64>(ctx_, all, "group sums");
    stored_ = zeroed<std::uint32_t>(ctx_, all, "group entries");
    zeros_ = zeroed<std::uint32_t>(ctx_, all, "group zeros");
    twice_ = zeroed<U64>(ctx_, tested, "rank sums");
    ties_low_ = zeroed<U64>(ctx_, checked_mul(tie_rows, n_genes_), "ties");
    ties_high_ = zeroed<U64>(ctx_, checked_mul(tie_rows, n_genes_), "ties");
    twice_out_ = Array<std::int64_t>(ctx_.workspace, tested, "rank sums", ctx_.stream);
    ties_out_ = Array<double>(ctx_.workspace, checked_mul(tie_rows, n_genes_), "ties", ctx_.stream);
    plan();
    for (std::size_t b = 0; b + 1 < blocks_.size(); ++b) {
      ctx_.check_cancelled("tl.rank_genes_groups");
      rank_genes(blocks_[b], blocks_[b + 1]);
      ctx_.report("rank_genes_groups", blocks_[b + 1], n_genes_);
    }
    collect();
  }

 private:
  /// Entries and fixed-point scale of every gene; false where a value is not finite.
  bool count() {
    Array<U64> counts = zeroed<U64>(ctx_, n_genes_, "gene entries");
    Array<U64> magnitudes = zeroed<U64>(ctx_, n_genes_, "gene maxima");
    const std::vector<U64> start{~U64{0}, 0};
    Array<U64> range = to_device<U64>(ctx_, start, "value range");
    int sms = 0;
    SCW_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, ctx_.device.id));
    // As many counters as shared memory has room for.
    const std::int64_t shared = scw::cuda::allow_shared_memory(ctx_, &count_kernel<V, X>);
    constexpr std::int64_t kGeneBytes = sizeof(typename Bits<V>::Magnitude) + sizeof(std::uint32_t);
    const std::int64_t most_genes = shared / kGeneBytes;
    for_each_block([&](std::int64_t row, const X& x) {
      const unsigned grid = scw::cuda::grid_for(x.n_rows, kCountThreads / 32, 2 * sms);
      for (std::int64_t first = 0; first < n_genes_; first += most_genes) {
        const std::int64_t width = std::min(most_genes, n_genes_ - first);
        count_kernel<V, X><<<grid, kCountThreads, static_cast<std::size_t>(width * kGeneBytes), stream_>>>(
            x, codes_.data() + row, taking_part_, first, static_cast<std::int32_t>(width), counts.data(),
            magnitudes.data(), range.data());
        SCW_CUDA_LAUNCHED("rank_genes_groups: count");
      }
    });
    const Array<U64> largest = to_host<U64>(ctx_, std::as_const(magnitudes).view());
    for (std::int64_t j = 0; j < n_genes_; ++j) {
      const auto bits = static_cast<typename Bits<V>::Magnitude>(largest[j]);
      const double m = map_(static_cast<double>(std::bit_cast<V>(bits)));
      if (!(m <= std::numeric_limits<double>::max())) {
        out_.bad_gene = j;
        return false;
      }
      moments_.scale[j] = prim::FixedScale::for_max(m);
    }
    scales_ = to_device<prim::FixedScale>(ctx_, std::as_const(moments_.scale).view(), "gene scales");
    entries_ = to_host<U64>(ctx_, std::as_const(counts).view());
    const Array<U64> ends = to_host<U64>(ctx_, std::as_const(range).view());
    layout_.low = ends[0] <= ends[1] ? static_cast<Value>(ends[0]) : Value{0};
    layout_.value_bits = std::max(1, static_cast<int>(std::bit_width(ends[0] <= ends[1] ? ends[1] - ends[0] : U64{0})));
    layout_.group_bits = std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint32_t>(n_codes_ - 1))));
    if (spec_.n_bins > 0) {
      bins_ = layout_;
      bins_.low = 0;
      bins_.value_bits = static_cast<int>(std::bit_width(static_cast<std::uint32_t>(spec_.n_bins)));
    }
    return true;
  }

  /// Blocks of genes: entries that fit, and a gene number that fits beside value and group.
  void plan() {
    const int value_bits = std::max(layout_.value_bits, spec_.n_bins > 0 ? bins_.value_bits : 0);
    const int gene_bits = std::min(30, static_cast<int>(8 * sizeof(Key)) - layout_.group_bits - value_bits);
    const std::int64_t most_genes = std::int64_t{1} << gene_bits;
    const std::int64_t room = block_bytes(ctx_) / static_cast<std::int64_t>(2 * sizeof(Key));
    blocks_ = {0};
    std::int64_t held = 0, most = 0;
    for (std::int64_t j = 0; j < n_genes_; ++j) {
      const auto n = static_cast<std::int64_t>(entries_[j]);
      if (j > blocks_.back() && (held + n > room || j - blocks_.back() == most_genes)) {
        blocks_.push_back(j);
        held = 0;
      }
      held += n;
      most = std::max(most, held);
    }
    if (n_genes_ > 0) blocks_.push_back(n_genes_);
    if (most == 0) return;
    // One key more than there are: the counts of the reference's cells end with their total.
    keys_ = Array<Key>(ctx_.workspace, most + 1, "genes to sort", ctx_.stream);
    spare_ = Array<Key>(ctx_.workspace, most + 1, "sorted genes", ctx_.stream);
    std::size_t bytes = 0, scan_bytes = 0;
    cub::DoubleBuffer<Key> buffer(keys_.data(), spare_.data());
    SCW_CUDA(cub::DeviceRadixSort::SortKeys(nullptr, bytes, buffer, static_cast<std::uint32_t>(most), 0,
                                            static_cast<int>(8 * sizeof(Key)), stream_));
    if (spec_.reference >= 0)
      SCW_CUDA(cub::DeviceScan::ExclusiveSum(
          nullptr, scan_bytes, thrust::make_transform_iterator(keys_.data(), IsReference<V>{}),
          static_cast<std::uint32_t*>(nullptr), static_cast<std::uint32_t>(most + 1), stream_));
    temp_ = Array<unsigned char>(ctx_.workspace, static_cast<std::int64_t>(std::max(bytes, scan_bytes)), "sort",
                                 ctx_.stream);
    used_ = Array<U64>(ctx_.workspace, 1, "keys", ctx_.stream);
    if constexpr (kIsCsr<X>) {
      row_begin_ = zeroed<std::int32_t>(ctx_, n_ranked_, "row positions");
      row_end_ = Array<std::int32_t>(ctx_.workspace, n_ranked_, "row positions", ctx_.stream);
    }
  }

  void sort(cub::DoubleBuffer<Key>& keys, std::int64_t n, int begin_bit, int end_bit) {
    if (end_bit <= begin_bit) return;
    auto bytes = static_cast<std::size_t>(temp_.size());
    SCW_CUDA(cub::DeviceRadixSort::SortKeys(temp_.data(), bytes, keys, static_cast<std::uint32_t>(n), begin_bit,
                                            end_bit, stream_));
  }

  /// The whole way of the genes [first, last): keys, sort, sums, ranks.
  void rank_genes(std::int64_t first, std::int64_t last) {
    Segments s;
    s.first = first;
    s.n = static_cast<std::int32_t>(last - first);
    std::vector<std::int64_t> begin{0};
    std::vector<std::int32_t> tile{0};
    for (std::int64_t j = first; j < last; ++j) {
      const auto n = static_cast<std::int64_t>(entries_[j]);
      begin.push_back(begin.back() + n);
      tile.push_back(tile.back() + static_cast<std::int32_t>((n + kTile - 1) / kTile));
    }
    const Array<std::int64_t> begins = to_device<std::int64_t>(ctx_, begin, "gene segments");
    const Array<std::int32_t> tiles = to_device<std::int32_t>(ctx_, tile, "gene tiles");
    s.begin = begins.data();
    s.tile = tiles.data();
    const std::int64_t n = begin.back();
    const auto n_tiles = static_cast<unsigned>(tile.back());
    Array<std::int32_t> gene_of_tile(ctx_.workspace, tile.back(), "gene tiles", ctx_.stream);
    s.gene_of_tile = gene_of_tile.data();
    map_tiles_kernel<<<static_cast<unsigned>(s.n), kThreads, 0, stream_>>>(s);
    SCW_CUDA_LAUNCHED("rank_genes_groups: map_tiles");
    const int gene_bits = static_cast<int>(std::bit_width(static_cast<std::uint32_t>(s.n - 1)));
    const bool with_reference = spec_.reference >= 0;

    Layout<V> layout = layout_;
    cub::DoubleBuffer<Key> keys(keys_.data(), spare_.data());
    if (n > 0) {
      fill(s, keys.Current());
      const bool binned = spec_.n_bins > 0;
      // Bins: sums need the genes apart, ranks the bins in order.
      sort(keys, n, binned ? layout.gene_shift() : (with_reference ? 0 : layout.group_bits),
           layout.gene_shift() + gene_bits);
      const Slots slots = make_slots(n_codes_);
      sums_kernel<V><<<n_tiles, kThreads, static_cast<std::size_t>(slots.size()) * 12, stream_>>>(
          s, keys.Current(), layout, map_.expm1_scale.has_value(), map_.expm1_scale.value_or(0), scales_.data(),
          n_genes_, slots, {sum_low_.data(), sum_high_.data(), stored_.data(), zeros_.data()});
      SCW_CUDA_LAUNCHED("rank_genes_groups: sums");
      if (binned) {
        bin_kernel<V><<<scw::cuda::grid_for(n, 8 * kThreads), kThreads, 0, stream_>>>(keys.Current(), n, layout, bins_,
                                                                                      binning());
        SCW_CUDA_LAUNCHED("rank_genes_groups: bins");
        layout = bins_;
        sort(keys, n, with_reference ? 0 : layout.group_bits, layout.gene_shift() + gene_bits);
      }
    }
    const Value zero = spec_.n_bins > 0 ? binning()(0.0) : prim::sortable_bits(V{0});
    const Ranks ranks{twice_.data(), ties_low_.data(), ties_high_.data()};
    const Slots slots = make_slots(spec_.n_groups);
    const std::size_t shared = static_cast<std::size_t>(slots.size()) * 8;
    const dim3 finish(scw::cuda::grid_for(s.n, kThreads), static_cast<unsigned>((spec_.n_groups + 31) / 32));
    if (!with_reference) {
      if (n > 0) {
        rank_all_kernel<V><<<n_tiles, kThreads, shared, stream_>>>(s, keys.Current(), layout, zero, n_ranked_,
                                                                   spec_.n_groups, n_genes_, slots, ranks);
        SCW_CUDA_LAUNCHED("rank_genes_groups: rank_all");
      }
      finish_all_kernel<V><<<finish, kThreads, 0, stream_>>>(s, keys.Current(), layout, zero, n_ranked_, sizes_.data(),
                                                             spec_.n_groups, n_genes_, stored_.data(), ranks,
                                                             twice_out_.data(), ties_out_.data());
      SCW_CUDA_LAUNCHED("rank_genes_groups: finish_all");
      return;
    }
    auto* const references = reinterpret_cast<std::uint32_t*>(keys.Alternate());
    if (n > 0) {
      auto bytes = static_cast<std::size_t>(temp_.size());
      SCW_CUDA(cudaMemsetAsync(keys.Current() + n, 0, sizeof(Key), stream_));  // read, but no part of the sums
      SCW_CUDA(cub::DeviceScan::ExclusiveSum(
          temp_.data(), bytes, thrust::make_transform_iterator(keys.Current(), IsReference<V>{layout, spec_.reference}),
          references, static_cast<std::uint32_t>(n + 1), stream_));
      rank_reference_kernel<V><<<n_tiles, kThreads, shared, stream_>>>(s, keys.Current(), references, layout, zero,
                                                                       spec_.reference, reference_size_, stored_.data(),
                                                                       n_genes_, slots, ranks);
      SCW_CUDA_LAUNCHED("rank_genes_groups: rank_reference");
    }
    finish_reference_kernel<V><<<finish, kThreads, 0, stream_>>>(
        s, keys.Current(), references, layout, zero, spec_.reference, sizes_.data(), spec_.n_groups, n_genes_,
        stored_.data(), ranks, twice_out_.data(), ties_out_.data());
    SCW_CUDA_LAUNCHED("rank_genes_groups: finish_reference");
  }

  /// Keys of the block; blocks come in order, so that the search in each row goes on where the last one ended.
  void fill(const Segments& s, Key* keys) {
    SCW_CUDA(cudaMemsetAsync(used_.data(), 0, sizeof(U64), stream_));
    for_each_block([&](std::int64_t row, const X& x) {
      const std::int32_t *begin = nullptr, *end = nullptr;
      if constexpr (kIsCsr<X>) {
        begin = row_begin_.data() + row;
        end = row_end_.data() + row;
        advance_kernel<<<scw::cuda::grid_for(x.n_rows, kThreads, 1 << 30), kThreads, 0, stream_>>>(
            x, codes_.data() + row, taking_part_, s.first + s.n, begin, row_end_.data() + row);
        SCW_CUDA_LAUNCHED("rank_genes_groups: advance");
      }
      fill_kernel<V><<<scw::cuda::grid_for(x.n_rows, kFillRows, 1 << 30), kThreads, 0, stream_>>>(
          x, codes_.data() + row, taking_part_, begin, end, s.first, s.first + s.n, layout_, keys, used_.data());
      SCW_CUDA_LAUNCHED("rank_genes_groups: fill");
    });
    row_begin_.swap(row_end_);
  }

  template <class F>
  void for_each_block(const F& f) const {
    x_.for_each(ctx_, [&](std::int64_t row, const AnyMatrixView& block) {
      const X& x = std::get<X>(block);
      if (x.n_rows > 0) f(row, x);
    });
  }

  Binning<V> binning() const { return {spec_.low, spec_.high, static_cast<double>(spec_.n_bins), spec_.zeros_apart}; }

  /// Results to the host; sums of two halves become 128-bit integers.
  void collect() {
    const auto copy = [&](auto& to, const auto& from) {
      using T = typename std::decay_t<decltype(to)>::value_type;
      copy_bytes(ctx_, to.data(), Device{}, from.data(), ctx_.device,
                 static_cast<std::size_t>(from.size()) * sizeof(T));
    };
    copy(out_.twice_rank_sum, twice_out_);
    copy(out_.ties, ties_out_);
    const Array<U64> low = to_host<U64>(ctx_, std::as_const(sum_low_).view());
    const Array<U64> high = to_host<U64>(ctx_, std::as_const(sum_high_).view());
    const Array<std::uint32_t> stored = to_host<std::uint32_t>(ctx_, std::as_const(stored_).view());
    const Array<std::uint32_t> zeros = to_host<std::uint32_t>(ctx_, std::as_const(zeros_).view());
    parallel_for(ctx_.host(), low.size(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k) {
        moments_.moments[k].sum = static_cast<Int128>((static_cast<Uint128>(high[k]) << 64) | low[k]);
        moments_.nonzero[k] = static_cast<std::int32_t>(stored[k] - zeros[k]);
      }
    });
  }

  const Context& ctx_;
  cudaStream_t stream_;
  const RowBlocks& x_;
  const RankSpec& spec_;
  const prim::ValueMap& map_;
  prim::GroupMoments& moments_;
  RankSums& out_;
  std::int64_t n_genes_;
  std::int32_t n_codes_, taking_part_;
  std::int64_t n_ranked_, reference_size_ = 0;
  Array<std::int32_t> codes_;
  Array<std::int64_t> sizes_;
  Array<U64> entries_;  // of each gene, on the host
  Layout<V> layout_, bins_;
  std::vector<std::int64_t> blocks_;
  Array<Key> keys_, spare_;
  Array<unsigned char> temp_;
  Array<U64> used_;
  Array<std::int32_t> row_begin_, row_end_;
  Array<U64> sum_low_, sum_high_, twice_, ties_low_, ties_high_;
  Array<std::uint32_t> stored_, zeros_;
  Array<std::int64_t> twice_out_;
  Array<double> ties_out_;
  Array<prim::FixedScale> scales_;
};

}  // namespace ranks

/// One file an element type, for the time that nvcc takes.
void rank_sums_f64(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes, const RankSpec& spec,
                   const prim::ValueMap& map, prim::GroupMoments& moments, RankSums& out);

}  // namespace scw::tl::cuda
