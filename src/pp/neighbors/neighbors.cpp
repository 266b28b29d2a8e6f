#include "scwarp/pp/neighbors.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "pp/neighbors/kernel.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const KnnView&, const ConnectivityOptions&, Csr<float>&)> connectivities_kernel{
    "pp.neighbors: connectivities"};
constinit Kernel<void(const Context&, const MatrixView<const float>&, int, const MatrixView<float>&)>
    gauss_kernel_kernel{"pp.neighbors: dense gauss"};
constinit Kernel<void(const Context&, const KnnView&, Csr<float>&)> distance_graph_kernel{
    "pp.neighbors: distance graph"};

namespace {

constexpr const char* kOp = "pp.neighbors";

void check_lists(const KnnView& knn) {
  SCW_EXPECT(knn.n >= 0 && knn.n < (std::int64_t{1} << 31) && knn.k >= 1, kOp,
             "neighbour lists need at least one column and fewer than 2^31 rows (got {} x {})", knn.n, knn.k);
  const std::int64_t size = checked_mul(knn.n, knn.k);
  SCW_EXPECT_AS(ShapeMismatch, knn.indices.size == size && knn.distances.size == size, kOp,
                "neighbour lists must have {} x {} entries (got {} indices, {} distances)", knn.n, knn.k,
                knn.indices.size, knn.distances.size);
}

}  // namespace

ConnectivityMethod parse_connectivity_method(std::string_view name) {
  if (name == "umap") return ConnectivityMethod::umap;
  if (name == "gauss") return ConnectivityMethod::gauss;
  if (name == "jaccard") return ConnectivityMethod::jaccard;
  detail::fail<InvalidArgument>(kOp, "unknown method (got '{}', expected umap, gauss or jaccard)", name);
}

Csr<float> connectivities(const Context& ctx, const KnnView& knn, const ConnectivityOptions& options) {
  check_lists(knn);
  Csr<float> out;
  connectivities_kernel(ctx, knn, options, out);
  return out;
}

Matrix<float> gauss_kernel(const Context& ctx, const MatrixView<const float>& distances, int n_neighbors) {
  SCW_EXPECT_AS(ShapeMismatch, distances.n_rows == distances.n_cols, kOp, "distances must be square (got {} x {})",
                distances.n_rows, distances.n_cols);
  SCW_EXPECT(n_neighbors >= 1 && n_neighbors <= std::max<std::int64_t>(1, distances.n_rows), kOp,
             "n_neighbors must be between 1 and the number of cells (got {}, {} cells)", n_neighbors, distances.n_rows);
  Matrix<float> out(ctx.memory, distances.n_rows, distances.n_cols, "connectivities", ctx.stream);
  if (distances.n_rows > 0) gauss_kernel_kernel(ctx, distances, n_neighbors, out.view());
  return out;
}

Csr<float> distance_graph(const Context& ctx, const KnnView& knn) {
  check_lists(knn);
  Csr<float> out;
  out.n_rows = knn.n;
  out.n_cols = static_cast<std::int32_t>(knn.n);
  const std::int64_t size = checked_mul(knn.n, knn.k - 1);
  out.indptr = Array<std::int64_t>(ctx.memory, knn.n + 1, "distances", ctx.stream);
  out.indices = Array<std::int32_t>(ctx.memory, size, "distances", ctx.stream);
  out.values = Array<float>(ctx.memory, size, "distances", ctx.stream);
  distance_graph_kernel(ctx, knn, out);
  return out;
}

Neighbors neighbors(const Context& ctx, const AnyMatrixView& x, const NeighborsOptions& options) {
  KnnOptions search = options.knn;
  const std::int64_t n = n_rows(x);
  if (search.n_neighbors > n && n > 0) {
    search.n_neighbors = static_cast<int>(1 + n / 2);
    ctx.warn(fmt::format("{}: only {} cells: n_neighbors is lowered to {}", kOp, n, search.n_neighbors));
  }
  Neighbors out;
  out.knn = knn(ctx, x, search);
  out.connectivities = connectivities(ctx, out.knn, {options.method, search.metric});
  return out;
}

}  // namespace scw::pp
