// The main job on CUDA: the CPU's bits up to the PCA and in the markers of given groups, close after the PCA, and the
// same on every run. In a process of its own: what goes wrong on a device stays wrong for the process.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "parity/parity.hpp"
#include "scwarp/pipeline/pipeline.hpp"

namespace scw::pipeline {
namespace {

RunOptions options(const std::string& kind) {
  RunOptions o;
  o.min_genes = 20;
  o.n_top_genes = 200;
  o.n_comps = 20;
  o.umap_epochs = 30;
  o.markers_groupby = "cluster";
  if (kind == "explicit") {
    o.scaling = "explicit";
    o.regress_out = {"total_counts", "pct_counts_mt"};
    o.markers = "t-test";
    o.umap_init = "pca";
  }
  if (kind == "seurat_v3") {
    o.flavor = "seurat_v3";
    o.batch_key = "batch";
    o.scaling = "none";
    o.n_pcs = 10;
    o.umap_init = "random";
  }
  return o;
}

AnnData run(const Context& ctx, const RunOptions& o) {
  AnnData a = simulated_anndata(ctx.host(), {.n_cells = 1500, .n_genes = 900, .n_clusters = 4, .mean_counts = 900});
  run_steps(ctx, a, main_job(o));
  a.validate();
  return a;
}

template <class T>
bool same(const T& a, const T& b) {
  return a.size() == b.size() &&
         (a.size() == 0 ||
          std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(*a.data())) == 0);
}

bool same_matrix(const MatrixElement& a, const MatrixElement& b) {
  if (a.data.index() != b.data.index() || a.device() != Device{} || b.device() != Device{}) return false;
  return std::visit(
      [&](const auto& x) {
        const auto& y = std::get<std::decay_t<decltype(x)>>(b.data);
        if constexpr (requires { x.indptr; })
          return same(x.indptr, y.indptr) && same(x.indices, y.indices) && same(x.values, y.values);
        else
          return same(x.data, y.data);
      },
      a.data);
}

std::string frames_apart(const DataFrame& a, const DataFrame& b, const char* where, const std::string& skipped) {
  if (a.n_cols() != b.n_cols() || a.index() != b.index()) return std::string(where) + ": other rows or columns";
  for (const auto& [name, column] : a.columns()) {
    if (name == skipped) continue;
    const Column* other = b.find(name);
    if (other == nullptr || other->data.index() != column.data.index()) return std::string(where) + ": no " + name;
    const bool equal =
        column.is_numeric() ? same(column.to_double(), other->to_double()) : column.to_strings() == other->to_strings();
    if (!equal) return std::string(where) + ": " + name + " differs";
  }
  return {};
}

bool same_fields(const AnnData& a, const AnnData& b, const char* key) {
  const auto& x = a.uns.find("rank_genes_groups")->find(key)->get<StructArray>()->fields;
  const auto& y = b.uns.find("rank_genes_groups")->find(key)->get<StructArray>()->fields;
  if (x.size() != y.size()) return false;
  for (std::size_t g = 0; g < x.size(); ++g) {
    const auto* scores = std::get_if<std::vector<float>>(&x[g].second);
    if (scores != nullptr ? !same(*scores, std::get<std::vector<float>>(y[g].second)) : x[g].second != y[g].second)
      return false;
  }
  return true;
}

/// What differs that may not; empty: nothing. `everything`: also what follows from the PCA.
std::string apart(const AnnData& a, const AnnData& b, bool everything) {
  for (const auto& [x, y, where] : {std::tuple{&a.obs, &b.obs, "obs"}, std::tuple{&a.var, &b.var, "var"}})
    if (const auto text = frames_apart(*x, *y, where, everything ? "" : "leiden"); !text.empty()) return text;
  if (!same_matrix(*a.X, *b.X)) return "X differs";
  if (!same_matrix(a.matrix("counts"), b.matrix("counts"))) return "layers['counts'] differ";
  if (a.raw && !same_matrix(a.raw->X, b.raw->X)) return "raw differs";
  for (const char* key : {"names", "scores"})
    if (!same_fields(a, b, key)) return std::string("markers: ") + key + " differ";
  if (everything) {
    for (const char* key : {"X_pca", "X_umap"})
      if (!same_matrix(a.obsm_matrix(key), b.obsm_matrix(key))) return std::string(key) + " differs";
    for (const char* key : {"distances", "connectivities"})
      if (!same_matrix(a.obsp_matrix(key), b.obsp_matrix(key))) return std::string(key) + " differ";
    return {};
  }
  const auto scores = [](const AnnData& d) { return std::get<MatrixView<const float>>(d.obsm_matrix("X_pca").view()); };
  const auto x = scores(a), y = scores(b);
  double largest = 0, error = 0;
  for (std::int64_t k = 0; k < x.n_rows * x.n_cols; ++k) {
    largest = std::max(largest, std::abs(static_cast<double>(x.data[k])));
    error = std::max(error, std::abs(static_cast<double>(x.data[k]) - static_cast<double>(y.data[k])));
  }
  if (!(error < 1e-2 * largest)) return "X_pca is " + std::to_string(error / largest) + " apart";
  const auto positions = std::get<MatrixView<const float>>(b.obsm_matrix("X_umap").view());
  for (std::int64_t k = 0; k < positions.n_rows * positions.n_cols; ++k)
    if (!std::isfinite(positions.data[k])) return "X_umap is not finite";
  return {};
}

[[noreturn]] void compare_and_exit(const Context& cuda, const RunOptions& o) {
  std::string text;
  try {
    const AnnData on_cpu = run(Context::cpu(2), o);
    const AnnData first = run(cuda, o);
    const AnnData second = run(cuda, o);
    text = apart(on_cpu, first, false);
    if (text.empty()) text = apart(first, second, true);
  } catch (const std::exception& e) {
    text = e.what();
  }
  std::fprintf(stderr, "%s\n", text.c_str());
  std::fflush(stderr);
  std::_Exit(text.empty() ? 0 : 1);
}

class MainJob : public testing::TestWithParam<const char*> {};

TEST_P(MainJob, OnCudaAsOnTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  const RunOptions o = options(GetParam());
  if (!missing_operations(o, DeviceType::cuda).empty()) GTEST_SKIP() << "kernels are missing";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(compare_and_exit(cuda, o), testing::ExitedWithCode(0), "");
}

TEST(MainJobOnTheCpu, TheComparisonSeesDifferences) {
  const AnnData a = run(Context::cpu(2), options("explicit")), b = run(Context::cpu(1), options("explicit"));
  EXPECT_EQ(apart(a, b, true), "");
  AnnData c = run(Context::cpu(1), options("explicit"));
  std::get<Matrix<float>>(c.X->data).data[17] += 1;
  EXPECT_EQ(apart(a, c, false), "X differs");
}

TEST(MainJobOnTheCpu, InAProcessOfItsOwn) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(compare_and_exit(Context::cpu(2), options("seurat_v3")), testing::ExitedWithCode(0), "");
}

INSTANTIATE_TEST_SUITE_P(Kinds, MainJob, testing::Values("implicit", "explicit", "seurat_v3"),
                         [](const auto& i) { return std::string(i.param); });

}  // namespace
}  // namespace scw::pipeline
