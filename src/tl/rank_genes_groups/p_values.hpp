// Two-sided tail probabilities and their adjustment, on the host.
#pragma once

#include <algorithm>
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
  s.sorted = prim::radix_sort(
      s.entries.data(), s.other.data(), n, [](const SortScratch::Entry& e) { return e.key; }, low, high, s.histogram);
}

/// Benjamini & Hochberg 1995: p m / rank, running minimum from the largest p down, at most 1. p in [0, 1].
SCW_API void benjamini_hochberg(Span<const double> p, Span<double> adjusted, SortScratch& scratch);

}  // namespace scw::tl
