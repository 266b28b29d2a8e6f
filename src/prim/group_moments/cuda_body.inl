// Included by cuda_float.cu and cuda_double.cu.
#include "math/elementary.hpp"
#include "prim/group_moments/cuda.cuh"

namespace scw::prim::cuda {
namespace {

constexpr double kMagic = 0x1.8p52;  // adding it rounds to an integer, halves to even

template <class V, bool kExpm1>
__device__ inline double mapped(V v, double scale) {
  const auto x = static_cast<double>(v);
  if constexpr (kExpm1)
    return math::expm1(x * scale);
  else
    return x;
}

/// q of the value, |q| <= 2^47, as FixedScale::quantise.
__device__ inline std::int64_t quantise(double y, std::int16_t shift) {
  return static_cast<std::int64_t>(math::bits_of(y * power_of_two(shift) + kMagic) - math::bits_of(kMagic));
}

/// Words of 19 bits, three for q and five for q^2, and the number of values that are not 0. Words to which a value has
/// nothing to add are left alone: about half of them for floats. The words of 32 genes stand together, so that their
/// places differ by constants and the bank is that of the gene.
template <class V, bool kExpm1, bool kSquares>
struct GroupWords {
  static constexpr int kWords = kSquares ? 9 : 4;
  static constexpr int kBytesPerGene = 4 * kWords + 2, kUnroll = kExpm1 ? 1 : 2;
  static constexpr std::int64_t kMaxRows = 8192;  // 19 + 13 bits
  static constexpr bool kWantsRows = false;
  static constexpr bool kHasExtraBits = sizeof(V) == 4 && !kExpm1;
  static constexpr std::uint32_t kExtraBits = 4;

  GroupSums to;
  std::uint32_t* words = nullptr;
  std::int16_t* shifts = nullptr;
  std::int32_t first = 0, width = 0, capacity = 0;
  std::int64_t base = 0;  // of the group and the tile in the outputs

  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t c) {
    words = reinterpret_cast<std::uint32_t*>(memory);
    shifts = reinterpret_cast<std::int16_t*>(words + std::int64_t{kWords} * c);
    first = f, width = w, capacity = c;
  }
  __device__ void clear() {
    const auto start = static_cast<std::int32_t>(threadIdx.x);
    for (std::int32_t j = start; j < kWords * capacity; j += kTileThreads) words[j] = 0;
    for (std::int32_t j = start; j < width; j += kTileThreads) shifts[j] = to.shifts[first + j];
  }
  __device__ void begin_group(std::int32_t group) { base = group * to.genes + first; }

  __device__ static std::int32_t place(std::int32_t j) { return (j >> 5) * (32 * kWords) + (j & 31); }
  template <int kWord>
  __device__ static void add(std::uint32_t* at, std::uint32_t n) {
    if (n != 0) atomicAdd(at + 32 * kWord, n);
  }
  /// high:low = q^2.
  __device__ static void add_limbs(std::uint32_t* at, std::int64_t q, std::uint64_t low, std::uint64_t high) {
    constexpr std::uint32_t mask = (1u << 19) - 1;
    add<1>(at, static_cast<std::uint32_t>(q) & mask);
    add<2>(at, static_cast<std::uint32_t>(q >> 19) & mask);
    add<3>(at, static_cast<std::uint32_t>(static_cast<std::int32_t>(q >> 38)));
    if constexpr (kSquares) {
      add<4>(at, static_cast<std::uint32_t>(low) & mask);
      add<5>(at, static_cast<std::uint32_t>(low >> 19) & mask);
      add<6>(at, static_cast<std::uint32_t>(low >> 38) & mask);
      add<7>(at, static_cast<std::uint32_t>((low >> 57) | (high << 7)) & mask);
      add<8>(at, static_cast<std::uint32_t>(high >> 12));
    }
  }
  /// Past the range of the words with extra bits: to global memory.
  __device__ void add_rare(std::int32_t j, std::int64_t q, std::uint64_t a) const {
    std::uint64_t* const sums = to.sums + (base + j) * 4;
    add_128(sums, q);
    if constexpr (kSquares) add_128(sums + 2, a * a, __umul64hi(a, a));
  }
  __device__ void visit(V v, std::int32_t j) {
    if (v == 0) return;
    std::uint32_t* const at = words + place(j);
    add<0>(at, 1);
    if constexpr (sizeof(V) == 4 && !kExpm1) {
      // x = m 2^(e - 150) has the integer m 2^s with s = e - 119 + kExtraBits: shifts in place of doubles. The extra
      // bits, taken off when words are flushed, put the square of values from 1/4 to 4 into three words.
      const std::uint32_t b = __float_as_uint(v);
      const std::uint32_t s = ((b >> 23) & 0xFFu) - (119u - kExtraBits);
      if (to.shared_scale && s <= 23u) {
        const std::uint32_t m = (b & 0x7FFFFFu) | 0x800000u;
        const std::uint64_t square = static_cast<std::uint64_t>(m) * m;
        const std::int64_t q = static_cast<std::int64_t>(m) << s;
        add_limbs(at, (b >> 31) != 0 ? -q : q, square << (2 * s), (square >> 1) >> (63 - 2 * s));
        return;
      }
    }
    const double y = mapped<V, kExpm1>(v, to.expm1_scale);
    if (const std::uint8_t bits = fixed_flag(y); bits != 0) {
      to.flag(base + j, bits);
      return;
    }
    const std::int64_t q = quantise(y, shifts[j]);
    const auto a = static_cast<std::uint64_t>(q < 0 ? -q : q);
    if constexpr (kHasExtraBits) {
      if (to.shared_scale) return add_rare(j, q, a);
    }
    add_limbs(at, q, a * a, __umul64hi(a, a));
  }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kTileThreads) {
      std::uint32_t* const at = words + place(j);
      if (at[0] == 0) continue;
      std::uint32_t w[kWords];
#pragma unroll
      for (int k = 0; k < kWords; ++k) {
        w[k] = at[32 * k];
        at[32 * k] = 0;
      }
      atomicAdd(to.nonzero + base + j, static_cast<std::int32_t>(w[0]));
      std::uint64_t* const sums = to.sums + (base + j) * 4;
      const std::uint32_t extra = kHasExtraBits && to.shared_scale ? kExtraBits : 0;  // zeros at the low end
      add_128(sums, (static_cast<std::int64_t>(w[1]) + (static_cast<std::int64_t>(w[2]) << 19) +
                     static_cast<std::int64_t>(static_cast<std::int32_t>(w[3])) * (std::int64_t{1} << 38)) >>
                        extra);
      if constexpr (kSquares) {
        Uint128 squares = w[8];
#pragma unroll
        for (int k = 7; k >= 4; --k) squares = (squares << 19) + w[k];
        squares >>= 2 * extra;
        add_128(sums + 2, static_cast<std::uint64_t>(squares), static_cast<std::uint64_t>(squares >> 64));
      }
    }
  }
  __device__ void finish() const {}
};

/// Dense columns: sums in registers.
template <class V, bool kExpm1>
struct GroupColumn {
  static constexpr std::int64_t kMaxTerms = kFixedTermsIn64;

  GroupSums to;
  std::int16_t shift = 0;

  struct Sum {
    FixedMomentsIn64 moments;
    std::int32_t nonzero = 0;
    std::uint8_t flags = 0;
  };
  __device__ void begin_column(std::int64_t j) { shift = to.shifts[j]; }
  __device__ void add(Sum& sum, V v) const {
    if (v == 0) return;
    ++sum.nonzero;
    const double y = mapped<V, kExpm1>(v, to.expm1_scale);
    if (const std::uint8_t bits = fixed_flag(y); bits != 0)
      sum.flags |= bits;
    else
      sum.moments.add(quantise(y, shift));
  }
  __device__ void flush(const Sum& sum, std::int32_t group, std::int64_t j) const {
    const std::int64_t at = group * to.genes + j;
    if (sum.nonzero == 0) return;
    atomicAdd(to.nonzero + at, sum.nonzero);
    if (sum.flags != 0) to.flag(at, sum.flags);
    const FixedMoments m = sum.moments.moments();
    add_128(to.sums + at * 4, sum.moments.sum);
    add_128(to.sums + at * 4 + 2, static_cast<std::uint64_t>(m.sum_sq), static_cast<std::uint64_t>(m.sum_sq >> 64));
  }
  __device__ void finish() const {}
};

}  // namespace

template <class X>
void add_group_moments(const Context& ctx, const X& x, const RowOrder& order, const GroupSums& to, bool expm1,
                       bool squares) {
  using V = std::remove_cvref_t<decltype(value_at(x, 0))>;
  constexpr const char* name = "group_moments";
  if (expm1)
    run_genes(ctx, x, order, GroupWords<V, true, true>{to}, GroupColumn<V, true>{to}, name);
  else if (squares)
    run_genes(ctx, x, order, GroupWords<V, false, true>{to}, GroupColumn<V, false>{to}, name);
  else
    run_genes(ctx, x, order, GroupWords<V, false, false>{to}, GroupColumn<V, false>{to}, name);
}

}  // namespace scw::prim::cuda
