// The steps of the main job. Slots, dtypes and the order of columns are those of the Python functions in
// python/scwarp/.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include "core/check.hpp"
#include "core/transfer.hpp"
#include "math/elementary.hpp"
#include "pipeline/format.hpp"
#include "scwarp/estimate.hpp"
#include "scwarp/pipeline/pipeline.hpp"
#include "scwarp/pp/calculate_qc_metrics.hpp"
#include "scwarp/pp/gene_moments.hpp"
#include "scwarp/pp/highly_variable_genes.hpp"
#include "scwarp/pp/log1p.hpp"
#include "scwarp/pp/neighbors.hpp"
#include "scwarp/pp/normalize_total.hpp"
#include "scwarp/pp/pca.hpp"
#include "scwarp/pp/regress_out.hpp"
#include "scwarp/pp/scale.hpp"
#include "scwarp/tl/leiden.hpp"
#include "scwarp/tl/logistic_regression.hpp"
#include "scwarp/tl/rank_genes_groups.hpp"
#include "scwarp/tl/umap.hpp"

namespace scw::pipeline {

namespace {

constexpr std::int64_t kGroupsGuess = 30;  // clusters, for memory estimates

/// Results of operations, wherever they are, on the host.
template <class T>
std::vector<T> to_vector(const Context& ctx, const Array<T>& a) {
  std::vector<T> out(static_cast<std::size_t>(a.size()));
  copy_bytes(ctx, out.data(), Device{}, a.data(), a.device(), out.size() * sizeof(T));
  return out;
}
/// Flags and codes for operations that read them on ctx.device. Keeps a reference to the values.
template <class T>
class OnDevice {
 public:
  OnDevice(const Context& ctx, const std::vector<T>& values) : values_(values) {
    if (ctx.device != Device{}) copy_ = to_device<T>(ctx, Span<const T>(values), "flags and codes");
  }
  Span<const T> view() const { return copy_.empty() ? Span<const T>(values_) : std::as_const(copy_).view(); }

 private:
  const std::vector<T>& values_;
  Array<T> copy_;
};
template <class To, class From>
std::vector<To> cast(const From& values) {
  std::vector<To> out;
  out.reserve(static_cast<std::size_t>(values.size()));
  for (const auto v : values) out.push_back(static_cast<To>(v));
  return out;
}

/// Sums of counts have the type of X, or int64 if the file holds whole numbers.
enum class SumType { f32, f64, i64 };
SumType sum_type(const MatrixElement& x) {
  const auto& stored = x.stored_dtype;
  if (stored.starts_with("int") || stored.starts_with("uint") || stored == "bool") return SumType::i64;
  return x.data.index() % 2 == 0 ? SumType::f32 : SumType::f64;
}

template <class T>
std::vector<std::conditional_t<std::is_same_v<T, float>, float, double>> log1p_of(const std::vector<T>& values) {
  using Out = std::conditional_t<std::is_same_v<T, float>, float, double>;
  std::vector<Out> out;
  out.reserve(values.size());
  for (const T v : values) out.push_back(math::log1p(static_cast<Out>(v)));
  return out;
}

template <class Visit>
void with_sum_type(SumType type, Visit&& visit) {
  if (type == SumType::f32)
    visit(float{});
  else if (type == SumType::f64)
    visit(double{});
  else
    visit(std::int64_t{});
}

const MatrixElement& require_X(const AnnData& data, const char* op) {
  SCW_EXPECT(data.X.has_value(), op, "there is no X");
  return *data.X;
}

// ---------------------------------------------------------------------------------------------------------- QC

ReportHistogram histogram(const std::string& name, const std::vector<double>& values,
                          std::vector<ReportThreshold> thresholds) {
  ReportHistogram h;
  h.name = name;
  h.thresholds = std::move(thresholds);
  std::vector<double> finite;
  for (const double v : values)
    if (std::isfinite(v)) finite.push_back(v);
  if (finite.empty()) return h;
  // The last thousandth may be far out: it is counted in the last bin.
  auto at = finite.begin() + static_cast<std::ptrdiff_t>(0.999 * static_cast<double>(finite.size() - 1));
  std::nth_element(finite.begin(), at, finite.end());
  h.high = *at * 1.02;
  for (const auto& t : h.thresholds)
    if (t.value < 4 * h.high) h.high = std::max(h.high, t.value * 1.05);
  if (!(h.high > 0)) h.high = 1;
  h.counts.assign(80, 0);
  const double per_bin = h.high / static_cast<double>(h.counts.size());
  for (const double v : finite) {
    const auto bin = static_cast<std::size_t>(std::clamp(v / per_bin, 0.0, static_cast<double>(h.counts.size()) - 1));
    ++h.counts[bin];
  }
  std::int64_t outside = 0;
  for (const double v : values) {
    bool out = false;
    for (const auto& t : h.thresholds) out = out || !(t.minimum ? v >= t.value : v <= t.value);
    outside += out ? 1 : 0;
  }
  h.note = h.thresholds.empty() ? "no threshold"
                                : fmt::format("{} of {} cells are outside", format_count(outside),
                                              format_count(static_cast<std::int64_t>(values.size())));
  return h;
}

/// For the estimates of the operations: X as it is, or its first n_cols columns made dense.
estimate::Shape shape_for(const Shape& s, int n_threads) {
  return {s.device, n_threads, s.n_obs, s.n_vars, s.nnz, s.value_bytes, s.sparse};
}
estimate::Shape dense_shape(const Shape& s, int n_threads, std::int64_t n_cols, int value_bytes) {
  return {s.device, n_threads, s.n_obs, n_cols, checked_mul(s.n_obs, n_cols), value_bytes, false};
}
bool on_host(const Shape& s) { return s.device == DeviceType::cpu; }

class QcStep final : public Step {
 public:
  QcStep(const RunOptions& o, ReportData* report) : o_(o), report_(report) {}
  std::string name() const override { return "QC"; }
  std::vector<std::string> operations() const override { return {"pp.calculate_qc_metrics"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto tops = static_cast<int>(o_.percent_top.size());
    const std::int64_t largest = tops > 0 ? *std::max_element(o_.percent_top.begin(), o_.percent_top.end()) : 0;
    return kept_bytes(s) + estimate::calculate_qc_metrics(shape_for(s, n_threads), 1, tops, largest).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {  // columns of obs and var are on the host
    return on_host(s) ? 8 * 12 * (s.n_obs + s.n_vars) : 0;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    const MatrixElement& x = require_X(data, "QC");
    SCW_EXPECT_AS(DataError, data.n_obs() > 0 && data.n_vars() > 0, "QC", "the input is empty ({} cells x {} genes)",
                  data.n_obs(), data.n_vars());
    Bools mt{std::vector<std::uint8_t>(static_cast<std::size_t>(data.n_vars()), 0)};
    for (std::size_t j = 0; j < mt.values.size(); ++j)
      for (const auto& prefix : o_.mt_prefix)
        if (data.var.index()[j].starts_with(prefix)) mt.values[j] = 1;
    const auto n_mt = std::accumulate(mt.values.begin(), mt.values.end(), std::int64_t{0});
    pp::QcOptions options;
    const OnDevice mt_here(ctx, mt.values);
    options.families = {mt_here.view()};
    for (const auto n : o_.percent_top)
      if (n > 0 && n <= data.n_vars()) options.percent_top.push_back(n);
    std::sort(options.percent_top.begin(), options.percent_top.end());
    const pp::QcMetrics m = pp::calculate_qc_metrics(ctx, x.view(), options);

    std::vector<std::pair<std::string, Column>> obs, var;
    const auto add = [](auto& list, std::string name, auto values) {
      list.emplace_back(std::move(name), Column(std::move(values)));
    };
    // NumPy's sums of unsigned numbers are unsigned.
    const auto add_sum = [&](auto& list, std::string name, auto values) {
      add(list, std::move(name), std::move(values));
      if (x.stored_dtype.starts_with("uint")) list.back().second.stored_dtype = "uint64";
    };
    const auto n_genes = to_vector(ctx, m.n_genes);
    const auto total_counts = to_vector(ctx, m.total);
    std::vector<double> pct_mt;
    add(obs, "n_genes_by_counts", n_genes);
    add(obs, "log1p_n_genes_by_counts", log1p_of(n_genes));
    with_sum_type(sum_type(x), [&](auto zero) {
      using T = decltype(zero);
      const auto total = cast<T>(total_counts), total_mt = cast<T>(to_vector(ctx, m.family_total[0]));
      add_sum(obs, "total_counts", total);
      add(obs, "log1p_total_counts", log1p_of(total));
      for (std::size_t k = 0; k < options.percent_top.size(); ++k)
        add(obs, fmt::format("pct_counts_in_top_{}_genes", options.percent_top[k]), to_vector(ctx, m.pct_top[k]));
      add_sum(obs, "total_counts_mt", total_mt);
      add(obs, "log1p_total_counts_mt", log1p_of(total_mt));
      using P = std::conditional_t<std::is_same_v<T, float>, float, double>;
      std::vector<P> pct(total.size());
      for (std::size_t i = 0; i < pct.size(); ++i)
        pct[i] = static_cast<P>(total_mt[i]) / static_cast<P>(total[i]) * static_cast<P>(100);
      pct_mt = cast<double>(pct);
      add(obs, "pct_counts_mt", std::move(pct));

      const auto n_cells = to_vector(ctx, m.n_cells);
      const auto sums = to_vector(ctx, m.gene_total);
      const auto n = static_cast<double>(data.n_obs());
      add(var, "n_cells_by_counts", cast<std::int64_t>(n_cells));
      std::vector<double> mean, dropout;
      for (std::size_t j = 0; j < n_cells.size(); ++j) {
        mean.push_back(sums[j] / n);
        dropout.push_back((1 - n_cells[j] / n) * 100);
      }
      add(var, "mean_counts", mean);
      add(var, "log1p_mean_counts", log1p_of(mean));
      add(var, "pct_dropout_by_counts", std::move(dropout));
      const auto gene_total = cast<T>(sums);
      add_sum(var, "total_counts", gene_total);
      add(var, "log1p_total_counts", log1p_of(gene_total));
    });

    std::vector<double> total = total_counts;
    if (report_ != nullptr) {
      const auto limits = [](const auto& low, const auto& high) {
        std::vector<ReportThreshold> t;
        if (low) t.push_back({static_cast<double>(*low), true});
        if (high) t.push_back({static_cast<double>(*high), false});
        return t;
      };
      report_->qc = {histogram("genes per cell", cast<double>(n_genes), limits(o_.min_genes, o_.max_genes)),
                     histogram("counts per cell", total, limits(o_.min_counts, o_.max_counts))};
      if (n_mt > 0)
        report_->qc.push_back(
            histogram("% mitochondrial counts", pct_mt, limits(std::optional<double>(), o_.max_pct_mt)));
    }
    const auto median = [](std::vector<double> v) {
      if (v.empty()) return 0.0;
      std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
      return v[v.size() / 2];
    };
    const std::string summary = fmt::format("median {} genes and {} counts per cell, {} mitochondrial genes",
                                            format_count(std::llround(median(cast<double>(n_genes)))),
                                            format_count(std::llround(median(std::move(total)))), n_mt);
    data.var.set("mt", Column(std::move(mt)));
    for (auto& [key, column] : obs) data.obs.set(key, std::move(column));
    for (auto& [key, column] : var) data.var.set(key, std::move(column));
    return summary;
  }

 private:
  RunOptions o_;
  ReportData* report_;
};

// ------------------------------------------------------------------------------------------------------- filters

class FilterCellsStep final : public Step {
 public:
  explicit FilterCellsStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "filter cells"; }
  std::vector<std::string> operations() const override { return {"pp.filter_cells", "pp.subset"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto e = shape_for(s, n_threads);
    return kept_bytes(s) + estimate::cell_counts(e).peak + estimate::subset(e, s.n_obs, s.n_vars, s.nnz).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override { return on_host(s) ? 16 * s.n_obs : 0; }

  std::string run(const Context& ctx, AnnData& data) override {
    const MatrixElement& x = require_X(data, "filter cells");
    const auto n = static_cast<std::size_t>(data.n_obs());
    const pp::AxisCounts counted = pp::cell_counts(ctx, x.view());
    const auto n_positive = to_vector(ctx, counted.n_positive);
    const auto total = to_vector(ctx, counted.total);
    std::vector<std::uint8_t> keep(n, 1);
    std::string reasons;
    const auto drop = [&](const char* what, auto&& fails) {
      std::int64_t dropped = 0;
      for (std::size_t i = 0; i < n; ++i)
        if (keep[i] != 0 && fails(i)) {
          keep[i] = 0;
          ++dropped;
        }
      if (dropped > 0) reasons += fmt::format("{}{} by {}", reasons.empty() ? "" : ", ", format_count(dropped), what);
    };
    if (o_.min_genes) drop("few genes", [&](std::size_t i) { return n_positive[i] < *o_.min_genes; });
    if (o_.max_genes) drop("many genes", [&](std::size_t i) { return n_positive[i] > *o_.max_genes; });
    if (o_.min_counts) drop("few counts", [&](std::size_t i) { return total[i] < *o_.min_counts; });
    if (o_.max_counts) drop("many counts", [&](std::size_t i) { return total[i] > *o_.max_counts; });
    if (o_.max_pct_mt) {
      const auto pct = data.obs.at("pct_counts_mt").to_double();
      drop("mitochondrial share", [&](std::size_t i) { return !(pct[i] <= *o_.max_pct_mt); });
    }
    const auto kept = std::accumulate(keep.begin(), keep.end(), std::int64_t{0});
    SCW_EXPECT_AS(DataError, kept > 0, "filter cells", "no cell is left (dropped {}); loosen the thresholds", reasons);
    if (o_.min_genes || o_.max_genes) data.obs.set("n_genes", Column(cast<std::int64_t>(n_positive)));
    if (o_.min_counts || o_.max_counts)
      with_sum_type(sum_type(x), [&](auto zero) { data.obs.set("n_counts", Column(cast<decltype(zero)>(total))); });
    data.subset_obs(ctx, Span<const std::uint8_t>(keep));
    const auto dropped = static_cast<std::int64_t>(n) - kept;
    return fmt::format("{} cells dropped{}, {} left", format_count(dropped),
                       reasons.empty() ? "" : " (" + reasons + ")", format_count(kept));
  }

 private:
  RunOptions o_;
};

class FilterGenesStep final : public Step {
 public:
  explicit FilterGenesStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "filter genes"; }
  std::vector<std::string> operations() const override { return {"pp.filter_genes", "pp.subset"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto e = shape_for(s, n_threads);
    return kept_bytes(s) + std::max(estimate::gene_counts(e).peak, estimate::subset(e, s.n_obs, s.n_vars, s.nnz).peak);
  }
  std::int64_t kept_bytes(const Shape& s) const override { return on_host(s) ? 8 * s.n_vars : 0; }

  std::string run(const Context& ctx, AnnData& data) override {
    const auto n_positive = to_vector(ctx, pp::gene_counts(ctx, require_X(data, "filter genes").view()).n_positive);
    std::vector<std::uint8_t> keep(n_positive.size());
    for (std::size_t j = 0; j < keep.size(); ++j) keep[j] = n_positive[j] >= *o_.min_cells ? 1 : 0;
    const auto kept = std::accumulate(keep.begin(), keep.end(), std::int64_t{0});
    SCW_EXPECT_AS(DataError, kept > 0, "filter genes", "no gene is found in {} cells; lower min_cells", *o_.min_cells);
    const std::int64_t dropped = data.n_vars() - kept;
    data.var.set("n_cells", Column(cast<std::int64_t>(n_positive)));
    data.subset_var(ctx, Span<const std::uint8_t>(keep));
    return fmt::format("{} genes dropped, {} left", format_count(dropped), format_count(kept));
  }

 private:
  RunOptions o_;
};

// ------------------------------------------------------------------------------------------- normalise, log1p, HVG

class NormalizeStep final : public Step {
 public:
  explicit NormalizeStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "normalise"; }
  std::vector<std::string> operations() const override { return {"pp.normalize_total"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return kept_bytes(s) + estimate::normalize_total(shape_for(s, n_threads), o_.target_sum.has_value()).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override { return o_.keep_counts ? s.matrix_bytes() : 0; }

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
  std::int64_t peak_bytes(const Shape&, int) const override { return 0; }
  std::int64_t kept_bytes(const Shape&) const override { return 0; }
  std::string run(const Context& ctx, AnnData& data) override {
    pp::log1p(ctx, data.X->mutable_view());
    data.uns["log1p"] = Dict{};  // no base = None: anndata before 0.12 cannot read it
    return "X = ln(1 + X)";
  }
};

bool on_counts(const std::string& flavor) { return flavor.starts_with("seurat_v3"); }

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

// ---------------------------------------------------------------------------------------------- regression, scaling

bool makes_dense(const RunOptions& o) { return o.scaling == "explicit"; }

std::int64_t variable_genes(const RunOptions& o, const Shape& s) {
  return o.n_top_genes > 0 ? std::min(o.n_top_genes, s.n_vars) : s.n_vars / 5;
}

/// raw = all genes; X = the variable ones, so that the dense matrix of the next steps stays small.
class SelectGenesStep final : public Step {
 public:
  explicit SelectGenesStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "select genes"; }
  std::vector<std::string> operations() const override { return {"pp.subset"}; }
  // The variable genes are taken to hold at most half of the entries.
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return s.matrix_bytes() + estimate::subset(shape_for(s, n_threads), s.n_obs, variable_genes(o_, s), s.nnz / 2).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return estimate::subset(shape_for(s, 1), s.n_obs, variable_genes(o_, s), s.nnz / 2).kept;
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

/// The columns of obs that regress_out takes: one of categories, or numbers [cells x k].
struct Regressor {
  std::optional<Categorical> categories;
  std::vector<double> keys;
  std::int64_t n_keys = 0;
  MatrixView<const double> view() const {
    return {keys.data(), n_keys == 0 ? 0 : static_cast<std::int64_t>(keys.size()) / n_keys, n_keys};
  }
};

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

/// [columns x rows] on the host.
Matrix<double> transposed(const Context& ctx, const Matrix<double>& m) {
  const auto values = to_vector(ctx, m.data);
  Matrix<double> out(ctx.host().memory, m.n_cols, m.n_rows, "regression");
  for (std::int64_t i = 0; i < m.n_rows; ++i)
    for (std::int64_t j = 0; j < m.n_cols; ++j) out.view()(j, i) = values[static_cast<std::size_t>(i * m.n_cols + j)];
  return out;
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
      const auto dense = dense_shape(s, n_threads, variable_genes(o_, s), s.value_bytes);
      return kept_bytes(s) + estimate::regress_out(dense, keys).peak;
    }
    // The sums of the fit, of all genes; as a matrix of the genes alone.
    return kept_bytes(s) + estimate::regress_out(dense_shape(s, n_threads, s.n_vars, s.value_bytes), keys).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    if (!makes_dense(o_)) return on_host(s) ? 8 * s.n_vars * (static_cast<std::int64_t>(o_.regress_out.size()) + 1) : 0;
    return s.n_obs * variable_genes(o_, s) * s.value_bytes;
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
    return kept_bytes(s) + estimate::scale(dense_shape(s, n_threads, variable_genes(o_, s), s.value_bytes), false).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return o_.regress_out.empty() ? s.n_obs * variable_genes(o_, s) * s.value_bytes : 0;
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

// ------------------------------------------------------------------------------------------------------------- PCA

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
    const std::int64_t block = residuals ? std::min(std::int64_t{640} << 20, 2 * e.nnz * s.value_bytes) : 0;
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

// ----------------------------------------------------------------------------------------- neighbours, UMAP, Leiden

/// The first columns of the scores in single precision, beside them.
Matrix<float> representation(const Context& ctx, const MatrixElement& scores, std::int64_t used) {
  if (const auto* all = std::get_if<Matrix<float>>(&scores.data); all != nullptr && all->n_cols == used)
    return std::get<Matrix<float>>(scores.clone(ctx).data);
  const MatrixElement here = scores.copy_to(ctx, Device{});
  Matrix<float> part(ctx.host().memory, scores.n_rows(), used, "representation");
  std::visit(
      [&](const auto& v) {
        if constexpr (requires { v.ld; })
          for (std::int64_t i = 0; i < v.n_rows; ++i)
            for (std::int64_t j = 0; j < used; ++j) part.view()(i, j) = static_cast<float>(v(i, j));
      },
      here.view());
  if (scores.device() == Device{}) return part;
  return std::get<Matrix<float>>(MatrixElement(std::move(part)).copy_to(ctx, scores.device()).data);
}

class NeighborsStep final : public Step {
 public:
  explicit NeighborsStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "neighbours"; }
  std::vector<std::string> operations() const override {
    return {o_.knn_algorithm == "nn_descent" ? "pp.neighbors: nn_descent" : "pp.neighbors: brute",
            "pp.neighbors: connectivities", "pp.neighbors: distance graph"};
  }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const std::int64_t k = std::min<std::int64_t>(o_.n_neighbors, s.n_obs);
    const std::int64_t width = o_.n_pcs.value_or(o_.n_comps);
    const estimate::Need lists = estimate::knn(dense_shape(s, n_threads, width, 4), k);
    const std::int64_t copied = o_.n_pcs ? 4 * s.n_obs * width : 0;  // the first columns of the scores
    return copied + std::max(lists.peak,
                             lists.kept + std::max(estimate::connectivities(s.device, s.n_obs, k).peak, kept_bytes(s)));
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    const std::int64_t k = std::min<std::int64_t>(o_.n_neighbors, s.n_obs);
    return 8 * (s.n_obs + 1) + 8 * s.n_obs * (k - 1) + estimate::connectivities(s.device, s.n_obs, k).kept;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    const std::int64_t width = data.obsm_matrix("X_pca").n_cols();
    const std::int64_t used = o_.n_pcs ? *o_.n_pcs : width;
    SCW_EXPECT(used >= 1 && used <= width, "neighbours", "n_pcs must be from 1 to the {} components there are (got {})",
               width, used);
    pp::NeighborsOptions options;
    options.knn.n_neighbors = o_.n_neighbors;
    options.knn.metric = pp::parse_metric(o_.metric);
    options.knn.algorithm = pp::parse_knn_algorithm(o_.knn_algorithm);
    options.method = pp::parse_connectivity_method(o_.connectivities);
    pp::Neighbors r = pp::neighbors(ctx, representation(ctx, data.obsm_matrix("X_pca"), used).view(), options);
    const std::int64_t edges = r.connectivities.indices.size();
    data.set_obsp("distances", MatrixElement(pp::distance_graph(ctx, r.knn)));
    data.set_obsp("connectivities", MatrixElement(std::move(r.connectivities)));
    Dict params{{"n_neighbors", Value(std::int64_t{r.knn.k})},
                {"method", Value(o_.connectivities)},
                {"random_state", Value(static_cast<std::int64_t>(o_.seed))},
                {"metric", Value(o_.metric)}};
    params["algorithm"] = Value(std::string(pp::to_string(r.knn.algorithm)));
    if (r.knn.algorithm == pp::KnnAlgorithm::nn_descent) {
      params["recall"] = Value(r.knn.recall);
      params["recall_cells"] = Value(r.knn.recall_cells);
    }
    if (o_.n_pcs) params["n_pcs"] = Value(*o_.n_pcs);
    data.uns["neighbors"] = Dict{{"connectivities_key", Value("connectivities")},
                                 {"distances_key", Value("distances")},
                                 {"params", Value(std::move(params))}};
    const bool exact = r.knn.algorithm == pp::KnnAlgorithm::brute;
    return fmt::format("{} neighbours on {} components, {}, {:.1f} edges a cell", r.knn.k, used,
                       exact ? std::string("exact") : fmt::format("recall {:.3f} on a sample", r.knn.recall),
                       static_cast<double>(edges) / static_cast<double>(std::max<std::int64_t>(1, data.n_obs())));
  }

 private:
  RunOptions o_;
};

const CsrView<const float> connectivities(const AnnData& data) {
  return std::get<CsrView<const float>>(data.obsp_matrix("connectivities").view());
}

/// The graph of the neighbours, with one and a half times the edges of the lists: cells that are near each other mostly
/// are so both ways.
estimate::Shape graph_shape(const RunOptions& o, const Shape& s, int n_threads) {
  const std::int64_t k = std::min<std::int64_t>(o.n_neighbors, s.n_obs);
  return {s.device, n_threads, s.n_obs, s.n_obs, s.n_obs * (k - 1) * 3 / 2, 4, true};
}

class UmapStep final : public Step {
 public:
  explicit UmapStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "UMAP"; }
  std::vector<std::string> operations() const override { return {"tl.umap"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return estimate::umap(graph_shape(o_, s, n_threads), o_.umap_components).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override { return s.n_obs * 4 * o_.umap_components; }

  std::string run(const Context& ctx, AnnData& data) override {
    tl::UmapOptions options;
    options.min_dist = o_.min_dist;
    options.spread = o_.spread;
    options.n_components = o_.umap_components;
    options.maxiter = o_.umap_epochs;
    Matrix<float> start;
    if (o_.umap_init == "random") options.init = tl::UmapInit::random;
    if (o_.umap_init == "pca") {
      const MatrixElement& scores = data.obsm_matrix("X_pca");
      SCW_EXPECT(scores.n_cols() >= o_.umap_components, "UMAP", "there are {} components, {} are needed",
                 scores.n_cols(), o_.umap_components);
      start = representation(ctx, scores, o_.umap_components);
      options.init = tl::UmapInit::array;
      options.init_positions = start.view();
    }
    tl::Umap r = tl::umap(ctx, connectivities(data), options);
    data.set_obsm("X_umap", MatrixElement(std::move(r.embedding)));
    Dict params{{"a", Value(r.a)}, {"b", Value(r.b)}};
    if (o_.seed != 0) params["random_state"] = Value(static_cast<std::int64_t>(o_.seed));
    data.uns["umap"] = Dict{{"params", Value(std::move(params))}};
    return fmt::format("{} dimensions, {} epochs", o_.umap_components, r.n_epochs);
  }

 private:
  RunOptions o_;
};

class LeidenStep final : public Step {
 public:
  explicit LeidenStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "Leiden"; }
  std::vector<std::string> operations() const override { return {"tl.leiden"}; }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    return estimate::leiden(graph_shape(o_, s, n_threads), static_cast<std::int64_t>(o_.resolution.size())).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return 4 * s.n_obs * static_cast<std::int64_t>(o_.resolution.size());
  }

  std::string run(const Context& ctx, AnnData& data) override {
    tl::LeidenOptions options;
    options.n_iterations = o_.leiden_iterations;
    const auto results = tl::leiden(ctx, connectivities(data), Span<const double>(o_.resolution), options);
    const bool one = results.size() == 1;
    std::vector<double> modularities;
    Dict sizes;
    std::string summary;
    for (std::size_t k = 0; k < results.size(); ++k) {
      const auto& r = results[k];
      const std::string column = one ? "leiden" : "leiden_" + python_float(o_.resolution[k]);
      Categorical labels;
      labels.codes = to_vector(ctx, r.labels);
      std::vector<std::string> names;
      for (std::int32_t c = 0; c < r.n_clusters; ++c) names.push_back(std::to_string(c));
      labels.categories = std::move(names);
      data.obs.set(column, Column(std::move(labels)));
      modularities.push_back(r.modularity);
      sizes[column] = Value(to_vector(ctx, r.cluster_sizes));
      summary += fmt::format("{}{}{} clusters, modularity {:.4f}{}", summary.empty() ? "" : "; ",
                             one ? "" : python_float(o_.resolution[k]) + ": ", r.n_clusters, r.modularity,
                             r.converged || o_.leiden_iterations >= 0 ? "" : " (not converged)");
    }
    Dict params{{"resolution", one ? Value(o_.resolution[0]) : Value(o_.resolution)},
                {"random_state", Value(static_cast<std::int64_t>(o_.seed))},
                {"n_iterations", Value(std::int64_t{o_.leiden_iterations})}};
    data.uns["leiden"] = Dict{{"params", Value(std::move(params))},
                              {"modularity", one ? Value(modularities[0]) : Value(modularities)},
                              {"cluster_sizes", one ? sizes.begin()->second : Value(sizes)}};
    return summary;
  }

 private:
  RunOptions o_;
};

// --------------------------------------------------------------------------------------------------------- markers

class MarkersStep final : public Step {
 public:
  explicit MarkersStep(const RunOptions& o) : o_(o) {}
  std::string name() const override { return "markers"; }
  std::vector<std::string> operations() const override {
    if (o_.markers == "logreg") return {"tl.logistic_regression"};
    if (o_.markers == "wilcoxon") return {"tl.rank_genes_groups"};
    return {"prim.group_moments"};
  }
  std::int64_t peak_bytes(const Shape& s, int n_threads) const override {
    const auto test = o_.markers == "wilcoxon" ? estimate::Test::wilcoxon
                      : o_.markers == "logreg" ? estimate::Test::logreg
                                               : estimate::Test::t_test;
    return kept_bytes(s) + estimate::rank_genes_groups(shape_for(s, n_threads), test, kGroupsGuess).peak;
  }
  std::int64_t kept_bytes(const Shape& s) const override {
    return on_host(s) ? kGroupsGuess * (o_.n_marker_genes ? *o_.n_marker_genes : s.n_vars) * (24 + 32) : 0;
  }

  std::string run(const Context& ctx, AnnData& data) override {
    constexpr const char* op = "markers";
    const std::string groupby = marker_groups(o_);
    Categorical labels = data.obs.at(groupby).to_categorical();
    const auto categories = labels.category_names();
    // Groups of one cell cannot be tested.
    std::vector<std::int64_t> size(categories.size());
    for (const auto c : labels.codes)
      if (c >= 0) ++size[static_cast<std::size_t>(c)];
    std::vector<std::int32_t> group(categories.size(), -1);
    std::vector<std::string> names;
    for (std::size_t c = 0; c < categories.size(); ++c)
      if (size[c] >= 2) {
        group[c] = static_cast<std::int32_t>(names.size());
        names.push_back(categories[c]);
      }
    SCW_EXPECT_AS(DataError, !names.empty(), op, "no group of obs['{}'] has two cells", groupby);
    if (names.size() < categories.size())
      ctx.warn(fmt::format("{}: {} groups of obs['{}'] have fewer than two cells and are left out", op,
                           categories.size() - names.size(), groupby));
    std::vector<std::int32_t> codes(labels.codes.size());
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = labels.codes[i] < 0 ? -1 : group[static_cast<std::size_t>(labels.codes[i])];

    tl::RankGenesGroupsOptions options;
    options.test = o_.markers == "wilcoxon" ? tl::RankTest::wilcoxon
                   : o_.markers == "t-test" ? tl::RankTest::t_test
                                            : tl::RankTest::t_test_overestim_var;
    options.tie_correct = o_.tie_correct;
    options.pts = o_.pts;
    const bool use_raw = data.raw.has_value();
    const MatrixElement& x = use_raw ? data.raw->X : *data.X;
    const auto& genes = use_raw ? data.raw->var.index() : data.var.index();
    Dict params{{"groupby", Value(groupby)},
                {"reference", Value("rest")},
                {"method", Value(o_.markers)},
                {"use_raw", Value(use_raw)},
                {"corr_method", Value("benjamini-hochberg")},
                {"mean_in_log_space", Value(true)}};
    if (o_.markers == "logreg") {
      data.uns["rank_genes_groups"] = Value(logreg(ctx, x.view(), codes, names, genes, std::move(params)));
      return fmt::format("{} genes in one regression on {} groups of '{}'",
                         format_count(static_cast<std::int64_t>(genes.size())), names.size(), groupby);
    }
    const auto r = tl::rank_genes_groups(ctx, x.view(), Span<const std::int32_t>(codes),
                                         static_cast<std::int32_t>(names.size()), options);

    const auto m = static_cast<std::int64_t>(genes.size());
    const std::int64_t n = o_.n_marker_genes ? std::min(*o_.n_marker_genes, m) : m;
    StructArray top_names, scores, folds, pvals, adjusted;
    for (auto* table : {&top_names, &scores, &folds, &pvals, &adjusted}) table->n_rows = n;
    for (std::int64_t g = 0; g < static_cast<std::int64_t>(names.size()); ++g) {
      const std::string& name = names[static_cast<std::size_t>(g)];
      const std::int32_t* order = r.order.view().row(g);
      std::vector<std::string> gene_names;
      std::vector<float> score, fold;
      std::vector<double> p, q;
      for (std::int64_t k = 0; k < n; ++k) {
        const std::int32_t j = order[k];
        gene_names.push_back(genes[static_cast<std::size_t>(j)]);
        score.push_back(static_cast<float>(r.scores.view()(g, j)));
        fold.push_back(static_cast<float>(r.logfoldchanges.view()(g, j)));
        p.push_back(r.pvals.view()(g, j));
        q.push_back(r.pvals_adj.view()(g, j));
      }
      top_names.fields.emplace_back(name, std::move(gene_names));
      scores.fields.emplace_back(name, std::move(score));
      folds.fields.emplace_back(name, std::move(fold));
      pvals.fields.emplace_back(name, std::move(p));
      adjusted.fields.emplace_back(name, std::move(q));
    }
    if (o_.markers == "wilcoxon") {
      params["tie_correct"] = Value(o_.tie_correct);
      params["return_u_values"] = Value(false);
    }
    Dict out{{"params", Value(std::move(params))}, {"names", Value(std::move(top_names))},
             {"scores", Value(std::move(scores))}, {"logfoldchanges", Value(std::move(folds))},
             {"pvals", Value(std::move(pvals))},   {"pvals_adj", Value(std::move(adjusted))}};
    if (o_.pts) {
      const auto frame = [&](const Matrix<double>& values) {
        DataFrame df(genes, use_raw ? data.raw->var.index_name : data.var.index_name);
        for (std::size_t g = 0; g < names.size(); ++g) {
          const double* row = values.view().row(static_cast<std::int64_t>(g));
          df.set(names[g], Column(std::vector<double>(row, row + m)));
        }
        return df;
      };
      out["pts"] = Value(frame(r.pts));
      out["pts_rest"] = Value(frame(r.pts_rest));
    }
    data.uns["rank_genes_groups"] = Value(std::move(out));
    return fmt::format("{} genes tested in {} groups of '{}' ({})", format_count(m), names.size(), groupby, o_.markers);
  }

 private:
  /// Names and scores only: the coefficients of every group, or with two groups those of the second, under the first.
  Dict logreg(const Context& ctx, const AnyMatrixView& x, const std::vector<std::int32_t>& codes,
              const std::vector<std::string>& names, const std::vector<std::string>& genes, Dict params) const {
    SCW_EXPECT_AS(DataError, names.size() > 1, "markers", "logreg needs at least two groups");
    const auto r =
        tl::logistic_regression(ctx, x, Span<const std::int32_t>(codes), static_cast<std::int32_t>(names.size()));
    if (!r.converged)
      ctx.warn(fmt::format("markers: the logistic regression stopped after {} iterations", r.n_iterations));
    const auto m = static_cast<std::int64_t>(genes.size());
    const std::int64_t n = o_.n_marker_genes ? std::min(*o_.n_marker_genes, m) : m;
    StructArray top, scores;
    top.n_rows = scores.n_rows = n;
    for (std::int64_t g = 0; g < r.coefficients.n_rows; ++g) {
      const double* w = r.coefficients.view().row(g);
      std::vector<std::int32_t> order(static_cast<std::size_t>(m));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return w[a] > w[b]; });
      std::vector<std::string> gene_names;
      std::vector<float> score;
      for (std::int64_t k = 0; k < n; ++k) {
        gene_names.push_back(genes[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])]);
        score.push_back(static_cast<float>(w[order[static_cast<std::size_t>(k)]]));
      }
      top.fields.emplace_back(names[static_cast<std::size_t>(g)], std::move(gene_names));
      scores.fields.emplace_back(names[static_cast<std::size_t>(g)], std::move(score));
    }
    return Dict{
        {"params", Value(std::move(params))}, {"names", Value(std::move(top))}, {"scores", Value(std::move(scores))}};
  }

  RunOptions o_;
};

}  // namespace

// ------------------------------------------------------------------------------------------------------------ list

std::string marker_groups(const RunOptions& o) {
  if (o.markers_groupby) return *o.markers_groupby;
  if (o.resolution.size() == 1) return "leiden";
  const auto nearest = std::min_element(o.resolution.begin(), o.resolution.end(),
                                        [](double a, double b) { return std::abs(a - 1) < std::abs(b - 1); });
  return "leiden_" + python_float(*nearest);
}

void check_options(const RunOptions& o) {
  constexpr const char* op = "options";
  const auto one_of = [](const char* name, const std::string& value, std::initializer_list<const char*> allowed) {
    std::string list;
    for (const char* a : allowed) {
      if (value == a) return;
      list += std::string(list.empty() ? "" : ", ") + a;
    }
    detail::fail<InvalidArgument>(op, "{} is '{}' (expected one of {})", name, value, list);
  };
  one_of("flavor", o.flavor, {"seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"});
  one_of("scaling", o.scaling, {"implicit", "explicit", "none"});
  one_of("umap_init", o.umap_init, {"spectral", "pca", "random"});
  one_of("markers", o.markers, {"wilcoxon", "t-test", "t-test_overestim_var", "logreg", "none"});
  pp::parse_metric(o.metric);
  pp::parse_knn_algorithm(o.knn_algorithm);
  pp::parse_connectivity_method(o.connectivities);
  SCW_EXPECT(!o.min_cells || *o.min_cells >= 0, op, "min_cells must not be negative (got {})", *o.min_cells);
  SCW_EXPECT(!o.target_sum || *o.target_sum > 0, op, "target_sum must be positive (got {})", *o.target_sum);
  SCW_EXPECT(o.n_top_genes >= 0, op, "n_top_genes must not be negative (got {})", o.n_top_genes);
  SCW_EXPECT(o.n_top_genes > 0 || !on_counts(o.flavor), op, "flavor {} needs n_top_genes", o.flavor);
  SCW_EXPECT(!o.max_value || *o.max_value > 0, op, "max_value must be positive (got {})", *o.max_value);
  SCW_EXPECT(o.n_comps >= 0, op, "n_comps must not be negative (got {})", o.n_comps);
  SCW_EXPECT(o.n_neighbors >= 2, op, "n_neighbors must be at least 2 (got {})", o.n_neighbors);
  SCW_EXPECT(!o.n_pcs || *o.n_pcs >= 1, op, "n_pcs must be positive (got {})", *o.n_pcs);
  SCW_EXPECT(o.min_dist >= 0 && o.spread > 0, op, "min_dist must not be negative, spread positive (got {}, {})",
             o.min_dist, o.spread);
  SCW_EXPECT(o.umap_components >= 1, op, "umap_components must be positive (got {})", o.umap_components);
  SCW_EXPECT(!o.umap_epochs || *o.umap_epochs >= 0, op, "umap_epochs must not be negative (got {})", *o.umap_epochs);
  SCW_EXPECT(!o.resolution.empty(), op, "at least one resolution is needed");
  for (std::size_t i = 0; i < o.resolution.size(); ++i) {
    SCW_EXPECT(o.resolution[i] >= 0 && std::isfinite(o.resolution[i]), op, "resolution must not be negative (got {})",
               o.resolution[i]);
    for (std::size_t j = 0; j < i; ++j)
      SCW_EXPECT(o.resolution[i] != o.resolution[j], op, "resolution {} is given twice", o.resolution[i]);
  }
  SCW_EXPECT(!o.n_marker_genes || *o.n_marker_genes >= 1, op, "n_marker_genes must be positive (got {})",
             *o.n_marker_genes);
}

Steps main_job(const RunOptions& o, ReportData* report) {
  check_options(o);
  Steps steps;
  steps.push_back(std::make_unique<QcStep>(o, report));
  if (o.min_genes || o.max_genes || o.min_counts || o.max_counts || o.max_pct_mt)
    steps.push_back(std::make_unique<FilterCellsStep>(o));
  if (o.min_cells) steps.push_back(std::make_unique<FilterGenesStep>(o));
  if (on_counts(o.flavor)) steps.push_back(std::make_unique<VariableGenesStep>(o));
  steps.push_back(std::make_unique<NormalizeStep>(o));
  steps.push_back(std::make_unique<Log1pStep>());
  if (!on_counts(o.flavor)) steps.push_back(std::make_unique<VariableGenesStep>(o));
  if (makes_dense(o)) steps.push_back(std::make_unique<SelectGenesStep>(o));
  if (!o.regress_out.empty()) steps.push_back(std::make_unique<RegressOutStep>(o));
  if (o.scaling == "explicit") steps.push_back(std::make_unique<ScaleStep>(o));
  steps.push_back(std::make_unique<PcaStep>(o));
  steps.push_back(std::make_unique<NeighborsStep>(o));
  if (o.umap) steps.push_back(std::make_unique<UmapStep>(o));
  steps.push_back(std::make_unique<LeidenStep>(o));
  if (o.markers != "none") steps.push_back(std::make_unique<MarkersStep>(o));
  return steps;
}

}  // namespace scw::pipeline
