#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "get/aggregate/kernel.hpp"
#include "prim/column_tiles.hpp"
#include "prim/gene_entries.hpp"

namespace scw::get::cpu {
namespace {

/// Per group while one gene's sorted values go by.
struct Counter {
  std::int64_t stored = 0, negative = 0, nan = 0;
  std::int64_t seen = 0;
  std::int64_t wanted[2] = {-1, -1};  // positions of the middle values among the stored ones, -1: zero
  double value[2] = {0, 0};
};

/// out: one column for each of x.
template <class V, class X>
void run(const Context& ctx, const X& x, Span<const std::int32_t> codes, Span<const std::int64_t> sizes,
         MatrixView<double> out) {
  using E = prim::GeneEntry<V>;
  struct Scratch {
    std::vector<Counter> counters;
    std::vector<std::uint32_t> histogram;
  };
  std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  const auto takes_part = [&](std::int32_t code) { return code < sizes.size; };
  prim::for_each_gene(ctx, x, codes, takes_part, "aggregate: median",
                      [&](int worker, std::int64_t j, E* entries, E* tmp, std::int64_t n) {
                        Scratch& s = scratch[static_cast<std::size_t>(worker)];
                        s.counters.assign(static_cast<std::size_t>(sizes.size), Counter{});
                        Counter* const counters = s.counters.data();
                        for (std::int64_t i = 0; i < n; ++i) {
                          Counter& c = counters[entries[i].group()];
                          const V v = entries[i].value();
                          ++c.stored;
                          c.negative += v < 0;
                          c.nan += std::isnan(v);
                        }
                        for (std::int64_t g = 0; g < sizes.size; ++g) {
                          Counter& c = counters[g];
                          const std::int64_t zeros = sizes[g] - c.stored;
                          for (int h = 0; h < 2; ++h) {
                            const std::int64_t k = h == 0 ? (sizes[g] - 1) / 2 : sizes[g] / 2;
                            c.wanted[h] = k < c.negative ? k : (k < c.negative + zeros ? -1 : k - zeros);
                          }
                        }
                        const E* const sorted = prim::sort_entries<V>(entries, tmp, n, s.histogram);
                        for (std::int64_t i = 0; i < n; ++i) {
                          Counter& c = counters[sorted[i].group()];
                          for (int h = 0; h < 2; ++h)
                            if (c.seen == c.wanted[h]) c.value[h] = static_cast<double>(sorted[i].value());
                          ++c.seen;
                        }
                        for (std::int64_t g = 0; g < sizes.size; ++g) {
                          const Counter& c = counters[g];
                          const bool undefined = sizes[g] == 0 || c.nan > 0;
                          const double middle = c.value[0] == c.value[1] ? c.value[0] : (c.value[0] + c.value[1]) / 2;
                          out(g, j) = undefined ? std::numeric_limits<double>::quiet_NaN() : middle;
                        }
                      });
}

template <class V>
V value_type_of(const CsrView<const V>&);
template <class V>
V value_type_of(const MatrixView<const V>&);

}  // namespace

void group_median(const Context& ctx, const RowBlocks& x, Span<const std::int32_t> codes,
                  Span<const std::int64_t> sizes, MatrixView<double> out) {
  prim::for_each_column_tile(ctx, x, [&](std::int64_t first, const AnyMatrixView& tile) {
    const MatrixView<double> columns(out.data + first, out.n_rows, n_cols(tile), out.ld);
    std::visit([&](const auto& v) { run<decltype(value_type_of(v))>(ctx, v, codes, sizes, columns); }, tile);
  });
}

SCW_REGISTER(group_median_kernel, cpu, &group_median);

}  // namespace scw::get::cpu
