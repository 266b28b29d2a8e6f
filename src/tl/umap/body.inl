// Shared by cpu.cpp and cuda.cu: one pass of one cell. The vector version of cpu.cpp does the same operations in the
// same order for many cells side by side, so all of them give the same bits.

#include "math/philox.hpp"

namespace scw::tl {

inline constexpr std::uint32_t kGolden = 0x9E3779B1u;

/// What is common to the cells of a pass.
struct UmapPass {
  UmapGraph graph;
  math::UmapForce force;
  RngKey rng;
  float alpha;
  std::uint32_t number;  // of the pass since epoch 0
  int negatives;
  int dims;
};

/// Whether edge e is due. An edge of rate r has phase (edge number * golden ratio + pass * r) mod 1 and is due when the
/// phase has just wrapped: rate * passes samples in the long run, spread evenly over the passes and over the edges of a
/// cell, and no state between passes.
SCW_HD inline bool umap_due(std::int64_t e, std::uint32_t rate, std::uint32_t pass) {
  return static_cast<std::uint32_t>(e) * kGolden + pass * rate < rate;
}

SCW_HD inline UmapPass umap_pass(const UmapGraph& graph, const UmapSchedule& s, int epoch, int half) {
  UmapPass p;
  p.graph = graph;
  p.force = s.force;
  p.rng = s.rng;
  p.alpha = s.alpha * (1.0f - static_cast<float>(epoch) / static_cast<float>(s.n_epochs));
  p.number = static_cast<std::uint32_t>(epoch) * kUmapPasses + static_cast<std::uint32_t>(half);
  p.negatives = (s.negatives + (half == 0 ? 1 : 0)) / kUmapPasses;
  p.dims = s.dims;
  return p;
}

/// Moves `here` from the place of cell i. D: dimensions, or 0 for p.dims; here and push have that many elements.
template <int D>
SCW_HD inline void umap_step(const UmapPass& p, std::int64_t i, const float* y, float* here, float* push) {
  const int dims = D > 0 ? D : p.dims;
  const auto n = static_cast<std::uint32_t>(p.graph.n_cells);
  for (int k = 0; k < dims; ++k) here[k] = y[i * dims + k];
  math::Philox4 words{};
  std::uint32_t draw = 0;
  for (std::int64_t e = p.graph.indptr[i]; e < p.graph.indptr[i + 1]; ++e) {
    if (!umap_due(e, p.graph.rates[e], p.number)) continue;
    const float* at = y + std::int64_t{p.graph.targets[e]} * dims;
    float d2 = 0;
    for (int k = 0; k < dims; ++k) d2 += (here[k] - at[k]) * (here[k] - at[k]);
    float f = p.force.attraction(d2);
    for (int k = 0; k < dims; ++k) here[k] += math::clip4(f * (here[k] - at[k])) * p.alpha;
    for (int k = 0; k < dims; ++k) push[k] = 0;
    for (int t = 0; t < p.negatives; ++t, ++draw) {
      if (draw % 4 == 0)
        words = math::random_words(p.rng, static_cast<std::uint64_t>(i) + (std::uint64_t{p.number} << 32), draw / 4);
      at = y + static_cast<std::int64_t>(math::bounded(words.v[draw % 4], n)) * dims;
      d2 = 0;
      for (int k = 0; k < dims; ++k) d2 += (here[k] - at[k]) * (here[k] - at[k]);
      f = p.force.repulsion(d2);
      for (int k = 0; k < dims; ++k) push[k] += math::clip4(f * (here[k] - at[k]));
    }
    for (int k = 0; k < dims; ++k) here[k] += push[k] * p.alpha;
  }
}

}  // namespace scw::tl
