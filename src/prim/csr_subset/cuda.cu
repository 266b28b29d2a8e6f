// One warp a row. Columns are looked up in a bit mask with the number of kept columns before each word (8 bytes for 32
// columns: sorted indices of neighbouring lanes find theirs in one or two cache lines); kept entries are placed by a
// ballot, so the order in a row is kept and writes are dense.
#include <cub/device/device_scan.cuh>
#include <cub/device/device_select.cuh>
#include <thrust/iterator/counting_iterator.h>

#include <vector>

#include "core/cuda/cuda_check.cuh"
#include "core/transfer.hpp"
#include "prim/csr_subset/csr_subset.hpp"

namespace scw::prim::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kUnroll = 4;  // loads in flight per lane

struct Word {
  std::uint32_t bits;
  std::int32_t before;  // kept columns before this word
};

__device__ inline bool kept(const Word* words, std::int32_t column, std::int32_t& renamed) {
  const Word w = words[column >> 5];
  const std::uint32_t bit = 1u << (column & 31);
  renamed = w.before + __popc(w.bits & (bit - 1));
  return (w.bits & bit) != 0;
}

__device__ inline std::int64_t source_row(const std::int64_t* rows, std::int64_t r) {
  return rows != nullptr ? rows[r] : r;
}

/// counts[r] = kept entries of row r; words null: all columns.
__global__ void __launch_bounds__(kBlock)
    count_kernel(std::int64_t n, const std::int64_t* rows, const std::int64_t* indptr, const std::int32_t* indices,
                 const Word* words, std::int64_t* counts) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kBlock / 32);
  for (std::int64_t r = (std::int64_t{blockIdx.x} * kBlock + threadIdx.x) / 32; r < n; r += warps) {
    const std::int64_t i = source_row(rows, r);
    const std::int64_t first = indptr[i], last = indptr[i + 1];
    std::int64_t count = last - first;
    if (words != nullptr) {
      unsigned mine = 0;
      std::int64_t k = first + lane;
      for (; k + 32 * (kUnroll - 1) < last; k += 32 * kUnroll) {
        std::int32_t c[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) c[u] = __ldcs(indices + k + 32 * u);
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) mine += (words[c[u] >> 5].bits >> (c[u] & 31)) & 1u;
      }
      for (; k < last; k += 32) mine += (words[indices[k] >> 5].bits >> (indices[k] & 31)) & 1u;
      for (int offset = 16; offset > 0; offset /= 2) mine += __shfl_down_sync(0xFFFFFFFFu, mine, offset);
      count = mine;
    }
    if (lane == 0) counts[r] = count;
  }
}

template <class V>
__global__ void __launch_bounds__(kBlock)
    fill_kernel(std::int64_t n, const std::int64_t* rows, const std::int64_t* indptr, const std::int32_t* indices,
                const V* values, const Word* words, const std::int64_t* out_indptr, std::int32_t* out_indices,
                V* out_values) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const unsigned below = (1u << lane) - 1;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kBlock / 32);
  for (std::int64_t r = (std::int64_t{blockIdx.x} * kBlock + threadIdx.x) / 32; r < n; r += warps) {
    const std::int64_t i = source_row(rows, r);
    const std::int64_t first = indptr[i], last = indptr[i + 1];
    std::int64_t at = out_indptr[r];
    for (std::int64_t k = first; k < last; k += 32 * kUnroll) {  // the same trips for all lanes
      std::int32_t c[kUnroll];
      V v[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const std::int64_t e = k + 32 * u + lane;
        c[u] = e < last ? __ldcs(indices + e) : -1;
        v[u] = e < last ? __ldcs(values + e) : V{0};
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        std::int32_t column = c[u];
        bool keep = column >= 0;
        if (words != nullptr && keep) keep = kept(words, c[u], column);
        const unsigned ballot = __ballot_sync(0xFFFFFFFFu, keep);
        if (keep) {
          const std::int64_t to = at + __popc(ballot & below);
          __stcs(out_indices + to, column);
          __stcs(out_values + to, v[u]);
        }
        at += __popc(ballot);
      }
    }
  }
}

template <class V>
__global__ void __launch_bounds__(kBlock)
    dense_kernel(MatrixView<const V> x, const std::int64_t* rows, const std::int32_t* columns, MatrixView<V> out) {
  for (std::int64_t r = blockIdx.x; r < out.n_rows; r += gridDim.x) {
    const V* const from = x.row(source_row(rows, r));
    V* const to = out.row(r);
    for (std::int64_t j = threadIdx.x; j < out.n_cols; j += kBlock) to[j] = from[columns != nullptr ? columns[j] : j];
  }
}

/// Positions of the kept rows; an empty array for "all", told by `all`.
Array<std::int64_t> row_positions(const Context& ctx, Span<const std::uint8_t> keep, std::int64_t n, bool& all) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < keep.size; ++i) count += keep[i] != 0 ? 1 : 0;
  all = keep.empty() || count == n;
  if (all) return {};
  Array<std::int64_t> rows(ctx.workspace, count, "kept rows", ctx.stream);
  if (count == 0) return rows;
  const Array<std::uint8_t> flags = to_device<std::uint8_t>(ctx, keep, "row mask");
  Array<std::int64_t> selected(ctx.workspace, 1, "kept row count", ctx.stream);
  const thrust::counting_iterator<std::int64_t> positions(0);
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  std::size_t bytes = 0;
  SCW_CUDA(
      cub::DeviceSelect::Flagged(nullptr, bytes, positions, flags.data(), rows.data(), selected.data(), n, stream));
  Array<std::uint8_t> scratch(ctx.workspace, static_cast<std::int64_t>(bytes), "select scratch", ctx.stream);
  SCW_CUDA(cub::DeviceSelect::Flagged(scratch.data(), bytes, positions, flags.data(), rows.data(), selected.data(), n,
                                      stream));
  return rows;
}

std::int64_t kept_count(Span<const std::uint8_t> keep, std::int64_t n) {
  if (keep.empty()) return n;
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) count += keep[i] != 0 ? 1 : 0;
  return count;
}

template <class V>
AnyMatrix take(const Context& ctx, const CsrView<const V>& x, Span<const std::uint8_t> keep_rows,
               Span<const std::uint8_t> keep_cols) {
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  bool all_rows = false;
  const Array<std::int64_t> rows = row_positions(ctx, keep_rows, x.n_rows, all_rows);
  Csr<V> out;
  out.n_rows = all_rows ? x.n_rows : rows.size();
  out.n_cols = static_cast<std::int32_t>(kept_count(keep_cols, x.n_cols));
  Array<Word> words;
  if (out.n_cols != x.n_cols) {
    std::vector<Word> host(static_cast<std::size_t>((x.n_cols + 31) / 32), Word{0, 0});
    std::int32_t before = 0;
    for (std::int32_t j = 0; j < x.n_cols; ++j) {
      Word& w = host[static_cast<std::size_t>(j / 32)];
      if (j % 32 == 0) w.before = before;
      if (keep_cols[j] == 0) continue;
      w.bits |= 1u << (j % 32);
      ++before;
    }
    words = to_device<Word>(ctx, Span<const Word>(host), "column mask");
  }
  const std::int64_t* const row_list = all_rows ? nullptr : rows.data();
  out.indptr = Array<std::int64_t>(ctx.memory, out.n_rows + 1, "indptr", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(out.indptr.data(), 0, sizeof(std::int64_t), stream));
  if (out.n_rows == 0) return out;
  const unsigned grid = scw::cuda::grid_for(out.n_rows, kBlock / 32);
  count_kernel<<<grid, kBlock, 0, stream>>>(out.n_rows, row_list, x.indptr.data, x.indices.data, words.data(),
                                            out.indptr.data() + 1);
  SCW_CUDA_LAUNCHED("subset: count");
  std::size_t bytes = 0;
  std::int64_t* const ends = out.indptr.data() + 1;
  SCW_CUDA(cub::DeviceScan::InclusiveSum(nullptr, bytes, ends, ends, out.n_rows, stream));
  {
    Array<std::uint8_t> scratch(ctx.workspace, static_cast<std::int64_t>(bytes), "scan scratch", ctx.stream);
    SCW_CUDA(cub::DeviceScan::InclusiveSum(scratch.data(), bytes, ends, ends, out.n_rows, stream));
  }
  std::int64_t nnz = 0;
  copy_bytes(ctx, &nnz, Device{}, out.indptr.data() + out.n_rows, ctx.device, sizeof nnz);
  out.indices = Array<std::int32_t>(ctx.memory, nnz, "indices", ctx.stream);
  out.values = Array<V>(ctx.memory, nnz, "values", ctx.stream);
  if (nnz == 0) return out;
  fill_kernel<V><<<grid, kBlock, 0, stream>>>(out.n_rows, row_list, x.indptr.data, x.indices.data, x.values.data,
                                              words.data(), out.indptr.data(), out.indices.data(), out.values.data());
  SCW_CUDA_LAUNCHED("subset: fill");
  return out;
}

template <class V>
AnyMatrix take(const Context& ctx, const MatrixView<const V>& x, Span<const std::uint8_t> keep_rows,
               Span<const std::uint8_t> keep_cols) {
  bool all_rows = false;
  const Array<std::int64_t> rows = row_positions(ctx, keep_rows, x.n_rows, all_rows);
  const std::int64_t n_cols = kept_count(keep_cols, x.n_cols);
  Array<std::int32_t> columns;
  if (n_cols != x.n_cols) {
    std::vector<std::int32_t> host;
    for (std::int64_t j = 0; j < x.n_cols; ++j)
      if (keep_cols[j] != 0) host.push_back(static_cast<std::int32_t>(j));
    columns = to_device<std::int32_t>(ctx, Span<const std::int32_t>(host), "kept columns");
  }
  Matrix<V> out(ctx.memory, all_rows ? x.n_rows : rows.size(), n_cols, "dense subset", ctx.stream);
  if (out.data.empty()) return out;
  dense_kernel<V><<<scw::cuda::grid_for(out.n_rows, 1), kBlock, 0, scw::cuda::stream_of(ctx)>>>(
      x, all_rows ? nullptr : rows.data(), columns.data(), out.view());
  SCW_CUDA_LAUNCHED("subset: dense");
  return out;
}

}  // namespace

void subset(const Context& ctx, const AnyMatrixView& x, Span<const std::uint8_t> keep_rows,
            Span<const std::uint8_t> keep_cols, AnyMatrix& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { out = take(ctx, v, keep_rows, keep_cols); }, x);
}

SCW_REGISTER(subset_kernel, cuda, &subset);

}  // namespace scw::prim::cuda
