// X of the variable genes alone, regression and scaling: where X becomes dense, unless the PCA does all this inside.
#include <utility>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/regressor.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/pp/gene_moments.hpp"
#include "scwarp/pp/regress_out.hpp"
#include "scwarp/pp/scale.hpp"

namespace scw::pipeline {
namespace {

/// raw = all genes; X = the variable ones, so that the dense matrix of the next steps stays small.
class SelectGenesStep final : public Step {
 public:
  explicit SelectGenesStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "select genes"; }
  std::vector<std::string> operations() const override { return {"pp.subset"}; }
  // The variable genes are taken to hold at most half of the entries.
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return (s.streamed ? 0 : s.matrix_bytes()) + subset_of(s, n_threads, variable_genes(o_, s), s.nnz / 2).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return subset_of(s, 1, variable_genes(o_, s), s.nnz / 2).kept;
  }
  std::string run(const Context& ctx, AnnData& data) override {
    data.set_raw_from_X(ctx);
    const auto keep = std::get<Bools>(data.var.at("highly_variable").data).values;
    data.subset_var(ctx, Span<const std::uint8_t>(keep));
    return fmt::format("X holds the {} variable genes, raw all {}", format_count(data.n_vars()),
                       format_count(data.raw->var.n_rows()));
  }

 private:
  RunOptions o_;
};

/// The dense matrix of a sparse one's place.
void replace_X(AnnData& data, AnyDenseMatrix&& dense) {
  std::visit([&](auto& m) { data.set_X(MatrixElement(std::move(m))); }, dense);
}

/// With explicit scaling X becomes the residuals; else the fit alone is kept, and the PCA decomposes the residuals
/// without making them.
class RegressOutStep final : public Step {
 public:
  explicit RegressOutStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "regress out"; }
  std::vector<std::string> operations() const override { return {"pp.regress_out"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto keys = static_cast<std::int64_t>(o_.regress_out.size());
    if (makes_dense(o_)) {
      if (s.streamed) return estimate::regress_out(few_genes_shape(s, n_threads, variable_genes(o_, s)), keys).peak;
      const auto dense = dense_shape(s, n_threads, variable_genes(o_, s), s.value_bytes);
      return kept_bytes(s) + estimate::regress_out(dense, keys).peak;
    }
    // The sums of the fit, of all genes; as a matrix of the genes alone.
    return kept_bytes(s) + estimate::regress_out(dense_shape(s, n_threads, s.n_vars, s.value_bytes), keys).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    if (!makes_dense(o_)) return on_host(s) ? 8 * s.n_vars * (static_cast<std::int64_t>(o_.regress_out.size()) + 1) : 0;
    return s.streamed ? 0 : s.n_obs * variable_genes(o_, s) * s.value_bytes;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    const Regressor regressor = regressor_of(data, o_.regress_out);
    const bool sparse = data.X->is_sparse();
    AnyDenseMatrix dense;
    const auto dense_view = [&] {
      return std::visit(
          [](const auto& v) -> pp::AnyMutableDenseView {
            if constexpr (requires { v.ld; })
              return v;
            else
              throw InternalError("pipeline: X is not dense");
          },
          data.X->mutable_view());
    };
    const ResidentBlocks x(data.X->view());
    std::string summary;
    if (regressor.categories) {
      const Categorical& c = *regressor.categories;
      const auto n = static_cast<std::int32_t>(c.n_categories());
      const OnDevice<std::int32_t> here(ctx, c.codes);
      const auto codes = here.view();
      if (!makes_dense(o_)) {
        pp::GeneMomentsOptions options;
        options.groups = codes;
        options.n_groups = n;
        keep(data, transposed(ctx, pp::gene_moments(ctx, x, options).mean), c.category_names());
      } else if (sparse) {
        pp::regress_out_categories_to_dense(ctx, x, dense, codes, n);
      } else {
        pp::regress_out_categories(ctx, dense_view(), codes, n);
      }
      summary = fmt::format("mean of each of {} categories of '{}' subtracted", n, o_.regress_out[0]);
    } else {
      pp::RegressOut r;
      if (!makes_dense(o_)) {
        r = pp::fit_regression(ctx, x, regressor.view());
        keep(data, transposed(ctx, r.coefficients), {});
      } else {
        r = sparse ? pp::regress_out_to_dense(ctx, x, dense, regressor.view())
                   : pp::regress_out(ctx, dense_view(), regressor.view());
      }
      summary = fmt::format("{} columns of obs, {} of them independent", regressor.n_keys, r.n_independent);
    }
    if (makes_dense(o_) && sparse) replace_X(data, std::move(dense));
    return summary + (makes_dense(o_) ? "" : "; X stays as it is");
  }

 private:
  void keep(AnnData& data, Matrix<double> fit, std::vector<std::string> categories) const {
    Dict note{{"lazy", Value(true)}, {"keys", Value(o_.regress_out)}};
    if (!categories.empty()) note["categories"] = Value(std::move(categories));
    data.set_varm("regress_out", MatrixElement(std::move(fit)));
    data.uns["regress_out"] = Value(std::move(note));
  }
  RunOptions o_;
};

class ScaleStep final : public Step {
 public:
  explicit ScaleStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "scale"; }
  std::vector<std::string> operations() const override { return {"pp.scale"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    if (s.streamed && o_.regress_out.empty())
      return estimate::scale(few_genes_shape(s, n_threads, variable_genes(o_, s)), s.sparse).peak;
    return kept_bytes(s) + estimate::scale(dense_shape(s, n_threads, variable_genes(o_, s), s.value_bytes), false).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return o_.regress_out.empty() && !s.streamed ? s.n_obs * variable_genes(o_, s) * s.value_bytes : 0;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    pp::ScaleOptions options;
    options.max_value = o_.max_value;
    AnyDenseMatrix dense;
    const bool sparse = data.X->is_sparse();
    const pp::Scale r = sparse ? pp::scale_to_dense(ctx, ResidentBlocks(data.X->view()), dense, options)
                               : pp::scale(ctx, data.X->mutable_view(), options);
    if (sparse) replace_X(data, std::move(dense));
    data.var.set("mean", Column(to_vector(ctx, r.mean)));
    data.var.set("std", Column(to_vector(ctx, r.std)));
    return "each gene to mean 0, variance 1" +
           (o_.max_value ? ", clipped at " + format_number(*o_.max_value) : std::string());
  }

 private:
  RunOptions o_;
};

}  // namespace

Regressor regressor_of(const AnnData& data, const std::vector<std::string>& names) {
  constexpr const char* op = "regress out";
  for (const auto& key : names) (void)data.obs.at(key);
  Regressor out;
  if (const Column& first = data.obs.at(names[0]); !first.is_numeric()) {
    SCW_EXPECT(names.size() == 1, op, "'{}' is categorical: it must be the only column", names[0]);
    out.categories = first.to_categorical();
    return out;
  }
  out.n_keys = static_cast<std::int64_t>(names.size());
  out.keys.resize(static_cast<std::size_t>(data.n_obs() * out.n_keys));
  for (std::size_t j = 0; j < names.size(); ++j) {
    SCW_EXPECT(data.obs.at(names[j]).is_numeric(), op, "'{}' is not numeric: a categorical column must be the only one",
               names[j]);
    const auto column = data.obs.at(names[j]).to_double();
    for (std::size_t i = 0; i < column.size(); ++i) out.keys[i * names.size() + j] = column[i];
  }
  return out;
}

Matrix<double> transposed(const Context& ctx, const Matrix<double>& m) {
  const auto values = to_vector(ctx, m.data);
  Matrix<double> out(ctx.host().memory, m.n_cols, m.n_rows, "regression");
  for (std::int64_t i = 0; i < m.n_rows; ++i)
    for (std::int64_t j = 0; j < m.n_cols; ++j) out.view()(j, i) = values[static_cast<std::size_t>(i * m.n_cols + j)];
  return out;
}

StepPtr select_genes_step(const RunOptions& o) { return std::make_unique<SelectGenesStep>(o); }
StepPtr regress_out_step(const RunOptions& o) { return std::make_unique<RegressOutStep>(o); }
StepPtr scale_step(const RunOptions& o) { return std::make_unique<ScaleStep>(o); }

}  // namespace scw::pipeline
