// PCA of the variable genes, scaled inside or of what the regression leaves.
#include <algorithm>
#include <numeric>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/regressor.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/pp/pca.hpp"
#include "scwarp/pp/regress_out.hpp"

namespace scw::pipeline {
namespace {

class PcaStep final : public Step {
 public:
  explicit PcaStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "PCA"; }
  std::vector<std::string> operations() const override { return {"pp.pca"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    estimate::Shape e = shape_for(s, n_threads);
    e.n_cols = variable_genes(o_, s);
    const bool residuals = !o_.regress_out.empty() && !makes_dense(o_);
    if (makes_dense(o_) || residuals) e.sparse = false;
    e.nnz = e.sparse ? s.nnz / 2 : checked_mul(s.n_obs, e.n_cols);
    std::int64_t block = residuals ? std::min(std::int64_t{640} << 20, 2 * e.nnz * s.value_bytes) : 0;
    if (s.limit_bytes > 0) block = std::min(block, s.limit_bytes / 5);
    const std::int64_t loadings = on_host(s) ? 8 * s.n_vars * components(s) : 0;
    return 4 * s.n_vars + loadings + block + estimate::pca(e, components(s), o_.scaling == "implicit").peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return s.n_obs * components(s) * 4 + (on_host(s) ? s.n_vars * components(s) * 8 : 0);
  }

  std::string run(const Context& ctx, AnnData& data) override {
    constexpr const char* op = "PCA";
    pp::PcaOptions options;
    const Column* column = data.var.find("highly_variable");
    SCW_EXPECT(column != nullptr, op, "var has no column 'highly_variable'");
    const auto& mask = std::get<Bools>(column->data).values;
    options.gene_mask = Span<const std::uint8_t>(mask);
    const std::int64_t used = std::accumulate(mask.begin(), mask.end(), std::int64_t{0});
    SCW_EXPECT_AS(DataError, used > 1, op, "too few genes vary (got {}, expected at least 2)", used);
    const std::int64_t most = std::min(used, data.n_obs());
    options.n_comps = o_.n_comps == 0 || o_.n_comps >= most ? 0 : o_.n_comps;
    if (o_.n_comps >= most)
      ctx.warn(fmt::format("{}: {} components do not fit {} cells and {} genes: fewer are computed", op, o_.n_comps,
                           data.n_obs(), used));
    options.scale = o_.scaling == "implicit";
    if (options.scale) options.max_value = o_.max_value;
    const ResidentBlocks x(data.X->view());
    const bool regressed = !o_.regress_out.empty() && !makes_dense(o_);
    pp::Pca r = regressed ? of_residuals(ctx, data, x, options) : pp::pca(ctx, x, options);
    const std::int64_t k = r.variance.size();
    // As scikit-learn's estimators return them: in the precision of X.
    const bool single = data.X->data.index() % 2 == 0;
    Matrix<double> loadings(ctx.host().memory, data.n_vars(), k, "PCs");
    std::fill(loadings.data.begin(), loadings.data.end(), 0.0);
    for (std::int64_t g = 0; g < r.genes.size(); ++g)
      for (std::int64_t c = 0; c < k; ++c) {
        const double v = r.components.view()(g, c);
        loadings.view()(r.genes[g], c) = single ? static_cast<double>(static_cast<float>(v)) : v;
      }
    const double share = std::accumulate(r.variance_ratio.begin(), r.variance_ratio.end(), 0.0);
    std::visit([&](auto& scores) { data.set_obsm("X_pca", MatrixElement(std::move(scores))); }, r.scores);
    data.set_varm("PCs", MatrixElement(std::move(loadings)));
    Dict params{
        {"zero_center", Value(true)}, {"use_highly_variable", Value(true)}, {"mask_var", Value("highly_variable")}};
    if (options.scale) {
      params["scale"] = Value(true);
      if (o_.max_value) params["max_value"] = Value(*o_.max_value);
    }
    const auto numbers = [&](const Array<double>& a) {
      return single ? Value(cast<float>(a)) : Value(to_vector(ctx, a));
    };
    data.uns["pca"] = Dict{{"params", Value(std::move(params))},
                           {"variance", numbers(r.variance)},
                           {"variance_ratio", numbers(r.variance_ratio)}};
    return fmt::format("{} components of {} genes hold {:.1f} % of the variance{}", k, format_count(used), 100 * share,
                       r.converged ? "" : " (not converged)");
  }

 private:
  std::int64_t components(const Shape&) const { return o_.n_comps == 0 ? 50 : o_.n_comps; }

  /// Of what the regression leaves of the genes in use.
  pp::Pca of_residuals(const Context& ctx, const AnnData& data, const RowBlocks& x, pp::PcaOptions options) const {
    const Regressor regressor = regressor_of(data, o_.regress_out);
    const auto mask = std::exchange(options.gene_mask, {});
    const Matrix<double> fit =
        transposed(ctx, std::get<Matrix<double>>(std::get<MatrixElement>(data.varm.find("regress_out")->second).data));
    const auto blocks = [&] {
      if (regressor.categories) return pp::ResidualBlocks(x, regressor.categories->codes, fit.view(), mask);
      return pp::ResidualBlocks(x, regressor.view(), fit.view(), mask);
    }();
    pp::Pca r = pp::pca(ctx, blocks, options);
    std::vector<std::int64_t> genes;
    for (std::int64_t j = 0; j < mask.size; ++j)
      if (mask[j] != 0) genes.push_back(j);
    for (std::int64_t& gene : r.genes) gene = genes[static_cast<std::size_t>(gene)];
    return r;
  }
  RunOptions o_;
};

}  // namespace

StepPtr pca_step(const RunOptions& o) { return std::make_unique<PcaStep>(o); }

}  // namespace scw::pipeline
