#include "prim/csr_to_csc.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "prim/radix_sort.hpp"

namespace scw::prim {
namespace {

struct Sparse {
  std::int64_t n_rows;
  std::int32_t n_cols;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;
  CsrView<const float> view() const { return {n_rows, n_cols, indptr, indices, values}; }
};

Sparse random_sparse(std::int64_t n, std::int32_t m, double density, unsigned seed) {
  Sparse s{n, m, {0}, {}, {}};
  std::mt19937 gen(seed);
  std::uniform_real_distribution<float> u(0, 1);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int32_t j = 0; j < m; ++j)
      if (u(gen) < density * (j % 7 == 0 ? 3 : 1) && j % 11 != 5) {
        s.indices.push_back(j);
        s.values.push_back(u(gen));
      }
    s.indptr.push_back(static_cast<std::int64_t>(s.indices.size()));
  }
  return s;
}

TEST(CsrToCsc, EveryEntryInItsColumnInRowOrder) {
  // Over 2^16 entries: several blocks.
  for (const auto& [n, m, density] : {std::tuple{900, 700, 0.4}, {3, 5, 0.5}, {0, 4, 0.5}, {1, 1, 1.0}, {50, 3, 0.0}}) {
    const Sparse s = random_sparse(n, m, density, 5);
    for (const int threads : {1, 3}) {
      const Csc<float> c = csr_to_csc(Context::cpu(threads), s.view());
      ASSERT_EQ(c.indptr.size(), m + 1);
      ASSERT_EQ(c.indptr[m], static_cast<std::int64_t>(s.indices.size()));
      std::vector<std::int64_t> at(c.indptr.begin(), c.indptr.end());
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t k = s.indptr[static_cast<std::size_t>(i)]; k < s.indptr[static_cast<std::size_t>(i) + 1];
             ++k) {
          const std::int64_t slot = at[static_cast<std::size_t>(s.indices[static_cast<std::size_t>(k)])]++;
          ASSERT_EQ(c.indices[slot], i);
          ASSERT_EQ(c.values[slot], s.values[static_cast<std::size_t>(k)]);
        }
    }
  }
}

TEST(CsrToCsc, ABlockOfRowsKeepsItsOffsets) {
  const Sparse s = random_sparse(40, 9, 0.4, 6);
  const auto part = s.view().rows(10, 20);
  const Csc<float> c = csr_to_csc(Context::cpu(2), part);
  EXPECT_EQ(c.indptr[9], part.nnz());
  for (std::int64_t k = 0; k < c.indices.size(); ++k) EXPECT_LT(c.indices[k], 20);
}

TEST(RadixSort, SortsStablyWhateverTheKeys) {
  std::mt19937_64 gen(9);
  struct E {
    std::uint64_t key;
    std::uint32_t id;
  };
  std::vector<std::uint32_t> scratch;
  for (const std::int64_t n : {0, 1, 2, 39, 41, 500, 20000})
    for (const int bits : {1, 7, 23, 33, 64}) {
      std::vector<E> a(static_cast<std::size_t>(n)), tmp(a.size());
      std::uint64_t low = ~std::uint64_t{0}, high = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        a[i] = {(gen() >> (64 - bits)) + (bits < 60 ? 12345u : 0u), static_cast<std::uint32_t>(i)};
        low = std::min(low, a[i].key);
        high = std::max(high, a[i].key);
      }
      std::vector<E> want = a;
      std::stable_sort(want.begin(), want.end(), [](const E& x, const E& y) { return x.key < y.key; });
      const E* got = radix_sort(a.data(), tmp.data(), n, [](const E& e) { return e.key; }, low, high, scratch);
      for (std::size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i].id, want[i].id) << n << ' ' << bits;
    }
}

TEST(RadixSort, SortableBitsKeepTheOrderAndComeBack) {
  const std::vector<float> values = {-INFINITY, -3e38f, -1.5f, -1e-40f, 0.0f, 1e-40f, 0.3f, 2.0f, 3e38f, INFINITY};
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(from_sortable_bits(sortable_bits(values[i])), values[i]);
    EXPECT_EQ(from_sortable_bits(sortable_bits(double{values[i]})), double{values[i]});
    if (i == 0) continue;
    EXPECT_LT(sortable_bits(values[i - 1]), sortable_bits(values[i]));
    EXPECT_LT(sortable_bits(double{values[i - 1]}), sortable_bits(double{values[i]}));
  }
}

}  // namespace
}  // namespace scw::prim
