// The scans and sorts of Leiden on CUDA, by CUB; its working space is an Array like any other.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_scan.cuh>
#include <limits>

#include "tl/leiden/cuda_level.cuh"

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
    throw NotSupported("tl.leiden: 2^31 edges between communities or of an asymmetric graph need a build with CUDA 13");
#endif
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

void sort_pairs(const Context& ctx, Array<std::uint64_t>& keys, Array<std::int64_t>& values, std::int64_t n, int bits) {
  if (n == 0) return;
  Array<std::uint64_t> other_keys = scratch<std::uint64_t>(ctx, n, "leiden sorted keys");
  Array<std::int64_t> other_values = scratch<std::int64_t>(ctx, n, "leiden sorted values");
  cub::DoubleBuffer<std::uint64_t> k(keys.data(), other_keys.data());
  cub::DoubleBuffer<std::int64_t> v(values.data(), other_values.data());
  with_space(ctx, [&](void* space, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(space, bytes, k, v, n, 0, bits, scw::cuda::stream_of(ctx));
  });
  if (k.Current() != keys.data()) keys.swap(other_keys);
  if (v.Current() != values.data()) values.swap(other_values);
}

std::int64_t sum_by_key(const Context& ctx, const std::uint64_t* keys, const std::int64_t* values, std::int64_t n,
                        std::uint64_t* unique, std::int64_t* sums) {
  if (n == 0) return 0;
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

}  // namespace scw::tl::cuda
