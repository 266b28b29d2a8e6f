// What gene_moments does with a value on CUDA (see prim/gene_tiles.cuh for the loops around it).
#pragma once

#include "math/elementary.hpp"
#include "pp/gene_moments/kernel.hpp"
#include "prim/gene_tiles.cuh"

namespace scw::pp::cuda {

/// What the values of a pass had among them. kUnsuited: not for the pass that counts small whole numbers.
enum Seen : unsigned { kInexact = 1, kNotCounts = 2, kUnsuited = 4 };

inline constexpr double kMagic = 0x1.8p52;  // adding it rounds to an integer
inline constexpr double kFixedLimit = 0x1p47;
inline constexpr std::int16_t kNotFinite = INT16_MIN;  // in place of the shift of a column

template <class V>
__device__ inline bool is_count(V v) {
  return v >= V{0} && trunc(v) == v;
}

/// x or expm1(x), as cpu.cpp rounds it.
template <class V, bool kExpm1>
struct Value {
  double scale;  // of expm1
  __device__ double operator()(V x) const {
    if constexpr (!kExpm1)
      return static_cast<double>(x);
    else
      return static_cast<double>(static_cast<V>(math::expm1(static_cast<double>(static_cast<V>(x * scale)))));
  }
};

/// q and q^2 to four words of memory.
__device__ inline void add_moments(std::uint64_t* to, std::int64_t q) {
  const auto a = static_cast<std::uint64_t>(q < 0 ? -q : q);
  prim::cuda::add_128(to, q);
  prim::cuda::add_128(to + 2, a * a, __umul64hi(a, a));
}

/// For every Op below: where the sums of a tile go, and one word of what was seen.
struct Target {
  std::uint64_t* sums;  // [n_groups x genes] FixedMoments
  std::int64_t genes;
  unsigned* seen;

  __device__ std::uint64_t* at(std::int32_t group, std::int64_t gene) const {
    return sums + (group * genes + gene) * 4;
  }
  __device__ void note(unsigned bits) const {
    if (bits != 0) atomicOr(seen, bits);
  }
};

/// Whole numbers from 0 to 255, which are most of what counts are: two words a gene. Other whole numbers go to global
/// memory one by one; what is not whole ends the attempt.
template <class V>
struct CountMoments {
  static constexpr int kBytesPerGene = 8, kUnroll = 4;
  static constexpr std::int64_t kMaxRows = 65536;  // 255^2 * 65536 < 2^32
  static constexpr bool kWantsRows = false;

  Target target;
  std::uint32_t* words = nullptr;
  std::int32_t first = 0, width = 0, capacity = 0;
  unsigned bits = 0;
  std::uint64_t* to = nullptr;

  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t c) {
    words = reinterpret_cast<std::uint32_t*>(memory);
    first = f, width = w, capacity = c, bits = 0;
  }
  __device__ void clear() {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < 2 * capacity; j += prim::cuda::kTileThreads)
      words[j] = 0;
  }
  __device__ void begin_group(std::int32_t group) { to = target.at(group, first); }

  __device__ __noinline__ static unsigned rare(std::uint64_t* at, double v) {
    const double t = v * 0x1p31;
    if (!((t + kMagic) - kMagic == t && t <= kFixedLimit && t >= -kFixedLimit)) return kInexact | kNotCounts;
    if (trunc(v) != v) return kUnsuited | kNotCounts;
    add_moments(at, static_cast<std::int64_t>(t));
    return v < 0 ? kNotCounts : 0u;
  }
  __device__ void visit(V v, std::int32_t j) {
    std::uint32_t n = 0;
    bool small = v >= V{0} && v < V{256};
    if constexpr (sizeof(V) == 4) {
      const float shifted = v + 0x1p23f;
      n = __float_as_uint(shifted) & 0x1FFu;
      small = small && shifted - 0x1p23f == v;
    } else {
      const double shifted = v + 0x1p52;
      n = static_cast<std::uint32_t>(math::bits_of(shifted)) & 0x1FFu;
      small = small && shifted - 0x1p52 == v;
    }
    if (small) {
      if (n != 0) {
        atomicAdd(words + j, n);
        atomicAdd(words + capacity + j, n * n);
      }
    } else {
      bits |= rare(to + std::int64_t{j} * 4, static_cast<double>(v));
    }
  }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += prim::cuda::kTileThreads) {
      const std::uint64_t sum = words[j], squares = words[capacity + j];
      if (sum == 0) continue;
      words[j] = 0;
      words[capacity + j] = 0;
      prim::cuda::add_128(to + std::int64_t{j} * 4, sum << 31, 0);
      prim::cuda::add_128(to + std::int64_t{j} * 4 + 2, squares << 62, squares >> 2);
    }
  }
  __device__ void finish() const { target.note(bits); }
};

/// Any value that fits the scale, |q| <= 2^47: eight words a gene of 19 bits each, three for q and five for q^2. Words
/// to which a value has nothing to add are left alone; six remain for normalised counts. The words of 32 genes stand
/// together, so that their places differ by constants and the bank is that of the gene.
template <class V, bool kExpm1, bool kPerColumn>
struct FixedSums {
  static constexpr int kWords = 8;
  static constexpr int kBytesPerGene = 4 * kWords + (kPerColumn ? 2 : 0), kUnroll = 2;
  static constexpr std::int64_t kMaxRows = 8192;  // 19 + 13 bits
  static constexpr bool kWantsRows = false;

  Target target;
  Value<V, kExpm1> value;
  const std::int16_t* shifts = nullptr;
  std::uint32_t* words = nullptr;
  std::int16_t* own_shifts = nullptr;
  std::int32_t first = 0, width = 0, capacity = 0;
  unsigned bits = 0;
  std::uint64_t* to = nullptr;

  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t c) {
    words = reinterpret_cast<std::uint32_t*>(memory);
    own_shifts = reinterpret_cast<std::int16_t*>(words + std::int64_t{kWords} * c);
    first = f, width = w, capacity = c, bits = 0;
  }
  __device__ void clear() {
    const auto start = static_cast<std::int32_t>(threadIdx.x);
    for (std::int32_t j = start; j < kWords * capacity; j += prim::cuda::kTileThreads) words[j] = 0;
    if constexpr (kPerColumn)
      for (std::int32_t j = start; j < width; j += prim::cuda::kTileThreads) own_shifts[j] = shifts[first + j];
  }
  __device__ void begin_group(std::int32_t group) { to = target.at(group, first); }

  __device__ static std::int32_t place(std::int32_t j) { return (j >> 5) * (32 * kWords) + (j & 31); }
  template <int kWord>
  __device__ static void add(std::uint32_t* at, std::uint32_t n) {
    if (n != 0) atomicAdd(at + 32 * kWord, n);
  }
  /// high:low = q^2.
  __device__ static void add_limbs(std::uint32_t* at, std::int64_t q, std::uint64_t low, std::uint64_t high) {
    constexpr std::uint32_t mask = (1u << 19) - 1;
    add<0>(at, static_cast<std::uint32_t>(q) & mask);
    add<1>(at, static_cast<std::uint32_t>(q >> 19) & mask);
    add<2>(at, static_cast<std::uint32_t>(static_cast<std::int32_t>(q >> 38)));
    add<3>(at, static_cast<std::uint32_t>(low) & mask);
    add<4>(at, static_cast<std::uint32_t>(low >> 19) & mask);
    add<5>(at, static_cast<std::uint32_t>(low >> 38) & mask);
    add<6>(at, static_cast<std::uint32_t>((low >> 57) | (high << 7)) & mask);
    add<7>(at, static_cast<std::uint32_t>(high >> 12));
  }
  __device__ static void add_quantised(std::uint32_t* at, double t) {
    const auto q = static_cast<std::int64_t>(math::bits_of(t + kMagic) - math::bits_of(kMagic));
    const auto a = static_cast<std::uint64_t>(q < 0 ? -q : q);
    add_limbs(at, q, a * a, __umul64hi(a, a));
  }
  __device__ static unsigned add_exact(std::uint32_t* at, double y) {
    const double t = y * prim::power_of_two(kGeneMomentsShift);
    if (!((t + kMagic) - kMagic == t && t <= kFixedLimit && t >= -kFixedLimit)) return kInexact;
    add_quantised(at, t);
    return 0;
  }
  __device__ __noinline__ static unsigned rare(std::uint32_t* at, double y) { return add_exact(at, y); }

  __device__ void visit(V v, std::int32_t j) {
    std::uint32_t* const at = words + place(j);
    const double y = value(v);
    if constexpr (kPerColumn) {
      const std::int16_t shift = own_shifts[j];
      if (shift != kNotFinite) add_quantised(at, y * prim::power_of_two(shift));
    } else {
      bits |= is_count(v) ? 0u : kNotCounts;
      if constexpr (sizeof(V) == 4) {
        // y = m 2^(e - 150) has the integer m 2^s with s = e - 119: shifts in place of arithmetic in double.
        const std::uint32_t b = __float_as_uint(static_cast<float>(y));
        const std::uint32_t m = (b & 0x7FFFFFu) | 0x800000u;
        const std::uint32_t s = ((b >> 23) & 0xFFu) - 119u;
        if (s <= 23u) {
          const std::uint64_t square = static_cast<std::uint64_t>(m) * m;
          const std::int64_t q = static_cast<std::int64_t>(m) << s;
          add_limbs(at, (b >> 31) != 0 ? -q : q, square << (2 * s), (square >> 1) >> (63 - 2 * s));
        } else if ((b << 1) != 0) {
          bits |= rare(at, y);
        }
      } else {
        bits |= add_exact(at, y);
      }
    }
  }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += prim::cuda::kTileThreads) {
      std::uint32_t* const at = words + place(j);
      std::uint32_t w[kWords];
      std::uint32_t any = 0;
#pragma unroll
      for (int k = 0; k < kWords; ++k) {
        w[k] = at[32 * k];
        any |= w[k];
      }
      if (any == 0) continue;
#pragma unroll
      for (int k = 0; k < kWords; ++k) at[32 * k] = 0;
      const std::int64_t sum = static_cast<std::int64_t>(w[0]) + (static_cast<std::int64_t>(w[1]) << 19) +
                               static_cast<std::int64_t>(static_cast<std::int32_t>(w[2])) * (std::int64_t{1} << 38);
      prim::Uint128 squares = w[7];
#pragma unroll
      for (int k = 6; k >= 3; --k) squares = (squares << 19) + w[k];
      prim::cuda::add_128(to + std::int64_t{j} * 4, sum);
      prim::cuda::add_128(to + std::int64_t{j} * 4 + 2, static_cast<std::uint64_t>(squares),
                          static_cast<std::uint64_t>(squares >> 64));
    }
  }
  __device__ void finish() const { target.note(bits); }
};

/// The largest |y| of each gene, as bits: their order as integers puts infinity and NaN last.
template <class V, bool kExpm1>
struct LargestValue {
  static constexpr int kBytesPerGene = 8, kUnroll = 4;
  static constexpr std::int64_t kMaxRows = std::int64_t{1} << 40, kMaxTerms = kMaxRows;
  static constexpr bool kWantsRows = false;

  unsigned long long* largest;  // [genes]
  unsigned* seen;
  Value<V, kExpm1> value;
  unsigned long long* words = nullptr;
  std::int32_t first = 0, width = 0, capacity = 0;
  unsigned bits = 0;

  __device__ void attach(unsigned char* memory, std::int32_t f, std::int32_t w, std::int32_t c) {
    words = reinterpret_cast<unsigned long long*>(memory);
    first = f, width = w, capacity = c, bits = 0;
  }
  __device__ void clear() {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += prim::cuda::kTileThreads)
      words[j] = 0;
  }
  __device__ void begin_group(std::int32_t) {}
  __device__ void visit(V v, std::int32_t j) {
    bits |= is_count(v) ? 0u : kNotCounts;
    const unsigned long long magnitude = math::bits_of(value(v)) & 0x7FFFFFFFFFFFFFFFull;
    // Few values are a new maximum: the plain read saves the atomic. An old value read here only costs one.
    if (magnitude > *static_cast<volatile unsigned long long*>(words + j)) atomicMax(words + j, magnitude);
  }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += prim::cuda::kTileThreads)
      if (words[j] != 0) atomicMax(largest + first + j, words[j]);
  }
  __device__ void finish() const {
    if (bits != 0) atomicOr(seen, bits);
  }

  static constexpr bool kPacks = true;
  using Sum = unsigned long long;
  __device__ void begin_column(std::int64_t) { bits = 0; }
  __device__ void add(Sum& sum, V v) {
    bits |= is_count(v) ? 0u : kNotCounts;
    const unsigned long long magnitude = math::bits_of(value(v)) & 0x7FFFFFFFFFFFFFFFull;
    sum = magnitude > sum ? magnitude : sum;
  }
  __device__ void flush(const Sum& sum, std::int32_t, std::int64_t j) const {
    if (sum != 0) atomicMax(largest + j, sum);
  }
};

/// Dense columns: sums in registers.
template <class V, bool kExpm1, bool kPerColumn>
struct ColumnSums {
  static constexpr std::int64_t kMaxTerms = prim::kFixedTermsIn64;

  Target target;
  Value<V, kExpm1> value;
  const std::int16_t* shifts = nullptr;
  double factor = 0;
  bool skipped = false;
  unsigned bits = 0;

  static constexpr bool kPacks = true;
  using Sum = prim::FixedMomentsIn64;
  __device__ void begin_column(std::int64_t j) {
    const std::int16_t shift = kPerColumn ? shifts[j] : static_cast<std::int16_t>(kGeneMomentsShift);
    bits = 0;
    skipped = shift == kNotFinite;
    factor = skipped ? 0.0 : prim::power_of_two(shift);
  }
  __device__ void add(Sum& sum, V v) {
    if (kPerColumn && skipped) return;
    const double t = value(v) * factor;
    if constexpr (!kPerColumn) {
      bits |= is_count(v) ? 0u : kNotCounts;
      if (!((t + kMagic) - kMagic == t && t <= kFixedLimit && t >= -kFixedLimit)) {
        bits |= kInexact;
        return;
      }
    }
    sum.add(static_cast<std::int64_t>(math::bits_of(t + kMagic) - math::bits_of(kMagic)));
  }
  __device__ void flush(const Sum& sum, std::int32_t group, std::int64_t j) const {
    std::uint64_t* const to = target.at(group, j);
    const prim::FixedMoments m = sum.moments();
    prim::cuda::add_128(to, sum.sum);
    prim::cuda::add_128(to + 2, static_cast<std::uint64_t>(m.sum_sq), static_cast<std::uint64_t>(m.sum_sq >> 64));
  }
  __device__ void finish() const {
    if (bits != 0) target.note(bits);
  }
};

}  // namespace scw::pp::cuda
