#include "io/index_check.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace scw::io {
namespace {

bool is_clean(const std::vector<std::int64_t>& indptr, const std::vector<std::int32_t>& x, std::int64_t n_cols,
              std::int64_t piece) {
  IndexCheck check({indptr.data(), static_cast<std::int64_t>(indptr.size())}, n_cols, piece);
  const auto n = static_cast<std::int64_t>(x.size());
  for (std::int64_t first = 0; first < n; first += piece)
    check.look(first, x.data() + first, std::min(piece, n - first));
  return check.is_clean();
}

/// The same, said plainly.
bool expected(const std::vector<std::int64_t>& indptr, const std::vector<std::int32_t>& x, std::int64_t n_cols) {
  for (std::size_t i = 0; i + 1 < indptr.size(); ++i)
    for (auto p = static_cast<std::size_t>(indptr[i]); p < static_cast<std::size_t>(indptr[i + 1]); ++p)
      if (x[p] < 0 || x[p] >= n_cols || (static_cast<std::int64_t>(p) > indptr[i] && x[p - 1] >= x[p])) return false;
  return true;
}

TEST(IndexCheck, AgreesWithThePlainTestForEveryChangeAndPiece) {
  const std::vector<std::int64_t> indptr{0, 0, 3, 3, 3, 8, 9, 12, 12};
  const std::vector<std::int32_t> good{1, 4, 9, 0, 2, 3, 7, 8, 5, 0, 1, 9};
  for (const std::int64_t piece : {1, 2, 3, 4, 5, 8, 12, 100}) {
    EXPECT_TRUE(is_clean(indptr, good, 10, piece)) << piece;
    EXPECT_FALSE(is_clean(indptr, good, 9, piece)) << piece;
    for (std::size_t p = 0; p < good.size(); ++p)
      for (const std::int32_t value : {-1, 0, 1, 2, 3, 5, 8, 9, 10}) {
        auto x = good;
        x[p] = value;
        EXPECT_EQ(is_clean(indptr, x, 10, piece), expected(indptr, x, 10)) << piece << " " << p << " " << value;
      }
  }
  EXPECT_TRUE(is_clean({0}, {}, 10, 4));
  EXPECT_TRUE(is_clean({0, 0, 0}, {}, 0, 4));
}

TEST(IndexCheck, OfSomeRowsOfAMatrix) {
  // Rows that begin at 7: pieces end at multiples of their size all the same.
  const std::vector<std::int64_t> from_zero{0, 0, 3, 3, 8, 9, 12};
  std::vector<std::int64_t> indptr = from_zero;
  for (auto& p : indptr) p += 7;
  const std::vector<std::int32_t> good{1, 4, 9, 0, 2, 3, 7, 8, 5, 0, 1, 9};
  for (const std::int64_t piece : {1, 2, 3, 4, 5, 7, 8, 10, 12, 100})
    for (std::size_t p = 0; p < good.size(); ++p)
      for (const std::int32_t value : {-1, 0, 1, 2, 3, 5, 8, 9, 10}) {
        auto x = good;
        x[p] = value;
        IndexCheck check({indptr.data(), static_cast<std::int64_t>(indptr.size())}, 10, piece);
        for (std::int64_t first = 7, end = 0; first < 19; first = end) {
          end = std::min<std::int64_t>(19, (first / piece + 1) * piece);
          check.look(first, x.data() + (first - 7), end - first);
        }
        EXPECT_EQ(check.is_clean(), expected(from_zero, x, 10)) << piece << " " << p << " " << value;
      }
  const std::vector<std::int64_t> empty{7, 7};
  EXPECT_TRUE(IndexCheck({empty.data(), 2}, 10, 4).is_clean());
}

}  // namespace
}  // namespace scw::io
