// The layout on the CPU: 32 cells step side by side in vector lanes. A step of a lane is one sampled edge: pull towards
// the other end, then the pushes of its random cells, all evaluated at the same place.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "tl/umap/kernel.hpp"

#include "tl/umap/body.inl"

namespace scw::tl::cpu {
namespace {

constexpr int kLanes = static_cast<int>(kUmapLanes);
constexpr std::int64_t kGroupGrain = 8;       // groups of a block per chunk
constexpr std::int64_t kParallelGroups = 48;  // below, waking the threads costs more than it gains

/// The edges of a group that are due in a pass.
struct Sampled {
  std::int32_t* targets;  // [lane][stride]: the other ends
  std::int32_t stride;    // the largest degree, and room to write a vector at the end of a row
  std::int32_t count[kLanes];
};

[[gnu::always_inline]] inline std::int32_t due_edges(const UmapPass& p, std::int64_t begin, std::int64_t end,
                                                     std::int32_t* out) {
  std::int32_t count = 0;
  for (std::int64_t e = begin; e < end; ++e) {
    out[count] = p.graph.targets[e];
    count += umap_due(e, p.graph.rates[e], p.number) ? 1 : 0;
  }
  return count;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"                // vectors are passed to inlined functions only
#pragma GCC diagnostic ignored "-Wuninitialized"        // GCC's own headers start intrinsics from undefined vectors,
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // and element-wise fills look like reads of them

#define SCW_LANES_SPACE baseline
#define SCW_WIDTH 4
#include "tl/umap/lanes.inl"
#undef SCW_LANES_SPACE
#undef SCW_WIDTH

#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2")
#define SCW_LANES_SPACE avx2
#define SCW_WIDTH 8
#include "tl/umap/lanes.inl"
#undef SCW_LANES_SPACE
#undef SCW_WIDTH
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f")
#define SCW_LANES_SPACE avx512
#define SCW_WIDTH 16
#include "tl/umap/lanes.inl"
#undef SCW_LANES_SPACE
#undef SCW_WIDTH
#pragma GCC pop_options
#endif

#pragma GCC diagnostic pop

using Step = void (*)(const UmapPass&, Sampled&, std::int64_t, const float*, float*);

/// The widest version that the machine has; null: a cell at a time.
Step step_of(int dims, int max_width) {
  if ((dims != 2 && dims != 3) || max_width < 4) return nullptr;
#if defined(__x86_64__) && !defined(__clang__)
  if (max_width >= 16 && __builtin_cpu_supports("avx512f")) return dims == 2 ? &avx512::step_2d : &avx512::step_3d;
  if (max_width >= 8 && __builtin_cpu_supports("avx2")) return dims == 2 ? &avx2::step_2d : &avx2::step_3d;
#endif
  return dims == 2 ? &baseline::step_2d : &baseline::step_3d;
}

}  // namespace

void umap_run(const Context& ctx, const UmapGraph& graph, const UmapSchedule& schedule, int from, int to, Span<float> y,
              int& finished) {
  const int dims = schedule.dims;
  const std::int64_t groups = chunk_count(graph.n_active, kLanes);
  std::int64_t max_degree = 0;
  for (std::int64_t i = 0; i < graph.n_active; ++i)
    max_degree = std::max(max_degree, graph.indptr[i + 1] - graph.indptr[i]);
  const std::int64_t stride = max_degree + 16;
  // Lanes of a vector find their rows by 32-bit offsets.
  SCW_EXPECT(stride < std::numeric_limits<std::int32_t>::max() / 16, "tl.umap",
             "a cell has too many neighbours (got {})", max_degree);
  const int threads = std::max(1, ctx.n_threads);
  Array<std::int32_t> sampled(ctx.workspace, checked_mul(checked_mul(stride, kLanes), threads), "umap sampled edges");
  Array<float> wide(ctx.workspace, checked_mul(2 * threads, dims), "umap lanes");
  Array<float> moved(ctx.workspace, checked_mul(chunk_count(groups, kUmapBlocks), kLanes * dims),
                     "umap moved positions");
  Array<float> before(ctx.workspace, y.size, "umap positions before the epoch");

  Context single = ctx;
  single.n_threads = 1;
  const int report_every = std::max(1, schedule.n_epochs / 50);
  const Step step = step_of(dims, schedule.max_width);

  for (int epoch = from; epoch < to; ++epoch) {
    std::copy(y.begin(), y.end(), before.begin());
    try {
      ctx.check_cancelled("tl.umap");
      for (int half = 0; half < kUmapPasses; ++half) {
        const UmapPass pass = umap_pass(graph, schedule, epoch, half);
        for (std::int64_t block = 0; block < std::min(kUmapBlocks, groups); ++block) {
          const std::int64_t n_block = (groups - block + kUmapBlocks - 1) / kUmapBlocks;
          parallel_chunks(n_block >= kParallelGroups ? ctx : single, n_block, kGroupGrain,
                          [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
                            Sampled due;
                            due.targets = sampled.data() + worker * stride * kLanes;
                            due.stride = static_cast<std::int32_t>(stride);
                            float* const here = wide.data() + std::int64_t{worker} * 2 * dims;
                            for (std::int64_t g = begin; g < end; ++g) {
                              const std::int64_t group = g * kUmapBlocks + block;
                              float* const out = moved.data() + g * kLanes * dims;
                              if (step != nullptr) {
                                step(pass, due, group, y.data, out);
                              } else {
                                for (std::int64_t l = 0; l < kLanes && group * kLanes + l < graph.n_active; ++l) {
                                  umap_step<0>(pass, group * kLanes + l, y.data, here, here + dims);
                                  for (int k = 0; k < dims; ++k) out[k * kLanes + l] = here[k];
                                }
                              }
                            }
                          });
          for (std::int64_t g = 0; g < n_block; ++g) {
            const std::int64_t first = (g * kUmapBlocks + block) * kLanes;
            const std::int64_t lanes = std::min<std::int64_t>(kLanes, graph.n_active - first);
            for (std::int64_t l = 0; l < lanes; ++l)
              for (int k = 0; k < dims; ++k) y[(first + l) * dims + k] = moved[(g * dims + k) * kLanes + l];
          }
        }
      }
    } catch (...) {
      std::copy(before.begin(), before.end(), y.begin());
      throw;
    }
    finished = epoch + 1;
    if (finished % report_every == 0 || finished == to) ctx.report("umap", finished, schedule.n_epochs);
  }
}

SCW_REGISTER(umap_run_kernel, cpu, &umap_run);

}  // namespace scw::tl::cpu
