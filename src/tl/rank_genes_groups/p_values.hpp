// Two-sided tail probabilities and their adjustment, on the host.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "prim/radix_sort.hpp"

#include "scwarp/core/config.hpp"
#include "scwarp/core/views.hpp"

namespace scw::tl {

/// P(|T| > |t|), T Student's t with df > 0 degrees of freedom; NaN for NaN.
SCW_API double student_t_two_sided(double t, double df);

/// P(|Z| > |z|), Z standard normal: erfc(|z| / sqrt 2).
SCW_API double normal_two_sided(double z);

struct SortScratch {
  struct Entry {
    std::uint64_t key;
    std::int32_t index;
  };
  std::vector<Entry> entries, other;
  std::vector<std::uint32_t> histogram;
  const Entry* sorted = nullptr;  // what sort_by_key left
};

/// The numbers 0 .. n - 1 by ascending key(number), ties by number: several times faster than comparing.
template <class Key>
void sort_by_key(std::int64_t n, const Key& key, SortScratch& s) {
  s.entries.resize(static_cast<std::size_t>(n));
  s.other.resize(static_cast<std::size_t>(n));
  std::uint64_t low = ~std::uint64_t{0}, high = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const std::uint64_t k = key(j);
    low = std::min(low, k);
    high = std::max(high, k);
    s.entries[static_cast<std::size_t>(j)] = {k, static_cast<std::int32_t>(j)};
  }
  using Entry = SortScratch::Entry;
  if (n < 2) {
    s.sorted = s.entries.data();
    return;
  }
  // By the first bits of what keys differ in, which is nearly all of the work; then what is equal in them by the rest.
  constexpr int kFirst = 33;
  const int rest = std::max(0, static_cast<int>(std::bit_width(high - low)) - kFirst);
  const auto first_bits = [=](const Entry& e) { return (e.key - low) >> rest; };
  Entry* const a = prim::radix_sort(s.entries.data(), s.other.data(), n, first_bits, std::uint64_t{0},
                                    (high - low) >> rest, s.histogram);
  s.sorted = a;
  if (rest == 0) return;
  const auto by_key = [](const Entry& x, const Entry& y) { return x.key < y.key; };
  for (std::int64_t begin = 0, end = 0; begin < n; begin = end) {
    bool in_order = true;
    for (end = begin + 1; end < n && first_bits(a[end]) == first_bits(a[begin]); ++end)
      in_order = in_order && a[end - 1].key <= a[end].key;
    if (!in_order) std::stable_sort(a + begin, a + end, by_key);
  }
}

/// Benjamini & Hochberg 1995: p m / rank, running minimum from the largest p down, at most 1. p in [0, 1].
SCW_API void benjamini_hochberg(Span<const double> p, Span<double> adjusted, SortScratch& scratch);

}  // namespace scw::tl
