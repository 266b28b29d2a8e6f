// From counts to variable genes: normalise, log1p, highly_variable_genes.
#include <algorithm>
#include <numeric>

#include "pipeline/format.hpp"
#include "pipeline/steps/common.hpp"
#include "pipeline/steps/steps.hpp"
#include "scwarp/pp/highly_variable_genes.hpp"
#include "scwarp/pp/log1p.hpp"
#include "scwarp/pp/normalize_total.hpp"

namespace scw::pipeline {
namespace {

class NormalizeStep final : public Step {
 public:
  explicit NormalizeStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "normalise"; }
  std::vector<std::string> operations() const override { return {"pp.normalize_total"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return kept_bytes(s) + estimate::normalize_total(shape_for(s, n_threads), o_.target_sum.has_value()).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return o_.keep_counts && !s.streamed ? s.matrix_bytes() : 0;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    require_X(data, "normalise");
    if (o_.keep_counts) data.set_layer("counts", data.X->clone(ctx));
    pp::NormalizeTotalOptions options;
    options.target_sum = o_.target_sum;
    const auto r = pp::normalize_total(ctx, data.X->mutable_view(), options);
    data.X->stored_dtype.clear();  // no longer whole numbers
    return fmt::format("{} counts per cell{}", format_number(r.target_sum),
                       r.n_empty > 0 ? fmt::format(", {} cells are empty", format_count(r.n_empty)) : "");
  }

 private:
  RunOptions o_;
};

class Log1pStep final : public Step {
 public:
  std::string name() const override { return "log1p"; }
  std::vector<std::string> operations() const override { return {"pp.log1p"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return estimate::log1p(shape_for(s, n_threads)).peak;
  }
  std::int64_t kept_bytes(const Shape&) const override { return 0; }
  std::string run(const Context& ctx, AnnData& data) override {
    pp::log1p(ctx, data.X->mutable_view());
    data.uns["log1p"] = Dict{};  // no base = None: anndata before 0.12 cannot read it
    return "X = ln(1 + X)";
  }
};

class VariableGenesStep final : public Step {
 public:
  explicit VariableGenesStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "variable genes"; }
  std::vector<std::string> operations() const override { return {"pp.highly_variable_genes"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    // In as many batches as are usual, if any: their number is not known before the data are read.
    const std::int64_t batches = o_.batch_key ? 16 : 0;
    return (batches > 0 ? 4 * s.n_obs : 0) +
           estimate::highly_variable_genes(shape_for(s, n_threads), on_counts(o_.flavor), batches).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override { return on_host(s) ? 32 * s.n_vars : 0; }

  std::string run(const Context& ctx, AnnData& data) override {
    constexpr const char* op = "variable genes";
    pp::HighlyVariableGenesOptions options;
    options.flavor = o_.flavor == "seurat"        ? pp::HvgFlavor::seurat
                     : o_.flavor == "cell_ranger" ? pp::HvgFlavor::cell_ranger
                     : o_.flavor == "seurat_v3"   ? pp::HvgFlavor::seurat_v3
                                                  : pp::HvgFlavor::seurat_v3_paper;
    if (o_.n_top_genes > 0) options.n_top_genes = o_.n_top_genes;
    options.min_mean = o_.min_mean;
    options.max_mean = o_.max_mean;
    options.min_disp = o_.min_disp;
    Categorical batches;
    std::optional<OnDevice<std::int32_t>> batch_codes;
    std::vector<std::int32_t> name_order;
    if (o_.batch_key) {
      batches = data.obs.at(*o_.batch_key).to_categorical();
      batches.remove_unused();
      SCW_EXPECT(batches.n_categories() > 0, op, "obs['{}'] has no value", *o_.batch_key);
      options.batches = batch_codes.emplace(ctx, batches.codes).view();
      options.n_batches = static_cast<std::int32_t>(batches.n_categories());
      if (o_.n_top_genes > 0 && !on_counts(o_.flavor)) {
        std::vector<std::int32_t> by_name(static_cast<std::size_t>(data.n_vars()));
        std::iota(by_name.begin(), by_name.end(), 0);
        const auto& names = data.var.index();
        std::stable_sort(by_name.begin(), by_name.end(), [&](std::int32_t a, std::int32_t b) {
          return names[static_cast<std::size_t>(a)] < names[static_cast<std::size_t>(b)];
        });
        name_order.resize(by_name.size());
        for (std::size_t k = 0; k < by_name.size(); ++k)
          name_order[static_cast<std::size_t>(by_name[k])] = static_cast<std::int32_t>(k);
        options.tie_order = Span<const std::int32_t>(name_order);
      }
    }
    const auto r = pp::highly_variable_genes(ctx, data.X->view(), options);
    if (r.fewer_than_asked) ctx.warn(fmt::format("{}: fewer genes vary than the {} asked for", op, o_.n_top_genes));
    if (on_counts(o_.flavor) && !r.counts)
      ctx.warn(fmt::format("{}: {} expects counts, but X holds other numbers", op, o_.flavor));
    data.uns["hvg"] = Dict{{"flavor", Value(o_.flavor)}};
    const auto flags = [&](const Array<std::uint8_t>& a) { return Bools{to_vector(ctx, a)}; };
    const auto numbers = [&](const Array<double>& a) { return to_vector(ctx, a); };
    data.var.set("highly_variable", Column(flags(r.highly_variable)));
    if (on_counts(o_.flavor)) {
      data.var.set("highly_variable_rank", Column(cast<float>(numbers(r.rank))));
      data.var.set("means", Column(numbers(r.means)));
      data.var.set("variances", Column(numbers(r.variances)));
      data.var.set("variances_norm", Column(numbers(r.variances_norm)));
    } else {
      data.var.set("means", Column(numbers(r.means)));
      data.var.set("dispersions", Column(numbers(r.dispersions)));
      data.var.set("dispersions_norm", Column(cast<float>(numbers(r.dispersions_norm))));
    }
    if (o_.batch_key) {
      data.var.set("highly_variable_nbatches", Column(cast<std::int64_t>(to_vector(ctx, r.n_batches))));
      if (!on_counts(o_.flavor)) data.var.set("highly_variable_intersection", Column(flags(r.intersection)));
    }
    return fmt::format("{} of {} genes chosen ({})", format_count(r.n_selected), format_count(data.n_vars()),
                       o_.flavor);
  }

 private:
  RunOptions o_;
};

}  // namespace

StepPtr normalize_step(const RunOptions& o) { return std::make_unique<NormalizeStep>(o); }
StepPtr log1p_step() { return std::make_unique<Log1pStep>(); }
StepPtr variable_genes_step(const RunOptions& o) { return std::make_unique<VariableGenesStep>(o); }

}  // namespace scw::pipeline
