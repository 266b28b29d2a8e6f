#include "scwarp/pp/knn.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/check.hpp"
#include "pp/knn/kernel.hpp"

namespace scw::pp {

constinit Kernel<void(const Context&, const AnyMatrixView&, const KnnOptions&, KnnResult&)> knn_brute_kernel{
    "pp.neighbors: brute"};
constinit Kernel<void(const Context&, const AnyMatrixView&, const KnnOptions&, KnnResult&)> knn_descent_kernel{
    "pp.neighbors: nn_descent"};
constinit Kernel<void(const Context&, const AnyMatrixView&, bool, std::int64_t&)> knn_bad_row_kernel{
    "pp.neighbors: value check"};
constinit Kernel<void(const Context&, const AnyMatrixView&, Metric, double, const MatrixView<float>&)> pairwise_kernel{
    "pp.neighbors: all distances"};

namespace {

constexpr const char* kOp = "pp.neighbors";

constexpr std::pair<std::string_view, Metric> kMetricNames[] = {
    {"euclidean", Metric::euclidean},
    {"l2", Metric::euclidean},
    {"sqeuclidean", Metric::sqeuclidean},
    {"manhattan", Metric::manhattan},
    {"l1", Metric::manhattan},
    {"cityblock", Metric::manhattan},
    {"taxicab", Metric::manhattan},
    {"chebyshev", Metric::chebyshev},
    {"linf", Metric::chebyshev},
    {"minkowski", Metric::minkowski},
    {"lp", Metric::minkowski},
    {"canberra", Metric::canberra},
    {"cosine", Metric::cosine},
    {"correlation", Metric::correlation},
    {"inner_product", Metric::inner_product},
    {"jensenshannon", Metric::jensenshannon},
    {"hellinger", Metric::hellinger},
    {"haversine", Metric::haversine},
    {"hamming", Metric::hamming},
    {"jaccard", Metric::jaccard},
    {"braycurtis", Metric::braycurtis},
};

bool takes_sparse(Metric m) {
  return m != Metric::correlation && m != Metric::jensenshannon && m != Metric::haversine && m != Metric::hamming &&
         m != Metric::braycurtis;
}

void check_input(const Context& ctx, const AnyMatrixView& x, Metric metric, double p) {
  SCW_EXPECT(metric != Metric::minkowski || (p >= 1 && std::isfinite(p)), kOp,
             "p of the minkowski metric must be at least 1 and finite (got {})", p);
  SCW_EXPECT(metric != Metric::haversine || n_cols(x) == 2, kOp,
             "the haversine metric needs 2 columns, latitude and longitude in radians (got {})", n_cols(x));
  const bool sparse = x.index() < 2;
  SCW_EXPECT_AS(NotSupported, !sparse || takes_sparse(metric), kOp,
                "metric '{}' takes dense data only: convert the representation with .toarray()", to_string(metric));
  const bool non_negative = metric == Metric::jensenshannon || metric == Metric::hellinger;
  std::int64_t bad = -1;
  knn_bad_row_kernel(ctx, x, non_negative, bad);
  SCW_EXPECT_AS(DataError, bad < 0, kOp, "cell {} has a value that is not finite{} (all values must be)", bad,
                non_negative ? " or is negative" : "");
}

}  // namespace

Metric parse_metric(std::string_view name) {
  for (const auto& [known, metric] : kMetricNames)
    if (known == name) return metric;
  std::string all;
  for (const auto& [known, metric] : kMetricNames) all += (all.empty() ? "" : ", ") + std::string(known);
  detail::fail<InvalidArgument>(kOp, "unknown metric (got '{}', expected one of {})", name, all);
}

std::string_view to_string(Metric metric) {
  for (const auto& [known, m] : kMetricNames)
    if (m == metric) return known;
  return "unknown";
}

KnnAlgorithm parse_knn_algorithm(std::string_view name) {
  if (name == "auto") return KnnAlgorithm::automatic;
  if (name == "brute") return KnnAlgorithm::brute;
  if (name == "nn_descent") return KnnAlgorithm::nn_descent;
  detail::fail<InvalidArgument>(kOp, "unknown algorithm (got '{}', expected auto, brute or nn_descent)", name);
}

std::string_view to_string(KnnAlgorithm algorithm) {
  switch (algorithm) {
    case KnnAlgorithm::automatic:
      return "auto";
    case KnnAlgorithm::brute:
      return "brute";
    case KnnAlgorithm::nn_descent:
      return "nn_descent";
  }
  return "unknown";
}

KnnResult knn(const Context& ctx, const AnyMatrixView& x, const KnnOptions& options) {
  const std::int64_t n = n_rows(x);
  SCW_EXPECT(options.n_neighbors >= 1 && options.n_neighbors <= std::max<std::int64_t>(n, 1), kOp,
             "n_neighbors counts the cell itself and must be between 1 and the number of cells (got {}, {} cells)",
             options.n_neighbors, n);
  SCW_EXPECT(n < (std::int64_t{1} << 31), kOp, "at most 2^31 - 1 cells (got {})", n);
  SCW_EXPECT(options.min_recall > 0 && options.min_recall <= 1, kOp, "min_recall must be in (0, 1] (got {})",
             options.min_recall);
  SCW_EXPECT(options.recall_sample > 0 && options.n_trees >= 1 && options.max_rounds >= 0, kOp,
             "recall_sample and n_trees must be positive, max_rounds not negative (got {}, {}, {})",
             options.recall_sample, options.n_trees, options.max_rounds);
  check_input(ctx, x, options.metric, options.p);

  const bool descent_fits = is_tile_metric(options.metric) && x.index() >= 2;
  KnnAlgorithm algorithm = options.algorithm;
  if (algorithm == KnnAlgorithm::automatic) {
    const double work =
        static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(std::max<std::int64_t>(1, n_cols(x)));
    const bool approximate = work > options.brute_work && descent_fits && knn_descent_kernel.supports(ctx.device.type);
    algorithm = approximate ? KnnAlgorithm::nn_descent : KnnAlgorithm::brute;
  }
  SCW_EXPECT_AS(
      NotSupported, algorithm == KnnAlgorithm::brute || descent_fits, kOp,
      "nn_descent takes dense data and the metrics euclidean, sqeuclidean, cosine, correlation, inner_product "
      "(got {} data, metric '{}'); use algorithm 'brute'",
      x.index() < 2 ? "sparse" : "dense", to_string(options.metric));
  KnnResult out;
  out.n = n;
  out.k = options.n_neighbors;
  out.metric = options.metric;
  out.algorithm = algorithm;
  const std::int64_t size = checked_mul(n, out.k);
  out.indices = Array<std::int32_t>(ctx.memory, size, "neighbour indices", ctx.stream);
  out.distances = Array<float>(ctx.memory, size, "neighbour distances", ctx.stream);
  if (n == 0) return out;
  (algorithm == KnnAlgorithm::brute ? knn_brute_kernel : knn_descent_kernel)(ctx, x, options, out);
  if (out.algorithm == KnnAlgorithm::brute)
    ctx.info(fmt::format("{}: exact search of {} neighbours of {} cells ({})", kOp, out.k, n, to_string(out.metric)));
  else
    ctx.info(fmt::format("{}: nn_descent, {} neighbours of {} cells ({}), recall {:.4f} on {} cells after {} rounds",
                         kOp, out.k, n, to_string(out.metric), out.recall, out.recall_cells, out.rounds));
  return out;
}

Matrix<float> pairwise_distances(const Context& ctx, const AnyMatrixView& x, Metric metric, double p) {
  SCW_EXPECT_AS(NotSupported, x.index() >= 2, kOp, "all distances need dense data (got sparse)");
  check_input(ctx, x, metric, p);
  Matrix<float> out(ctx.memory, n_rows(x), n_rows(x), "all distances", ctx.stream);
  if (n_rows(x) > 0) pairwise_kernel(ctx, x, metric, p, out.view());
  return out;
}

}  // namespace scw::pp
