#include "core/estimate.hpp"

namespace scw::estimate {
namespace {

std::int64_t padded(std::int64_t n, std::int64_t to) { return ceil_div(n, to) * to; }

/// Half-precision rows with their bounds, twice while they are ordered; then the lists of what was found.
std::int64_t cuda_search(const Shape& s, std::int64_t k) {
  const std::int64_t n = s.n_rows, d = s.n_cols;
  std::int64_t depth = padded(d, 16);
  for (const std::int64_t fixed : {32, 64, 128})
    if (depth <= fixed) {
      depth = fixed;
      break;
    }
  if (depth > 128) depth = padded(depth, 32);
  const auto rows_bytes = [&](std::int64_t rows) { return rows * (2 * depth + 20); };
  const bool cells = n >= 2048;
  const std::int64_t n_cells = cells ? std::clamp<std::int64_t>(n / 1024, 8, 1024) : 0;
  const std::int64_t positions = padded(n + n_cells * 63, 256), aligned = padded(n, 256);
  const std::int64_t terms = 16 * n + 8 * d + 8 * n_cells + 256, pivots = padded(n_cells, 64) * (2 * depth + 5);
  const std::int64_t ordering =
      rows_bytes(aligned) + 4 * positions + pivots + (cells ? 16 * n + 12 * n_cells + sort_scratch(n, 8, false) : 0);
  const std::int64_t capacity = (2 * (k - 1) + 55) / 4 * 4;
  const double pairs = 1.2e12 * 64 / static_cast<double>(depth);
  const std::int64_t batch = std::min(
      positions, padded(std::max<std::int64_t>(1, std::min(static_cast<std::int64_t>(pairs / static_cast<double>(n)),
                                                           (std::int64_t{512} << 20) / (4 * capacity))),
                        256));
  // Candidates of the rows that are searched at once: two or three blocks of threads a multiprocessor.
  const bool large = batch >= 256 * 1024 && depth <= 64;
  const std::int64_t rows_at_once = kMultiprocessors * (large ? 512 : depth <= 64 ? 384 : 256);
  const std::int64_t lists = 12 * (4 * (k - 1) + 72) * std::min(rows_at_once, padded(batch, 256)) + 4;
  const std::int64_t searching = rows_bytes(positions) + 16 * (positions / 64) + 4 * positions + pivots + 8 * aligned +
                                 4 * batch * (capacity + 1) + lists;
  return terms + std::max(ordering, searching);
}

std::int64_t cpu_search(const Shape& s, std::int64_t k) {
  const std::int64_t n = s.n_rows, d = s.n_cols, rows = padded(n, 192);
  const std::int64_t panels = d <= 1024 ? 4 * rows * d : 0;
  const std::int64_t candidates = n * (8 * (3 * k + 48) + 8 + 1) + 4 * rows;
  return 16 * n + panels + 8 * rows + candidates + threads(s) * (4 * 192 * d + 4 * 192 * 64);
}

}  // namespace

Need knn(const Shape& s, std::int64_t n_neighbors) {
  const std::int64_t kept = 8 * checked_mul(s.n_rows, n_neighbors);
  return {kept + (on_cuda(s) ? cuda_search(s, n_neighbors) : cpu_search(s, n_neighbors)), kept};
}

}  // namespace scw::estimate
