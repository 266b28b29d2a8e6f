#include "app.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "scwarp/version.hpp"

namespace scw::cli {

namespace {

class Builder {
 public:
  Builder(CLI::App* app, Choices& choices) : app_(app), choices_(choices) {}

  Builder& group(const char* name) {
    group_ = name;
    return *this;
  }
  template <class T>
  CLI::Option* add(const char* name, T& target, const char* text) {
    return app_->add_option(name, target, text)->group(group_)->capture_default_str();
  }
  template <class T>
  CLI::Option* add(const char* name, std::vector<T>& target, const char* text) {
    auto* option = app_->add_option(name, target, text)->group(group_)->delimiter(',');
    return option->default_str(fmt::format("{}", fmt::join(target, ",")));
  }
  /// Accepts "none" for no value.
  template <class T>
  CLI::Option* add(const char* name, std::optional<T>& target, const char* text) {
    const auto parse = [&target, name](const CLI::results_t& r) {
      if (r.at(0) == "none") {
        target.reset();
        return true;
      }
      T value{};
      if (!CLI::detail::lexical_cast(r.at(0), value)) return false;
      target = value;
      return true;
    };
    auto* option = app_->add_option(name, parse, text)
                       ->group(group_)
                       ->type_name(std::string(CLI::detail::type_name<T>()) + "|none");
    return option->default_str(target ? fmt::format("{}", *target) : "none");
  }
  CLI::Option* choose(const char* name, std::string& target, std::vector<std::string> values, const char* text) {
    auto* option = add(name, target, text)->check(CLI::IsMember(values));
    std::string joined;
    for (const auto& v : values) joined += (joined.empty() ? "" : "|") + v;
    option->type_name(joined);
    choices_[option] = std::move(values);
    return option;
  }
  /// An empty name is a variable of the shell that is not set: it must not stand for "none".
  template <class T>
  CLI::Option* file(const char* name, T& target, const char* text) {
    return add(name, target, text)->type_name("FILE")->check([](const std::string& path) {
      return path.empty() ? std::string("the name of the file is empty") : std::string();
    });
  }
  CLI::Option* seed(std::uint64_t& target) {
    return add("--seed", target, "Of all random numbers")->check([](const std::string& text) {
      errno = 0;
      char* end = nullptr;
      const auto value = std::strtoull(text.c_str(), &end, 0);
      // Files hold it as int64.
      const bool fits = errno == 0 && text.find('-') == std::string::npos && value <= INT64_MAX;
      return !text.empty() && *end == '\0' && fits
                 ? std::string()
                 : fmt::format("got '{}', expected a whole number from 0 to {}", text, INT64_MAX);
    });
  }
  CLI::Option* flag(const char* name, bool& target, const char* text) {
    return app_->add_flag(name, target, text)->group(group_);
  }

 private:
  CLI::App* app_;
  Choices& choices_;
  std::string group_ = "Options";
};

void add_common(Builder& b, Arguments& a,
                const char* memory = "Stop rather than use more memory for data, for example 8GB or 512MiB") {
  b.group("How it runs");
  b.add("--device", a.device, "auto, cpu, cuda or cuda:N")->type_name("DEVICE");
  b.add("--threads", a.threads, "CPU threads, 0 = all; results do not depend on it")
      ->check([](const std::string& text) {
        return text.starts_with('-') ? fmt::format("got '{}', expected 0 or more", text) : std::string();
      });
  b.add("--memory-limit", a.memory_limit, memory)->type_name("SIZE")->check([](const std::string& text) {
    try {
      parse_bytes(text);
      return std::string();
    } catch (const CLI::Error& e) {
      return std::string(e.what());
    }
  });
  b.flag("--json", a.json, "Events as JSON, one per line, on standard output");
  b.flag("-q,--quiet", a.quiet, "Warnings and errors only");
  b.flag("-v,--verbose", a.verbose, "More messages");
}

void add_simulate_options(Builder& b, datasets::SimulateOptions& o) {
  b.group("Data");
  b.add("--n-cells", o.n_cells, "Cells");
  b.add("--n-genes", o.n_genes, "Genes, the first 13 of them mitochondrial");
  b.add("--n-clusters", o.n_clusters, "Planted clusters");
  b.add("--n-batches", o.n_batches, "Batches, each with its own gene effects and depth");
  b.add("--doublet-rate", o.doublet_rate, "Share of cells that are the sum of two");
  b.add("--damaged-rate", o.damaged_rate, "Share of cells with many mitochondrial counts and little depth");
  b.add("--mean-counts", o.mean_counts, "Mean counts of a cell");
}

const std::vector<std::string> kCompressions = {"auto", "gzip", "zstd", "lz4", "blosc-zstd", "none"};

void add_format(Builder& b, Arguments& a) {
  b.add("--zarr-format", a.zarr_format, "Version of a Zarr store, 2 or 3; 0: 2, or 3 with --shards")
      ->check(CLI::IsMember({0, 2, 3}));
  b.flag("--shards", a.shards, "Zarr version 3: many chunks in each file");
}

void add_run(CLI::App* app, Arguments& a, Choices& choices) {
  auto& o = a.run;
  Builder b(app, choices);
  b.group("Files");
  b.file("input", a.input, "h5ad, Zarr, 10x h5, folder with matrix.mtx, CSV or TSV; without it: simulated data");
  b.file("-o,--output", a.output, "Annotated file to write; its ending says the format: .h5ad or .zarr");
  b.file("--report", a.report, "HTML report to write");
  b.flag("-f,--force", a.force, "Overwrite the output and the report if they are there")->configurable(false);
  b.choose("--compression", o.compression, kCompressions,
           "Of the output; auto: gzip for h5ad, lz4 for Zarr; lz4 and blosc-zstd are Zarr's");
  add_format(b, a);
  b.flag("--keep-counts,!--no-keep-counts", o.keep_counts, "Keep the counts in layers['counts']")->default_str("true");

  b.group("Quality control and filters");
  b.add("--mt-prefix", o.mt_prefix, "Names of mitochondrial genes start so");
  b.add("--percent-top", o.percent_top, "Shares of the N most expressed genes to compute (0: none)");
  b.add("--min-genes", o.min_genes, "Keep cells with at least so many genes");
  b.add("--max-genes", o.max_genes, "Keep cells with at most so many genes");
  b.add("--min-counts", o.min_counts, "Keep cells with at least so many counts");
  b.add("--max-counts", o.max_counts, "Keep cells with at most so many counts");
  b.add("--max-pct-mt", o.max_pct_mt, "Keep cells with at most this percentage of mitochondrial counts");
  b.add("--min-cells", o.min_cells, "Keep genes found in at least so many cells");

  b.group("Normalisation and variable genes");
  b.add("--target-sum", o.target_sum, "Counts per cell after normalisation; none: the median");
  b.choose("--flavor", o.flavor, {"seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"},
           "How variable genes are found");
  b.add("--n-top-genes", o.n_top_genes, "Variable genes to choose; 0: by the three cutoffs below");
  b.add("--min-mean", o.min_mean, "Cutoff, with --n-top-genes 0");
  b.add("--max-mean", o.max_mean, "Cutoff, with --n-top-genes 0");
  b.add("--min-disp", o.min_disp, "Cutoff, with --n-top-genes 0");
  b.add("--batch-key", o.batch_key, "Column of obs: find variable genes in each batch and combine");
  b.add("--regress-out", o.regress_out,
        "Columns of obs whose effect is removed: within the PCA, or from X itself with --scaling explicit");
  b.choose("--scaling", o.scaling, {"implicit", "explicit", "none"},
           "implicit: within the PCA, X stays sparse; explicit: X itself is scaled (dense, variable genes only)");
  b.add("--max-value", o.max_value, "Clip scaled values at this many standard deviations");

  b.group("Embedding and clusters");
  b.add("--n-comps", o.n_comps, "Principal components; 0: 50, or fewer for small data");
  b.add("-k,--n-neighbors", o.n_neighbors, "Neighbours of a cell, itself included");
  b.add("--n-pcs", o.n_pcs, "Components used for the neighbours; none: all");
  b.add("--metric", o.metric, "Distance between cells");
  b.choose("--knn", o.knn_algorithm, {"auto", "brute", "nn_descent"}, "How neighbours are searched");
  b.choose("--connectivities", o.connectivities, {"umap", "gauss", "jaccard"}, "Weights of the graph");
  b.flag("--umap,!--no-umap", o.umap, "Compute a UMAP")->default_str("true");
  b.add("--min-dist", o.min_dist, "UMAP: how tightly points are packed");
  b.add("--spread", o.spread, "UMAP: scale of the embedded points");
  b.add("--umap-components", o.umap_components, "UMAP: dimensions");
  b.add("--umap-epochs", o.umap_epochs, "UMAP: passes; none: 500 up to 10 000 cells, else 200");
  b.choose("--umap-init", o.umap_init, {"spectral", "pca", "random"}, "UMAP: start");
  b.add("-r,--resolution", o.resolution, "Leiden resolution, or several: 0.4,0.8,1.2");
  b.add("--leiden-iterations", o.leiden_iterations, "Leiden passes; -1: until nothing moves");

  b.group("Markers");
  b.choose("--markers", o.markers, {"wilcoxon", "t-test", "t-test_overestim_var", "logreg", "none"},
           "Test for marker genes");
  b.flag("--tie-correct", o.tie_correct, "wilcoxon: correct for ties");
  b.add("--groupby", o.markers_groupby, "Column of obs; none: the clustering with the resolution nearest 1");
  b.flag("--pts,!--no-pts", o.pts, "Fractions of expressing cells for all genes")->default_str("true");
  b.add("--n-marker-genes", o.n_marker_genes, "Genes per group in the file; none: all");

  add_common(b, a);
  b.seed(o.seed);
  b.flag("--plan", a.plan, "Print the steps with their estimated peak memory and stop")->configurable(false);
  b.flag("--write-config", a.write_config, "Print the effective options as TOML and stop")->configurable(false);
}

constexpr const char* kWholeMatrices =
    "Stop rather than hold more of matrices (tables; CSC that is turned), for example 8GB; what goes from file to file "
    "in chunks is not counted";

void add_writing(Builder& b, Arguments& a) {
  b.group("How it is written");
  add_format(b, a);
  b.choose(
      "--compression", a.compression, kCompressions,
      "auto: gzip for h5ad, lz4 for Zarr; lz4 and blosc-zstd are Zarr's; h5ad with zstd needs hdf5plugin elsewhere");
  b.add("--level", a.level, "Of the compression; -1: 1 for gzip (10x 4), 3 for zstd, 5 for the others");
  b.add("--chunk", a.chunk, "Size of a chunk before compression, 4KiB to 1GiB; none: 512KiB for HDF5, 4MiB for Zarr")
      ->type_name("SIZE");
  b.flag("-f,--force", a.force, "Overwrite OUT if it is there");
  b.group("10x files and tables");
  b.add("--genome", a.concat.read.genome, "10x HDF5: features of this genome only");
  b.flag("--gex-only,!--all-features", a.concat.read.gex_only, "Features of type \"Gene Expression\" only")
      ->default_str("true");
  b.choose("--rows", a.rows, {"auto", "cells", "genes"}, "Tables: what the rows are");
}

}  // namespace

std::string config_text(const CLI::App& app) {
  const auto scalar = [](const std::string& text) {
    if (text == "true" || text == "false") return text;
    char* end = nullptr;
    std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0') return text;
    std::string quoted = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    return quoted + "\"";
  };
  std::string out = fmt::format("[{}]\n", app.get_name()), group;
  for (const CLI::Option* o : app.get_options()) {
    if (!o->get_configurable() || o->get_name() == "--help" || o == app.get_help_ptr()) continue;
    if (o->get_group() != group) out += fmt::format("\n# {}\n", group = o->get_group());
    const bool list = o->get_items_expected_max() > 1;
    std::vector<std::string> values = o->results();
    if (o->count() == 0)
      values = list ? CLI::detail::split(o->get_default_str(), ',') : std::vector{o->get_default_str()};
    if (o->get_items_expected_max() == 0 && values.front().empty()) values = {"false"};
    std::erase(values, "");
    if (values.empty()) continue;  // not given and no default
    std::string value;
    for (const auto& v : values) value += (value.empty() ? "" : ", ") + scalar(v);
    const std::string name = o->get_lnames().empty() ? o->get_name() : o->get_lnames().front();
    out += list ? fmt::format("{} = [{}]\n", name, value) : fmt::format("{} = {}\n", name, value);
  }
  return out;
}

std::uint64_t parse_bytes(const std::string& text) {
  static const std::map<std::string, double> units = {
      {"", 1},    {"b", 1},   {"kb", 1e3},     {"mb", 1e6},     {"gb", 1e9},     {"tb", 1e12},    {"k", 1e3},
      {"m", 1e6}, {"g", 1e9}, {"kib", 0x1p10}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40}, {"t", 1e12}};
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  std::string unit;
  for (const char c : text.substr(used))
    if (c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto found = units.find(unit);
  if (used == 0 || found == units.end() || !(value > 0) || !(value * found->second < 9e18))
    throw CLI::ValidationError("memory size", fmt::format("got '{}', expected for example 8GB or 512MiB", text));
  return static_cast<std::uint64_t>(value * found->second);
}

void build_app(CLI::App& app, Arguments& a, Choices& choices) {
  app.description("scwarp: single-cell analysis. File in, annotated file and report out.");
  app.footer(
      "Exit codes: 0 done, 1 error, 2 wrong usage, 3 bad input file, 4 out of memory, 5 device not available, 130 or "
      "143 "
      "interrupted.\n`scwarp COMMAND --help` lists the options of a command.");
  app.set_version_flag("--version", kVersion);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_config("--config", "", "TOML file with options in sections [run] and [simulate]; the command line wins")
      ->type_name("FILE");

  auto* run = app.add_subcommand("run", "Quality control, clusters, embedding and markers of a data set");
  run->fallthrough();
  run->allow_config_extras(CLI::config_extras_mode::error);
  add_run(run, a, choices);

  auto* info = app.add_subcommand("info", "What is in a file");
  Builder i(info, choices);
  i.file("input", a.input, "File or 10x folder")->required();
  i.flag("--json", a.json, "As JSON");

  auto* simulate = app.add_subcommand("simulate", "Write a data set with known clusters");
  simulate->fallthrough();
  simulate->allow_config_extras(CLI::config_extras_mode::error);
  Builder s(simulate, choices);
  s.file("-o,--output", a.output, "File to write, .h5ad, .zarr, .h5 for 10x HDF5, or / for a 10x folder")->required();
  s.flag("-f,--force", a.force, "Overwrite the output if it is there")->configurable(false);
  add_simulate_options(s, a.simulate);
  add_common(s, a);
  s.seed(a.simulate_seed);

  auto* convert = app.add_subcommand("convert", "Write a file in another format, or with another compression");
  convert->fallthrough();
  Builder v(convert, choices);
  v.group("Files");
  v.file("input", a.input, "h5ad, Zarr, 10x h5, folder with matrix.mtx, CSV or TSV")->required()->type_name("IN");
  v.file("output", a.output, "File to write; its ending says the format: .h5ad, .zarr, .h5 (10x), or / (10x folder)")
      ->required()
      ->type_name("OUT");
  add_writing(v, a);
  v.group("What is written");
  v.flag("--csr", a.csr, "X, layers and raw.X that are CSC become CSR, which can be read by rows (backed)");
  add_common(v, a, kWholeMatrices);

  auto* concat = app.add_subcommand("concat", "Put the cells of several files into one");
  concat->fallthrough();
  Builder n(concat, choices);
  n.group("Files");
  n.file("output", a.output, "File to write, .h5ad, .zarr, .h5 for 10x HDF5, or / for a 10x folder")
      ->required()
      ->type_name("OUT");
  n.file("input", a.inputs, "Files of any kind that convert reads")->required()->type_name("IN");
  n.group("What is put together");
  n.choose("--join", a.join, {"inner", "outer"}, "Genes, columns and layers of all inputs, or of any");
  n.add("--batch-key,--label", a.concat.label, "Column of obs that says which input a cell is from");
  n.add("--keys", a.concat.keys, "Names of the inputs in it, and after --index-unique; default 0,1,...");
  n.add("--index-unique", a.concat.index_unique, "Text between a cell's name and its input's key; none: names stay");
  n.choose("--merge", a.merge, {"none", "same", "unique", "first", "only"}, "Which columns of var are kept");
  n.choose("--uns-merge", a.uns_merge, {"none", "same", "unique", "first", "only"}, "What of uns is kept");
  n.add("--fill-value", a.concat.fill_value, "For what an input does not have; none: 0 if sparse, else NaN");
  add_writing(n, a);
  add_common(n, a, kWholeMatrices);

  auto* doctor = app.add_subcommand("doctor", "What is built in, what runs where, and a self-test");
  Builder d(doctor, choices);
  d.flag("--json", a.json, "As JSON");

  auto* completion = app.add_subcommand("completion", "Print a script for tab completion");
  Builder c(completion, choices);
  c.choose("shell", a.shell, {"bash", "zsh", "fish"}, "Of which shell")->required();
}

}  // namespace scw::cli
