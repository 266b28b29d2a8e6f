// Candidates of a block of queries: scores on tensor cores, one compare each, and bounded lists of what may be near.
//
// A block of 4 warps holds 64 x MT queries, each warp its own 16 x MT, whose rounded rows stay in registers (KS > 0:
// depth / 16 steps) or pass through shared memory with the columns (KS = 0). Columns come in tiles of 64 through a ring
// of stages in shared memory. A score that exceeds the threshold of its row goes to the row's list in global memory; a
// full list is pruned by its warp (cuda_tiles.hpp has the proof), which raises the threshold. Blocks take row blocks
// from a counter; lists of a row depend on its row block only.
//
// Floor: n^2 x depth multiply-adds at the rate of mma.sync (about 600 TFLOP/s on H100/H200): 0.21 s for 10^6 x 64,
// where no tile can be passed over. Columns are read once per row block: n^2 x depth x 2 / 256 bytes from L2.
#include <cuda_pipeline.h>

#include <cmath>

#include "core/cuda/cuda_check.cuh"
#include "core/cuda/kernel_attributes.cuh"
#include "pp/knn/cuda_mma.cuh"
#include "pp/knn/cuda_tiles.hpp"

namespace scw::pp::cuda {
namespace {

constexpr int kThreads = 128, kWarps = 4;
constexpr int kChunk = 32;        // depth of a stage where rows pass through shared memory
constexpr int kStep = 16;         // columns between two looks at the lists
constexpr int kListEnough = 512;  // tiles that are listed before they are searched
constexpr int kListRoom = kListEnough + kThreads;
constexpr float kLeast = -1e37f;  // below every score, above those of padding
constexpr float kInfinity = INFINITY;

struct Candidate {
  float low, up;
  std::int32_t position;
};

/// bar: the k-th smallest `up` so far; -inf: takes nothing (padding, or left to another search).
struct alignas(16) RowState {
  float bar, size, residual, error;
};

struct Columns {
  const __half* z;
  const float* offset;
  const TileBound* tiles;
};

struct Args {
  Columns columns, pivots;
  const std::int32_t* n_tiles;
  const std::int32_t* first_tile;  // of cells
  int cells;
  const __half* queries;
  const PointBound* bounds;
  const std::int32_t* self;  // null: queries are the columns
  std::int64_t n_queries;    // < 0: n_tiles x 64
  std::int64_t depth;
  int others, capacity, found_capacity;
  bool similarity;
  std::int64_t first, count;  // queries of this launch
  Candidate* lists;           // [blocks x rows x capacity]
  std::int32_t* found;
  std::int32_t* counts;
  int* next;
};

struct Interval {
  float low, up;
};
__device__ inline float dot_slack(const RowState& q, const TileBound& t) {
  return 1.00001f * __fmaf_rn(q.size, t.residual, __fmaf_rn(q.residual, t.reach, q.error + t.error));
}
__device__ inline Interval interval(const RowState& q, const TileBound& t, float score, bool similarity) {
  if (similarity) {
    const float slack = dot_slack(q, t);
    return {-score - slack, slack - score};
  }
  const float half = q.size - score, error = q.error + t.error, apart = q.residual + t.residual;
  return {rough_root(2.0f * fmaxf(half - error, 0.0f)) * (1.0f - 0x1p-20f) - apart,
          rough_root(2.0f * fmaxf(half + error, 0.0f)) * (1.0f + 0x1p-20f) + apart};
}
/// No score at or below it has low <= bar.
__device__ inline float threshold(const RowState& q, const TileBound& t, bool similarity) {
  float out = 0;
  if (similarity) {
    out = -q.bar - dot_slack(q, t);
  } else {
    const float far = q.bar + (q.residual + t.residual);
    out = (q.size - (q.error + t.error)) - far * far * 0.500002f;
  }
  return q.bar == -kInfinity ? kInfinity : fmaxf(out, kLeast);
}

/// By one warp: an upper bound of the wanted-th smallest of value(0..count), by bisection.
template <class Value>
__device__ inline float nth_smallest(int count, int wanted, int lane, const Value& value) {
  constexpr int kHeld = 8;
  unsigned held[kHeld], low = 0xFFFFFFFFu, high = 0;
#pragma unroll
  for (int u = 0; u < kHeld; ++u) {
    const int c = lane + 32 * u;
    held[u] = c < count ? ordered(value(c)) : 0xFFFFFFFFu;
    if (c < count) {
      low = held[u] < low ? held[u] : low;
      high = held[u] > high ? held[u] : high;
    }
  }
  for (int c = lane + 32 * kHeld; c < count; c += 32) {
    const unsigned v = ordered(value(c));
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const unsigned l = __shfl_xor_sync(kAllLanes, low, offset), h = __shfl_xor_sync(kAllLanes, high, offset);
    low = l < low ? l : low;
    high = h > high ? h : high;
  }
  while (low < high) {  // at least `wanted` are at or below high
    const unsigned mid = low + (high - low) / 2;
    int below = 0;
#pragma unroll
    for (int u = 0; u < kHeld; ++u)
      if (32 * u < count) below += __popc(__ballot_sync(kAllLanes, held[u] <= mid));
    for (int base = 32 * kHeld; base < count; base += 32) {
      const int c = base + lane;
      below += __popc(__ballot_sync(kAllLanes, c < count && ordered(value(c)) <= mid));
    }
    if (below >= wanted)
      high = mid;
    else
      low = mid + 1;
    if (below == wanted) break;
  }
  return from_ordered(high);
}

/// By one warp: drops what cannot be a neighbour. Returns how many are left; lowers bar.
__device__ int prune(Candidate* list, int count, int wanted, float& bar, int lane) {
  if (count < wanted) return count;
  bar = fminf(bar, nth_smallest(count, wanted, lane, [list](int c) { return list[c].up; }));
  int kept = 0;
  for (int base = 0; base < count; base += 32) {
    const int c = base + lane;
    Candidate mine{0.0f, 0.0f, 0};
    if (c < count) mine = list[c];
    __syncwarp();  // all have read before any writes, and to places already read
    const bool keep = c < count && mine.low <= bar;
    const unsigned votes = __ballot_sync(kAllLanes, keep);
    if (keep) list[kept + __popc(votes & ((1u << lane) - 1u))] = mine;
    kept += __popc(votes);
    __syncwarp();
  }
  return kept;
}

template <int MT, int KS>
struct Shape {
  static constexpr int kRows = MT * 16 * kWarps;
  static constexpr int kDepth = KS > 0 ? KS * 16 : kChunk;  // of a stage
  static constexpr int kPitch = kDepth + 8;                 // keeps the rows of a tile in different banks
  static constexpr int kStages = KS == 0 || KS == 8 ? 2 : 3;
};
template <int MT, int KS>
struct alignas(16) Stage {
  __half b[kTileColumns][Shape<MT, KS>::kPitch];
  __half a[KS > 0 ? 1 : Shape<MT, KS>::kRows][KS > 0 ? 8 : Shape<MT, KS>::kPitch];
  float offset[kTileColumns];
  TileBound bound;
};
template <int MT, int KS>
struct alignas(16) Shared {
  Stage<MT, KS> stages[Shape<MT, KS>::kStages];
  RowState rows[Shape<MT, KS>::kRows];
  std::int32_t self[Shape<MT, KS>::kRows];
  int filled[Shape<MT, KS>::kRows];  // -1: left to another search
  int room[Shape<MT, KS>::kRows];
  unsigned gap[kMostCells];  // of cells: smallest (distance to the pivot - bar) of the rows, ordered()
  std::uint8_t state[kMostCells];
  std::int32_t list[kListRoom];
  float queue[kWarps][8 * MT][32];  // scores that exceed a threshold, on their way to the lists
  int votes[kWarps];
  int block;
};
enum CellState : std::uint8_t { kWaiting, kChosen, kDone };

/// Scores of 16 x MT rows and kStep columns, one warp. acc[m][n][e]: row 16 m + 8 (e / 2) + lane / 4, column 8 n +
/// 2 (lane % 4) + e % 2.
template <int MT>
using Scores = float[MT][2][4];

/// Takes scores into lists.
template <int MT, int KS>
struct Selector {
  Shared<MT, KS>& s;
  const Args& args;
  Candidate* lists;  // of the block
  int lane, warp_row;
  float least[2 * MT];
  TileBound bound;
  std::int32_t first_column;

  __device__ void refresh(int m) {
    for (int h = 0; h < 2; ++h)
      least[2 * m + h] = threshold(s.rows[warp_row + 16 * m + 8 * h + lane / 4], bound, args.similarity);
  }
  __device__ void refresh_all() {
#pragma unroll
    for (int m = 0; m < MT; ++m) refresh(m);
  }
  __device__ void begin(const TileBound& b, std::int32_t tile) {
    const bool same =
        b.residual == bound.residual && b.error == bound.error && (b.reach == bound.reach || !args.similarity);
    bound = b;
    first_column = tile * kTileColumns;
    if (!same) refresh_all();
  }
  __device__ void take(const Scores<MT>& acc, int column) {
    bool hit[MT], any = false;
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      hit[m] = false;
#pragma unroll
      for (int e = 0; e < 8; ++e) hit[m] |= acc[m][e / 4][e % 4] > least[2 * m + (e % 4) / 2];
      any |= hit[m];
    }
    if (!__any_sync(kAllLanes, any)) return;
    // Each lane reads only what it wrote.
    float(*const queue)[32] = s.queue[warp_row / (16 * MT)];
    unsigned waiting = 0;
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      if (!__any_sync(kAllLanes, hit[m])) continue;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const float score = acc[m][e / 4][e % 4];
        queue[8 * m + e][lane] = score;
        if (score > least[2 * m + (e % 4) / 2]) waiting |= 1u << (8 * m + e);
      }
    }
#pragma unroll 1
    for (; waiting != 0; waiting &= waiting - 1) {
      const int at = __ffs(static_cast<int>(waiting)) - 1, m = at / 8, e = at % 8;
      offer(warp_row + 16 * m + 8 * ((e % 4) / 2) + lane / 4, queue[at][lane],
            first_column + column + 8 * (e / 4) + 2 * (lane % 4) + (e & 1));
    }
    __syncwarp();
    make_room();
  }
  __device__ void offer(int row, float score, std::int32_t position) {
    const RowState q = s.rows[row];
    const Interval v = interval(q, bound, score, args.similarity);
    if (!(v.low <= q.bar) || position == s.self[row]) return;
    const int slot = atomicAdd(&s.filled[row], 1);  // there is room: see make_room
    lists[std::int64_t{row} * args.capacity + slot] = {v.low, v.up, position};
  }
  /// Prunes the lists that could not take another step's columns.
  __device__ void make_room() {
    bool changed = false;
#pragma unroll 1
    for (int first = warp_row; first < warp_row + 16 * MT; first += 32) {
      unsigned full = __ballot_sync(kAllLanes, s.filled[first + lane] > s.room[first + lane] - kStep);
      changed |= full != 0;
      for (; full != 0; full &= full - 1) {
        const int row = first + __ffs(static_cast<int>(full)) - 1;
        float bar = s.rows[row].bar;
        const int left = prune(lists + std::int64_t{row} * args.capacity, s.filled[row], args.others, bar, lane);
        int room = s.room[row];
        __syncwarp();
        if (lane == 0) {
          // Pruned often, since a tight threshold spares more than it costs; but not for a few places.
          if (left > room - kStep - args.others / 4 - 4) room = 2 * room < args.capacity ? 2 * room : args.capacity;
          const bool closed = left > room - kStep;
          s.room[row] = room;
          s.filled[row] = closed ? -1 : left;
          s.rows[row].bar = closed ? -kInfinity : bar;
        }
        __syncwarp();
      }
    }
    if (changed) refresh_all();
  }
};

/// The first bars: of groups of columns only the best score counts, so that nothing has to be listed.
template <int MT, int KS>
struct Seeder {
  Shared<MT, KS>& s;
  const Args& args;
  float* values;  // rows of `pitch`
  std::int64_t pitch;
  bool by_tile;  // groups of 16 columns, else of 4
  int lane, warp_row, written;
  float best[2 * MT];
  TileBound bound;

  __device__ void begin(const TileBound& b, std::int32_t) { bound = b; }
  __device__ void take(const Scores<MT>& acc, int column) {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float most =
            fmaxf(fmaxf(acc[m][0][2 * h], acc[m][0][2 * h + 1]), fmaxf(acc[m][1][2 * h], acc[m][1][2 * h + 1]));
        best[2 * m + h] = by_tile && column > 0 ? fmaxf(best[2 * m + h], most) : most;
      }
    if (by_tile && column + kStep < kTileColumns) return;
#pragma unroll
    for (int r = 0; r < 2 * MT; ++r) {
      const int row = warp_row + 8 * r + lane / 4;
      values[row * pitch + 4 * written + lane % 4] = interval(s.rows[row], bound, best[r], args.similarity).up;
    }
    ++written;
  }
  /// Of the rows of the warp. The query itself may be among the columns: one more.
  __device__ void set_bars() {
    __syncwarp();
    const int count = 4 * written, wanted = args.others + 1;
    for (int row = warp_row; row < warp_row + 16 * MT && count >= wanted; ++row) {
      const float* const v = values + row * pitch;
      const float bar = nth_smallest(count, wanted, lane, [v](int c) { return v[c]; });
      if (lane == 0 && s.rows[row].bar > 0) s.rows[row].bar = fminf(s.rows[row].bar, bar);
    }
    __syncwarp();
  }
};

/// Measures cells: how far behind the bar of every row their pivot is.
template <int MT, int KS>
struct Gauge {
  Shared<MT, KS>& s;
  const Args& args;
  int lane, warp_row;
  TileBound bound;
  std::int32_t first_column;

  __device__ void begin(const TileBound& b, std::int32_t tile) {
    bound = b;
    first_column = tile * kTileColumns;
  }
  __device__ void take(const Scores<MT>& acc, int column) {
    float gap[4] = {kInfinity, kInfinity, kInfinity, kInfinity};
#pragma unroll
    for (int m = 0; m < MT; ++m)
      for (int h = 0; h < 2; ++h) {
        const RowState q = s.rows[warp_row + 16 * m + 8 * h + lane / 4];
        if (q.bar == -kInfinity) continue;
        const float size = q.size - (q.error + bound.error), bar = q.bar + q.residual;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const float half = fmaxf(size - acc[m][c / 2][2 * h + c % 2], 0.0f);
          gap[c] = fminf(gap[c], rough_root(2.0f * half) * (1.0f - 0x1p-20f) - bar);
        }
      }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      for (int offset = 4; offset < 32; offset *= 2) gap[c] = fminf(gap[c], __shfl_xor_sync(kAllLanes, gap[c], offset));
      const int cell = first_column + column + 8 * (c / 2) + 2 * (lane % 4) + c % 2;
      if (lane < 4 && cell < args.cells) atomicMin(&s.gap[cell], ordered(gap[c]));
    }
  }
};

template <int MT, int KS>
__device__ void load_stage(Stage<MT, KS>& stage, const Columns& columns, std::int32_t tile, int chunk, const Args& args,
                           std::int64_t query) {
  using S = Shape<MT, KS>;
  constexpr int kPieces = S::kDepth / 8;  // of 16 bytes, in a row
  const int t = static_cast<int>(threadIdx.x);
  const __half* const b = columns.z + std::int64_t{tile} * kTileColumns * args.depth + chunk * S::kDepth;
  for (int p = t; p < kTileColumns * kPieces; p += kThreads)
    __pipeline_memcpy_async(&stage.b[p / kPieces][p % kPieces * 8], b + (p / kPieces) * args.depth + p % kPieces * 8,
                            16);
  if constexpr (KS == 0) {
    const __half* const a = args.queries + query * args.depth + chunk * S::kDepth;
    for (int p = t; p < S::kRows * kPieces; p += kThreads)
      __pipeline_memcpy_async(&stage.a[p / kPieces][p % kPieces * 8], a + (p / kPieces) * args.depth + p % kPieces * 8,
                              16);
  }
  if (t < kTileColumns / 4)
    __pipeline_memcpy_async(&stage.offset[4 * t], columns.offset + std::int64_t{tile} * kTileColumns + 4 * t, 16);
  if (t == kTileColumns / 4) __pipeline_memcpy_async(&stage.bound, columns.tiles + tile, 16);
}

/// All rows of the block against `count` tiles: list[0..count), or tiles 0..count.
template <int MT, int KS, class Use>
__device__ void sweep(Shared<MT, KS>& s, const Args& args, const Columns& columns, std::int64_t query,
                      const unsigned (&a)[KS > 0 ? KS : 1][MT][4], const std::int32_t* list, int count, Use& use) {
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  const int chunks = KS > 0 ? 1 : static_cast<int>(args.depth / kChunk);
  const std::int64_t steps = std::int64_t{count} * chunks;
  constexpr int kStages = Shape<MT, KS>::kStages;
  const auto tile_of = [&](int at) { return list != nullptr ? list[at] : at; };
  int next_tile = 0, next_chunk = 0;
  const auto load_next = [&](std::int64_t step) {
    if (step < steps) {
      load_stage(s.stages[step % kStages], columns, tile_of(next_tile), next_chunk, args, query);
      if (++next_chunk == chunks) {
        next_chunk = 0;
        ++next_tile;
      }
    }
    __pipeline_commit();
  };
  for (int p = 0; p < kStages - 1; ++p) load_next(p);
  // Row of a tile and depth that this lane points ldmatrix at: two steps of 16 for 8 columns.
  const int b_row = lane % 8, b_k = lane / 8 * 8;
  if constexpr (KS > 0) {
    for (int i = 0; i < count; ++i) {
      __pipeline_wait_prior(kStages - 2);
      __syncthreads();
      load_next(std::int64_t{i} + kStages - 1);
      const Stage<MT, KS>& stage = s.stages[i % kStages];
      use.begin(stage.bound, tile_of(i));
#pragma unroll 1
      for (int column = 0; column < kTileColumns; column += kStep) {
        Scores<MT> acc;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          unsigned b[KS / 2][4];
#pragma unroll
          for (int k = 0; k < KS / 2; ++k) load_tiles(b[k], &stage.b[column + 8 * n + b_row][32 * k + b_k]);
          const float2 c = *reinterpret_cast<const float2*>(&stage.offset[column + 8 * n + 2 * (lane % 4)]);
#pragma unroll
          for (int m = 0; m < MT; ++m) multiply_first(acc[m][n], a[0][m], b[0][0], b[0][1], c.x, c.y);
#pragma unroll
          for (int k = 1; k < KS; ++k)
#pragma unroll
            for (int m = 0; m < MT; ++m)
              multiply_add(acc[m][n], a[k][m], b[k / 2][2 * (k % 2)], b[k / 2][2 * (k % 2) + 1]);
        }
        use.take(acc, column);
      }
    }
  } else {
    constexpr int kGroups = kTileColumns / kStep;
    float acc[kGroups][MT][2][4];
    for (std::int64_t step = 0; step < steps; ++step) {
      const int chunk = static_cast<int>(step % chunks);
      __pipeline_wait_prior(kStages - 2);
      __syncthreads();
      load_next(step + kStages - 1);
      const Stage<MT, KS>& stage = s.stages[step % kStages];
      unsigned rows[2][MT][4];
#pragma unroll
      for (int k = 0; k < 2; ++k)
#pragma unroll
        for (int m = 0; m < MT; ++m)
          load_tiles(rows[k][m], &stage.a[(warp * MT + m) * 16 + lane % 16][16 * k + lane / 16 * 8]);
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          unsigned b[4];
          load_tiles(b, &stage.b[kStep * g + 8 * n + b_row][b_k]);
          if (chunk == 0) {
            const float2 c = *reinterpret_cast<const float2*>(&stage.offset[kStep * g + 8 * n + 2 * (lane % 4)]);
#pragma unroll
            for (int m = 0; m < MT; ++m) multiply_first(acc[g][m][n], rows[0][m], b[0], b[1], c.x, c.y);
          } else {
#pragma unroll
            for (int m = 0; m < MT; ++m) multiply_add(acc[g][m][n], rows[0][m], b[0], b[1]);
          }
#pragma unroll
          for (int m = 0; m < MT; ++m) multiply_add(acc[g][m][n], rows[1][m], b[2], b[3]);
        }
      if (chunk + 1 < chunks) continue;
      use.begin(stage.bound, tile_of(static_cast<int>(step / chunks)));
#pragma unroll
      for (int g = 0; g < kGroups; ++g) use.take(acc[g], kStep * g);
    }
  }
  __pipeline_wait_prior(0);
  __syncthreads();
}

/// Appends the tiles of [at, end) that are wanted to the list, until there are enough; returns where it stopped.
template <int MT, int KS, class Wanted>
__device__ std::int32_t list_tiles(Shared<MT, KS>& s, std::int32_t at, std::int32_t end, int& count,
                                   const Wanted& wanted) {
  const int t = static_cast<int>(threadIdx.x), lane = t & 31, warp = t / 32;
  count = 0;
  for (; at < end && count < kListEnough; at += kThreads) {
    const bool mine = at + t < end && wanted(at + t);
    const unsigned votes = __ballot_sync(kAllLanes, mine);
    if (lane == 0) s.votes[warp] = __popc(votes);
    __syncthreads();
    int place = count;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) place += s.votes[w];
      count += s.votes[w];
    }
    if (mine) s.list[place + __popc(votes & ((1u << lane) - 1u))] = at + t;
    __syncthreads();
  }
  return at;
}

/// The budget-th smallest gap of the cells that wait, or more: which cells come next.
template <int MT, int KS>
__device__ unsigned nearest_gap(Shared<MT, KS>& s, int cells, int budget) {
  unsigned low = 0, high = 0xFFFFFFFFu;
  for (int bit = 0; bit < 20; ++bit) {  // the leading bits will do
    const unsigned mid = low + (high - low) / 2;
    int below = 0;
    for (int q = 0; q < cells; q += kThreads) {
      const int cell = q + static_cast<int>(threadIdx.x);
      below += __syncthreads_count(cell < cells && s.state[cell] == kWaiting && s.gap[cell] <= mid ? 1 : 0);
    }
    if (below >= budget)
      high = mid;
    else
      low = mid + 1;
  }
  return high;
}

template <int MT, int KS>
__device__ void search_block(Shared<MT, KS>& s, const Args& args, std::int64_t query, std::int32_t n_tiles) {
  using S = Shape<MT, KS>;
  const int t = static_cast<int>(threadIdx.x), lane = t & 31, warp = t / 32, warp_row = warp * MT * 16;
  for (int r = t; r < S::kRows; r += kThreads) {
    const PointBound b = args.bounds[query + r];
    s.rows[r] = {b.residual < 0 ? -kInfinity : kInfinity, b.size, b.residual, b.error};
    s.self[r] = args.self != nullptr ? args.self[query + r] : static_cast<std::int32_t>(query) + r;
    s.filled[r] = 0;
    const int room = args.others + args.others / 2 + 20;
    s.room[r] = room < args.capacity ? room : args.capacity;
  }
  for (int q = t; q < args.cells; q += kThreads) s.state[q] = kWaiting;
  unsigned a[KS > 0 ? KS : 1][MT][4];
  if constexpr (KS > 0)
    for (int k = 0; k < KS; ++k)
      for (int m = 0; m < MT; ++m)
        load_rows(a[k][m], args.queries, query + warp_row + 16 * m, args.depth, 16 * k, lane);
  __syncthreads();
  Candidate* const lists = args.lists + std::int64_t{blockIdx.x} * S::kRows * args.capacity;
  Selector<MT, KS> selector{s, args, lists, lane, warp_row, {}, {-1.0f, 0.0f, 0.0f, 0}, 0};

  // Own cells first, which are next to each other (all tiles if there are no cells); then near cells, which bring the
  // bars down; then the rest.
  std::int32_t begin = 0, end = n_tiles;
  if (args.cells > 0) {
    const std::int32_t last = static_cast<std::int32_t>((query + S::kRows - 1) / kTileColumns);
    const int first_cell = args.columns.tiles[query / kTileColumns].cell;
    const int last_cell = args.columns.tiles[last < n_tiles ? last : n_tiles - 1].cell;
    begin = args.first_tile[first_cell];
    end = args.first_tile[last_cell + 1];
    for (int q = first_cell + t; q <= last_cell; q += kThreads) s.state[q] = kDone;
  }
  {
    const std::int64_t pitch = std::int64_t{args.capacity} * (sizeof(Candidate) / sizeof(float));
    const bool by_tile = args.others < 64;
    const int fit = static_cast<int>(pitch) / (by_tile ? 4 : 4 * kTileColumns / kStep);
    const int count = min(min(end - begin, fit), kListEnough);
    for (int at = t; at < count; at += kThreads) s.list[at] = begin + at;
    __syncthreads();
    Seeder<MT, KS> seeder{s, args, reinterpret_cast<float*>(lists), pitch, by_tile, lane, warp_row, 0, {}, {}};
    sweep<MT, KS>(s, args, args.columns, query, a, s.list, count, seeder);
    seeder.set_bars();
    __syncthreads();
  }
  const int rounds = args.cells > 0 ? 3 : 1;
#pragma unroll 1
  for (int round = 0; round < rounds; ++round) {
    if (round > 0) {
      for (int q = t; q < args.cells; q += kThreads) s.gap[q] = 0xFFFFFFFFu;
      __syncthreads();
      Gauge<MT, KS> gauge{s, args, lane, warp_row, {}, 0};
      sweep<MT, KS>(s, args, args.pivots, query, a, nullptr, (args.cells + kTileColumns - 1) / kTileColumns, gauge);
      const unsigned limit = round == 1 ? nearest_gap(s, args.cells, args.cells / 16 + 1) : 0xFFFFFFFFu;
      for (int q = t; q < args.cells; q += kThreads)
        if (s.state[q] != kWaiting || s.gap[q] <= limit) s.state[q] = s.state[q] == kWaiting ? kChosen : kDone;
      __syncthreads();
      begin = 0;
      end = n_tiles;
    }
    while (begin < end) {
      int count = 0;
      begin = list_tiles(s, begin, end, count, [&](std::int32_t tile) {
        if (round == 0) return true;
        const TileBound b = args.columns.tiles[tile];
        return s.state[b.cell] == kChosen && !(from_ordered(s.gap[b.cell]) > b.reach + b.residual);
      });
      sweep<MT, KS>(s, args, args.columns, query, a, s.list, count, selector);
    }
  }

  for (int r = warp_row; r < warp_row + MT * 16; ++r) {
    Candidate* const list = lists + std::int64_t{r} * args.capacity;
    float bar = s.rows[r].bar;
    int left = s.filled[r];
    const bool padding = s.rows[r].residual < 0;
    if (left > 0) left = prune(list, left, args.others, bar, lane);
    if (!padding && (left < args.others || left > args.found_capacity)) left = -1;
    const std::int64_t out = query + r - args.first;
    for (int c = lane; c < left; c += 32) args.found[out * args.found_capacity + c] = list[c].position;
    if (lane == 0) args.counts[out] = left;
  }
}

template <int MT, int KS>
__global__ void __launch_bounds__(kThreads, KS == 0 || MT == 4 || KS == 8 ? 2 : 3) score_kernel(Args args) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto& s = *reinterpret_cast<Shared<MT, KS>*>(shared_bytes);
  const std::int32_t n_tiles = *args.n_tiles;
  std::int64_t end = args.n_queries >= 0 ? args.n_queries : std::int64_t{n_tiles} * kTileColumns;
  if (end > args.first + args.count) end = args.first + args.count;
  while (true) {
    __syncthreads();
    if (threadIdx.x == 0) s.block = atomicAdd(args.next, 1);
    __syncthreads();
    const std::int64_t query = args.first + std::int64_t{s.block} * Shape<MT, KS>::kRows;
    if (query >= end) return;
    search_block<MT, KS>(s, args, query, n_tiles);
  }
}

template <int MT, int KS>
void launch(const Context& ctx, Args args) {
  using S = Shape<MT, KS>;
  const cudaStream_t stream = scw::cuda::stream_of(ctx);
  constexpr std::size_t kBytes = sizeof(Shared<MT, KS>);
  static_assert(kBytes <= 64 * 1024, "the least that a device has");
  if (kBytes > 48 * 1024)
    SCW_CUDA(cudaFuncSetAttribute(score_kernel<MT, KS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(kBytes)));
  SCW_CUDA(cudaFuncSetAttribute(score_kernel<MT, KS>, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared));
  int resident = 0, processors = 0;
  SCW_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, score_kernel<MT, KS>, kThreads, kBytes));
  SCW_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, ctx.device.id));
  const std::int64_t per_block = checked_mul(S::kRows, args.capacity);
  constexpr std::int64_t kListBytes = std::int64_t{256} << 20;
  const std::int64_t fit =
      std::max<std::int64_t>(processors, kListBytes / (per_block * static_cast<std::int64_t>(sizeof(Candidate))));
  const std::int64_t blocks = std::min<std::int64_t>(
      {(args.count + S::kRows - 1) / S::kRows, std::int64_t{std::max(resident, 1)} * processors, fit});
  Array<Candidate> lists(ctx.workspace, checked_mul(blocks, per_block), "neighbour candidates", ctx.stream);
  Array<int> next(ctx.workspace, 1, "neighbour candidates", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(next.data(), 0, sizeof(int), stream));
  args.lists = lists.data();
  args.next = next.data();
  score_kernel<MT, KS><<<static_cast<unsigned>(blocks), kThreads, kBytes, stream>>>(args);
  SCW_CUDA_LAUNCHED("knn score");
}

}  // namespace

/// Volta's tensor cores have other instructions; code for it holds traps instead, on any device that runs it.
bool has_tile_products() { return scw::cuda::compiled_for(&score_kernel<2, 0>) >= 75; }

int found_capacity(int others) { return (2 * others + 52 + 3) / 4 * 4; }

void find_candidates(const Context& ctx, const ScoreJob& job, std::int64_t first, std::int64_t n, Found& out) {
  const PointArrays& columns = *job.columns;
  const PointArrays& queries = job.queries != nullptr ? *job.queries : columns;
  const Cells& cells = *job.cells;
  Args args{};
  args.columns = {columns.z.data(), columns.offset.data(), job.tiles->data()};
  args.pivots = {cells.pivots.z.data(), cells.pivots.offset.data(), cells.pivot_tiles.data()};
  args.n_tiles = cells.n_tiles.data();
  args.first_tile = cells.first_tile.data();
  args.cells = job.with_cells ? cells.n_cells : 0;
  args.queries = queries.z.data();
  args.bounds = queries.bound.data();
  args.self = job.queries != nullptr ? job.self : nullptr;
  args.n_queries = job.queries != nullptr ? queries.n : -1;
  args.depth = columns.depth;
  args.others = job.others;
  args.capacity = 4 * job.others + 72;
  args.found_capacity = out.capacity;
  args.similarity = job.similarity;
  args.first = first;
  args.count = n;
  args.found = out.positions.data();
  args.counts = out.counts.data();
  // Small row blocks where large ones would leave multiprocessors idle.
  const bool large = n >= 256 * 1024;
  switch (columns.depth) {
    case 32:
      return large ? launch<4, 2>(ctx, args) : launch<2, 2>(ctx, args);
    case 64:
      return large ? launch<4, 4>(ctx, args) : launch<2, 4>(ctx, args);
    case 128:
      return launch<2, 8>(ctx, args);
    default:
      return launch<2, 0>(ctx, args);
  }
}

}  // namespace scw::pp::cuda
