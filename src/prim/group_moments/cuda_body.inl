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
/// nothing to add are left alone: about half of them for floats.
template <class V, bool kExpm1, bool kSquares>
struct GroupWords {
  static constexpr int kWords = kSquares ? 9 : 4;
  static constexpr int kBytesPerGene = 4 * kWords + 2, kUnroll = kExpm1 ? 1 : 2;
  static constexpr std::int64_t kMaxRows = 8192;  // 19 + 13 bits
  static constexpr bool kWantsRows = false;

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

  __device__ void add(std::int32_t word, std::int32_t j, std::uint32_t n) {
    if (n != 0) atomicAdd(words + word * capacity + j, n);
  }
  __device__ void visit(V v, std::int32_t j) {
    if (v == 0) return;
    add(0, j, 1);
    const double y = mapped<V, kExpm1>(v, to.expm1_scale);
    if (const std::uint8_t bits = fixed_flag(y); bits != 0) {
      to.flag(base + j, bits);
      return;
    }
    const std::int64_t q = quantise(y, shifts[j]);
    constexpr std::uint32_t mask = (1u << 19) - 1;
    add(1, j, static_cast<std::uint32_t>(q) & mask);
    add(2, j, static_cast<std::uint32_t>(q >> 19) & mask);
    add(3, j, static_cast<std::uint32_t>(static_cast<std::int32_t>(q >> 38)));
    if constexpr (kSquares) {
      const auto a = static_cast<std::uint64_t>(q < 0 ? -q : q);
      const std::uint64_t low = a * a, high = __umul64hi(a, a);
      add(4, j, static_cast<std::uint32_t>(low) & mask);
      add(5, j, static_cast<std::uint32_t>(low >> 19) & mask);
      add(6, j, static_cast<std::uint32_t>(low >> 38) & mask);
      add(7, j, static_cast<std::uint32_t>((low >> 57) | (high << 7)) & mask);
      add(8, j, static_cast<std::uint32_t>(high >> 12));
    }
  }
  __device__ void flush(std::int32_t) {
    for (std::int32_t j = static_cast<std::int32_t>(threadIdx.x); j < width; j += kTileThreads) {
      if (words[j] == 0) continue;
      std::uint32_t w[kWords];
#pragma unroll
      for (int k = 0; k < kWords; ++k) {
        w[k] = words[k * capacity + j];
        words[k * capacity + j] = 0;
      }
      atomicAdd(to.nonzero + base + j, static_cast<std::int32_t>(w[0]));
      std::uint64_t* const sums = to.sums + (base + j) * 4;
      add_128(sums, static_cast<std::int64_t>(w[1]) + (static_cast<std::int64_t>(w[2]) << 19) +
                        static_cast<std::int64_t>(static_cast<std::int32_t>(w[3])) * (std::int64_t{1} << 38));
      if constexpr (kSquares) {
        Uint128 squares = w[8];
#pragma unroll
        for (int k = 7; k >= 4; --k) squares = (squares << 19) + w[k];
        add_128(sums + 2, static_cast<std::uint64_t>(squares), static_cast<std::uint64_t>(squares >> 64));
      }
    }
  }
  __device__ void finish() const {}
};

/// Dense columns: sums in registers.
template <class V, bool kExpm1>
struct GroupColumn {
  GroupSums to;
  std::int16_t shift = 0;

  struct Sum {
    FixedMoments moments;
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
    const FixedMoments& m = sum.moments;
    add_128(to.sums + at * 4, static_cast<std::uint64_t>(m.sum), static_cast<std::uint64_t>(m.sum >> 64));
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
