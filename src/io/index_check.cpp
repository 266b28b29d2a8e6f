#include "io/index_check.hpp"

#include <algorithm>

#include "core/simd.hpp"

namespace scw::io {
namespace {

struct Scan {
  std::uint32_t most = 0;     ///< negative ones are the largest
  std::int64_t descents = 0;  ///< positions that are not above the one before
};

SCW_CLONES Scan scan(const std::int32_t* x, std::int64_t n) {
  Scan s;
  for (std::int64_t begin = 0; begin < n; begin += 1 << 16) {
    const std::int64_t end = std::min<std::int64_t>(n, begin + (1 << 16));
    std::uint32_t most = 0;
    std::int32_t descents = 0;
    for (std::int64_t i = begin; i < end; ++i) most = std::max(most, static_cast<std::uint32_t>(x[i]));
    for (std::int64_t i = std::max<std::int64_t>(begin, 1); i < end; ++i) descents += x[i - 1] >= x[i] ? 1 : 0;
    s.most = std::max(s.most, most);
    s.descents += descents;
  }
  return s;
}

}  // namespace

IndexCheck::IndexCheck(Span<const std::int64_t> indptr, std::int64_t n_cols, std::int64_t piece)
    : indptr_(indptr), n_cols_(n_cols), piece_(piece), first_piece_(indptr[0] / piece) {
  const std::int64_t end = indptr[indptr.size - 1];
  if (end > indptr[0]) pieces_.resize(static_cast<std::size_t>((end + piece - 1) / piece - first_piece_));
}

void IndexCheck::look(std::int64_t first, const std::int32_t* x, std::int64_t n) {
  Piece& p = pieces_[static_cast<std::size_t>(first / piece_ - first_piece_)];
  const Scan s = scan(x, n);
  // Between the last of a row and the first of the next one anything goes.
  std::int64_t excused = 0, last = first;
  for (const auto* at = std::upper_bound(indptr_.begin(), indptr_.end(), first); at != indptr_.end() && *at < first + n;
       ++at) {
    if (*at != last && x[*at - first - 1] >= x[*at - first]) ++excused;
    last = *at;
  }
  p.front = x[0];
  p.back = x[n - 1];
  p.clean = static_cast<std::int64_t>(s.most) < n_cols_ && s.descents == excused;
}

bool IndexCheck::is_clean() const {
  for (std::size_t k = 0; k < pieces_.size(); ++k) {
    if (!pieces_[k].clean) return false;
    if (k > 0 && pieces_[k - 1].back >= pieces_[k].front &&
        !std::binary_search(indptr_.begin(), indptr_.end(), (first_piece_ + static_cast<std::int64_t>(k)) * piece_))
      return false;
  }
  return true;
}

}  // namespace scw::io
