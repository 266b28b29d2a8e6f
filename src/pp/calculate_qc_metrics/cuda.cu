// The same sums as cpu.cpp by other ways: whole numbers below 2^22 are added in integers (prim/gene_tiles.cuh), and the
// sums along the cells come from the same read of a sparse matrix. Other values need a second read, with the scale
// that the first one found. Bound by memory: floor 8 bytes an entry (float) over the memory bandwidth.
#include "pp/calculate_qc_metrics/top.cuh"
#include "prim/fixed_point.hpp"
#include "prim/gene_tiles.cuh"
#include "prim/row_ops.cuh"

namespace scw::pp::cuda {
namespace {

using prim::cuda::kTileThreads;
using prim::cuda::RowOrder;

constexpr int kRowThreads = 256;
constexpr int kFamilies = 4;  // of one pass

enum Seen : unsigned { kNotWhole = 1, kNotFinite = 2 };

struct Scan {
  unsigned long long max_abs;  // bits of the largest finite magnitude, a double
  unsigned seen;
  unsigned pad;
};

template <bool kPositive, class V>
__device__ inline bool expressed(V v) {
  return kPositive ? v > V{0} : v != V{0};
}

/// What a thread has seen of the values; finish() by all threads of a warp.
template <class V>
struct Watch {
  V max_abs = 0;
  unsigned seen = 0;

  /// Whether v is a whole number below 2^22.
  __device__ bool operator()(V v) {
    const V a = v < V{0} ? -v : v;
    const bool finite = v - v == V{0};
    bool whole = a < V(0x1p22);
    if constexpr (sizeof(V) == 4)
      whole = whole && (a + 0x1p23f) - 0x1p23f == a;
    else
      whole = whole && (a + 0x1p52) - 0x1p52 == a;
    max_abs = finite && a > max_abs ? a : max_abs;
    seen |= (whole ? 0u : kNotWhole) | (finite ? 0u : kNotFinite);
    return whole;
  }
  __device__ void finish(Scan* scan) const {
    if (max_abs > V{0}) {
      const unsigned long long bits = math::bits_of(static_cast<double>(max_abs));
      if (bits > *static_cast<volatile unsigned long long*>(&scan->max_abs)) atomicMax(&scan->max_abs, bits);
    }
    if (seen != 0) atomicOr(&scan->seen, seen);
  }
};

/// Where sums over cells go; whole sums are 64-bit, the others 128-bit (two words a gene).
struct GeneTarget {
  std::uint64_t* total;
  unsigned* count;
  unsigned* flags;  // fixed point only: fixed_flag of the values
  Scan* scan;
  double factor;  // fixed point only

  __device__ void add_whole(std::int64_t gene, std::int64_t n) const {
    if (n != 0) atomicAdd(reinterpret_cast<unsigned long long*>(total) + gene, static_cast<unsigned long long>(n));
  }
  __device__ void add_count(std::int64_t gene, unsigned n) const {
    if (n != 0) atomicAdd(count + gene, n);
  }
};

/// Sums along a row, by one warp: the fixed tree of row_ops.hpp. Family f is bit f of a gene's mask.
template <int kMasked>
struct RowSums {
  const std::uint8_t* masks = nullptr;  // [genes]
  double* total = nullptr;
  std::int32_t* expressed = nullptr;
  double* family[kFamilies] = {};

  double sum = 0, part[kMasked == 0 ? 1 : kMasked] = {};
  int n = 0;

  template <class V>
  __device__ void add(V v, unsigned mask, bool counts) {
    const auto y = static_cast<double>(v);
    sum += y;
    n += counts ? 1 : 0;
    if constexpr (kMasked > 0) {
      if (mask != 0) {  // adding 0 where a flag is not set would change nothing
#pragma unroll
        for (int f = 0; f < kMasked; ++f) part[f] += (mask >> f & 1u) != 0 ? y : 0.0;
      }
    }
  }
  __device__ static double tree(double s) {
    for (int offset = 16; offset > 0; offset /= 2) s += __shfl_down_sync(0xFFFFFFFFu, s, offset);
    return s;
  }
  __device__ void end(std::int64_t row) {
    const double all = tree(sum);
    int count = n;
    for (int offset = 16; offset > 0; offset /= 2) count += __shfl_down_sync(0xFFFFFFFFu, count, offset);
    const bool first = (threadIdx.x & 31) == 0;
    if (first && total != nullptr) {
      total[row] = all;
      expressed[row] = count;
    }
    sum = 0;
    n = 0;
    if constexpr (kMasked > 0) {
#pragma unroll
      for (int f = 0; f < kMasked; ++f) {
        const double s = tree(part[f]);
        if (first && family[f] != nullptr) family[f][row] = s;
        part[f] = 0;
      }
    }
  }
};

/// One word a gene: how many values count (12 bits), and their sum where they are whole numbers from 0 to 255 (20
/// bits). Other whole numbers go to global memory one by one. kMasked < 0: no sums along rows; with families, the masks
/// of the genes stand behind the words, because the level-1 cache that shared memory leaves is too small for them.
template <class V, bool kPositive, int kMasked>
struct WholeGenes {
  static constexpr int kBytesPerGene = kMasked > 0 ? 5 : 4, kUnroll = 4;
  static constexpr std::int64_t kMaxRows = 4095;
  static constexpr bool kWantsRows = kMasked >= 0;
  static constexpr int kCountShift = 20;
  static_assert(kMaxRows * 255 < (1 << kCountShift) && kMaxRows >> (32 - kCountShift) == 0);

  GeneTarget target;
  RowSums < kMasked<0 ? 0 : kMasked> rows;
  Watch<V> watch = {};
  std::uint32_t* words = nullptr;
  std::uint8_t* masks = nullptr;
  std::int32_t first = 0, width = 0, capacity = 0;

  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t c) {
    words = reinterpret_cast<std::uint32_t*>(memory);
    masks = memory + std::int64_t{4} * c;
    first = f, width = w, capacity = c;
  }
  __device__ void clear() {
    const auto start = static_cast<std::int32_t>(threadIdx.x);
    for (std::int32_t j = start; j < capacity; j += kTileThreads) words[j] = 0;
    if constexpr (kMasked > 0)
      for (std::int32_t j = start; j < width; j += kTileThreads) masks[j] = rows.masks[first + j];
  }
  __device__ void begin_group(std::int32_t) {}

  /// What is added for a value that is no whole number from 0 to 255.
  __device__ std::uint32_t rare(V v, std::int32_t j) {
    if (watch(v)) target.add_whole(first + j, static_cast<std::int32_t>(v));
    return expressed<kPositive>(v) ? 1u << kCountShift : 0u;
  }
  __device__ void visit(V v, std::int32_t j) {
    bool small = v >= V{0} && v < V{256};
    std::uint32_t add = 0;
    if constexpr (sizeof(V) == 4) {
      const float shifted = v + 0x1p23f;
      add = __float_as_uint(shifted) & 0x1FFu;
      small = small && shifted - 0x1p23f == v;
    } else {
      const double shifted = v + 0x1p52;
      add = static_cast<std::uint32_t>(math::bits_of(shifted)) & 0x1FFu;
      small = small && shifted - 0x1p52 == v;
    }
    if (small) {
      add += add != 0 ? 1u << kCountShift : 0u;
      watch.max_abs = v > watch.max_abs ? v : watch.max_abs;
    } else {
      add = rare(v, j);
    }
    if (add != 0) atomicAdd(words + j, add);
    if constexpr (kMasked >= 0) rows.add(v, kMasked > 0 ? masks[j] : 0u, add >> kCountShift != 0);
  }
  __device__ void end_row(std::int64_t row) { rows.end(row); }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kTileThreads) {
      const std::uint32_t word = words[j];
      target.add_whole(first + j, word & ((1u << kCountShift) - 1));
      target.add_count(first + j, word >> kCountShift);
      words[j] = 0;
    }
  }
  __device__ void finish() const { watch.finish(target.scan); }
};

/// Four words a gene: q = round(x * factor), |q| <= 2^47, in three parts of 19 bits, and how many count.
template <class V, bool kPositive>
struct FixedGenes {
  static constexpr int kBytesPerGene = 16, kUnroll = 4;
  static constexpr std::int64_t kMaxRows = 8192;  // 19 + 13 bits
  static constexpr bool kWantsRows = false;

  GeneTarget target;
  std::uint32_t* words = nullptr;
  std::int32_t first = 0, width = 0, capacity = 0;

  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t c) {
    words = reinterpret_cast<std::uint32_t*>(memory);
    first = f, width = w, capacity = c;
  }
  __device__ void clear() {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < 4 * capacity; j += kTileThreads) words[j] = 0;
  }
  __device__ void begin_group(std::int32_t) {}
  __device__ void add(std::int32_t word, std::int32_t j, std::uint32_t n) {
    if (n != 0) atomicAdd(words + word * capacity + j, n);
  }
  __device__ void visit(V v, std::int32_t j) {
    const auto y = static_cast<double>(v);
    if (expressed<kPositive>(v)) atomicAdd(words + 3 * capacity + j, 1u);
    if (const std::uint8_t flag = prim::fixed_flag(y); flag != 0) {
      atomicOr(target.flags + first + j, static_cast<unsigned>(flag));
      return;
    }
    const std::int64_t q = __double2ll_rn(y * target.factor);
    constexpr std::uint32_t mask = (1u << 19) - 1;
    add(0, j, static_cast<std::uint32_t>(q) & mask);
    add(1, j, static_cast<std::uint32_t>(q >> 19) & mask);
    add(2, j, static_cast<std::uint32_t>(static_cast<std::int32_t>(q >> 38)));
  }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kTileThreads) {
      const std::int64_t sum =
          static_cast<std::int64_t>(words[j]) + (static_cast<std::int64_t>(words[capacity + j]) << 19) +
          static_cast<std::int64_t>(static_cast<std::int32_t>(words[2 * capacity + j])) * (std::int64_t{1} << 38);
      if (sum != 0) prim::cuda::add_128(target.total + 2 * std::int64_t{first + j}, sum);
      target.add_count(first + j, words[3 * capacity + j]);
      for (int k = 0; k < 4; ++k) words[k * capacity + j] = 0;
    }
  }
  __device__ void finish() const {}
};

template <class V, bool kPositive>
struct WholeColumns {
  static constexpr std::int64_t kMaxTerms = std::int64_t{1} << 31;

  GeneTarget target;
  Watch<V> watch = {};

  struct Sum {
    std::int64_t total;
    unsigned count;
  };
  __device__ void begin_column(std::int64_t) {}
  __device__ void add(Sum& sum, V v) {
    if (watch(v)) sum.total += static_cast<std::int32_t>(v);
    sum.count += expressed<kPositive>(v) ? 1u : 0u;
  }
  __device__ void flush(const Sum& sum, std::int32_t, std::int64_t j) const {
    target.add_whole(j, sum.total);
    target.add_count(j, sum.count);
  }
  __device__ void finish() const { watch.finish(target.scan); }
};

template <class V, bool kPositive>
struct FixedColumns {
  static constexpr std::int64_t kMaxTerms = prim::kFixedTermsIn64;

  GeneTarget target;

  struct Sum {
    std::int64_t total;
    unsigned count, flags;
  };
  __device__ void begin_column(std::int64_t) {}
  __device__ void add(Sum& sum, V v) const {
    const auto y = static_cast<double>(v);
    if (const std::uint8_t flag = prim::fixed_flag(y); flag != 0)
      sum.flags |= flag;
    else
      sum.total += __double2ll_rn(y * target.factor);
    sum.count += expressed<kPositive>(v) ? 1u : 0u;
  }
  __device__ void flush(const Sum& sum, std::int32_t, std::int64_t j) const {
    prim::cuda::add_128(target.total + 2 * j, sum.total);
    target.add_count(j, sum.count);
    if (sum.flags != 0) atomicOr(target.flags + j, sum.flags);
  }
  __device__ void finish() const {}
};

/// Sums along rows alone: one warp a row.
template <class X, bool kPositive, int kMasked>
__global__ void __launch_bounds__(kRowThreads) rows_kernel(X x, RowSums<kMasked> sums) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const std::int64_t warps = std::int64_t{gridDim.x} * (kRowThreads / 32);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x) / 32; i < x.n_rows; i += warps) {
    const std::int64_t begin = prim::cuda::row_begin(x, i), end = begin + prim::cuda::row_count(x, i);
    std::int64_t k = begin + lane;
    for (; k + 96 < end; k += 128) {
      std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))> v[4];
#pragma unroll
      for (int u = 0; u < 4; ++u) v[u] = __ldcs(&prim::cuda::value_at(x, k + 32 * u));
#pragma unroll
      for (int u = 0; u < 4; ++u)
        sums.add(v[u], kMasked > 0 ? sums.masks[prim::cuda::column_of(x, i, k + 32 * u)] : 0u,
                 expressed<kPositive>(v[u]));
    }
    for (; k < end; k += 32) {
      const auto v = __ldcs(&prim::cuda::value_at(x, k));
      sums.add(v, kMasked > 0 ? sums.masks[prim::cuda::column_of(x, i, k)] : 0u, expressed<kPositive>(v));
    }
    sums.end(i);
  }
}

template <bool kPositive, int kMasked, class X>
void run_rows(const Context& ctx, const X& x, const RowSums<kMasked>& sums) {
  if (x.n_rows == 0) return;
  rows_kernel<X, kPositive, kMasked>
      <<<scw::cuda::grid_for(x.n_rows, kRowThreads / 32), kRowThreads, 0, scw::cuda::stream_of(ctx)>>>(x, sums);
  SCW_CUDA_LAUNCHED("qc: rows");
}

struct FamilyFlags {
  const std::uint8_t* flags[kFamilies];
};
__global__ void family_masks(FamilyFlags families, Span<std::uint8_t> masks) {
  const std::int64_t j = std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (j >= masks.size) return;
  unsigned mask = 0;
  for (int f = 0; f < kFamilies; ++f)
    if (families.flags[f] != nullptr && families.flags[f][j] != 0) mask |= 1u << f;
  masks.data[j] = static_cast<std::uint8_t>(mask);
}

__global__ void whole_totals(const std::uint64_t* total, Span<double> out) {
  const std::int64_t j = std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (j < out.size) out.data[j] = static_cast<double>(static_cast<std::int64_t>(total[j]));
}
__global__ void fixed_totals(const std::uint64_t* total, const unsigned* flags, prim::FixedScale scale,
                             Span<double> out) {
  const std::int64_t j = std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (j >= out.size) return;
  const auto sum = static_cast<prim::Int128>((static_cast<prim::Uint128>(total[2 * j + 1]) << 64) | total[2 * j]);
  out.data[j] = prim::fixed_sum_with_flags(prim::fixed_sum(sum, scale), static_cast<std::uint8_t>(flags[j]));
}

template <class T>
void clear(const Context& ctx, T* data, std::int64_t n) {
  if (n > 0) SCW_CUDA(cudaMemsetAsync(data, 0, static_cast<std::size_t>(n) * sizeof(T), scw::cuda::stream_of(ctx)));
}

/// Totals and counts of the genes; `first_read` runs the pass over whole numbers. True if all values were such.
template <bool kPositive, class X, class FirstRead>
bool gene_totals(const Context& ctx, const X& x, Span<double> total, Span<std::int32_t> count,
                 const FirstRead& first_read) {
  using V = std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))>;
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  const std::int64_t genes = x.n_cols;
  Array<std::uint64_t> sums(ctx.workspace, checked_mul(genes, 2), "qc: gene sums", ctx.stream);
  Array<unsigned> flags(ctx.workspace, genes, "qc: gene flags", ctx.stream);
  Array<Scan> scan(ctx.workspace, 1, "qc: scan", ctx.stream);
  clear(ctx, sums.data(), sums.size());
  clear(ctx, flags.data(), genes);
  clear(ctx, scan.data(), 1);
  clear(ctx, count.data, genes);
  GeneTarget target{sums.data(), reinterpret_cast<unsigned*>(count.data), flags.data(), scan.data(), 1.0};
  first_read(target);
  Scan seen{};
  copy_bytes(ctx, &seen, Device{}, scan.data(), ctx.device, sizeof(seen));
  const unsigned blocks = scw::cuda::grid_for(genes, kRowThreads);
  const bool whole = seen.seen == 0;
  if (whole) {
    if (genes > 0) {
      whole_totals<<<blocks, kRowThreads, 0, stream>>>(sums.data(), total);
      SCW_CUDA_LAUNCHED("qc: whole_totals");
    }
    return true;
  }
  const auto scale = prim::FixedScale::for_max(math::from_bits(seen.max_abs));
  target.factor = scale.factor;
  clear(ctx, sums.data(), sums.size());
  clear(ctx, count.data, genes);
  prim::cuda::run_genes(ctx, x, RowOrder{x.n_rows}, FixedGenes<V, kPositive>{target},
                        FixedColumns<V, kPositive>{target}, "qc: fixed genes");
  fixed_totals<<<blocks, kRowThreads, 0, stream>>>(sums.data(), flags.data(), scale, total);
  SCW_CUDA_LAUNCHED("qc: fixed_totals");
  return false;
}

/// Families [first, first + kFamilies) of the options, as masks.
Array<std::uint8_t> pack_families(const Context& ctx, const QcOptions& options, std::size_t first, std::int64_t genes) {
  Array<std::uint8_t> masks(ctx.workspace, genes, "qc: families", ctx.stream);
  FamilyFlags flags{};
  for (std::size_t f = 0; f < kFamilies && first + f < options.families.size(); ++f)
    flags.flags[f] = options.families[first + f].data;
  if (genes > 0) {
    family_masks<<<scw::cuda::grid_for(genes, kRowThreads), kRowThreads, 0, scw::cuda::stream_of(ctx)>>>(flags,
                                                                                                         masks.view());
    SCW_CUDA_LAUNCHED("qc: family_masks");
  }
  return masks;
}

template <int kMasked>
RowSums<kMasked> row_target(QcMetrics& out, std::size_t first_family, const std::uint8_t* masks) {
  RowSums<kMasked> sums;
  sums.masks = masks;
  if (first_family == 0) {
    sums.total = out.total.data();
    sums.expressed = out.n_genes.data();
  }
  for (std::size_t f = 0; f < kFamilies && first_family + f < out.family_total.size(); ++f)
    sums.family[f] = out.family_total[first_family + f].data();
  return sums;
}

template <int kMasked, class X>
bool qc_pass(const Context& ctx, const X& x, const std::uint8_t* masks, QcMetrics& out) {
  using V = std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))>;
  const RowSums<kMasked> rows = row_target<kMasked>(out, 0, masks);
  return gene_totals<false>(ctx, x, out.gene_total.view(), out.n_cells.view(), [&](const GeneTarget& target) {
    if constexpr (requires { x.indptr; }) {
      using Genes = WholeGenes<V, false, kMasked>;
      if (x.n_cols > 0 && prim::cuda::plan_tiles(ctx, x.n_cols, Genes::kBytesPerGene).count == 1) {
        prim::cuda::run_gene_tiles(ctx, x, RowOrder{x.n_rows}, Genes{target, rows}, "qc: genes");
        return;
      }
    }
    run_rows<false, kMasked>(ctx, x, rows);
    prim::cuda::run_genes(ctx, x, RowOrder{x.n_rows}, WholeGenes<V, false, -1>{target, {}},
                          WholeColumns<V, false>{target}, "qc: genes");
  });
}

template <class X>
void qc(const Context& ctx, const X& x, const QcOptions& options, QcMetrics& out) {
  const bool has_families = !options.families.empty();
  const Array<std::uint8_t> masks = has_families ? pack_families(ctx, options, 0, x.n_cols) : Array<std::uint8_t>();
  const bool whole = !has_families                  ? qc_pass<0>(ctx, x, nullptr, out)
                     : options.families.size() == 1 ? qc_pass<1>(ctx, x, masks.data(), out)
                                                    : qc_pass<kFamilies>(ctx, x, masks.data(), out);
  for (std::size_t f = kFamilies; f < options.families.size(); f += kFamilies) {
    const Array<std::uint8_t> more = pack_families(ctx, options, f, x.n_cols);
    run_rows<false, kFamilies>(ctx, x, row_target<kFamilies>(out, f, more.data()));
  }
  out.whole_numbers = whole;
  if (!options.percent_top.empty()) top_shares(ctx, x, options.percent_top, whole, out);
}

template <class X>
void count_genes(const Context& ctx, const X& x, AxisCounts& out) {
  using V = std::remove_cvref_t<decltype(prim::cuda::value_at(x, 0))>;
  out.whole_numbers = gene_totals<true>(ctx, x, out.total.view(), out.n_positive.view(), [&](const GeneTarget& target) {
    prim::cuda::run_genes(ctx, x, RowOrder{x.n_rows}, WholeGenes<V, true, -1>{target, {}},
                          WholeColumns<V, true>{target}, "gene counts");
  });
}

}  // namespace

void qc_metrics(const Context& ctx, const AnyMatrixView& x, const QcOptions& options, QcMetrics& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { qc(ctx, v, options, out); }, x);
}
void cell_counts(const Context& ctx, const AnyMatrixView& x, AxisCounts& out) {
  const scw::cuda::DeviceScope scope(ctx);
  RowSums<0> sums;
  sums.total = out.total.data();
  sums.expressed = out.n_positive.data();
  std::visit([&](const auto& v) { run_rows<true, 0>(ctx, v, sums); }, x);
}
void gene_counts(const Context& ctx, const AnyMatrixView& x, AxisCounts& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit([&](const auto& v) { count_genes(ctx, v, out); }, x);
}

SCW_REGISTER(qc_metrics_kernel, cuda, &qc_metrics);
SCW_REGISTER(cell_counts_kernel, cuda, &cell_counts);
SCW_REGISTER(gene_counts_kernel, cuda, &gene_counts);

}  // namespace scw::pp::cuda
