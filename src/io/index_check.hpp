// Are the indices of a sparse matrix in range and rising in every row? Found out while they are being read, piece by
// piece in the cache of the thread that unpacked it, instead of by further passes over memory.
#pragma once

#include <cstdint>
#include <vector>

#include "scwarp/core/config.hpp"
#include "scwarp/core/views.hpp"

namespace scw::io {

class SCW_API IndexCheck {
 public:
  /// Offsets of rows, of all of a matrix or of some (not falling), columns, and where pieces end: at multiples of this,
  /// and with the last row. `indptr` must outlive this.
  IndexCheck(Span<const std::int64_t> indptr, std::int64_t n_cols, std::int64_t piece);
  /// Indices [first, first + n), a whole piece. Different pieces may be looked at by several threads at once.
  void look(std::int64_t first, const std::int32_t* x, std::int64_t n);
  /// Whether all pieces are in range and all rows rise strictly. After all pieces.
  bool is_clean() const;

 private:
  struct Piece {
    std::int32_t front = 0, back = 0;
    bool clean = false;
  };
  Span<const std::int64_t> indptr_;
  std::int64_t n_cols_, piece_;
  std::int64_t first_piece_;
  std::vector<Piece> pieces_;
};

}  // namespace scw::io
