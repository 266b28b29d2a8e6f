#include "core/estimate.hpp"
#include "pp/pca/kernel.hpp"
#include "prim/eigh/eigh.hpp"

namespace scw::estimate {
namespace {

constexpr std::int64_t kCublasBytes = std::int64_t{32} << 20;

std::int64_t halved(std::int64_t rows, std::int64_t least, std::int64_t row_bytes, std::int64_t most) {
  while (rows > least && rows * row_bytes > most) rows /= 2;
  return rows;
}

/// Basis and products of the iteration, its block and coefficients; or the copy that LAPACK works in.
std::int64_t eigenvectors(const Shape& s, std::int64_t m, std::int64_t k) {
  const Device device{s.device, 0};
  if (prim::eigh_is_direct(device, m, k)) return on_cuda(s) ? 0 : 8 * m * m + 8 * k * m;
  const std::int64_t limit = prim::eigh_basis_limit(device, k), block = on_cuda(s) ? 8 : 16;
  const std::int64_t kept = std::min(2 * k, k + (on_cuda(s) ? 30 : 64));
  std::int64_t bytes = 16 * limit * m + 8 * (block + std::max(kept, block)) * m + 8 * limit * limit;
  if (on_cuda(s)) return bytes + 8 * limit * limit + 8 * block * limit + 8 * 36 * ceil_div(m, 32) + 64;
  return bytes + 8 * 16 * m + 8 * block * limit;
}

Need cuda(const Shape& s, std::int64_t k, bool scaled, bool covariance, std::int64_t kept) {
  const std::int64_t n = s.n_rows, m = s.n_cols;
  const bool single = s.value_bytes == 4;
  const std::int64_t base = (4 + 4 + 3 * 8 + (scaled ? 16 : 0)) * m;
  // Rows that are there at once; blocks of less than a tile are kept until there is one, and put together.
  const auto blocks = [&](std::int64_t held) {
    Rooms r = rooms(s, held);
    const std::int64_t tile = std::min(pp::kPcaBlockRows, n);
    if (r.block.n_rows < tile) {
      const std::int64_t row = s.sparse ? ceil_div(s.nnz, n) * (s.value_bytes + 4) + 8 : m * s.value_bytes;
      r.bytes += 2 * tile * row + 8 * ceil_div(tile, r.block.n_rows) + 64;
      r.block.n_rows = tile;
    }
    return r;
  };
  const std::int64_t matrix = covariance ? 8 * m * m : 0;
  const Rooms r = blocks(base + matrix);
  const std::int64_t at_once = r.block.n_rows;
  const std::int64_t tile_rows = std::min(halved(4096, 256, 8 * m, std::int64_t{512} << 20), at_once);
  const std::int64_t double_tile = tile_rows * m * 8 + kCublasBytes;
  const Rooms first = blocks(base + 32 * m);
  const std::int64_t parts = std::min<std::int64_t>(256, ceil_div(first.block.n_rows, s.sparse ? 256 : 512));
  const std::int64_t sums = first.bytes + parts * m * 8 * (s.sparse ? 4 : 3);
  std::int64_t products = 0;
  if (!covariance) {
    products = eigenvectors(s, m, k) + r.bytes + double_tile + 8 * 4096 * 8 + 8 * m + (1 << 16);
  } else {
    const std::int64_t padded = pp::pca_padded(m);
    const std::int64_t rows = ceil_div(std::min<std::int64_t>(16384, at_once), 128) * 128;
    const std::int64_t sum = single ? 4 * pp::kPcaProducts * padded * padded + 3 * rows * padded + 24 * m +
                                          (s.sparse ? 4 * 2048 * m : 0) + kCublasBytes
                                    : double_tile;
    products = matrix + std::max(r.bytes + sum, eigenvectors(s, m, k) + 56 * m);
  }
  const std::int64_t components = 8 * m * k + 8 * k;
  const std::int64_t scores = kept + components + blocks(base + kept + components).bytes +
                              (single ? 4 * ceil_div(k, 64) * 64 * ceil_div(m, 8) * 8 : double_tile + 8 * 4096 * k);
  return {base + std::max({32 * m + sums, products, scores}), kept};
}

Need cpu(const Shape& s, std::int64_t k, bool scaled, bool covariance, std::int64_t kept) {
  const std::int64_t n = s.n_rows, m = s.n_cols, t = threads(s), v = s.value_bytes;
  const std::int64_t base = (4 + 4 + 3 * 8 + (scaled ? 16 : 0)) * m;
  const std::int64_t chunks = ceil_div(n, 4096), wave = std::min(chunks, 2 * t);
  const std::int64_t sums = 8 * 2 * m * wave + 32 * m;
  std::int64_t products = 0;
  if (!covariance) {
    products = eigenvectors(s, m, k) + 8 * 16 * m + 8 * wave * (m + 1) * 16 + 8 * m;
  } else {
    const double density = static_cast<double>(s.nnz) / std::max(1.0, static_cast<double>(n) * static_cast<double>(m));
    std::int64_t tile = std::min(n, halved(4096, 512, m * v, std::int64_t{32} << 20)) * m * v + t * 65536 * v;
    if (s.sparse && density * 2.5 < 1) {  // rows held twice: dense, and by gene
      const std::int64_t width = 512 / v, rows = std::min<std::int64_t>(n, m * v <= 12288 ? 2048 : 1024);
      const auto entries = static_cast<std::int64_t>(density * static_cast<double>(rows * m) * 1.125);
      tile = rows * ceil_div(m, width) * 512 + ceil_div(rows, 128) * m * 4 + entries * (2 + v);
    }
    products = 8 * m * m + std::max(tile, eigenvectors(s, m, k) + 32 * m);
  }
  const std::int64_t host = 16 * m * k + 8 * m * k;  // components in both orders, eigenvectors
  const std::int64_t scores =
      kept + host + (s.sparse ? 8 * m * ceil_div(k, 64) * 64 : v * m * k + t * 512 * (m + k) * v);
  return {base + std::max({sums, products, scores}), kept + 8 * m * k + 16 * k + 24 * m};
}

}  // namespace

Need pca(const Shape& s, std::int64_t n_comps, bool scale, bool double_scores) {
  const std::int64_t kept = checked_mul(s.n_rows, n_comps) * (double_scores ? 8 : 4);
  const bool covariance =
      s.n_cols <= pp::kPcaMaxCovarianceGenes || prim::eigh_is_direct({s.device, 0}, s.n_cols, n_comps);
  if (on_cuda(s)) return cuda(s, n_comps, scale, covariance, kept);
  // Blocks of fewer rows than a tile are kept until there is one, and put together.
  const Shape b = block_of(s);
  const std::int64_t tile = std::min(pp::kPcaBlockRows, s.n_rows);
  const std::int64_t row_bytes = s.sparse
                                     ? ceil_div(s.nnz, std::max<std::int64_t>(1, s.n_rows)) * (s.value_bytes + 4) + 8
                                     : s.n_cols * s.value_bytes;
  return from_file(s, cpu(s, n_comps, scale, covariance, kept),
                   b.n_rows < tile ? 2 * tile * row_bytes + 8 * ceil_div(tile, b.n_rows) + 64 : 0);
}

}  // namespace scw::estimate
