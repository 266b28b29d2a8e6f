// Exact search on CUDA. Dense rows and the five tile metrics: tensor cores choose candidates within a proven bound
// (cuda_tiles.hpp), which are scored again in double by the functions that the CPU uses. Everything else: all pairs.
#include "core/transfer.hpp"
#include "pp/knn/cuda_finish.cuh"
#include "pp/knn/cuda_tiles.hpp"

namespace scw::pp::cuda {
namespace {

constexpr std::int64_t kFoundBytes = std::int64_t{512} << 20;
constexpr double kLaunchWork = 1.2e12;  // pairs of 64 columns in one launch: cancelling waits for it
constexpr int kFewOpen = 256;           // rows that are not worth a second tile search

std::int64_t rounded_up(std::int64_t n) { return (n + kBlockAlign - 1) / kBlockAlign * kBlockAlign; }

/// Positions of the rows of a list, to leave a query out of its own candidates.
__global__ void inverse_kernel(const std::int32_t* order, std::int64_t n, std::int32_t* position) {
  for (std::int64_t p = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; p < n;
       p += std::int64_t{gridDim.x} * blockDim.x)
    if (order[p] >= 0) position[order[p]] = static_cast<std::int32_t>(p);
}
__global__ void gather_kernel(const std::int32_t* rows, std::int64_t n, const std::int32_t* position,
                              std::int32_t* out) {
  for (std::int64_t q = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; q < n;
       q += std::int64_t{gridDim.x} * blockDim.x)
    out[q] = rows[q] >= 0 ? position[rows[q]] : -1;
}

template <class M, class V>
class TileSearch {
 public:
  TileSearch(const Context& ctx, const M& metric, const MatrixView<const V>& x, KnnResult& out)
      : ctx_(ctx), metric_(metric), x_(x), out_(out), terms_(row_terms(ctx, x, out.metric)), n_open_(array(int{}, 1)) {
    plan_.metric = out.metric;
    plan_.columns = x.n_cols;
    plan_.terms = terms_.data();
    const bool centred = out.metric == Metric::euclidean || out.metric == Metric::sqeuclidean;
    find_origin(ctx, x, centred, origin_, largest_);
    plan_.origin = origin_.data();
    plan_.largest = largest_.data();
  }

  void run() {
    const std::int64_t n = x_.n_rows;
    Cells cells;
    {
      const PointArrays rows = pack_rows(ctx_, x_, plan_, nullptr, rounded_up(n), Packing::plain);
      cells = order_rows(ctx_, rows, n, plan_.similarity());
    }
    open_ = array(std::int32_t{}, rounded_up(n));
    std::int64_t left = 0;
    {
      const PointArrays columns = pack_rows(ctx_, x_, plan_, cells.order.data(), cells.n_positions, Packing::plain);
      const auto tiles = bound_tiles(ctx_, columns, cells, plan_.similarity());
      ScoreJob job;
      job.columns = &columns;
      job.tiles = &tiles;
      job.cells = &cells;
      left = search(job, cells.order.data(), cells.n_positions, cells.order.data());
    }
    if (left > kFewOpen) left = search_split(cells, left);
    out_.n_rescanned = left;
    scan(ctx_, metric_, x_, terms_.data(), open_.data(), left, out_);
  }

 private:
  template <class T>
  Array<T> array(T, std::int64_t size) const {
    return Array<T>(ctx_.workspace, size, "neighbour search", ctx_.stream);
  }

  /// Candidates and neighbours of the queries; returns how many rows are left, which are put into open_.
  std::int64_t search(ScoreJob& job, const std::int32_t* query_ids, std::int64_t n_queries,
                      const std::int32_t* column_ids) {
    job.others = out_.k - 1;
    job.similarity = plan_.similarity();
    Found found;
    found.capacity = found_capacity(job.others);
    const double pairs_per_launch = kLaunchWork * 64 / job.columns->depth;
    const std::int64_t by_work = static_cast<std::int64_t>(pairs_per_launch / static_cast<double>(x_.n_rows));
    const std::int64_t by_memory = kFoundBytes / (4 * found.capacity);
    const std::int64_t batch = std::min(n_queries, rounded_up(std::max<std::int64_t>(1, std::min(by_work, by_memory))));
    found.positions = array(std::int32_t{}, checked_mul(batch, found.capacity));
    found.counts = array(std::int32_t{}, batch);
    SCW_CUDA(cudaMemsetAsync(n_open_.data(), 0, sizeof(int), scw::cuda::stream_of(ctx_)));
    auto open = array(std::int32_t{}, rounded_up(x_.n_rows));
    for (std::int64_t first = 0; first < n_queries; first += batch) {
      ctx_.check_cancelled("pp.neighbors");
      const std::int64_t queries = std::min(batch, n_queries - first);
      SCW_CUDA(cudaMemsetAsync(found.counts.data(), 0, static_cast<std::size_t>(queries) * sizeof(std::int32_t),
                               scw::cuda::stream_of(ctx_)));
      find_candidates(ctx_, job, first, queries, found);
      finish(ctx_, metric_, x_,
             {terms_.data(), query_ids + first, column_ids, queries, out_.k, found.capacity, plan_.similarity(),
              found.positions.data(), found.counts.data(), out_.indices.data(), out_.distances.data(), open.data(),
              n_open_.data()});
      if (queries < n_queries) {
        ctx_.synchronize();
        ctx_.report("neighbours", first + queries, n_queries);
      }
    }
    open_ = std::move(open);
    return to_host<int>(ctx_, std::as_const(n_open_).view())[0];
  }

  /// The rows of open_ again, with rows of 22 bits.
  std::int64_t search_split(const Cells& cells, std::int64_t left) {
    const cudaStream_t stream = scw::cuda::stream_of(ctx_);
    const std::int64_t queries = rounded_up(left);
    if (queries > left)
      SCW_CUDA(cudaMemsetAsync(open_.data() + left, 0xFF, static_cast<std::size_t>(queries - left) * 4, stream));
    const Array<std::int32_t> ids = std::move(open_);
    auto position = array(std::int32_t{}, x_.n_rows), self = array(std::int32_t{}, queries);
    inverse_kernel<<<scw::cuda::grid_for(cells.n_positions, 256, 4096), 256, 0, stream>>>(
        cells.order.data(), cells.n_positions, position.data());
    SCW_CUDA_LAUNCHED("knn inverse");
    gather_kernel<<<scw::cuda::grid_for(queries, 256, 4096), 256, 0, stream>>>(ids.data(), queries, position.data(),
                                                                               self.data());
    SCW_CUDA_LAUNCHED("knn gather");
    const PointArrays columns =
        pack_rows(ctx_, x_, plan_, cells.order.data(), cells.n_positions, Packing::split_column);
    const PointArrays rows = pack_rows(ctx_, x_, plan_, ids.data(), queries, Packing::split_query);
    Cells plain;  // no pivots of this depth
    plain.n_positions = cells.n_positions;
    plain.n_tiles = array(std::int32_t{}, 1);
    SCW_CUDA(cudaMemcpyAsync(plain.n_tiles.data(), cells.n_tiles.data(), sizeof(std::int32_t), cudaMemcpyDeviceToDevice,
                             stream));
    const auto tiles = bound_tiles(ctx_, columns, plain, plan_.similarity());
    ScoreJob job;
    job.columns = &columns;
    job.tiles = &tiles;
    job.cells = &plain;
    job.queries = &rows;
    job.self = self.data();
    return search(job, ids.data(), queries, cells.order.data());
  }

  const Context& ctx_;
  const M& metric_;
  const MatrixView<const V>& x_;
  KnnResult& out_;
  PackPlan plan_;
  Array<math::RowTerm> terms_;
  Array<double> origin_;
  Array<unsigned long long> largest_;
  Array<int> n_open_;
  Array<std::int32_t> open_;
};

template <class M, class V>
void tile_search(const Context& ctx, const M& metric, const MatrixView<const V>& x, KnnResult& out) {
  TileSearch<M, V>(ctx, metric, x, out).run();
}

template <class V>
void dense_search(const Context& ctx, const MatrixView<const V>& x, double p, KnnResult& out) {
  const bool tiles = out.k > 1 && out.k <= kMostTileNeighbors && has_tile_products();
  switch (tiles ? out.metric : Metric::manhattan) {
    case Metric::euclidean:
      return tile_search(ctx, math::Euclidean{}, x, out);
    case Metric::sqeuclidean:
      return tile_search(ctx, math::SquaredEuclidean{}, x, out);
    case Metric::cosine:
      return tile_search(ctx, math::Cosine{}, x, out);
    case Metric::correlation:
      return tile_search(ctx, math::Correlation{}, x, out);
    case Metric::inner_product:
      return tile_search(ctx, math::InnerProduct{}, x, out);
    default:
      break;
  }
  if constexpr (std::is_same_v<V, float>)
    scan_dense_float(ctx, x, p, out);
  else
    scan_dense_double(ctx, x, p, out);
}

__device__ inline bool is_bad(double v, bool non_negative) { return !isfinite(v) || (non_negative && v < 0); }

template <class V>
__global__ void bad_row_kernel(MatrixView<const V> x, bool non_negative, unsigned long long* first) {
  const std::int64_t size = x.n_rows * x.n_cols;
  for (std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < size;
       at += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t i = at / x.n_cols;
    if (is_bad(static_cast<double>(x(i, at - i * x.n_cols)), non_negative))
      atomicMin(first, static_cast<unsigned long long>(i));
  }
}
template <class V>
__global__ void bad_row_kernel(CsrView<const V> x, bool non_negative, unsigned long long* first) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < x.n_rows;
       i += std::int64_t{gridDim.x} * blockDim.x)
    for (std::int64_t e = x.indptr.data[i]; e < x.indptr.data[i + 1]; ++e)
      if (is_bad(static_cast<double>(x.values.data[e]), non_negative))
        atomicMin(first, static_cast<unsigned long long>(i));
}

template <class M, class X>
__global__ void pairwise_cells_kernel(M metric, X x, const math::RowTerm* terms, bool similarity,
                                      MatrixView<float> out) {
  const std::int64_t size = x.n_rows * x.n_rows;
  for (std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < size;
       at += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t i = at / x.n_rows, j = at - i * x.n_rows;
    out(i, j) =
        i == j && !similarity ? 0.0f : static_cast<float>(metric.value(row_key(metric, x, i, j, terms[i], terms[j])));
  }
}

struct Search {
  const Context& ctx;
  double p;
  KnnResult& out;
  void operator()(const MatrixView<const float>& x) const { dense_search(ctx, x, p, out); }
  void operator()(const MatrixView<const double>& x) const { dense_search(ctx, x, p, out); }
  void operator()(const CsrView<const float>& x) const { scan_sparse_float(ctx, x, p, out); }
  void operator()(const CsrView<const double>& x) const { scan_sparse_double(ctx, x, p, out); }
};

}  // namespace

void knn_brute(const Context& ctx, const AnyMatrixView& x, const KnnOptions& options, KnnResult& out) {
  const scw::cuda::DeviceScope scope(ctx);
  std::visit(Search{ctx, options.p, out}, x);
}

void knn_bad_row(const Context& ctx, const AnyMatrixView& x, bool non_negative, std::int64_t& first_bad) {
  const scw::cuda::DeviceScope scope(ctx);
  first_bad = -1;
  if (n_rows(x) == 0) return;
  Array<unsigned long long> first(ctx.workspace, 1, "value check", ctx.stream);
  SCW_CUDA(cudaMemsetAsync(first.data(), 0xFF, sizeof(unsigned long long), scw::cuda::stream_of(ctx)));
  std::visit(
      [&](const auto& v) {
        bad_row_kernel<<<scw::cuda::grid_for(v.n_rows, 4, 4096), 256, 0, scw::cuda::stream_of(ctx)>>>(v, non_negative,
                                                                                                      first.data());
        SCW_CUDA_LAUNCHED("bad_row");
      },
      x);
  first_bad = static_cast<std::int64_t>(to_host<unsigned long long>(ctx, std::as_const(first).view())[0]);
}

void pairwise(const Context& ctx, const AnyMatrixView& x, Metric metric, double p, const MatrixView<float>& out) {
  const scw::cuda::DeviceScope scope(ctx);
  const auto all_pairs = [&](const auto& v) {
    const auto terms = row_terms(ctx, v, metric);
    visit_metric(metric, p, [&](const auto& m) {
      pairwise_cells_kernel<<<scw::cuda::grid_for(checked_mul(v.n_rows, v.n_rows), 256, 1 << 16), 256, 0,
                              scw::cuda::stream_of(ctx)>>>(m, v, terms.data(), metric == Metric::inner_product, out);
      SCW_CUDA_LAUNCHED("pairwise");
    });
  };
  if (const auto* f = std::get_if<MatrixView<const float>>(&x)) all_pairs(*f);
  if (const auto* d = std::get_if<MatrixView<const double>>(&x)) all_pairs(*d);
}

SCW_REGISTER(knn_brute_kernel, cuda, &knn_brute);
SCW_REGISTER(knn_bad_row_kernel, cuda, &knn_bad_row);
SCW_REGISTER(pairwise_kernel, cuda, &pairwise);

}  // namespace scw::pp::cuda
