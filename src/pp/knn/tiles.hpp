// Float scores of all pairs of rows, 6 x 64 at a time, compared with thresholds in registers: the CPU's inner loop of
// exact search. Which instruction set runs is chosen at run time; scores may differ in the last bits between them,
// which is why nothing but the choice of candidates depends on a score.
#pragma once

#include <cstdint>
#include <string_view>

#include "scwarp/core/config.hpp"

namespace scw::pp::cpu {

inline constexpr int kTileRows = 6;
inline constexpr int kTileColumns = 64;

struct Tile {
  const float* a = nullptr;  ///< [depth][6]
  const float* b = nullptr;  ///< [depth][64]
  std::int64_t depth = 0;
  const float* offset = nullptr;         ///< [64]: score = a.b - offset
  const float* row_threshold = nullptr;  ///< [6]: row r takes column c if score > row_threshold[r]
  const float* column_threshold =
      nullptr;                           ///< [64]: column c takes row r if score > column_threshold[c] + row_offset[r]
  const float* row_offset = nullptr;     ///< [6]
  float* score = nullptr;                ///< [6][64]: partial sums between depth blocks; written if something is taken
  bool first = true, last = true;        ///< depth block
  bool both = true;                      ///< test columns as well
  std::uint64_t row_hits[kTileRows];     ///< bit c: row r takes column c
  std::uint64_t column_hits[kTileRows];  ///< bit c: column c takes row r
};

/// Whether any hit (last block only; then score and the hits are written).
using TileFunction = bool (*)(Tile&);

/// The fastest version for this machine.
TileFunction tile_function();
/// "avx512", "avx2" or "portable"; null where this machine lacks it.
SCW_API TileFunction tile_function(std::string_view name);

}  // namespace scw::pp::cpu
