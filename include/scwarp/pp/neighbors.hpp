// Kind: driver over the search (knn.hpp) and the weights (shared body). Determinism tier A.
#pragma once

#include <string_view>

#include "scwarp/pp/knn.hpp"

namespace scw::pp {

/// Neighbour lists on ctx.device, the cell itself first in every row, then by rising distance (>= 0; of inner_product
/// falling similarity). An index of -1 is a missing neighbour.
struct KnnView {
  std::int64_t n = 0;
  int k = 0;
  Span<const std::int32_t> indices;  ///< [n x k]
  Span<const float> distances;       ///< [n x k]

  KnnView() = default;
  KnnView(std::int64_t cells, int width, Span<const std::int32_t> i, Span<const float> d)
      : n(cells), k(width), indices(i), distances(d) {}
  KnnView(const KnnResult& r) : n(r.n), k(r.k), indices(r.indices.view()), distances(r.distances.view()) {}
};

enum class ConnectivityMethod : std::uint8_t {
  umap,     ///< fuzzy simplicial set, W + W' - W o W'
  gauss,    ///< Gauss kernel with a width per cell, the larger of both directions
  jaccard,  ///< overlap of the neighbour sets, mean of both directions
};
/// "umap", "gauss", "jaccard". Throws InvalidArgument.
SCW_API ConnectivityMethod parse_connectivity_method(std::string_view name);

struct ConnectivityOptions {
  ConnectivityMethod method = ConnectivityMethod::umap;
  /// inner_product: distances are similarities and are turned into gap + span first (gap: best similarity of the row
  /// minus own, span: largest gap of the row, 1 if all are 0). Others are taken as they are. Ignored by jaccard.
  Metric metric = Metric::euclidean;
};

/// Symmetric weights in (0, 1], n x n, without diagonal, columns sorted.
/// umap: rho_i = smallest distance that is not 0, sigma_i from sum_j exp(-max(0, d_ij - rho_i) / sigma_i) = log2 k.
/// McInnes, Healy, Melville 2018, arXiv:1802.03426.
/// gauss: sigma_i^2 = median of the squared distances to the others;
/// w_ij = sqrt(2 s_i s_j / (s_i^2 + s_j^2)) exp(-d_ij^2 / (s_i^2 + s_j^2)). Haghverdi et al. 2016,
/// doi:10.1038/nmeth.3971. jaccard: |N_i n N_j| / (2 (k-1) - |N_i n N_j|) for j in N_i, the cell itself not counted.
/// Levine et al. 2015, doi:10.1016/j.cell.2015.05.047. Throws InvalidArgument (k < 1, 2^31 cells or more; on the CPU an
/// index that is no cell), ShapeMismatch (lists that are not n x k). Memory: the result and 3 x n x k x 8 bytes.
SCW_API Csr<float> connectivities(const Context& ctx, const KnnView& knn, const ConnectivityOptions& options = {});

/// Dense Gauss kernel of all distances [n x n]: sigma_i^2 = d_i^2 / 4 of the n_neighbors-th nearest, the cell itself
/// counted; weights of at most 1e-14 are 0; the diagonal is 1. Source: as gauss above. Throws ShapeMismatch (not
/// square), InvalidArgument (n_neighbors not in [1, n]). Memory: the result.
SCW_API Matrix<float> gauss_kernel(const Context& ctx, const MatrixView<const float>& distances, int n_neighbors);

/// The distances as n x n CSR with k - 1 entries per row, in the order of the lists (nearest first), the cell itself
/// left out. Zeros (duplicates) are stored. Throws as connectivities(). Memory: the result.
SCW_API Csr<float> distance_graph(const Context& ctx, const KnnView& knn);

struct NeighborsOptions {
  /// As knn(), but n_neighbors above the number of cells becomes 1 + n / 2, with a warning.
  KnnOptions knn;
  ConnectivityMethod method = ConnectivityMethod::umap;
};

struct Neighbors {
  KnnResult knn;
  Csr<float> connectivities;
};

/// Search and weights. x: cells x coordinates, as in knn(). Throws and memory: as knn(), then as connectivities().
SCW_API Neighbors neighbors(const Context& ctx, const AnyMatrixView& x, const NeighborsOptions& options = {});

}  // namespace scw::pp
