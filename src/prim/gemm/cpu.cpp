#include <algorithm>

#include "core/parallel.hpp"
#include "prim/blas.hpp"
#include "prim/gemm/kernel.hpp"

namespace scw::prim::cpu {
namespace {

// Tiles depend on the shape of c alone. Narrow results get narrow tiles, so that small products feed all threads.
constexpr std::int64_t kTileRows = 128;
constexpr std::int64_t kTileCols = 256;
constexpr std::int64_t kNarrowTileCols = 64;
constexpr std::int64_t kNarrow = 1024;

template <class T>
void run(const Context& ctx, const MatrixView<const T>& a, const MatrixView<const T>& b, const MatrixView<T>& c,
         const GemmOptions& o) {
  const std::int64_t inner = o.trans_a ? a.n_rows : a.n_cols;
  const std::int64_t tile_cols = c.n_cols <= kNarrow ? kNarrowTileCols : kTileCols;
  const std::int64_t across = chunk_count(c.n_cols, tile_cols);
  parallel_for(ctx, chunk_count(c.n_rows, kTileRows) * across, 1, [&](std::int64_t tile, std::int64_t) {
    const std::int64_t i = tile / across * kTileRows, j = tile % across * tile_cols;
    const std::int64_t rows = std::min(kTileRows, c.n_rows - i), cols = std::min(tile_cols, c.n_cols - j);
    blas::gemm(o.trans_a, o.trans_b, rows, cols, inner, static_cast<T>(o.alpha), a.data + (o.trans_a ? i : i * a.ld),
               a.ld, b.data + (o.trans_b ? j * b.ld : j), b.ld, static_cast<T>(o.beta), c.data + i * c.ld + j, c.ld);
  });
}

}  // namespace

void gemm_f32(const Context& ctx, const MatrixView<const float>& a, const MatrixView<const float>& b,
              const MatrixView<float>& c, const GemmOptions& o) {
  run(ctx, a, b, c, o);
}
void gemm_f64(const Context& ctx, const MatrixView<const double>& a, const MatrixView<const double>& b,
              const MatrixView<double>& c, const GemmOptions& o) {
  run(ctx, a, b, c, o);
}

SCW_REGISTER(gemm_f32_kernel, cpu, &gemm_f32);
SCW_REGISTER(gemm_f64_kernel, cpu, &gemm_f64);

}  // namespace scw::prim::cpu
