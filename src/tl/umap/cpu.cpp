// The layout on the CPU: cells step side by side in vector lanes. A step of a lane is one sampled edge: pull towards
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

constexpr std::int64_t kGroupGrain = 8;       // groups of a block per chunk
constexpr std::int64_t kParallelGroups = 48;  // below, waking the threads costs more than it gains
constexpr std::int32_t kChunkCells = static_cast<std::int32_t>(kGroupGrain * kUmapLanes);
constexpr std::int32_t kVectorRoom = 32;  // two vectors of the widest kind

/// The cells of a chunk in the order of their vectors, and their edges that are due in a pass.
struct Chunk {
  std::int32_t* targets;                           // the other ends, cell by cell
  std::int32_t cell[kChunkCells + kVectorRoom];    // its place in the layout
  std::int32_t offset[kChunkCells + kVectorRoom];  // of its first target
  std::int32_t count[kChunkCells + kVectorRoom];   // of its targets
  std::int32_t slot[kChunkCells + kVectorRoom];    // its place in the chunk
};

/// Collects the edges [begin, end) that are due; writes one entry more.
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

using Step = void (*)(const UmapPass&, Chunk&, std::int64_t block, std::int64_t begin, std::int64_t end, const float*,
                      float*);

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
  const UmapDeal deal(graph.n_active);
  const std::int64_t block_groups = graph.n_active > 0 ? deal.count(0) : 0;  // the most
  std::int64_t chunk_edges = 0;
  for (std::int64_t block = 0; block < deal.blocks(); ++block)
    for (std::int64_t begin = 0; begin < block_groups; begin += kGroupGrain) {
      std::int64_t edges = 0;
      for (std::int64_t g = begin; g < begin + kGroupGrain; ++g) {
        const std::int64_t first = std::min(deal.group(block, g) * kUmapLanes, graph.n_active);
        edges += graph.indptr[std::min(first + kUmapLanes, graph.n_active)] - graph.indptr[first];
      }
      chunk_edges = std::max(chunk_edges, edges);
    }
  // Lanes find their targets by 32-bit offsets; the last row may be written a vector too far.
  SCW_EXPECT(chunk_edges < std::numeric_limits<std::int32_t>::max() - 16, "tl.umap",
             "{} neighbouring cells have too many edges (got {})", kChunkCells, chunk_edges);
  const std::int64_t room = chunk_edges + 16;
  const int threads = std::max(1, ctx.n_threads);
  Array<std::int32_t> targets(ctx.workspace, checked_mul(room, threads), "umap sampled edges");
  Array<float> wide(ctx.workspace, checked_mul(2 * threads, dims), "umap lanes");
  // A spare row after each chunk takes what lanes without a cell write.
  const std::int64_t moved_rows = kChunkCells + 1;
  Array<float> moved(ctx.workspace, checked_mul(chunk_count(block_groups, kGroupGrain) * moved_rows, dims),
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
        for (std::int64_t block = 0; block < deal.blocks(); ++block) {
          const std::int64_t n_block = deal.count(block);
          parallel_chunks(n_block >= kParallelGroups ? ctx : single, n_block, kGroupGrain,
                          [&](std::int64_t c, std::int64_t begin, std::int64_t end, int worker) {
                            float* const out = moved.data() + c * moved_rows * dims;
                            if (step != nullptr) {
                              Chunk chunk;
                              chunk.targets = targets.data() + worker * room;
                              step(pass, chunk, block, begin, end, y.data, out);
                              return;
                            }
                            float* const here = wide.data() + std::int64_t{worker} * 2 * dims;
                            for (std::int64_t k = 0; k < (end - begin) * kUmapLanes; ++k) {
                              const std::int64_t i =
                                  deal.group(block, begin + k / kUmapLanes) * kUmapLanes + k % kUmapLanes;
                              if (i >= graph.n_active) break;
                              umap_step<0>(pass, i, y.data, here, here + dims);
                              std::copy_n(here, dims, out + k * dims);
                            }
                          });
          for (std::int64_t g = 0; g < n_block; ++g) {
            const std::int64_t first = deal.group(block, g) * kUmapLanes;
            const std::int64_t cells = std::min(kUmapLanes, graph.n_active - first);
            const float* const from =
                moved.data() + (g / kGroupGrain * moved_rows + g % kGroupGrain * kUmapLanes) * dims;
            std::copy_n(from, cells * dims, y.data + first * dims);
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
