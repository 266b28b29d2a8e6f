// The decisions of Leiden as small formulas in integers, the same on CPU and GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "prim/fixed_point.hpp"
#include "scwarp/core/config.hpp"
#include "scwarp/core/views.hpp"
#include "tl/symmetry.hpp"

namespace scw::tl {

using Wide = prim::Int128;

inline constexpr int kGainShift = 42;  // gains are below 2^105: shifted, they are 63-bit numbers
inline constexpr int kNoiseBits = 12;
inline constexpr int kNoiseSize = 1 << kNoiseBits;
inline constexpr int kExploringPasses = 8;            // later passes repeat the random numbers of this one
inline constexpr std::int64_t kSmallVertices = 8192;  // graphs and levels up to here are clustered vertex by vertex
inline constexpr std::int64_t kMaxVertices = std::int64_t{1} << 30;  // clusters are numbered up to twice as far
inline constexpr std::int64_t kStartEntries = 1 << 18;  // stored entries over all starts, when their number is free
inline constexpr std::int64_t kMaxStarts = 4;
// What is sorted at once on CUDA.
inline constexpr std::int64_t kSortedEntryBytes = 32;
inline constexpr std::int64_t kSortBytes = std::int64_t{8} << 30;
inline constexpr std::int64_t kLeastSortBytes = std::int64_t{4} << 20;
inline constexpr std::uint64_t kRngTag = 0x4C656964656Eull;  // "Leiden"
inline constexpr std::uint64_t kMoveTag = 2, kRefineTag = 3;

/// The quality in integers. With a = 2W 2^s and g = round(resolution 2^s), the quality of a clustering is
/// sum over clusters of (a e_c - g K_c^2) up to a constant factor: e_c = weight inside, K_c = strength. Factors stay
/// below 2^63 and products below 2^105 because W2 <= 2^41 and g, 2^s <= 2^21.
struct Quality {
  std::int64_t a, g;
  double unit;  // quality gain in edge weights = unit * integer gain

  Quality(double resolution, std::int64_t total, double scale) {
    int s = 21;
    while (s > 0 && std::ldexp(resolution, s) > 0x1p21) --s;
    g = std::llround(std::ldexp(resolution, s));
    a = (total > 1 ? total : 1) << s;
    unit = 1.0 / (static_cast<double>(a) * scale);
  }
  /// Of vertices with strength k and weight w to a cluster of strength K (themselves not counted) being in it.
  SCW_HD Wide score(std::int64_t w, std::int64_t k, std::int64_t K) const {
    return static_cast<Wide>(a) * w - static_cast<Wide>(g * k) * K;
  }
  /// Of a clustering: `inside` = weight inside clusters, both directions.
  Wide total(std::int64_t inside, Span<const std::int64_t> strengths) const {
    Wide sum = score(inside, 0, 0);
    for (const std::int64_t k : strengths) sum += score(0, k, k);
    return sum;
  }
};

/// Synchronous local moving. In a round every active vertex proposes the cluster that suits it best as things stand;
/// those proposals are carried out together that raise the quality whatever else is carried out:
///
/// 1. Neighbours must not pull the rug: v, moving from A to B, waits if a neighbour wants to leave B, or to enter A,
///    and goes to a cluster of higher rank than B. The ranks are random and new in each round.
/// 2. The clusters must not overfill: of what is left, v moves if it gains even after all others that enter B have
///    entered and all others that leave A have left (integer sums: in any order), or if it has the first turn both
///    among those that enter B and among those that leave A.
///
/// Carried out one after the other, those of the second kind first, each of these moves gains. The highest rank and
/// then the first turn always moves, so the search ends. Where few of the second step may move, only a random part of
/// the vertices takes part in it (`thin`).
///
/// Clusters of n vertices are numbered up to n; n + v is the cluster that v founds when it is better off alone.
struct MoveRound {
  std::uint64_t salt;
  int thin;

  SCW_HD MoveRound(std::uint64_t level_salt, std::uint64_t round, int t) : salt(mix(level_salt + round)), thin(t) {}
  SCW_HD std::uint64_t rank(std::int32_t cluster) const {
    return mix(salt + 0x9E3779B97F4A7C15ull * static_cast<std::uint32_t>(cluster));
  }
  /// Never 0, which stands for nobody.
  SCW_HD std::uint64_t turn(std::int32_t vertex) const { return rank(vertex) | 1u; }
  SCW_HD bool takes_part(std::int32_t vertex) const {
    return thin == 0 || (mix(~salt + static_cast<std::uint32_t>(vertex)) >> (64 - thin)) == 0;
  }
  /// Whether v, going from `from` to `to`, must wait for a neighbour that goes from u_from to u_to.
  SCW_HD bool waits(std::int32_t from, std::int32_t to, std::int32_t u_from, std::int32_t u_to) const {
    return (u_from == to || u_to == from) && rank(u_to) > rank(to);
  }
  /// `thin` of the next round.
  static int adapt(int thin, std::int64_t taking_part, std::int64_t moved) {
    if (moved * 4 < taking_part) return thin < 40 ? thin + 2 : thin;
    return thin > 2 ? thin - 2 : 0;
  }
};

/// Refinement: vertices still alone choose a refined cluster r by the largest gain + theta * Gumbel noise (the
/// Gumbel-max rule: r is chosen with probability proportional to exp(gain / theta)), staying alone being one of the
/// choices with gain 0. A choice of v for r is carried out unless r's vertex is itself on the way to a cluster of
/// higher rank, or v is chosen by others and has a higher rank than r.
struct RefineRound {
  std::uint64_t salt;

  SCW_HD RefineRound(std::uint64_t level_salt, std::uint64_t round) : salt(mix(~level_salt + round)) {}
  SCW_HD std::uint64_t rank(std::int32_t r) const {
    return mix(salt + 0x9E3779B97F4A7C15ull * static_cast<std::uint32_t>(r));
  }
  /// r_choice: the choice of r's vertex if it is alone and on the way, else -1.
  SCW_HD bool goes(std::int32_t v, std::int32_t r, std::int32_t r_choice, bool v_is_chosen) const {
    const std::uint64_t mine = rank(r);
    return (r_choice < 0 || mine > rank(r_choice)) && (!v_is_chosen || mine > rank(v));
  }
};

/// noise[noise_index(...)] belongs to the choice of `id` by the vertex with the random number `word`.
SCW_HD inline std::int32_t noise_index(std::uint64_t word, std::int32_t id) {
  return static_cast<std::int32_t>(mix(word ^ (0x9E3779B97F4A7C15ull * (static_cast<std::uint32_t>(id) + 1ull))) >>
                                   (64 - kNoiseBits));
}
/// theta * Gumbel noise, -log(-log(u)) at the middles of kNoiseSize equal parts of (0, 1), in shifted gains.
SCW_API std::vector<std::int64_t> refinement_noise(const Quality& quality, double theta);

/// LeidenOptions::n_starts, for a graph of so many entries without loops.
inline std::int64_t number_of_starts(int asked, std::int64_t entries) {
  if (asked > 0) return asked;
  const std::int64_t fit = kStartEntries / (entries > 1 ? entries : 1);
  return fit < 1 ? 1 : fit > kMaxStarts ? kMaxStarts : fit;
}

/// gain >= 0.
SCW_HD inline std::int64_t shifted_gain(Wide gain) { return static_cast<std::int64_t>(gain >> kGainShift); }

}  // namespace scw::tl
