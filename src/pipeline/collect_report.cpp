// What the report shows, read from the slots of a finished AnnData.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <unordered_map>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "pipeline/format.hpp"
#include "scwarp/pipeline/pipeline.hpp"

namespace scw::pipeline {

namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();  // logreg has no fold changes and p-values
constexpr std::size_t kTableGenes = 100;                               // rows a group in the marker table

/// values[g][i] = expression of gene wanted[g] in cell i.
std::vector<std::vector<float>> expression(const Context& ctx, const AnyMatrixView& x,
                                           const std::vector<std::int32_t>& wanted) {
  const std::int64_t n = n_rows(x);
  std::vector<std::vector<float>> out(wanted.size(), std::vector<float>(static_cast<std::size_t>(n), 0.0f));
  std::vector<std::int32_t> place(static_cast<std::size_t>(n_cols(x)), -1);
  for (std::size_t g = 0; g < wanted.size(); ++g)
    place[static_cast<std::size_t>(wanted[g])] = static_cast<std::int32_t>(g);
  parallel_for(ctx.host(), n, 1024, [&](std::int64_t begin, std::int64_t end) {
    std::visit(
        [&](const auto& v) {
          for (std::int64_t i = begin; i < end; ++i) {
            if constexpr (requires { v.indptr; }) {
              for (std::int64_t k = v.indptr[i]; k < v.indptr[i + 1]; ++k) {
                const std::int32_t g = place[static_cast<std::size_t>(v.indices[k])];
                if (g >= 0)
                  out[static_cast<std::size_t>(g)][static_cast<std::size_t>(i)] = static_cast<float>(v.values[k]);
              }
            } else {
              for (std::size_t g = 0; g < wanted.size(); ++g)
                out[g][static_cast<std::size_t>(i)] = static_cast<float>(v(i, wanted[g]));
            }
          }
        },
        x);
  });
  return out;
}

const Value* at(const Value& root, std::initializer_list<const char*> path) {
  const Value* v = &root;
  for (const char* key : path) {
    v = v->find(key);
    if (v == nullptr) return nullptr;
  }
  return v;
}

template <class T>
const std::vector<T>* field(const Value* table, std::size_t group) {
  const auto* s = table == nullptr ? nullptr : table->get<StructArray>();
  return s == nullptr || group >= s->fields.size() ? nullptr : std::get_if<std::vector<T>>(&s->fields[group].second);
}

void collect_markers(const AnnData& data, ReportData& report) {
  const Value* names = at(data.uns, {"rank_genes_groups", "names"});
  const auto* table = names == nullptr ? nullptr : names->get<StructArray>();
  if (table == nullptr) return;
  const auto part = [&](const char* key) { return at(data.uns, {"rank_genes_groups", key}); };
  const auto* pts = part("pts") == nullptr ? nullptr : part("pts")->get<DataFrame>();
  const auto* pts_rest = part("pts_rest") == nullptr ? nullptr : part("pts_rest")->get<DataFrame>();
  std::unordered_map<std::string_view, std::size_t> row;
  if (pts != nullptr)
    for (std::size_t j = 0; j < pts->index().size(); ++j) row.emplace(pts->index()[j], j);
  const auto fraction = [&](const DataFrame* frame, const std::string& group, const std::string& gene) {
    const Column* column = frame == nullptr ? nullptr : frame->find(group);
    const auto* values = column == nullptr ? nullptr : std::get_if<std::vector<double>>(&column->data);
    const auto found = row.find(gene);
    return values == nullptr || found == row.end() ? -1.0 : (*values)[found->second];
  };
  for (std::size_t g = 0; g < table->fields.size(); ++g) {
    const auto& [group, column] = table->fields[g];
    const auto* genes = std::get_if<std::vector<std::string>>(&column);
    const auto* score = field<float>(part("scores"), g);
    const auto* fold = field<float>(part("logfoldchanges"), g);
    const auto* p = field<double>(part("pvals"), g);
    const auto* q = field<double>(part("pvals_adj"), g);
    if (genes == nullptr || score == nullptr) continue;
    std::vector<ReportMarker> list;
    for (std::size_t k = 0; k < std::min(kTableGenes, genes->size()); ++k)
      list.push_back({(*genes)[k], (*score)[k], fold == nullptr ? kUnknown : static_cast<double>((*fold)[k]),
                      p == nullptr ? kUnknown : (*p)[k], q == nullptr ? kUnknown : (*q)[k],
                      fraction(pts, group, (*genes)[k]), fraction(pts_rest, group, (*genes)[k])});
    report.markers.emplace_back(group, std::move(list));
  }
}

/// The best markers of every group in turn, up to `limit` genes; positive scores only.
std::vector<std::pair<std::string, std::int32_t>> top_markers(const ReportData& report, std::size_t per_group,
                                                              std::size_t limit) {
  std::vector<std::pair<std::string, std::int32_t>> out;
  std::set<std::string> seen;
  std::vector<std::size_t> next(report.markers.size(), 0), taken(report.markers.size(), 0);
  for (bool more = true; more && out.size() < limit;) {
    more = false;
    for (std::size_t g = 0; g < report.markers.size() && out.size() < limit; ++g) {
      const auto& list = report.markers[g].second;
      while (taken[g] < per_group && next[g] < list.size()) {
        const auto& m = list[next[g]++];
        if (!(m.score > 0) || m.log_fold_change <= 0.5 || !seen.insert(m.gene).second) continue;
        out.emplace_back(m.gene, static_cast<std::int32_t>(g));
        ++taken[g];
        more = true;
        break;
      }
    }
  }
  return out;
}

void collect_genes(const Context& ctx, const AnnData& data, ReportData& report) {
  if (!data.X || report.markers.empty()) return;
  const bool raw = data.raw.has_value();
  const MatrixElement& x = raw ? data.raw->X : *data.X;
  const auto& names = raw ? data.raw->var.index() : data.var.index();
  std::unordered_map<std::string_view, std::int32_t> index;
  for (std::size_t j = 0; j < names.size(); ++j) index.emplace(names[j], static_cast<std::int32_t>(j));

  const std::size_t groups = report.markers.size();
  const std::size_t per_group = groups <= 10 ? 4 : groups <= 20 ? 3 : 2;
  auto dots = top_markers(report, per_group, groups * per_group);
  std::stable_sort(dots.begin(), dots.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto budget = static_cast<std::size_t>(report_gene_budget(report.n_cells));
  std::vector<std::int32_t> wanted;
  std::map<std::int32_t, std::size_t> place;
  const auto want = [&](const std::string& gene) {
    const auto found = index.find(gene);
    if (found != index.end() && place.emplace(found->second, wanted.size()).second) wanted.push_back(found->second);
  };
  for (const auto& [gene, group] : dots) want(gene);
  for (const auto& [gene, group] : top_markers(report, 20, budget)) {
    if (wanted.size() >= budget) break;
    want(gene);
  }
  auto values = expression(ctx, x.view(), wanted);

  const auto& codes_of = *std::find_if(report.colourings.begin(), report.colourings.end(),
                                       [&](const auto& c) { return c.name == report.cluster_key; });
  const auto& categories = codes_of.categories;
  auto& d = report.dot_plot;
  for (const auto& m : report.markers) d.groups.push_back(m.first);
  std::vector<std::int32_t> group_of(categories.size(), -1);
  std::vector<double> size(groups);
  for (std::size_t c = 0; c < categories.size(); ++c) {
    const auto found = std::find(d.groups.begin(), d.groups.end(), categories[c]);
    if (found != d.groups.end()) group_of[c] = static_cast<std::int32_t>(found - d.groups.begin());
  }
  std::vector<std::int32_t> group(codes_of.codes.size(), -1);
  for (std::size_t i = 0; i < group.size(); ++i) {
    if (codes_of.codes[i] >= 0) group[i] = group_of[static_cast<std::size_t>(codes_of.codes[i])];
    if (group[i] >= 0) size[static_cast<std::size_t>(group[i])] += 1;
  }
  for (const auto& [gene, g] : dots) {
    d.genes.push_back(gene);
    d.group_of_gene.push_back(g);
  }
  d.mean.assign(groups * dots.size(), 0);
  d.fraction.assign(groups * dots.size(), 0);
  for (std::size_t j = 0; j < dots.size(); ++j) {
    const auto& v = values[place.at(index.at(dots[j].first))];
    std::vector<double> sum(groups), found(groups);
    for (std::size_t i = 0; i < v.size(); ++i)
      if (group[i] >= 0) {
        sum[static_cast<std::size_t>(group[i])] += static_cast<double>(v[i]);
        found[static_cast<std::size_t>(group[i])] += v[i] != 0 ? 1 : 0;
      }
    for (std::size_t g = 0; g < groups; ++g) {
      d.mean[g * dots.size() + j] = static_cast<float>(sum[g] / std::max(1.0, size[g]));
      d.fraction[g * dots.size() + j] = static_cast<float>(found[g] / std::max(1.0, size[g]));
    }
  }
  for (std::size_t k = 0; k < std::min(budget, wanted.size()); ++k)
    report.genes.push_back({names[static_cast<std::size_t>(wanted[k])], std::move(values[k])});
}

void collect_variable_genes(const AnnData& data, const RunOptions& o, ReportData& report) {
  const bool raw = data.raw.has_value();
  const DataFrame& var = raw ? data.raw->var : data.var;
  const bool v3 = o.flavor.starts_with("seurat_v3");
  const Column* flags = var.find("highly_variable");
  const Column* x = var.find("means");
  const Column* y = var.find(v3 ? "variances_norm" : "dispersions_norm");
  if (flags == nullptr || x == nullptr || y == nullptr) return;
  auto& out = report.variable_genes;
  out.names = var.index();
  for (const double v : x->to_double()) out.x.push_back(static_cast<float>(v));
  for (const double v : y->to_double()) out.y.push_back(static_cast<float>(v));
  for (const double v : flags->to_double()) out.selected.push_back(v != 0 ? 1 : 0);
  out.x_label = o.flavor == "seurat" ? "mean expression, ln(1 + mean)" : "mean expression";
  out.y_label = v3 ? "standardised variance" : "normalised dispersion";
  out.log_x = out.log_y = v3;
  if (o.flavor == "cell_ranger") out.log_x = true;
}

std::string join(const std::vector<std::string>& parts) {
  std::string out;
  for (const auto& p : parts) out += (out.empty() ? "" : ", ") + p;
  return out;
}

void collect_parameters(const RunOptions& o, ReportData& report) {
  auto& p = report.parameters;
  const auto optional = [](const auto& v) { return v ? format_number(static_cast<double>(*v)) : std::string("none"); };
  p.emplace_back("genes per cell", fmt::format("{} to {}", optional(o.min_genes), optional(o.max_genes)));
  p.emplace_back("counts per cell", fmt::format("{} to {}", optional(o.min_counts), optional(o.max_counts)));
  p.emplace_back("mitochondrial genes", join(o.mt_prefix));
  p.emplace_back("largest mitochondrial share", o.max_pct_mt ? optional(o.max_pct_mt) + " %" : "none");
  p.emplace_back("cells per gene, at least", optional(o.min_cells));
  p.emplace_back("counts per cell after normalisation", o.target_sum ? optional(o.target_sum) : "median");
  p.emplace_back("variable genes",
                 fmt::format("{}, {}", o.flavor, o.n_top_genes > 0 ? format_count(o.n_top_genes) : "by cutoffs"));
  if (o.batch_key) p.emplace_back("batches", *o.batch_key);
  if (!o.regress_out.empty()) p.emplace_back("regressed out", join(o.regress_out));
  p.emplace_back("scaling",
                 o.scaling == "none" ? o.scaling : fmt::format("{}, clipped at {}", o.scaling, optional(o.max_value)));
  p.emplace_back("principal components", o.n_comps == 0 ? "50" : format_count(o.n_comps));
  p.emplace_back("neighbours", fmt::format("{}, {}, {}", o.n_neighbors, o.metric, o.knn_algorithm));
  p.emplace_back("graph", o.connectivities);
  if (o.umap)
    p.emplace_back("UMAP", fmt::format("min_dist {}, spread {}, start {}", o.min_dist, o.spread, o.umap_init));
  std::string resolutions;
  for (const double r : o.resolution) resolutions += (resolutions.empty() ? "" : ", ") + python_float(r);
  p.emplace_back("Leiden resolution", resolutions);
  p.emplace_back("markers", o.markers + (o.tie_correct ? ", corrected for ties" : ""));
  p.emplace_back("seed", std::to_string(o.seed));
}

}  // namespace

void collect_report(const Context& ctx, const AnnData& data, const RunOptions& o, ReportData& report) {
  const std::int64_t n = data.n_obs();
  report.n_cells = n;
  const char* embedding = data.obsm.contains("X_umap") ? "X_umap" : data.obsm.contains("X_pca") ? "X_pca" : nullptr;
  if (embedding != nullptr) {
    report.embedding_name = std::string_view(embedding) == "X_umap" ? "UMAP" : "PC";
    std::visit(
        [&](const auto& v) {
          if constexpr (requires { v.ld; })
            if (v.n_cols >= 2)
              for (std::int64_t i = 0; i < n; ++i) {
                report.x.push_back(static_cast<float>(v(i, 0)));
                report.y.push_back(static_cast<float>(v(i, 1)));
              }
        },
        data.obsm_matrix(embedding).view());
  }
  report.cell_names = data.obs.index();

  report.cluster_key = marker_groups(o);
  const auto add_groups = [&](const std::string& name) {
    const Column* column = data.obs.find(name);
    if (column == nullptr) return;
    const Categorical c = column->to_categorical();
    report.colourings.push_back({name, c.category_names(), c.codes, {}});
  };
  add_groups(report.cluster_key);
  for (const auto& [name, column] : data.obs.columns())
    if (name != report.cluster_key && column.is_categorical() &&
        std::get<Categorical>(column.data).n_categories() <= 200)
      add_groups(name);
  const std::pair<const char*, const char*> numbers[] = {
      {"n_genes_by_counts", "genes per cell"},
      {"total_counts", "counts per cell"},
      {"pct_counts_mt", "% mitochondrial counts"},
      {"pct_counts_in_top_50_genes", "% of counts in the top 50 genes"}};
  for (const auto& [key, label] : numbers)
    if (const Column* column = data.obs.find(key)) {
      ReportColouring c;
      c.name = label;
      for (const double v : column->to_double()) c.values.push_back(static_cast<float>(v));
      report.colourings.push_back(std::move(c));
    }
  collect_markers(data, report);
  collect_genes(ctx, data, report);
  collect_variable_genes(data, o, report);
  if (const Value* ratio = at(data.uns, {"pca", "variance_ratio"})) {
    if (const auto* values = ratio->get<NdArray<double>>()) report.pca_variance_ratio = values->values;
    if (const auto* values = ratio->get<NdArray<float>>())
      report.pca_variance_ratio.assign(values->values.begin(), values->values.end());
  }
  collect_parameters(o, report);

  report.facts = {{"cells", format_count(n)}, {"genes", format_count((data.raw ? data.raw->var : data.var).n_rows())}};
  if (const auto& v = report.variable_genes; !v.selected.empty())
    report.facts.emplace_back("variable genes", format_count(std::count(v.selected.begin(), v.selected.end(), 1)));
  const auto clusters = std::find_if(report.colourings.begin(), report.colourings.end(),
                                     [&](const auto& c) { return c.name == report.cluster_key; });
  if (clusters != report.colourings.end())
    report.facts.emplace_back("clusters", std::to_string(clusters->categories.size()));
  if (const Value* modularity = at(data.uns, {"leiden", "modularity"})) {
    if (const auto* one = modularity->get<double>())
      report.facts.emplace_back("modularity", fmt::format("{:.3f}", *one));
    if (const auto* list = modularity->get<NdArray<double>>())
      for (std::size_t k = 0; k < o.resolution.size() && k < list->values.size(); ++k)
        if (report.cluster_key == "leiden_" + python_float(o.resolution[k]))
          report.facts.emplace_back("modularity", fmt::format("{:.3f}", list->values[k]));
  }
}

AnnData simulated_anndata(const Context& ctx, const datasets::SimulateOptions& options) {
  datasets::Simulated s = datasets::simulate(ctx, options);
  const auto labels = [](const Array<std::int32_t>& codes, int n) {
    Categorical c;
    c.codes.assign(codes.begin(), codes.end());
    std::vector<std::string> names;
    for (int k = 0; k < n; ++k) names.push_back(std::to_string(k));
    c.categories = std::move(names);
    return c;
  };
  const auto flags = [](const Array<std::uint8_t>& a) { return Bools{{a.begin(), a.end()}}; };
  std::vector<std::string> cells, genes;
  for (std::int64_t i = 0; i < options.n_cells; ++i) cells.push_back(datasets::simulated_cell_name(i));
  for (std::int64_t j = 0; j < options.n_genes; ++j) genes.push_back(datasets::simulated_gene_name(s, j));
  AnnData out;
  out.obs = DataFrame(std::move(cells));
  out.obs.set("cluster", Column(labels(s.cluster, options.n_clusters)));
  out.obs.set("batch", Column(labels(s.batch, options.n_batches)));
  out.obs.set("is_doublet", Column(flags(s.is_doublet)));
  out.obs.set("is_damaged", Column(flags(s.is_damaged)));
  out.var = DataFrame(std::move(genes));
  out.var.set("marker_of", Column(labels(s.marker_of, options.n_clusters)));
  out.set_X(MatrixElement(std::move(s.counts)));
  return out;
}

}  // namespace scw::pipeline
