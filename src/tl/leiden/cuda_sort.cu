// The scans and sorts of Leiden on CUDA, by CUB; its working space is an Array like any other. Entries in any order
// become sorted rows: 32 bytes an entry of what is sorted at once, 8 or 12 for the result.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_scan.cuh>
#include <limits>
#include <utility>
#include <vector>

#include "tl/leiden/cuda_rows.cuh"

namespace scw::tl::cuda {
namespace {

template <class Call>
void with_space(const Context& ctx, Call&& call) {
  std::size_t bytes = 0;
  SCW_CUDA(call(nullptr, bytes));
  Array<std::uint8_t> space =
      scratch<std::uint8_t>(ctx, static_cast<std::int64_t>(bytes > 0 ? bytes : 1), "leiden sort space");
  SCW_CUDA(call(static_cast<void*>(space.data()), bytes));
}

/// CUB 2, of CUDA 12, counts the items of a scan and of a sum by key in 32 bits.
void check_items([[maybe_unused]] std::int64_t n) {
#if CUB_VERSION < 300000
  if (n > std::numeric_limits<int>::max())
    throw NotSupported("tl.leiden: 2^31 vertices, or edges of a single community, need a build with CUDA 13");
#endif
}

/// Of sorted keys: each once, with the sum of its values; how many there are. Sums of doubles are of two at most: in
/// either order the same.
template <class T>
std::int64_t sum_by_key(const Context& ctx, const std::uint64_t* keys, const T* values, std::int64_t n,
                        std::uint64_t* unique, T* sums) {
  check_items(n);
  Array<std::int64_t> count = scratch<std::int64_t>(ctx, 1, "leiden runs");
  with_space(ctx, [&](void* space, std::size_t& bytes) {
    return cub::DeviceReduce::ReduceByKey(space, bytes, keys, unique, values, sums, count.data(), ::cuda::std::plus<>{},
                                          n, scw::cuda::stream_of(ctx));
  });
  std::int64_t runs = 0;
  read_back(ctx, &runs, std::as_const(count).data(), 1);
  return runs;
}

/// Below this the free memory is not asked for.
constexpr std::int64_t kSmallSortBytes = std::int64_t{64} << 20;

/// bounds: row and entry at which each batch begins, and the last one ends.
__global__ void batches_kernel(std::int64_t n_rows, const std::int64_t* before, std::int64_t batch_entries,
                               std::int64_t most, std::int64_t* bounds, std::int64_t* count) {
  std::int64_t row = 0, n = 0;
  while (row < n_rows && n < most) {
    bounds[2 * n] = row;
    bounds[2 * n + 1] = before[row];
    ++n;
    const std::int64_t end = before[row] + batch_entries;
    std::int64_t low = row + 1, high = n_rows;  // the last row that ends by `end`, or one row
    while (low < high) {
      const std::int64_t middle = low + (high - low + 1) / 2;
      if (before[middle] <= end)
        low = middle;
      else
        high = middle - 1;
    }
    row = low;
  }
  bounds[2 * n] = row;
  bounds[2 * n + 1] = before[row];
  *count = n;
}

/// Different keys among sorted ones.
__global__ void __launch_bounds__(kThreads)
    runs_kernel(std::int64_t n, const std::uint64_t* keys, unsigned long long* count) {
  std::int64_t mine = 0;
  SCW_FOR_ITEMS(e, n) mine += e == 0 || keys[e - 1] != keys[e] ? 1 : 0;
  mine = warp_sum(mine);
  if ((threadIdx.x & 31) == 0 && mine > 0) atomicAdd(count, static_cast<unsigned long long>(mine));
}

/// offsets[a], a in [0, n]: `at` and the first of `count` sorted keys (row << bits | column) whose row is at least a.
__global__ void rows_kernel(std::int64_t n, int bits, const std::uint64_t* keys, std::int64_t count, std::int64_t at,
                            std::int64_t* offsets) {
  SCW_FOR_ITEMS(a, n + 1) {
    const std::uint64_t key = static_cast<std::uint64_t>(a) << bits;
    std::int64_t low = 0, high = count;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (keys[middle] < key)
        low = middle + 1;
      else
        high = middle;
    }
    offsets[a] = at + low;
  }
}

template <class T, class Sum>
__global__ void neighbours_kernel(std::int64_t count, int bits, const std::uint64_t* keys, const T* values,
                                  std::int32_t* to, Sum* sums) {
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  SCW_FOR_ITEMS(e, count) {
    to[e] = static_cast<std::int32_t>(keys[e] & mask);
    sums[e] = static_cast<Sum>(values[e]);
  }
}

}  // namespace

void exclusive_scan(const Context& ctx, std::int32_t* data, std::int64_t n) {
  check_items(n + 1);
  with_space(ctx, [&](void* space, std::size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(space, bytes, data, data, n + 1, scw::cuda::stream_of(ctx));
  });
}
void exclusive_scan(const Context& ctx, std::int64_t* data, std::int64_t n) {
  check_items(n + 1);
  with_space(ctx, [&](void* space, std::size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(space, bytes, data, data, n + 1, scw::cuda::stream_of(ctx));
  });
}

std::int64_t batch_entries_for(const Context& ctx, std::int64_t entries) {
  std::int64_t room = ctx.block_bytes > 0 ? ctx.block_bytes : kSortBytes;
  if (ctx.block_bytes == 0 && checked_mul(entries, kSortedEntryBytes) > kSmallSortBytes)
    room = std::clamp(available_bytes(ctx) / 4, kLeastSortBytes, kSortBytes);
  return std::max<std::int64_t>(1, room / kSortedEntryBytes);
}

std::vector<RowBatch> row_batches(const Context& ctx, const std::int64_t* before, std::int64_t n_rows,
                                  std::int64_t entries, std::int64_t batch_entries) {
  // A batch and the first row after it are more than batch_entries.
  const std::int64_t most = 2 * (entries / batch_entries + 1) + 1;
  Array<std::int64_t> bounds = scratch<std::int64_t>(ctx, checked_mul(2, most + 1), "leiden batches");
  Array<std::int64_t> count = scratch<std::int64_t>(ctx, 1, "leiden number of batches");
  batches_kernel<<<1, 1, 0, scw::cuda::stream_of(ctx)>>>(n_rows, before, batch_entries, most, bounds.data(),
                                                         count.data());
  SCW_CUDA_LAUNCHED("leiden batches");
  std::int64_t n = 0;
  read_back<std::int64_t>(ctx, &n, count.data(), 1);
  std::vector<std::int64_t> host(static_cast<std::size_t>(2 * (n + 1)));
  read_back<std::int64_t>(ctx, host.data(), bounds.data(), 2 * (n + 1));
  std::vector<RowBatch> out;
  for (std::size_t k = 0; k + 2 < host.size(); k += 2) out.push_back({host[k], host[k + 2], host[k + 1], host[k + 3]});
  return out;
}

template <class T, class Sum>
std::int64_t sum_rows(const Context& ctx, const std::vector<RowBatch>& batches, int bits, const FillBatch<T>& fill,
                      std::int64_t* offsets, Array<std::int32_t>& to, Array<Sum>& sums) {
  std::int64_t room = 0;
  for (const RowBatch& b : batches) room = std::max(room, b.end - b.begin);
  Array<std::uint64_t> keys = scratch<std::uint64_t>(ctx, room, "leiden edge keys");
  Array<std::uint64_t> other_keys = scratch<std::uint64_t>(ctx, room, "leiden sorted keys");
  const auto sorted_bits = [&](const RowBatch& b) { return bits + bits_for(b.last_row - b.first_row); };
  // The result's size: known after one batch, counted before where there are more.
  const bool counted = batches.size() > 1;
  std::int64_t n = 0;
  if (counted) {
    Array<unsigned long long> count = scratch<unsigned long long>(ctx, 1, "leiden runs");
    fill_zero(ctx, count.data(), 1);
    for (const RowBatch& b : batches) {
      ctx.check_cancelled("tl.leiden");
      const std::int64_t entries = b.end - b.begin;
      if (entries == 0) continue;
      fill(b, keys.data(), nullptr);
      cub::DoubleBuffer<std::uint64_t> k(keys.data(), other_keys.data());
      with_space(ctx, [&](void* space, std::size_t& bytes) {
        return cub::DeviceRadixSort::SortKeys(space, bytes, k, entries, 0, sorted_bits(b), scw::cuda::stream_of(ctx));
      });
      launch(ctx, "leiden runs", entries, runs_kernel, entries, static_cast<const std::uint64_t*>(k.Current()),
             count.data());
    }
    unsigned long long runs = 0;
    read_back<unsigned long long>(ctx, &runs, count.data(), 1);
    n = static_cast<std::int64_t>(runs);
    to = scratch<std::int32_t>(ctx, n, "leiden level edges");
    sums = scratch<Sum>(ctx, n, "leiden level weights");
  }
  Array<T> values = scratch<T>(ctx, room, "leiden edge weights");
  Array<T> other_values = scratch<T>(ctx, room, "leiden sorted weights");
  std::int64_t at = 0;
  for (const RowBatch& b : batches) {
    ctx.check_cancelled("tl.leiden");
    const std::int64_t entries = b.end - b.begin;
    cub::DoubleBuffer<std::uint64_t> k(keys.data(), other_keys.data());
    cub::DoubleBuffer<T> v(values.data(), other_values.data());
    std::int64_t runs = 0;
    if (entries > 0) {
      fill(b, keys.data(), values.data());
      with_space(ctx, [&](void* space, std::size_t& bytes) {
        return cub::DeviceRadixSort::SortPairs(space, bytes, k, v, entries, 0, sorted_bits(b),
                                               scw::cuda::stream_of(ctx));
      });
      runs = sum_by_key(ctx, static_cast<const std::uint64_t*>(k.Current()), static_cast<const T*>(v.Current()),
                        entries, k.Alternate(), v.Alternate());
    }
    if (!counted) {
      n = runs;
      to = scratch<std::int32_t>(ctx, n, "leiden level edges");
      sums = scratch<Sum>(ctx, n, "leiden level weights");
    }
    launch(ctx, "leiden rows", b.last_row - b.first_row + 1, rows_kernel, b.last_row - b.first_row, bits,
           static_cast<const std::uint64_t*>(k.Alternate()), runs, at, offsets + b.first_row);
    launch(ctx, "leiden neighbours", runs, neighbours_kernel<T, Sum>, runs, bits,
           static_cast<const std::uint64_t*>(k.Alternate()), static_cast<const T*>(v.Alternate()), to.data() + at,
           sums.data() + at);
    at += runs;
  }
  SCW_ASSERT(at == n);
  return n;
}

template std::int64_t sum_rows(const Context&, const std::vector<RowBatch>&, int, const FillBatch<std::int64_t>&,
                               std::int64_t*, Array<std::int32_t>&, Array<std::int64_t>&);
template std::int64_t sum_rows(const Context&, const std::vector<RowBatch>&, int, const FillBatch<std::int64_t>&,
                               std::int64_t*, Array<std::int32_t>&, Array<std::uint32_t>&);
template std::int64_t sum_rows(const Context&, const std::vector<RowBatch>&, int, const FillBatch<double>&,
                               std::int64_t*, Array<std::int32_t>&, Array<double>&);

}  // namespace scw::tl::cuda
